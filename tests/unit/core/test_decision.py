"""The decision in force: the record, the store's health, and the loss policy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sidecar.core.decision import Contact, Decision, OnLoss, decide, poll_wait, stale_after
from sidecar.core.local_gate import Held, Stand
from sidecar.core.observe import Seen, observe
from sidecar.core.override import Mode, Standing, observe_override, placed
from sidecar.core.types import Foreign, Policy, Reason, Record, State
from tests.unit.core.kit import POLICY, WALL_AT


def record(state: State, **changes: object) -> Record:
    ratio = {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: 0.2}[state]
    plain: dict[str, object] = {
        "current_state": state,
        "last_changed_at": WALL_AT,
        "seq": 7,
        "epoch": 1,
        "automaton": state,
        "reason": "failures",
        "detail": "why",
        "open_count": 1,
        "open_for_s": 30.0 if state is State.OPEN else 0.0,
        "retry_at": WALL_AT + 30,
        "admit_ratio": ratio,
        "automaton_ratio": ratio,
        "policy": "",
        "evaluator": "x",
    }
    return Record(**(plain | changes))  # type: ignore[arg-type]


def seen(state: State, **changes: object) -> Seen:
    """Seen come at 0."""
    blank = observe(None, None, 0, POLICY, now=0.0, wall_at=WALL_AT)
    return observe(blank, record(state, **changes), 9, POLICY, now=0.0, wall_at=WALL_AT)


def contact(synced: float | None = 0.0, on_loss: OnLoss = OnLoss.KEEP) -> Contact:
    return Contact(synced=synced, stale_after_s=10.0, max_stale_s=30.0, on_loss=on_loss)


def at(
    now: float,
    state: Seen | None,
    about: Contact | None = None,
    *,
    unheld_since: float | None = None,
    policy: Policy = POLICY,
    share: float = 0.0,
) -> Decision:
    return decide(state, about or contact(now), unheld_since, policy, share=share, now=now)


def test_the_record_is_in_force_while_the_store_answers() -> None:
    decision = at(5.0, seen(State.HALF_OPEN))
    assert (decision.state, decision.admit_ratio, decision.reason, decision.detail) == (
        State.HALF_OPEN,
        0.2,
        "failures",
        "why",
    )
    assert (decision.seq, decision.stale, decision.lost) == (7, False, False)


def test_staleness_begins_when_a_poll_is_overdue_and_loss_at_max_stale() -> None:
    state = seen(State.CLOSED)
    for now, stale, lost, due in [
        (0.0, False, False, 10.0),
        (9.999, False, False, 10.0),
        (10.0, True, False, 30.0),
        (29.999, True, False, 30.0),
        (30.0, True, True, math.inf),
    ]:
        decision = at(now, state, contact(0.0))
        assert (decision.stale, decision.lost, decision.changes_at) == (stale, lost, due)


@pytest.mark.parametrize(
    ("on_loss", "state", "now", "then"),
    [
        (OnLoss.KEEP, State.CLOSED, 40.0, (State.CLOSED, 1.0)),
        (OnLoss.KEEP, State.HALF_OPEN, 40.0, (State.HALF_OPEN, 0.2)),
        (OnLoss.KEEP, State.OPEN, 40.0, (State.OPEN, 0.0)),
        (OnLoss.KEEP, State.OPEN, 61.0, (State.HALF_OPEN, 0.05)),
        (OnLoss.ALLOW, State.CLOSED, 40.0, (State.CLOSED, 1.0)),
        (OnLoss.ALLOW, State.HALF_OPEN, 40.0, (State.CLOSED, 1.0)),
        (OnLoss.ALLOW, State.OPEN, 40.0, (State.CLOSED, 1.0)),
        (OnLoss.DENY, State.CLOSED, 40.0, (State.OPEN, 0.0)),
        (OnLoss.DENY, State.HALF_OPEN, 40.0, (State.OPEN, 0.0)),
        (OnLoss.DENY, State.OPEN, 61.0, (State.OPEN, 0.0)),
    ],
)
def test_the_loss_policy(
    on_loss: OnLoss, state: State, now: float, then: tuple[State, float]
) -> None:
    held = seen(state, open_for_s=60.0 if state is State.OPEN else 0.0)
    decision = at(now, held, contact(0.0, on_loss))
    assert (decision.state, decision.admit_ratio) == then
    assert (decision.stale, decision.lost, decision.reason) == (True, True, Reason.STORE_LOST)
    assert at(29.9, held, contact(0.0, on_loss)).state is state


def test_keep_lets_nobody_be_locked_out_for_ever() -> None:
    held = seen(State.OPEN, open_for_s=60.0)
    assert at(40.0, held, contact(0.0)).changes_at == 60.0
    late = at(60.0, held, contact(0.0))
    assert (late.state, late.admit_ratio, late.retry_after(60.0)) == (State.HALF_OPEN, 0.05, 1)


@pytest.mark.parametrize("on_loss", OnLoss)
def test_before_any_state_is_known(on_loss: OnLoss) -> None:
    decision = at(3.0, None, contact(None, on_loss))
    denied = on_loss is OnLoss.DENY
    assert decision.state is (State.OPEN if denied else State.CLOSED)
    assert decision.admit_ratio == (0.0 if denied else 1.0)
    assert (decision.reason, decision.stale, decision.seq) == (Reason.NO_STATE, True, 0)
    assert decision.retry_after(3.0) == 1
    blank = observe(None, None, 0, POLICY, now=0.0, wall_at=WALL_AT)
    assert at(3.0, blank, contact(3.0, on_loss)).reason == Reason.NO_STATE


def test_a_breaker_nobody_evaluates_counts_as_lost() -> None:
    held = seen(State.HALF_OPEN)
    before = at(30.9, held, unheld_since=1.0)
    assert (before.stale, before.lost, before.changes_at) == (False, False, 31.0)
    after = at(31.0, held, unheld_since=1.0)
    assert (after.stale, after.lost, after.reason) == (True, True, Reason.NO_EVALUATOR)
    denied = at(31.0, held, contact(31.0, OnLoss.DENY), unheld_since=1.0)
    assert denied.state is State.OPEN


def test_open_past_its_time_counts_as_lost_after_max_stale() -> None:
    held = seen(State.OPEN)
    waiting = at(59.9, held)
    assert (waiting.state, waiting.stale, waiting.changes_at) == (State.OPEN, False, 60.0)
    overdue = at(60.0, held)
    assert (overdue.state, overdue.admit_ratio) == (State.HALF_OPEN, 0.05)
    assert (overdue.stale, overdue.reason) == (True, Reason.OVERDUE)


def test_it_asks_to_be_looked_at_again_when_something_is_due() -> None:
    assert at(0.0, seen(State.OPEN)).changes_at == 10.0
    assert at(5.0, seen(State.OPEN), contact(25.0)).changes_at == 30.0


@pytest.mark.parametrize(
    ("now", "share", "open_for", "seconds"),
    [
        (0.0, 0.0, 30.0, 30),
        (0.5, 0.0, 30.0, 30),
        (29.5, 0.0, 30.0, 1),
        (29.5, 0.5, 30.0, 2),  # 0.5 + 1.5
        (0.0, 0.999, 30.0, 33),
        (30.0, 0.0, 30.0, 1),
        (31.0, 0.999, 30.0, 3),
    ],
)
def test_retry_after_is_what_is_left_and_a_share_rounded_up(
    now: float, share: float, open_for: float, seconds: int
) -> None:
    held = seen(State.OPEN, open_for_s=open_for)
    assert at(now, held, share=share).retry_after(now) == seconds


def test_retry_after_in_half_open_is_the_next_step() -> None:
    decision = at(1.0, seen(State.HALF_OPEN), share=0.9)
    assert [decision.retry_after(now) for now in (1.0, 3.7, 3.75, 99.0)] == [3, 1, 1, 1]


def test_retry_after_is_one_where_no_time_is_known() -> None:
    assert at(40.0, seen(State.CLOSED), contact(0.0, OnLoss.DENY)).retry_after(40.0) == 1


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("now", [1.0, 500.0])
def test_shadow_admits_always_and_tells_what_it_would_have_done(state: State, now: float) -> None:
    shadow = replace(POLICY, shadow=True)
    held = seen(state, current_state=State.CLOSED, admit_ratio=1.0)
    decision = at(now, held, contact(0.0, OnLoss.DENY), policy=shadow)
    assert (decision.state, decision.admit_ratio) == (State.CLOSED, 1.0)
    assert decision.reason == Reason.SHADOW
    assert decision.shadow_ratio == (held.own.automaton_ratio if held.own and now == 1.0 else 0.0)
    unknown = at(now, None, contact(None, OnLoss.DENY), policy=shadow)
    assert (unknown.state, unknown.shadow_ratio) == (State.CLOSED, 0.0)


def test_a_foreign_state_is_in_force_at_once() -> None:
    foreign = Foreign(State.OPEN, WALL_AT - 10)
    held = observe(seen(State.CLOSED), foreign, 12, POLICY, now=1.0, wall_at=WALL_AT)
    decision = at(1.0, held)
    assert (decision.state, decision.reason, decision.retry_after(1.0)) == (
        State.OPEN,
        Reason.FOREIGN,
        20,
    )


@pytest.mark.parametrize("max_stale", [5.0, 6.0, 10.0, 30.0, 60.0, 600.0])
def test_a_frozen_store_is_noticed_within_half_of_max_stale(max_stale: float) -> None:
    assert stale_after(poll_wait(max_stale)) <= max_stale / 2
    assert 0.4 <= poll_wait(max_stale) <= 60.0


def test_a_missed_poll_is_wait_and_a_sixteenth_and_two_seconds() -> None:
    assert stale_after(16.0) == 19.0


SHUT = Held(stand=Stand.SHUT, ratio=0.0, detail="ours", retry_from=8.0, shut_s=5.0, changes_at=8.0)
TRIAL = Held(
    stand=Stand.TRIAL, ratio=0.05, detail="ours", retry_from=None, shut_s=5.0, changes_at=15.0
)


def narrowed(state: Seen | None, held: Held, policy: Policy = POLICY, **more: object) -> Decision:
    return decide(state, contact(3.0), None, policy, share=0.5, now=3.0, held=held, **more)  # type: ignore[arg-type]


def test_a_shut_gate_of_our_own_rejects_under_a_closed_record() -> None:
    decision = narrowed(seen(State.CLOSED), SHUT)
    assert (decision.state, decision.admit_ratio) == (State.OPEN, 0.0)
    assert decision.reason == Reason.DELIVERY_LOCAL
    assert decision.detail == "ours; the fleet's state is CLOSED"
    assert (decision.seq, decision.stale, decision.changes_at) == (7, False, 8.0)
    assert decision.retry_after(3.0) == 6  # 5 s left and half of a tenth of 5 s
    trial = narrowed(seen(State.CLOSED), TRIAL)
    assert (trial.state, trial.admit_ratio, trial.retry_after(3.0)) == (State.HALF_OPEN, 0.05, 1)


def test_our_own_gate_lies_over_closed_alone() -> None:
    for state in (State.OPEN, State.HALF_OPEN):
        assert narrowed(seen(state), SHUT) == at(3.0, seen(state), share=0.5)


def test_our_own_gate_holds_before_any_state_is_known() -> None:
    """What our producers say of Kafka needs no store."""
    assert narrowed(None, SHUT).state is State.OPEN


def test_shadow_and_an_override_beat_our_own_gate() -> None:
    shadow = narrowed(
        seen(State.CLOSED, admit_ratio=1.0), SHUT, policy=replace(POLICY, shadow=True)
    )
    assert (shadow.state, shadow.admit_ratio, shadow.reason) == (State.CLOSED, 1.0, Reason.SHADOW)
    assert (shadow.shadow_ratio, shadow.detail) == (0.0, "shadow: ours")
    for mode, ratio in ((Mode.CLOSED, 1.0), (Mode.SHADOW, 1.0), (Mode.OPEN, 0.0)):
        override = placed(mode, ttl_s=60, reason="", author="", wall_at=WALL_AT)
        standing = observe_override(None, override, 1, live=True, now=3.0, wall_at=WALL_AT)
        forced = narrowed(seen(State.CLOSED), SHUT, standing=standing)
        assert (forced.reason, forced.admit_ratio) == (Reason.FORCED, ratio)
        assert forced.shadow_ratio == (0.0 if mode is Mode.SHADOW else 1.0)


# --- a closed breaker that sheds -----------------------------------------------------------------


def sheds(**changes: object) -> Seen:
    shares = {"admit_ratio": 0.4, "automaton_ratio": 0.4, "reason": "shed"}
    return seen(State.CLOSED, **(shares | changes))


def test_a_share_in_closed_is_obeyed_with_a_time_to_come_back() -> None:
    decision = at(2.0, sheds())
    assert (decision.state, decision.admit_ratio, decision.reason) == (State.CLOSED, 0.4, "shed")
    assert decision.retry_after(2.0) == 3  # the next step is due at 5 s
    assert decision.retry_after(100.0) == 1
    assert at(2.0, seen(State.CLOSED)).retry_from is None


@pytest.mark.parametrize(
    ("on_loss", "state", "ratio"),
    [
        (OnLoss.KEEP, State.CLOSED, 0.4),
        (OnLoss.ALLOW, State.CLOSED, 1.0),
        (OnLoss.DENY, State.OPEN, 0.0),
    ],
)
def test_a_loss_keeps_the_share_or_overrules_it(
    on_loss: OnLoss, state: State, ratio: float
) -> None:
    decision = at(60.0, sheds(), contact(0.0, on_loss))
    assert (decision.state, decision.admit_ratio, decision.lost) == (state, ratio, True)


def test_shadow_admits_all_and_knows_what_would_be_shed() -> None:
    policy = replace(POLICY, shadow=True)
    decision = at(2.0, sheds(admit_ratio=1.0), policy=policy)
    assert (decision.admit_ratio, decision.shadow_ratio) == (1.0, 0.4)


def test_an_order_overrules_it_and_its_end_brings_it_back() -> None:
    order = placed(Mode.CLOSED, ttl_s=30.0, reason="", author="ann", wall_at=WALL_AT)
    standing = Standing(order, 12, ends=30.0)
    state = sheds(admit_ratio=1.0, override="closed")
    held, over = (
        decide(state, contact(now), None, POLICY, share=0.0, now=now, standing=standing)
        for now in (5.0, 31.0)
    )
    assert (held.state, held.admit_ratio) == (State.CLOSED, 1.0)
    assert (over.state, over.admit_ratio) == (State.CLOSED, 0.4)


def test_our_own_gate_and_the_share_in_closed_take_the_less() -> None:
    assert narrowed(sheds(), TRIAL).admit_ratio == 0.05
    assert narrowed(sheds(automaton_ratio=0.01, admit_ratio=0.01), TRIAL).admit_ratio == 0.01
    assert narrowed(sheds(), SHUT).admit_ratio == 0.0
