"""`?explain=1`: the same decision with what it rests on, and nothing for those it isn't for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.board import Board
from sidecar.core.decision import OnLoss
from sidecar.core.intake import Post
from sidecar.core.override import Mode, placed
from sidecar.core.reports import Tally
from sidecar.core.signal_settings import Delivery, Local, SignalSettings
from sidecar.core.signals import judge
from sidecar.core.types import Policy, State
from sidecar.http.allowed import Answers
from sidecar.http.explain import explain
from sidecar.http.fastlane import Lane
from tests.unit.http.conftest import Client
from tests.unit.http.support import WALL_AT, Clock, enter, make_board, make_record

PATH = "/allowed?explain=1"


async def test_the_answer_is_the_same_but_for_the_explanation(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    plain = await client.get("/allowed?peek=1&deny_status=429")
    why = await client.get(PATH + "&peek=1&deny_status=429")
    assert why.status == plain.status == 429
    moves = {"Content-Length", "Date"}
    assert {k: v for k, v in why.headers.items() if k not in moves} == {
        k: v for k, v in plain.headers.items() if k not in moves
    }
    body = await why.json()
    explained = body.pop("explain")
    assert body == await plain.json()
    assert explained["known"] == await (await client.get("/v1/breakers/default")).json()
    assert explained["because"] == "record"
    assert explained["counted"] is False
    assert explained["more_admitted_in_s"] == 30.0
    assert explained["sync"]["max_stale"] == 30.0


async def test_it_counts_and_spends_as_any_call_unless_it_peeks(
    client: Client, board: Board, clock: Clock
) -> None:
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 3, ratio=0.25))
    for _ in range(4):
        await client.get(PATH + "&peek=1")
    assert (cell.admitted, cell.rejected) == (0, 0)
    told = []
    for _ in range(8):
        body = await (await client.get(PATH)).json()
        told.append((body["allowed"], body["explain"]["spread"]["next_admitted_call"]))
        assert body["explain"]["counted"] is True
    assert (cell.admitted, cell.rejected) == (2, 6)
    # Whoever is told "the n-th next call" finds that it is so.
    for (_, ahead), later in zip(told, range(1, 9), strict=True):
        if later - 1 + ahead < len(told):
            assert told[later - 1 + ahead][0]
    assert all(0 <= ahead <= 4 for _, ahead in told)


async def test_what_the_evaluator_knows_is_in_it(
    client: Client, board: Board, clock: Clock
) -> None:
    cell = enter(board, clock, "default", make_record(State.CLOSED, 1, policy="another"))
    assert cell.seen is not None
    cell.evaluating = True
    cell.tally = Tally(9, 3, 1, 3, 4.0, 100.0)
    cell.judgement = judge(cell.tally, cell.seen, cell.policy)
    known = (await (await client.get(PATH)).json())["explain"]["known"]
    assert known["reporters"] == {"fresh": 3, "stale": 1}
    assert known["signals"][0]["verdict"] == "healthy"
    assert known["config_mismatch"] is True
    assert known["policy"]["failure_threshold"] == 20


def test_what_had_the_last_word(clock: Clock) -> None:
    board = make_board(clock, Policy(name="a", fingerprint="f1"), Policy(name="b", shadow=True))

    def because(name: str) -> object:
        return explain(board.cells[name], board, clock.now, counted=True)["because"]

    assert because("a") == "no_state"
    enter(board, clock, "a", make_record(State.OPEN, 1))
    enter(board, clock, "b", make_record(State.OPEN, 1, current_state=State.CLOSED))
    assert because("a") == "record"
    assert because("b") == "shadow"
    forced = placed(Mode.CLOSED, ttl_s=60, reason="r", author="a", wall_at=WALL_AT)
    board.override("a", forced, 9, 9, live=True, now=clock.now, wall_at=WALL_AT)
    board.refresh(clock.now)
    said = explain(board.cells["a"], board, clock.now + 10, counted=True)
    assert said["because"] == "override"
    known = said["known"]
    assert isinstance(known, dict)
    assert known["override"]["left_s"] == 50.0
    clock.now += 60
    board.refresh(clock.now)
    assert because("a") == "loss_policy"
    board.cells["a"].forget()
    board.refresh(clock.now)
    assert because("a") == "forgotten"


def test_a_forced_opens_end_is_when_more_is_admitted_and_no_end_is_no_time(clock: Clock) -> None:
    board = make_board(clock, on_loss=OnLoss.KEEP)
    enter(board, clock, "default", make_record(State.CLOSED, 1))
    for index, ttl_s, left in [(5, 900.0, 900.0), (6, float("inf"), None)]:
        forced = placed(Mode.OPEN, ttl_s=ttl_s, reason="r", author="a", wall_at=WALL_AT)
        board.override("default", forced, index, index, live=True, now=clock.now, wall_at=WALL_AT)
        board.refresh(clock.now)
        said = explain(board.cells["default"], board, clock.now, counted=True)
        assert said["more_admitted_in_s"] == left
        assert said["spread"] == {
            "ratio": 0.0,
            "shadow_ratio": 1.0,
            "position": round(board.cells["default"].spread.position, 6),
            "next_admitted_call": None,
        }


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
async def test_the_decision_is_for_all_and_the_explanation_is_not(
    client: Client, board: Board, clock: Clock, headers: dict[str, str]
) -> None:
    cell = enter(board, clock, "default", make_record(State.OPEN, 42))
    answer = await client.get(PATH, headers=headers)
    body = await answer.json()
    assert answer.status == 503
    assert list(body["explain"]) == ["withheld"]
    assert cell.rejected == 1


async def test_head_explains_nothing_and_decides_all_the_same(
    client: Client, board: Board, clock: Clock
) -> None:
    cell = enter(board, clock, "default", make_record(State.OPEN, 42))
    answer = await client.head(PATH)
    assert (answer.status, await answer.read()) == (503, b"")
    assert cell.rejected == 1


def test_the_fast_lane_leaves_it_to_others(board: Board, clock: Clock) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    lane = Lane(board, Answers(), clock)
    for query in ("explain=1", "deny_status=503&explain=1", "peek=1&explain=1"):
        request = f"GET /allowed?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        assert lane.route(request) is None
    assert board.cells["default"].rejected == 0


def test_a_half_open_share_of_a_shadow_is_explained_too(clock: Clock) -> None:
    board = make_board(clock, Policy(name="default", shadow=True, fingerprint="f1"))
    record = make_record(State.HALF_OPEN, 2, ratio=0.05)
    cell = enter(board, clock, "default", replace(record, current_state=State.CLOSED))
    spread = explain(cell, board, clock.now, counted=False)["spread"]
    assert isinstance(spread, dict)
    assert 1 <= spread["next_admitted_call"] <= 20
    # Everything is admitted already: there is no more to wait for.
    assert explain(cell, board, clock.now, counted=False)["more_admitted_in_s"] is None


async def test_our_own_gate_is_explained_with_what_it_rests_on(clock: Clock) -> None:
    signals = SignalSettings(delivery=Delivery(local=Local()))
    board = make_board(clock, Policy(name="default", fingerprint="f1", signals=signals))
    cell = enter(board, clock, "default", make_record(State.CLOSED, 1))
    open_gate = {"stand": "passing", "for_s": None, "detail": None, "evidence": None, "closures": 0}
    known = explain(cell, board, clock.now, counted=False)["known"]
    assert isinstance(known, dict)
    assert known["local_gate"] == open_gate
    board.delivered(cell, Post(instance="p", count_fail=30, role="producer"), now=clock.now)
    board.refresh(clock.now)
    said = explain(cell, board, clock.now + 2, counted=False)
    assert (said["because"], said["more_admitted_in_s"]) == ("local_gate", 3.0)
    known = said["known"]
    assert isinstance(known, dict)
    assert (known["state"], known["automaton"], known["seq"]) == (State.OPEN, State.CLOSED, 1)
    gate = known["local_gate"]
    assert (gate["stand"], gate["for_s"], gate["closures"]) == ("shut", 2.0, 1)
    assert gate["evidence"]["errored"] == 30
