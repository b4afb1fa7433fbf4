"""What one machine makes of the state key, by its own clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.observe import Kind, Seen, foreign_open_left, observe
from sidecar.core.types import Foreign, Record, Scalar, State, Stored, Unreadable
from tests.unit.core.kit import POLICY, WALL_AT

HOUR = 3600.0


def record(state: State = State.OPEN, **changes: object) -> Record:
    plain: dict[str, object] = {
        "current_state": state,
        "last_changed_at": WALL_AT,
        "seq": 5,
        "epoch": 2,
        "automaton": state,
        "reason": "failures",
        "detail": "",
        "evidence": {"index": 40, "known": 3},
        "open_count": 0 if state is State.CLOSED else 1,
        "open_for_s": 30.0 if state is State.OPEN else 0.0,
        "retry_at": WALL_AT + 30 if state is State.OPEN else None,
        "admit_ratio": {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: 0.05}[state],
        "automaton_ratio": {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: 0.05}[state],
        "policy": "",
        "evaluator": "x",
    }
    return Record(**(plain | changes))  # type: ignore[arg-type]


def look(
    prev: Seen | None, stored: Stored | None, index: int, *, now: float = 0.0, wall: float = 0.0
) -> Seen:
    return observe(prev, stored, index, POLICY, now=now, wall_at=WALL_AT + wall)


NOTHING = look(None, None, 0)


@pytest.mark.parametrize(
    ("wall", "left"),
    [(0.0, 30.0), (10.0, 20.0), (30.0, 0.0), (HOUR, 0.0), (-HOUR, 30.0)],
)
def test_a_cold_start_guesses_by_the_wall_within_open_for(wall: float, left: float) -> None:
    assert look(None, record(), 50, now=7.0, wall=wall).open_until == pytest.approx(7.0 + left)


@pytest.mark.parametrize("before", [NOTHING, look(None, record(State.CLOSED), 40)])
@pytest.mark.parametrize("wall", [0.0, HOUR, -HOUR])
def test_what_it_saw_come_lasts_whole_whatever_the_wall_says(before: Seen, wall: float) -> None:
    assert look(before, record(seq=6), 50, now=7.0, wall=wall).open_until == 37.0


@pytest.mark.parametrize("wall", [0.0, HOUR, -HOUR])
def test_a_ramp_is_not_cut_short_by_a_guess(wall: float) -> None:
    assert look(None, record(State.HALF_OPEN), 50, now=7.0, wall=wall).since == 7.0


def test_a_ratio_step_goes_on_with_the_stay() -> None:
    first = look(NOTHING, record(State.HALF_OPEN), 50, now=1.0)
    step = record(State.HALF_OPEN, seq=6, automaton_ratio=0.07, evidence={"index": 50, "known": 3})
    second = look(first, step, 60, now=5.0)
    assert (second.since, second.step_since, second.floor_index) == (1.0, 5.0, 50)
    again = look(second, replace(step, seq=7, reason="reasserted"), 70, now=6.0)
    assert (again.since, again.step_since, again.high_seq) == (1.0, 5.0, 7)


def test_what_rounding_leaves_of_a_time_is_the_same_time() -> None:
    first = look(NOTHING, record(last_changed_at=WALL_AT + 0.1234567), 50, now=1.0)
    second = look(first, record(last_changed_at=WALL_AT + 0.123457, seq=6), 60, now=9.0)
    assert second.open_until == 31.0


def test_another_opening_is_another_stay() -> None:
    first = look(NOTHING, record(), 50, now=1.0)
    second = look(first, record(seq=9, open_count=2, open_for_s=60.0), 90, now=20.0)
    assert second.open_until == 80.0


@pytest.mark.parametrize("prev", [None, NOTHING])
def test_half_open_counts_what_came_after_the_write_that_brought_it(prev: Seen | None) -> None:
    assert look(prev, record(State.HALF_OPEN), 50).floor_index == 50
    stepped = record(State.HALF_OPEN, automaton_ratio=0.3)
    assert look(prev, stepped, 80).floor_index == 40


@pytest.mark.parametrize(
    ("said", "floor"),
    [(40, 40), (50, 50), (10**9, 50), (None, 0), ("x", 0), (7.5, 0)],
)
def test_no_record_knows_of_anything_after_itself(said: Scalar, floor: int) -> None:
    assert look(None, record(evidence={"index": said}), 50).floor_index == floor
    assert look(None, record(evidence={}), 50).floor_index == 0


@pytest.mark.parametrize(
    ("odd", "kind"), [(None, Kind.MISSING), (Unreadable("junk"), Kind.UNREADABLE)]
)
def test_junk_or_nothing_changes_nothing_in_force(odd: Stored | None, kind: Kind) -> None:
    first = look(NOTHING, record(), 50, now=1.0)
    index = 0 if odd is None else 60
    assert look(first, odd, index, now=9.0) == replace(first, kind=kind, index=index)
    fresh = look(None, odd, index, now=9.0)
    assert (fresh.kind, fresh.record, fresh.own, fresh.high_seq) == (kind, None, None, 0)


def test_what_is_known_never_falls_when_the_store_goes_back() -> None:
    first = look(NOTHING, record(seq=90, epoch=9), 500, now=1.0)
    back = look(first, record(State.CLOSED, seq=20, epoch=3), 100, now=2.0)
    assert (back.high_seq, back.high_epoch, back.index) == (90, 9, 100)
    assert back.record is not None
    assert back.record.automaton is State.CLOSED


def test_a_foreign_write_is_in_force_at_once_and_ours_goes_on_underneath() -> None:
    ours = look(NOTHING, record(State.HALF_OPEN), 50, now=1.0)
    seen = look(ours, Foreign(State.CLOSED, WALL_AT), 60, now=3.0)
    assert seen.record is not None
    assert (seen.record.current_state, seen.record.admit_ratio) == (State.CLOSED, 1.0)
    assert (seen.own, seen.since, seen.floor_index) == (ours.own, 1.0, 50)
    reasserted = record(State.HALF_OPEN, seq=6, reason="reasserted")
    assert look(seen, reasserted, 70, now=4.0).since == 1.0
    adopted = record(State.HALF_OPEN, seq=6, reason="foreign")
    assert look(seen, adopted, 70, now=4.0).since == 4.0


@pytest.mark.parametrize(
    ("changed", "left"),
    [(0.0, 30.0), (-10.0, 20.0), (-HOUR, 0.0), (HOUR, 30.0), (None, 30.0)],
)
def test_a_foreign_open_lasts_from_its_own_time_within_bounds(
    changed: float | None, left: float
) -> None:
    at = None if changed is None else WALL_AT + changed
    foreign = Foreign(State.OPEN, at)
    assert foreign_open_left(foreign, POLICY, WALL_AT) == left
    assert look(NOTHING, foreign, 50, now=2.0).open_until == 2.0 + left


def test_a_newer_schema_is_followed_until_somebody_deletes_it() -> None:
    newer = look(NOTHING, record(schema=2), 50)
    assert newer.followed_only
    assert look(newer, Foreign(State.CLOSED, None), 60).followed_only
    assert look(newer, Unreadable(""), 60).followed_only
    assert not look(newer, None, 0).followed_only
