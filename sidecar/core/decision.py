"""What is in force here and now: the record, what is known of the store's health, and policy."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from sidecar.core.breaker import step_gap
from sidecar.core.local_gate import Held, Stand
from sidecar.core.observe import Seen, nominal_ratio
from sidecar.core.override import Mode, Override, Standing
from sidecar.core.shedding import gap
from sidecar.core.types import Policy, Reason, Record, State

FORCED_RETRY_S = 60.0
"""A forced breaker may be released at any time, so nobody is sent away for longer."""


class OnLoss(enum.StrEnum):
    """What holds once the store has been away for `max_stale`."""

    KEEP = "keep"
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What is known of the store. Times are monotonic seconds."""

    synced: float | None
    """Last completed read from a known leader; None: never."""
    stale_after_s: float
    """A read is overdue after this: wait + wait/16 + 2 s."""
    max_stale_s: float
    on_loss: OnLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for one breaker until something changes."""

    breaker: str
    state: State
    admit_ratio: float
    reason: str
    detail: str
    seq: int
    stale: bool
    lost: bool
    """True when the loss policy decides instead of the record."""
    retry_from: float | None
    """When more will be admitted (monotonic); None where no time is known."""
    spread_s: float
    """Added to `Retry-After`: this instance's fixed share of the open time."""
    shadow_ratio: float
    """What would be admitted without shadow, as mode or override; 1.0 outside of it."""
    changes_at: float
    """When this must be worked out anew (monotonic), though nothing was seen; inf: never."""
    retry_cap_s: float = math.inf
    """`Retry-After` is never more than this."""
    override: Override | None = None
    """The override in force."""

    def retry_after(self, now: float) -> int:
        """Whole seconds for the `Retry-After` header, at least one."""
        if self.retry_from is None:
            return 1
        left_s = max(0.0, self.retry_from - now) + self.spread_s
        return max(1, math.ceil(min(self.retry_cap_s, left_s)))

    def retry_until(self, now: float) -> float:
        """Until when `retry_after` stays what it is now (monotonic; inf: for good).

        A moment too early rather than too late: whoever asks then just works it out anew.
        """
        if self.retry_from is None or now >= self.retry_from:
            return math.inf
        if self.retry_from - now + self.spread_s > self.retry_cap_s:
            return self.retry_from + self.spread_s - self.retry_cap_s - 1e-6
        changes = self.retry_from + self.spread_s - (self.retry_after(now) - 1)
        return changes - 1e-6 if changes <= self.retry_from else self.retry_from


def stale_after(wait_s: float) -> float:
    """When a blocking query of `wait_s` is overdue: the server adds up to a sixteenth."""
    return wait_s + wait_s / 16 + 2.0


def poll_wait(max_stale_s: float) -> float:
    """How long to block: a frozen store must be noticed within half of `max_stale`.

    Solves wait + wait/16 + 2 s = max_stale / 2, between 0.4 s and a minute.
    """
    return min(60.0, max(0.4, (max_stale_s / 2 - 2.0) * 16 / 17))


class _Lapses:
    """What has lasted too long by now, and when the next of the others will have."""

    def __init__(self, now: float) -> None:
        self._now = now
        self.next = math.inf

    def over(self, since: float | None, after_s: float) -> bool:
        """Has it been so since `since` for `after_s`? None: it isn't so."""
        if since is None:
            return False
        at = since + after_s
        if self._now < at:
            self.next = min(self.next, at)
        return self._now >= at


def _loss(
    seen: Seen, record: Record, contact: Contact, unheld_since: float | None, lapses: _Lapses
) -> Reason | None:
    """Why the record can't be relied on any more; None: it can."""
    open_until = seen.open_until if record.automaton is State.OPEN else None
    lapses.over(open_until, 0.0)  # from then on, a loss is answered otherwise
    if lapses.over(contact.synced, contact.max_stale_s):
        return Reason.STORE_LOST
    if lapses.over(unheld_since, contact.max_stale_s):
        return Reason.NO_EVALUATOR
    if lapses.over(open_until, contact.max_stale_s):
        return Reason.OVERDUE
    return None


