"""What an override says, when it ends here, and what is in force under it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sidecar.core.decision import decide, forgotten
from sidecar.core.override import (
    Mode,
    Override,
    Standing,
    completed,
    contradicts,
    dated_at,
    in_force,
    left,
    observe_override,
    placed,
)
from sidecar.core.types import Reason, State, Verdict
from tests.unit.core.kit import CONTACT, POLICY, WALL_AT, Story, says

SHORT = Override(mode=Mode.OPEN, reason="why", author="ann", ttl_s=60.0)
WHOLE = placed(Mode.OPEN, ttl_s=60.0, reason="why", author="ann", wall_at=WALL_AT)
ENDLESS = placed(Mode.OPEN, ttl_s=math.inf, reason="why", author="ann", wall_at=WALL_AT)
DATED = Override(mode=Mode.OPEN, expires_at=WALL_AT + 60.0)


@pytest.mark.parametrize(
    ("override", "live", "wall_at", "seconds"),
    [
        # Seen to appear: its ttl, whatever the wall clock says.
        (WHOLE, True, WALL_AT, 60.0),
        (WHOLE, True, WALL_AT + 3600, 60.0),
        (SHORT, True, WALL_AT, 60.0),
        (DATED, True, WALL_AT + 20, 40.0),
        # Found there: what is left by the wall clock, never more than the whole.
        (WHOLE, False, WALL_AT + 20, 40.0),
        (WHOLE, False, WALL_AT + 3600, 0.0),
        (WHOLE, False, WALL_AT - 3600, 60.0),
        (replace(SHORT, set_at=WALL_AT), False, WALL_AT + 20, 40.0),
        (SHORT, False, WALL_AT, 60.0),
        (DATED, False, WALL_AT + 20, 40.0),
        (DATED, False, WALL_AT + 90, 0.0),
        (ENDLESS, True, WALL_AT, math.inf),
        (ENDLESS, False, WALL_AT + 1e9, math.inf),
    ],
)
def test_how_much_is_left(override: Override, live: bool, wall_at: float, seconds: float) -> None:
    assert left(override, live=live, wall_at=wall_at) == seconds


def test_the_same_order_keeps_its_end() -> None:
    """Consul moves a key's index without a new value, and the evaluator fills in the times."""
    first = observe_override(None, SHORT, 5, live=True, now=100.0, wall_at=WALL_AT)
    assert first.ends == 160.0
    touched = observe_override(first, SHORT, 9, live=True, now=130.0, wall_at=WALL_AT + 30)
    assert (touched.ends, touched.index) == (160.0, 9)
    whole = completed(first, now=110.0, wall_at=WALL_AT + 10)
    assert whole is not None
    filled = observe_override(touched, whole, 10, live=True, now=150.0, wall_at=WALL_AT + 50)
    assert filled.ends == 160.0


@pytest.mark.parametrize(
    "other",
    [
        replace(WHOLE, ttl_s=61.0),
        replace(WHOLE, mode=Mode.SHADOW),
        replace(WHOLE, reason="another"),
        replace(WHOLE, set_at=WALL_AT + 1),
        SHORT,
    ],
)
def test_another_order_begins_anew(other: Override) -> None:
    first = observe_override(None, WHOLE, 5, live=True, now=100.0, wall_at=WALL_AT)
    second = observe_override(first, other, 6, live=True, now=130.0, wall_at=WALL_AT + 30)
    assert second.ends == 130.0 + (other.ttl_s or 0)


def test_an_end_holds_up_to_its_moment() -> None:
    standing = Standing(WHOLE, 5, 160.0)
    assert standing.holds(159.999)
    assert not standing.holds(160.0)


def test_what_is_left_out_is_filled_in_by_what_was_seen() -> None:
    """So that a sidecar that starts later knows how much is left."""
    standing = observe_override(None, SHORT, 5, live=True, now=100.0, wall_at=WALL_AT)
    whole = completed(standing, now=110.0, wall_at=WALL_AT + 10)
    assert whole == replace(SHORT, set_at=WALL_AT + 10, expires_at=WALL_AT + 60)
    dated = observe_override(None, DATED, 5, live=True, now=100.0, wall_at=WALL_AT)
    assert completed(dated, now=100.0, wall_at=WALL_AT) == replace(
        DATED, set_at=WALL_AT, ttl_s=60.0
    )


