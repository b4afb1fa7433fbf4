"""What a consumer says of its last interval. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Window:
    """Counts since the last report that arrived. What could not be reported isn't lost."""

    ok: int = 0
    """Events that are done with: handled, dropped as known or stale, or moved for good."""
    failed: int = 0
    """Attempts that failed in a way that may pass."""
    busy_s: float = 0.0
    """Seconds that handlers took, those that failed too."""
    timed: int = 0
    """How many handlers that were."""
    since: float = 0.0
    """When it began (monotonic)."""

    def handled(self, count: int, took_s: float) -> None:
        """So many handlers ended well, and took so long together."""
        self.ok += count
        self.timed += count
        self.busy_s += took_s

    def missed(self, took_s: float) -> None:
        """A handler failed in a way that may pass."""
        self.failed += 1
        self.timed += 1
        self.busy_s += took_s

    def settled(self) -> None:
        """An event is done with, without having been handled."""
        self.ok += 1

    def close(self, now: float) -> Interval:
        """The interval up to now; a new one begins."""
        interval = Interval(
            ok=self.ok,
            failed=self.failed,
            busy_s=self.busy_s,
            timed=self.timed,
            since=self.since,
            until=now,
        )
        self.ok = self.failed = self.timed = 0
        self.busy_s, self.since = 0.0, now
        return interval

    def put_back(self, interval: Interval) -> None:
        """An interval that could not be reported is part of the present one."""
        self.ok += interval.ok
        self.failed += interval.failed
        self.busy_s += interval.busy_s
        self.timed += interval.timed
        self.since = min(self.since, interval.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A closed window."""

    ok: int
    failed: int
    busy_s: float
    timed: int
    since: float
    until: float

    @property
    def length_s(self) -> float:
        """Its length, at least a millisecond: it is divided by."""
        return max(0.001, self.until - self.since)

    @property
    def rate_ok(self) -> float:
        """Events done with, a second."""
        return self.ok / self.length_s

    @property
    def latency_ms(self) -> float | None:
        """The mean of what handlers took; None where none ended."""
        return self.busy_s / self.timed * 1000 if self.timed else None