def decide(
    seen: Seen | None,
    contact: Contact,
    unheld_since: float | None,
    policy: Policy,
    *,
    share: float,
    now: float,
    standing: Standing | None = None,
    held: Held | None = None,
) -> Decision:
    """What to answer for a breaker.

    Args:
        seen: the state key as seen; None before the first look.
        standing: the override as seen, over or not. While it holds its word counts, whatever is
            known of state and store: it ends by this machine's clock alone.
        unheld_since: since when the lock has had no holder; None while it has one.
        share: this instance's fixed number in [0, 1) for spreading retries.
        now: monotonic seconds.
        held: what this sidecar's own gate does; None: it passes everything.
    """
    decision = _unforced(seen, contact, unheld_since, policy, share=share, now=now)
    if held is not None and decision.state is State.CLOSED:
        decision = _held_back(decision, held, policy, share)
    return _overruled(decision, standing, policy, now)


def _held_back(decision: Decision, held: Held, policy: Policy, share: float) -> Decision:
    """A CLOSED that this sidecar's own gate narrows. In shadow mode that is counted, not done."""
    changes_at = min(decision.changes_at, held.changes_at)
    if policy.shadow:
        return replace(
            decision,
            detail=f"shadow: {held.detail}",
            shadow_ratio=min(decision.shadow_ratio, held.ratio),
            changes_at=changes_at,
        )
    return replace(
        decision,
        state=State.OPEN if held.stand is Stand.SHUT else State.HALF_OPEN,
        admit_ratio=min(decision.admit_ratio, held.ratio),
        reason=Reason.DELIVERY_LOCAL,
        detail=f"{held.detail}; the fleet's state is {State.CLOSED}",
        retry_from=held.retry_from,
        spread_s=share * 0.1 * held.shut_s if held.retry_from is not None else 0.0,
        changes_at=changes_at,
    )


def _overruled(
    decision: Decision, standing: Standing | None, policy: Policy, now: float
) -> Decision:
    if standing is None or not standing.holds(now):
        return decision
    return _forced(decision, standing, policy)


def _forced(decision: Decision, standing: Standing, policy: Policy) -> Decision:
    """The override's answer over what would be answered without it."""
    override = standing.override
    by = f" by {override.author}" if override.author else ""
    why = f": {override.reason}" if override.reason else ""
    rejects = override.mode is Mode.OPEN
    watched = decision.shadow_ratio if policy.shadow else decision.admit_ratio
    return replace(
        decision,
        state=State.OPEN if rejects else State.CLOSED,
        admit_ratio=0.0 if rejects else 1.0,
        reason=Reason.FORCED,
        detail=f"forced {override.mode}{by}{why}",
        lost=False,
        retry_from=standing.ends if rejects else None,
        retry_cap_s=FORCED_RETRY_S,
        spread_s=0.0,
        shadow_ratio=watched if override.mode is Mode.SHADOW else 1.0,
        changes_at=min(decision.changes_at, standing.ends),
        override=override,
    )


def _unforced(
    seen: Seen | None,
    contact: Contact,
    unheld_since: float | None,
    policy: Policy,
    *,
    share: float,
    now: float,
) -> Decision:
    lapses = _Lapses(now)
    late = contact.synced is None or lapses.over(contact.synced, contact.stale_after_s)
    record = seen.record if seen is not None else None
    if seen is None or record is None:
        return _stateless(contact, policy, lapses.next)
    lost = _loss(seen, record, contact, unheld_since, lapses)
    if lost is not None:
        return _lost(
            seen, record, contact, policy, lost, share=share, now=now, changes_at=lapses.next
        )
    state, ratio = record.unforced
    decision = Decision(
        breaker=policy.name,
        state=state,
        admit_ratio=ratio,
        reason=record.reason,
        detail=record.detail,
        seq=record.seq,
        stale=late,
        lost=False,
        retry_from=_retry_from(seen, policy),
        spread_s=share * 0.1 * record.open_for_s,
        shadow_ratio=record.automaton_ratio if policy.shadow else 1.0,
        changes_at=lapses.next,
    )
    return _shadowed(decision) if policy.shadow else decision


