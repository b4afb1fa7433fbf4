"""How long a session may be trusted, by this machine's own clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """A session's life as its owner may count on it.

    Counted from when the renewal was *sent*: the server counts from when it arrived, later, so
    this clock always runs out first. Use a clock that goes on while the machine is suspended.
    """

    sent: float
    ttl_s: float

    def valid(self, now: float) -> bool:
        """True while the server can't have ended the session for want of a renewal."""
        return now < self.sent + self.ttl_s

    @property
    def ends(self) -> float:
        """When the owner must have stopped acting on it."""
        return self.sent + self.ttl_s

    @property
    def renew_at(self) -> float:
        """When to renew: after a third, so that two attempts may fail."""
        return self.sent + self.ttl_s / 3
