"""What becomes of records while Kafka doesn't take them: the strategies, the gate, the circuit.

Each topic has one strategy. Each of its partitions has a *gate*: the first record that Kafka
didn't confirm shuts it, and what comes later goes to the spool behind that record, until
everything in there is delivered. The topic has a *circuit*, which says whether it is worth trying
at all.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

HOLD_S: Final = 0.25
"""How long new records wait at most for the last ones of the backlog, before they queue behind."""
TRIAL_EVERY_S: Final = 1.0
"""Without a spool a broken circuit lets one attempt through so often."""


class Outage(StrEnum):
    """`publish.topics.<t>.outage`."""

    DROP = "drop"
    REJECT = "reject"
    SPOOL_ALL = "spool_all"
    SPOOL_FAILED = "spool_failed"
    BREAKER = "breaker"
    DUAL = "dual"
    """To two clusters, each record; to the spool as `breaker` does, where neither takes it."""

    @property
    def spools(self) -> bool:
        """Whether anything of the topic can go to the spool."""
        return self is not Outage.DROP and self is not Outage.REJECT


class Route(StrEnum):
    """Where the next records of a partition go."""

    DIRECT = "direct"
    SPOOL = "spool"
    HOLD = "hold"
    """Nowhere yet: the backlog is about to end."""
    DROP = "drop"
    REFUSE = "refuse"


class Fate(StrEnum):
    """What becomes of records whose delivery failed."""

    DEAD = "dead"
    """Kafka will never take them."""
    SPOOL = "spool"
    DROP = "drop"
    UNKNOWN = "unknown"
    """The sender is told that they may or may not be in Kafka."""


def fate(outage: Outage, *, permanent: bool) -> Fate:
    """Permanent faults never enter the spool; the rest is the strategy's."""
    if permanent:
        return Fate.DEAD
    if outage.spools:
        return Fate.SPOOL
    return Fate.DROP if outage is Outage.DROP else Fate.UNKNOWN


class Circuit:
    """Whether a topic's deliveries are worth trying. `now` is monotonic seconds."""

    __slots__ = ("_trial_at", "broken_since")

    def __init__(self) -> None:
        self.broken_since: float | None = None
        """When deliveries began to fail; None while they succeed."""
        self._trial_at = 0.0

    def failed(self, now: float) -> bool:
        """A delivery failed, or the probe. True when that is news."""
        news = self.broken_since is None
        if news:
            self.broken_since = now
        self._trial_at = now + TRIAL_EVERY_S
        return news

    def delivered(self) -> bool:
        """A delivery succeeded. True when that is news."""
        news = self.broken_since is not None
        self.broken_since = None
        return news

    def trial(self, now: float) -> bool:
        """Whether one attempt may go through a broken circuit now; taking it spends it."""
        if now < self._trial_at:
            return False
        self._trial_at = now + TRIAL_EVERY_S
        return True


class Gate:
    """One topic and partition: does what comes next go straight to Kafka?

    Args:
        waiting: the spool holds something for it already.
    """

    __slots__ = ("_held_until", "shut")

    def __init__(self, *, waiting: bool = False) -> None:
        self.shut = waiting
        self._held_until: float | None = None

    def unresolved(self) -> None:
        """A record wasn't confirmed: it goes to the spool, and everything later behind it."""
        self.shut = True
        self._held_until = None

    def hold(self, now: float) -> None:
        """The backlog is about to end: let new records wait for that a moment."""
        if self.shut and self._held_until is None:
            self._held_until = now + HOLD_S

    def hold_no_more(self) -> None:
        """It didn't end: new records queue behind it."""
        self._held_until = None

    def held_for(self, now: float) -> float:
        """Seconds for which new records may still be held; 0 where they aren't."""
        return 0.0 if self._held_until is None else max(0.0, self._held_until - now)

    def emptied(self) -> None:
        """Everything that was before is delivered."""
        self.shut = False
        self._held_until = None


def route(outage: Outage, gate: Gate, circuit: Circuit, now: float) -> Route:
    """Where the next records of a partition go.

    Raises nothing and changes one thing: a trial through a broken circuit is spent.
    """
    if outage is Outage.SPOOL_ALL:
        return Route.SPOOL
    if gate.shut:
        return Route.HOLD if gate.held_for(now) > 0 else Route.SPOOL
    if circuit.broken_since is None or outage is Outage.SPOOL_FAILED:
        return Route.DIRECT
    if outage in {Outage.BREAKER, Outage.DUAL}:
        return Route.SPOOL
    if circuit.trial(now):
        return Route.DIRECT
    return Route.DROP if outage is Outage.DROP else Route.REFUSE
