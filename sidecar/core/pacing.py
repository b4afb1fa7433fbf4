"""How fast a backlog is replayed: bounded, and never slower than what keeps it shrinking."""

from __future__ import annotations

import math
from typing import Final

AHEAD: Final = 2.0
"""The bound is never below so many times the inflow, or a backlog might never end."""
SMOOTH_S: Final = 5.0
"""Rates are averages over about so many seconds."""
BURST_S: Final = 0.1
"""So much of a second's share may go at once."""
LEAST_WAIT_S: Final = 1e-3


class Rate:
    """Events a second, smoothed. `now` is monotonic seconds."""

    __slots__ = ("_at", "_rate")

    def __init__(self) -> None:
        self._at: float | None = None
        self._rate = 0.0

    def add(self, events: float, now: float) -> None:
        """So many happened just now."""
        self._rate = self.value(now) + events / SMOOTH_S
        self._at = now

    def value(self, now: float) -> float:
        """Events a second, fading where none happens."""
        if self._at is None:
            return 0.0
        return self._rate * math.exp(-max(0.0, now - self._at) / SMOOTH_S)


class Pace:
    """The replay's bound, shared by all partitions.

    Args:
        limit: records a second; the bound is higher where twice the inflow is.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.inflow = Rate()
        self.outflow = Rate()
        self._free_at = 0.0

    def bound(self, now: float) -> float:
        """Records a second that may be replayed now."""
        return max(self.limit, AHEAD * self.inflow.value(now))

    def wait_s(self, now: float) -> float:
        """Seconds until the next batch may go."""
        wait_s = self._free_at - now - BURST_S
        return wait_s if wait_s >= LEAST_WAIT_S else 0.0

    def sent(self, records: int, now: float) -> None:
        """A batch goes now; the next ones have to wait for their share.

        `outflow` is for whoever hears that it has arrived: what fails makes no backlog smaller.
        """
        self._free_at = max(self._free_at, now) + records / self.bound(now)

    def estimate_s(self, waiting: int, now: float) -> float | None:
        """Seconds until so many records are delivered at the present rates; None: not in sight."""
        if waiting <= 0:
            return 0.0
        gain = self.outflow.value(now) - self.inflow.value(now)
        return waiting / gain if gain > 0 else None
