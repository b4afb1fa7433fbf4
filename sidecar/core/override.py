"""An operator's word over the automaton's: what it says, and until when by this machine's clock.

It counts from when *this* machine saw it appear, so that a wrong wall clock can't lengthen or
cut it. Only who finds one that was there already (a start, a return after an outage) has to ask
the wall clock how much of it is left, and never takes more than the whole.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import Final

from sidecar.core.types import Policy, Record, State

MAX_TTL_S = 10 * 365 * 86400.0
"""The longest time to live an order may have; what has no end is dated so far ahead."""
ENDLESS: Final = "none"
"""Typed out in place of a ttl: until somebody releases it."""
MAX_TEXT = 1024
"""Characters of an order's reason, and of its author."""


class Mode(enum.StrEnum):
    """What an override makes of a breaker. Shadow admits all and counts what it would reject."""

    OPEN = "open"
    CLOSED = "closed"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What stands in the key. Times that were left out are None."""

    mode: Mode
    reason: str = ""
    author: str = ""
    set_at: float | None = None
    ttl_s: float | None = None
    """Infinite where somebody typed out `none`."""
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class BadOverride:
    """An override that can't be used; `fault` names the field and what would be right."""

    fault: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An override as this machine has seen it."""

    override: Override
    index: int
    """The key's modify index, for the compare-and-set that deletes it."""
    ends: float
    """When it is over here (monotonic; infinite: when somebody releases it)."""
    began: int = 0
    """The key's index when this order was seen to come, else 0: older records don't know of it."""

    def holds(self, now: float) -> bool:
        """Is it in force?"""
        return now < self.ends


def observe_override(
    prev: Standing | None,
    override: Override,
    index: int,
    *,
    live: bool,
    now: float,
    wall_at: float,
) -> Standing:
    """Take in what the key holds; pure.

    Args:
        prev: what was seen there before; None: nothing.
        live: this machine was looking when the key changed.
        now: monotonic seconds.
        wall_at: epoch seconds, for what was there before we looked.
    """
    if prev is not None and _same(prev.override, override):
        return replace(prev, override=override, index=index)
    ends = now + left(override, live=live, wall_at=wall_at)
    return Standing(override, index, ends, began=index if live else 0)


def _same(before: Override, after: Override) -> bool:
    """Is it the same order? The evaluator may have filled in what its author had left out."""
    return (before.mode, before.reason, before.author) == (
        after.mode,
        after.reason,
        after.author,
    ) and all(
        old is None or old == new
        for old, new in (
            (before.set_at, after.set_at),
            (before.ttl_s, after.ttl_s),
            (before.expires_at, after.expires_at),
        )
    )


def left(override: Override, *, live: bool, wall_at: float) -> float:
    """Seconds that an override first seen now still holds; 0 when it is over."""
    ttl_s, expires_at = override.ttl_s, override.expires_at
    if ttl_s is not None and (live or math.isinf(ttl_s)):
        return ttl_s
    if expires_at is None and override.set_at is not None and ttl_s is not None:
        expires_at = override.set_at + ttl_s
    if expires_at is None:
        return ttl_s or 0.0
    return min(max(0.0, expires_at - wall_at), math.inf if ttl_s is None else ttl_s)


def completed(standing: Standing, *, now: float, wall_at: float) -> Override | None:
    """The same order with every time filled in, None where nothing is missing.

    Somebody wrote only a ttl: who starts later must be able to tell how much of it is left.
    """
    override = standing.override
    endless = math.isinf(standing.ends)
    whole = (
        override.set_at is not None
        and override.ttl_s is not None
        and (endless or override.expires_at is not None)
    )
    if whole or not standing.holds(now):
        return None
    left_s = standing.ends - now
    set_at = wall_at if override.set_at is None else override.set_at
    ttl_s = left_s if override.ttl_s is None else override.ttl_s
    expires_at = override.expires_at
    if expires_at is None and not endless:
        expires_at = wall_at + left_s
    return replace(override, set_at=set_at, ttl_s=ttl_s, expires_at=expires_at)


def placed(mode: Mode, *, ttl_s: float, reason: str, author: str, wall_at: float) -> Override:
    """A new order as it is written; an infinite ttl has no expiry."""
    return Override(
        mode=mode,
        reason=reason,
        author=author,
        set_at=wall_at,
        ttl_s=ttl_s,
        expires_at=None if math.isinf(ttl_s) else wall_at + ttl_s,
    )


def contradicts(mode: Mode, standing: Standing | None, now: float) -> bool:
    """Would this order lift a live `open`? Who does that has to say so: somebody forced it."""
    return mode is Mode.CLOSED and rejects_all(standing, now)


def rejects_all(standing: Standing | None, now: float) -> bool:
    """Is the breaker forced open?"""
    return standing is not None and standing.override.mode is Mode.OPEN and standing.holds(now)


def in_force(automaton: State, policy: Policy, mode: Mode | None) -> State:
    """What a legacy reader shall obey: the override's word, else the automaton's.

    Shadow admits all. An override beats the breaker's own mode: somebody who forces a breaker
    open while it only watches means it.
    """
    match mode:
        case Mode.OPEN:
            return State.OPEN
        case Mode.CLOSED | Mode.SHADOW:
            return State.CLOSED
        case None:
            return State.CLOSED if policy.shadow else automaton


def ratio_in_force(record: Record, state: State, policy: Policy, mode: Mode | None) -> float:
    """The share that goes with the state in force over a record."""
    if state is State.CLOSED and (policy.shadow or mode is not None):
        return 1.0  # whoever says closed means all, whatever would be shed
    if state is record.automaton:
        return record.automaton_ratio
    return 0.0 if state is State.OPEN else 1.0


def dated_at(standing: Standing, policy: Policy, *, now: float, wall_at: float) -> float:
    """What `last_changed` says while an override is in force.

    A forced OPEN is dated so that the timer of a legacy reader ends it when we do.
    """
    if standing.override.mode is not Mode.OPEN:
        return wall_at
    return wall_at + min(standing.ends - now, MAX_TTL_S) - policy.open_duration_s
