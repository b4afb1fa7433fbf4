"""What one machine has seen of a breaker's state key, and when by its own clock.

Time that counts is counted from here: OPEN lasts `open_for` from the moment *this* machine saw
the record, a ramp step lasts from the moment it saw the last step. Wall clocks only give a first
guess when the process starts in the middle of something, and that guess is clamped.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from sidecar.core.types import SCHEMA, Foreign, Policy, Reason, Record, State, Stored, Unreadable

SAME_TIME_S = 0.001
"""Times this close are one: records carry microseconds, and floats lose some of them."""


class Kind(enum.Enum):
    """What the state key holds right now."""

    RECORD = "record"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A breaker's state as observed by this machine. Times are monotonic seconds."""

    kind: Kind
    index: int
    """The key's modify index, for the next write's compare-and-set; 0 when missing."""
    record: Record | None
    """What is in force: the last readable content (a foreign one in our form); None: never any."""
    own: Record | None
    """The last record in our own form, which a foreign write has not replaced for the rules."""
    since: float
    """When the present stay in a state began."""
    step_since: float
    """When the present ratio was seen."""
    open_until: float
    """When OPEN is over; meaningless in other states."""
    floor_index: int
    """Reports whose value last changed at or below this index are old evidence."""
    high_seq: int
    """The highest seq ever seen here; the next write takes the one after it."""
    high_epoch: int

    @property
    def followed_only(self) -> bool:
        """True when the record has a schema that this code must not overwrite.

        Deleting the key ends that: it is how an operator comes back from a newer version.
        """
        newer = self.own is not None and self.own.schema > SCHEMA
        return newer and self.kind is not Kind.MISSING


def observe(
    prev: Seen | None,
    stored: Stored | None,
    index: int,
    policy: Policy,
    *,
    now: float,
    wall_at: float,
) -> Seen:
    """Take in what the state key holds (None: it is missing); pure.

    Args:
        prev: what was seen before; None when this process sees the breaker for the first time.
        index: the key's modify index; 0 when missing.
        now: monotonic seconds.
        wall_at: epoch seconds, used for the first guess and for foreign records only.
    """
    match stored:
        case Record():
            return _own(prev, stored, index, policy, now=now, wall_at=wall_at)
        case Foreign():
            return _foreign(prev, stored, index, policy, now=now, wall_at=wall_at)
        case Unreadable():
            return _nothing(prev, Kind.UNREADABLE, index, now)
        case None:
            return _nothing(prev, Kind.MISSING, 0, now)


def _nothing(prev: Seen | None, kind: Kind, index: int, now: float) -> Seen:
    """Junk or nothing changes nothing that is in force."""
    if prev is not None:
        return replace(prev, kind=kind, index=index)
    return Seen(
        kind=kind,
        index=index,
        record=None,
        own=None,
        since=now,
        step_since=now,
        open_until=now,
        floor_index=0,
        high_seq=0,
        high_epoch=0,
    )


def _own(
    prev: Seen | None, record: Record, index: int, policy: Policy, *, now: float, wall_at: float
) -> Seen:
    before = prev.own if prev is not None else None
    high_seq = max(prev.high_seq if prev else 0, record.seq)
    high_epoch = max(prev.high_epoch if prev else 0, record.epoch)
    floor = _floor(record, index, policy)
    if prev is not None and before is not None and _same_stay(prev, before, record):
        if record.automaton is State.HALF_OPEN:
            floor = min(prev.floor_index, index)
        return replace(
            prev,
            kind=Kind.RECORD,
            index=index,
            record=record,
            own=record,
            step_since=prev.step_since if before.automaton_ratio == record.automaton_ratio else now,
            floor_index=floor,
            high_seq=high_seq,
            high_epoch=high_epoch,
        )
    left_s = record.open_for_s
    if prev is None:  # the process starts in the middle: the wall clock's word, clamped
        retry_at = record.retry_at if record.retry_at is not None else wall_at
        left_s = min(max(0.0, retry_at - wall_at), record.open_for_s)
    return Seen(
        kind=Kind.RECORD,
        index=index,
        record=record,
        own=record,
        # A guess here could only cut a ramp short, and a wrong clock would close the breaker.
        since=now,
        step_since=now,
        open_until=now + left_s,
        floor_index=floor,
        high_seq=high_seq,
        high_epoch=high_epoch,
    )


