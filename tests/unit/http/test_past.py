"""Histories are read when something was written, and no longer than a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from sidecar.core.board import Cell
from sidecar.core.errors import StoreUnreachable
from sidecar.core.override import Mode, placed
from sidecar.core.types import Policy, State, Transition
from sidecar.http import past
from sidecar.http.overview import Overview
from sidecar.http.past import KEPT, Histories
from tests.unit.http.support import WALL_AT, Clock, Paper, enter, make_board, make_record

DAY_S = 86400.0


def entry(seq: int, to: State, at: float) -> Transition:
    return Transition(
        seq=seq,
        at=at,
        from_state=State.CLOSED,
        to_state=to,
        reason="failures",
        detail="dark",
        evidence={},
        epoch=1,
        evaluator="i-1",
    )


class Counting(Paper):
    """Counts how often it is asked."""

    asked = 0

    async def history(self, cell: Cell) -> Sequence[Transition]:
        self.asked += 1
        return await super().history(cell)


@pytest.fixture
def dark(clock: Clock) -> Counting:
    board = make_board(clock, Policy(name="dark", shadow=True, fingerprint="f1"))
    enter(board, clock, "dark", make_record(State.OPEN, 3, current_state=State.CLOSED))
    return Counting(board)


async def test_openings_by_the_history_and_rejections_by_this_sidecar(
    dark: Counting, clock: Clock
) -> None:
    for day, state in enumerate([State.OPEN, State.HALF_OPEN, State.OPEN, State.OPEN]):
        dark.transitions.append(entry(day, state, WALL_AT + day * DAY_S))
    cell = dark.board.cells["dark"]
    cell.shadow_rejected = 17
    clock.now += 60.0
    body = await Overview(dark, Histories(dark, clock), clock).status()
    listed = body["breakers"]
    assert isinstance(listed, list)
    assert listed[0]["shadow"] == {
        "by": "mode",
        "openings": 3,
        "since": "2026-11-18T11:06:40.000000Z",
        "rejected": 17,
        "rejected_for_s": 60.0,
    }


async def test_without_any_transition_it_is_none_since_the_record(
    dark: Counting, clock: Clock
) -> None:
    histories = Histories(dark, clock)
    cell = dark.board.cells["dark"]
    await histories.look([cell])
    report = histories.shadow(cell)
    assert report is not None
    assert (report["openings"], report["since"]) == (0, "2026-11-18T11:06:40.000000Z")


async def test_an_override_counts_from_when_it_was_set(clock: Clock) -> None:
    board = make_board(clock)
    paper = Counting(board)
    paper.transitions = [
        Transition(
            seq=n,
            at=WALL_AT + n * DAY_S,
            from_state=State.CLOSED,
            to_state=State.OPEN,
            reason="failures",
            detail="default",
            evidence={},
            epoch=1,
            evaluator="i-1",
        )
        for n in range(4)
    ]
    cell = enter(board, clock, "default", make_record(State.OPEN, 4))
    histories = Histories(paper, clock)
    await histories.look([cell])
    assert histories.shadow(cell) is None
    set_at = WALL_AT + 1.5 * DAY_S
    order = placed(Mode.SHADOW, ttl_s=900, reason="r", author="a", wall_at=set_at)
    board.override("default", order, 9, 9, live=True, now=clock.now, wall_at=set_at)
    board.refresh(clock.now)
    report = histories.shadow(cell)
    assert report is not None
    assert (report["by"], report["openings"]) == ("override", 2)


async def test_it_is_read_again_only_after_a_write(dark: Counting, clock: Clock) -> None:
    histories = Histories(dark, clock)
    cell = dark.board.cells["dark"]
    for _ in range(3):
        await histories.look([cell])
    assert dark.asked == 1
    enter(dark.board, clock, "dark", make_record(State.HALF_OPEN, 4, current_state=State.CLOSED))
    assert histories.of(cell) is None
    await histories.look([cell])
    assert dark.asked == 2
    assert histories.of(cell) is not None


async def test_a_store_that_fails_is_told_and_asked_again(dark: Counting, clock: Clock) -> None:
    dark.fault = StoreUnreachable("away")
    histories = Histories(dark, clock)
    cell = dark.board.cells["dark"]
    await histories.look([cell])
    report = histories.shadow(cell)
    assert report is not None
    assert (report["openings"], report["since"]) == (None, None)
    dark.fault = None
    await histories.look([cell])
    assert histories.of(cell) is not None


async def test_a_store_that_hangs_costs_what_was_said(
    dark: Counting, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_cell: Cell) -> Sequence[Transition]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(dark, "history", hang)
    monkeypatch.setattr(past, "LOOK_S", 0.05)
    histories = Histories(dark, clock)
    began = time.monotonic()
    await histories.look(dark.board.cells.values())
    assert time.monotonic() - began < 5
    assert histories.of(dark.board.cells["dark"]) is None


async def test_only_the_last_few_are_kept_and_only_of_what_is_there(
    dark: Counting, clock: Clock
) -> None:
    dark.transitions = [entry(n, State.OPEN, WALL_AT + n) for n in range(64)]
    histories = Histories(dark, clock)
    cell = dark.board.cells["dark"]
    await histories.look([cell])
    seen = histories.of(cell)
    assert seen is not None
    assert [t.seq for t in seen.last] == list(range(64 - KEPT, 64))
    assert len(seen.opened_at) == 64
    dark.board.reconfigure([Policy(name="b")], None, dark.board.contact, now=clock.now)
    await histories.look([])
    assert histories.of(cell) is None