@pytest.mark.parametrize("override", [WHOLE, ENDLESS])
def test_what_is_whole_is_left_alone(override: Override) -> None:
    standing = observe_override(None, override, 5, live=True, now=100.0, wall_at=WALL_AT)
    assert completed(standing, now=110.0, wall_at=WALL_AT + 10) is None


def test_what_is_over_is_not_filled_in() -> None:
    standing = observe_override(None, SHORT, 5, live=True, now=100.0, wall_at=WALL_AT)
    assert completed(standing, now=160.0, wall_at=WALL_AT + 60) is None


@pytest.mark.parametrize("mode", Mode)
def test_only_closed_over_a_live_open_contradicts(mode: Mode) -> None:
    for other in Mode:
        standing = Standing(replace(WHOLE, mode=other), 5, 160.0)
        expected = mode is Mode.CLOSED and other is Mode.OPEN
        assert contradicts(mode, standing, 100.0) == expected
        assert not contradicts(mode, standing, 160.0)
    assert not contradicts(mode, None, 100.0)


@pytest.mark.parametrize("automaton", State)
@pytest.mark.parametrize("shadow", [False, True])
def test_an_override_beats_state_and_mode(automaton: State, shadow: bool) -> None:
    policy = replace(POLICY, shadow=shadow)
    assert in_force(automaton, policy, Mode.OPEN) is State.OPEN
    assert in_force(automaton, policy, Mode.CLOSED) is State.CLOSED
    assert in_force(automaton, policy, Mode.SHADOW) is State.CLOSED
    assert in_force(automaton, policy, None) is (State.CLOSED if shadow else automaton)


def test_a_legacy_readers_timer_ends_a_forced_open_when_we_do() -> None:
    """It turns OPEN into HALF_OPEN `open_duration` after `last_changed`."""
    standing = Standing(WHOLE, 5, 160.0)
    at = dated_at(standing, POLICY, now=100.0, wall_at=WALL_AT)
    assert at + POLICY.open_duration_s == WALL_AT + 60
    closed = Standing(replace(WHOLE, mode=Mode.CLOSED), 5, 160.0)
    assert dated_at(closed, POLICY, now=100.0, wall_at=WALL_AT) == WALL_AT
    endless = dated_at(Standing(ENDLESS, 5, math.inf), POLICY, now=1.0, wall_at=WALL_AT)
    assert endless > WALL_AT + 9 * 365 * 86400, "its timer is not to end it at all"


class _Forced(Story):
    """A story with orders."""

    def force(self, mode: Mode, ttl_s: float = 60.0) -> None:
        at = WALL_AT + self.time.t
        self.store.put_override(placed(mode, ttl_s=ttl_s, reason="why", author="ann", wall_at=at))


def test_begin_and_end_are_one_write_each_and_no_transition() -> None:
    story = _Forced()
    first = story.a.record
    story.force(Mode.OPEN)
    (begun,) = story.a.settle()
    assert begun.transition is None
    record = story.a.record
    assert (record.current_state, record.automaton) == (State.OPEN, State.CLOSED)
    assert (record.seq, record.override, record.admit_ratio) == (first.seq + 1, "open", 0.0)
    assert record.last_changed_at == first.last_changed_at, "the automaton's own stays known"
    story.after(59.9)
    assert story.a.settle() == []
    story.after(0.1)
    (ended,) = story.a.settle()
    assert ended.record.seq == first.seq + 2
    assert (ended.record.current_state, ended.record.override) == (State.CLOSED, None)


def test_the_automaton_goes_on_underneath() -> None:
    """It trips, waits its time and half-opens while everything is admitted."""
    story = _Forced()
    story.force(Mode.CLOSED, 600.0)
    story.a.settle()
    tripped = story.trip()
    assert tripped.record.current_state is State.CLOSED
    assert tripped.record.admit_ratio == 1.0
    opened = story.a.seen.open_until
    story.half_open()
    assert story.a.now >= opened
    assert story.a.record.current_state is State.CLOSED
    assert [t.to_state for t in story.store.history] == [State.OPEN, State.HALF_OPEN]


def test_an_override_does_not_prolong_what_is_underneath() -> None:
    """OPEN lasts its time from when it was seen, however often the record is rewritten."""
    story = _Forced()
    story.trip()
    until = story.a.seen.open_until
    story.after(10)
    story.force(Mode.CLOSED, 5.0)
    story.a.settle()
    story.after(5)
    story.a.settle()
    assert story.a.seen.open_until == until
    story.half_open()
    assert story.a.now == pytest.approx(until)


