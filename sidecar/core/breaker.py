"""The state machine: what the evaluator writes next, as a function of what it knows.

Invariants, asserted by the tests after every step:
* only the edges of `TABLE` are walked;
* every write's seq is one more than the highest seq known, and the epoch never falls;
* nothing but healthy evidence closes a breaker (`on_unknown: healthy` is the operator's word for
  unknown evidence);
* OPEN ends when its time is over, whatever the evidence; the ratio grows only on healthy evidence;
* in CLOSED the ratio moves only with `shed` and on a known backlog, or back to all without it.
"""

from __future__ import annotations

import math

from sidecar.core import shedding
from sidecar.core.observe import Kind, Seen
from sidecar.core.override import Standing
from sidecar.core.signals import Judgement
from sidecar.core.types import Policy, Record, State, Verdict
from sidecar.core.writing import Author, Move, Writer

MAX_STEPS = 8
"""A ramp has at most this many steps, each the same factor: every step asks the consumers for
the same relative increase, and the first ones are small in messages."""
FULL_RATIO = 0.999
"""A ratio from here on is full; eight rounded multiplications don't hit 1.0 exactly."""


def step(
    seen: Seen,
    judgement: Judgement,
    policy: Policy,
    author: Author,
    *,
    now: float,
    wall_at: float,
    last_known: State | None = None,
    standing: Standing | None = None,
) -> Move | None:
    """What to write next, or None when nothing is to be written.

    Args:
        seen: the state key as this machine has seen it.
        judgement: the verdict over the evidence now.
        now: monotonic seconds; decides.
        wall_at: epoch seconds; is only written down.
        standing: the override as this machine has seen it, over or not; None: there is none.
        last_known: the state that the history ends with. Who has never seen a record here learns
            from it whether what is written now is a transition.

    Raises:
        IllegalTransition: never, unless this module has a defect.
    """
    if seen.followed_only:
        return None
    forced = standing if standing is not None and standing.holds(now) else None
    write = Writer(seen, judgement, policy, author, now, wall_at, last_known, forced)
    match seen.kind:
        case Kind.MISSING:
            return write.created()
        case Kind.UNREADABLE:
            return write.repaired(now)
        case Kind.FOREIGN:
            return write.foreign(now)
        case Kind.RECORD:
            return _automaton(write, seen, judgement, policy, now)


def _automaton(
    write: Writer, seen: Seen, judgement: Judgement, policy: Policy, now: float
) -> Move | None:
    own = seen.own
    if own is None:
        return None
    unhealthy = judgement.verdict is Verdict.UNHEALTHY
    match own.automaton:
        case State.CLOSED:
            return write.opened(1) if unhealthy else _shed(write, seen, own, judgement, now)
        case State.OPEN if now >= seen.open_until:
            return write.half_opened()
        case State.HALF_OPEN if unhealthy:
            return write.opened(own.open_count + 1)
        case State.HALF_OPEN if _counts_as_healthy(judgement, policy):
            return _ramp(write, seen, own, policy, now)
    return write.refreshed()


def _counts_as_healthy(judgement: Judgement, policy: Policy) -> bool:
    return judgement.verdict is Verdict.HEALTHY or (
        judgement.verdict is Verdict.UNKNOWN and policy.unknown_is_healthy
    )


def _ramp(write: Writer, seen: Seen, own: Record, policy: Policy, now: float) -> Move | None:
    if now - seen.since >= policy.half_open_max_s:
        return write.closed()
    if now - seen.step_since < step_gap(policy):
        return write.refreshed()
    ratio = next_ratio(own.automaton_ratio, policy)
    return write.closed() if ratio >= FULL_RATIO else write.stepped(ratio)


def _shed(write: Writer, seen: Seen, own: Record, judgement: Judgement, now: float) -> Move | None:
    policy = write.policy
    if now - seen.step_since < shedding.gap(policy):
        return write.refreshed()
    ratio = shedding.next_share(own.automaton_ratio, judgement.wait, policy.shed)
    return write.refreshed() if ratio is None else write.shed(ratio)


def step_gap(policy: Policy) -> float:
    """Seconds between two ramp steps: the ramp in `MAX_STEPS` equal parts."""
    return policy.ramp_s / MAX_STEPS


def next_ratio(ratio: float, policy: Policy) -> float:
    """The share after the next step; 1.0 when there is no ramp to walk."""
    if policy.ramp_s <= 0 or policy.initial_ratio >= 1:
        return 1.0
    if ratio < policy.initial_ratio:  # the policy has changed since
        return policy.initial_ratio
    # Counted in steps rather than multiplied on, so that rounding never adds a ninth.
    log_factor = -math.log(policy.initial_ratio) / MAX_STEPS
    done = math.floor(math.log(ratio / policy.initial_ratio) / log_factor + 0.01)
    stepped = policy.initial_ratio * math.exp((done + 1) * log_factor)
    return min(1.0, round(stepped, 9))


def due_at(seen: Seen, policy: Policy) -> float | None:
    """When time alone may next ask for a write (monotonic), None when it won't."""
    if seen.kind is not Kind.RECORD or seen.own is None:
        return None
    match seen.own.automaton:
        case State.OPEN:
            return seen.open_until
        case State.HALF_OPEN:
            return min(seen.step_since + step_gap(policy), seen.since + policy.half_open_max_s)
        case State.CLOSED:
            return seen.step_since + shedding.gap(policy) if policy.shed is not None else None


def new_epoch(lock_index: int, highest: int) -> int:
    """The epoch of a new term: the lock's count, or one more than any seen if that is more."""
    return max(lock_index, highest + 1)