def _retry_from(seen: Seen, policy: Policy) -> float | None:
    if seen.record is None:
        return None
    match seen.record.automaton:
        case State.OPEN:
            return seen.open_until
        case State.HALF_OPEN:
            return seen.step_since + step_gap(policy)
        case State.CLOSED:
            sheds = seen.record.automaton_ratio < 1.0
            return seen.step_since + gap(policy) if sheds else None


def _shadowed(decision: Decision) -> Decision:
    """Shadow mode answers CLOSED, whatever is underneath."""
    return _with(decision, State.CLOSED, 1.0, Reason.SHADOW, f"shadow: {decision.detail}")


def _with(decision: Decision, state: State, ratio: float, reason: str, detail: str) -> Decision:
    return replace(decision, state=state, admit_ratio=ratio, reason=reason, detail=detail)


def _stateless(contact: Contact, policy: Policy, changes_at: float) -> Decision:
    """Before any state is known: `keep` and `allow` admit, `deny` rejects. Never fresh."""
    denied = contact.on_loss is OnLoss.DENY and not policy.shadow
    state = State.OPEN if denied else State.CLOSED
    return Decision(
        breaker=policy.name,
        state=state,
        admit_ratio=nominal_ratio(state, policy),
        reason=Reason.NO_STATE,
        detail="no state has been seen yet",
        seq=0,
        stale=True,
        lost=True,
        retry_from=None,
        spread_s=0.0,
        shadow_ratio=0.0 if contact.on_loss is OnLoss.DENY and policy.shadow else 1.0,
        changes_at=changes_at,
    )


def forgotten(policy: Policy, standing: Standing | None, *, now: float) -> Decision:
    """The answer for a breaker that somebody had forgotten: it is closed, and that is certain.

    But for an override that was set since: an order holds whatever else is known.
    """
    decision = Decision(
        breaker=policy.name,
        state=State.CLOSED,
        admit_ratio=1.0,
        reason=Reason.FORGOTTEN,
        detail="its keys were deleted; a reload takes it up again",
        seq=0,
        stale=False,
        lost=False,
        retry_from=None,
        spread_s=0.0,
        shadow_ratio=1.0,
        changes_at=math.inf,
    )
    return _overruled(decision, standing, policy, now)


_LOST_DETAIL = {
    Reason.STORE_LOST: "the store has not answered for {s:.0f} s",
    Reason.NO_EVALUATOR: "nobody has evaluated this breaker for {s:.0f} s",
    Reason.OVERDUE: "open past its time by {s:.0f} s and nobody moved it",
}


def _lost(
    seen: Seen,
    record: Record,
    contact: Contact,
    policy: Policy,
    reason: Reason,
    *,
    share: float,
    now: float,
    changes_at: float,
) -> Decision:
    """The loss policy's answer."""
    (state, ratio), retry_from = record.unforced, _retry_from(seen, policy)
    if contact.on_loss is OnLoss.ALLOW:
        state, ratio, retry_from = State.CLOSED, 1.0, None
    elif contact.on_loss is OnLoss.DENY:
        state, ratio, retry_from = State.OPEN, 0.0, None
    elif state is State.OPEN and now >= seen.open_until:
        state, ratio, retry_from = State.HALF_OPEN, policy.initial_ratio, None
    decision = Decision(
        breaker=policy.name,
        state=state,
        admit_ratio=ratio,
        reason=reason,
        detail=f"{_LOST_DETAIL[reason].format(s=contact.max_stale_s)}, on_loss: {contact.on_loss}",
        seq=record.seq,
        stale=True,
        lost=True,
        retry_from=retry_from,
        spread_s=share * 0.1 * record.open_for_s if retry_from is not None else 0.0,
        shadow_ratio=ratio if policy.shadow else 1.0,
        changes_at=changes_at,
    )
    return _shadowed(decision) if policy.shadow else decision