def test_a_sidecar_ends_it_alone() -> None:
    """Nothing is read any more, and nobody evaluates: its own clock is enough."""
    story = _Forced()
    follower = story.another()
    follower.sync()
    story.force(Mode.OPEN, 3.0)
    follower.sync()
    follower.board.refresh(follower.now)
    decision = follower.cell.decision
    assert (decision.state, decision.reason) == (State.OPEN, Reason.FORCED)
    assert decision.changes_at == pytest.approx(follower.now + 3.0)
    story.after(3.0)
    follower.board.refresh(follower.now)
    assert follower.cell.decision.state is State.CLOSED
    assert follower.cell.decision.override is None


def test_it_ends_although_the_record_still_says_so() -> None:
    """The evaluator wrote OPEN for the override, and died before its end."""
    story = _Forced()
    follower = story.another()
    follower.sync()
    story.force(Mode.OPEN, 3.0)
    story.a.settle()
    follower.sync()
    assert follower.record.current_state is State.OPEN
    story.after(3.0)
    follower.board.refresh(follower.now)
    assert follower.cell.decision.state is State.CLOSED
    assert follower.cell.decision.admit_ratio == 1.0


def test_retry_after_is_what_is_left_and_a_minute_at_most() -> None:
    for ttl_s, expected in ((600.0, 60), (math.inf, 60), (42.5, 43)):
        standing = Standing(replace(WHOLE, ttl_s=ttl_s), 5, 100.0 + ttl_s)
        decision = decide(None, CONTACT, None, POLICY, share=0.9, now=100.0, standing=standing)
        assert decision.retry_after(100.0) == expected
        until = decision.retry_until(100.0)
        assert until > 100.0
        if math.isfinite(until):
            assert decision.retry_after(until - 0.001) == expected


def test_the_override_holds_before_any_state_is_known_and_stays_stale() -> None:
    decision = decide(
        None, CONTACT, None, POLICY, share=0.0, now=1.0, standing=Standing(WHOLE, 5, 60.0)
    )
    assert (decision.state, decision.stale, decision.lost) == (State.OPEN, True, False)


def test_shadow_counts_what_would_have_been_rejected() -> None:
    story = _Forced()
    story.trip()
    story.force(Mode.SHADOW)
    story.a.settle()
    decision = story.a.cell.decision
    assert (decision.admit_ratio, decision.shadow_ratio) == (1.0, 0.0)
    story.force(Mode.CLOSED)
    story.a.settle()
    assert story.a.cell.decision.shadow_ratio == 1.0


def test_the_ramp_under_a_forced_breaker_keeps_its_date() -> None:
    """`last_changed` moves with what is in force, not with a step underneath."""
    story = _Forced()
    story.trip()
    story.half_open()
    story.force(Mode.OPEN, 600.0)
    story.a.settle()
    dated = story.a.record.forced_at
    story.after(5)
    story.post(ok=100)
    moves = story.a.settle(says(Verdict.HEALTHY))
    assert moves
    assert story.a.record.automaton_ratio > POLICY.initial_ratio
    assert story.a.record.forced_at == dated


def test_another_order_of_the_same_mode_is_dated_anew() -> None:
    """Or a legacy reader's timer would end it when the first one would have been over."""
    story = _Forced()
    first = story.a.record
    story.force(Mode.OPEN, 60.0)
    story.a.settle()
    dated = story.a.record.forced_at
    assert dated is not None
    story.after(5)
    story.force(Mode.OPEN, 600.0)
    (redated,) = story.a.settle()
    assert redated.transition is None
    record = story.a.record
    assert record.seq == first.seq + 2
    assert record.forced_at == pytest.approx(dated + 545.0, abs=0.1)
    assert record.last_changed_at == first.last_changed_at
    assert story.a.settle() == []
    story.force(Mode.CLOSED, 60.0)
    story.a.settle()
    story.force(Mode.CLOSED, 600.0)
    assert story.a.settle() == [], "what admits has no timer"


def test_an_order_after_the_breaker_was_forgotten_holds() -> None:
    standing = Standing(WHOLE, 5, 160.0)
    decision = forgotten(POLICY, standing, now=100.0)
    assert (decision.state, decision.reason) == (State.OPEN, Reason.FORCED)
    assert decision.changes_at == 160.0
    assert forgotten(POLICY, standing, now=160.0).reason == Reason.FORGOTTEN
    assert forgotten(POLICY, None, now=100.0).reason == Reason.FORGOTTEN