def _same_stay(prev: Seen, before: Record, record: Record) -> bool:
    """Is this the stay in a state that we already know, written once more?"""
    return (
        (prev.kind is not Kind.FOREIGN or record.reason == Reason.REASSERTED)
        and before.automaton is record.automaton
        and before.open_count == record.open_count
        and abs(before.last_changed_at - record.last_changed_at) < SAME_TIME_S
        and abs(before.open_for_s - record.open_for_s) < SAME_TIME_S
        # Only a step changes the ratio, and only a step changes the evidence of a stay.
        and (
            before.automaton_ratio != record.automaton_ratio
            or before.evidence.get("index") == record.evidence.get("index")
        )
    )


def _floor(record: Record, index: int, policy: Policy) -> int:
    """The index at or below which reports are old evidence, for a record first seen at `index`.

    HALF_OPEN counts only what changed after it began, which is the write that brought it; a step
    on the ramp moved the key since, and says in its evidence where that was. No record can know
    of anything after itself: a larger number is from before the store's clock went back.
    """
    if record.automaton is State.HALF_OPEN and record.automaton_ratio <= policy.initial_ratio:
        return index
    floor = record.evidence.get("index", 0)
    return min(floor, index) if isinstance(floor, int) else 0


def _foreign(
    prev: Seen | None,
    foreign: Foreign,
    index: int,
    policy: Policy,
    *,
    now: float,
    wall_at: float,
) -> Seen:
    """A foreign record is in force at once, in our own form, until the evaluator rewrites it."""
    own = prev.own if prev is not None else None
    left_s = foreign_open_left(foreign, policy, wall_at)
    record = Record(
        current_state=foreign.state,
        last_changed_at=wall_at if foreign.last_changed_at is None else foreign.last_changed_at,
        seq=prev.high_seq if prev else 0,
        epoch=prev.high_epoch if prev else 0,
        automaton=foreign.state,
        reason=Reason.FOREIGN,
        detail="written by something other than a sidecar",
        open_count=own.open_count if own else 0,
        open_for_s=left_s if foreign.state is State.OPEN else 0.0,
        retry_at=wall_at + left_s if foreign.state is State.OPEN else None,
        admit_ratio=nominal_ratio(foreign.state, policy),
        automaton_ratio=nominal_ratio(foreign.state, policy),
        policy=policy.fingerprint,
        evaluator="",
    )
    return Seen(
        kind=Kind.FOREIGN,
        index=index,
        record=record,
        own=own,
        # Our own stay goes on underneath: a looser foreign state may be overwritten by it.
        since=prev.since if prev else now,
        step_since=prev.step_since if prev else now,
        open_until=now + left_s if foreign.state is State.OPEN or prev is None else prev.open_until,
        floor_index=prev.floor_index if prev else 0,
        high_seq=prev.high_seq if prev else 0,
        high_epoch=prev.high_epoch if prev else 0,
    )


def foreign_open_left(foreign: Foreign, policy: Policy, wall_at: float) -> float:
    """Seconds that a foreign OPEN still lasts: `open_duration` from its `last_changed`.

    Never more than `open_duration` (its clock may be ahead), never negative; without a usable
    time the whole of it.
    """
    if foreign.last_changed_at is None:
        return policy.open_duration_s
    left_s = foreign.last_changed_at + policy.open_duration_s - wall_at
    return min(max(0.0, left_s), policy.open_duration_s)


def nominal_ratio(state: State, policy: Policy) -> float:
    """The share admitted on entering a state."""
    return {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: policy.initial_ratio}[state]
