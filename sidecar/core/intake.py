"""Local reports on their way to the store: added up per instance, written now and then.

Write-behind: what an instance posts is added up since its last write and goes out once every
`report_interval`; the first failing post after quiet goes out at once. Write-through (for a store
in this process): every post goes out at once, as the running sum of the present window.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from sidecar.core.reports import MAX_COUNT
from sidecar.core.types import Policy, Report

MAX_INSTANCES = 10_000
"""Per breaker; more than any host runs, and a bound on what a confused client can make us hold."""


class IntakeFull(Exception):
    """Too many instances report through this sidecar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What an instance says of the time since its last post."""

    instance: str
    count_ok: float = 0
    count_fail: float = 0
    lag: float | None = None
    in_flight: float | None = None
    latency_ms: float | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A report to write now; hand it back to `failed` when that didn't work."""

    instance: str
    report: Report
    since: float
    """When its window began."""
    posted: float
    """When the first of its posts came in."""


@dataclass(slots=True)
class _Pending:
    since: float
    """When the present window began."""
    ok: float = 0
    fail: float = 0
    weighted_latency: float = 0
    weight: float = 0
    gauges: Post | None = None
    dirty: bool = False
    queued: float | None = None
    """When it is to be written, as the queue has it; None: it isn't there."""
    last_write: float | None = None
    last_failed: bool = False
    posted: float = 0
    """When the first post of the present window came in."""
    last_post: float = 0
    era: float = -1.0


@dataclass(slots=True)
class Intake:
    """One breaker's local reporters.

    Args:
        through: True for write-through.
    """

    through: bool
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _queue: list[tuple[float, str]] = field(default_factory=list)
    """A heap of who is to be written when. An entry that differs from `_Pending.queued` is void."""
    _interval_s: float = 0.0
    """The `report_interval` by which the queue was made."""

    @property
    def instances(self) -> list[str]:
        """Everybody who has reported through here and has not been withdrawn."""
        return list(self._pending)

    def __contains__(self, instance: str) -> bool:
        """Has it reported through here, and not been withdrawn?"""
        return instance in self._pending

    def add(self, post: Post, policy: Policy, era: float, *, now: float) -> bool:
        """Take a post in. True when it wants to be written at once.

        Args:
            era: changes with every transition; a write-through window never spans one, so that
                what was judged already isn't judged again.

        Raises:
            IntakeFull: there are `MAX_INSTANCES` already.
        """
        pending = self._pending.get(post.instance)
        if pending is None:
            if len(self._pending) >= MAX_INSTANCES:
                raise IntakeFull(f"{MAX_INSTANCES} instances report through this sidecar already")
            pending = self._pending[post.instance] = _Pending(now - policy.report_interval_s)
            pending.era = era
        if self.through and (era != pending.era or now - pending.since >= policy.report_interval_s):
            self._restart(pending, era, now)
        if not pending.dirty:
            pending.posted = now
        count = post.count_ok + post.count_fail
        pending.ok = min(MAX_COUNT, pending.ok + post.count_ok)
        pending.fail = min(MAX_COUNT, pending.fail + post.count_fail)
        if post.latency_ms is not None:
            pending.weighted_latency += post.latency_ms * max(count, 1)
            pending.weight += max(count, 1)
        pending.gauges = post
        pending.dirty = True
        pending.last_post = now
        due_at = self._due_at(pending, policy)
        self._enqueue(post.instance, pending, due_at)
        return now >= due_at

    @staticmethod
    def _restart(pending: _Pending, era: float, now: float) -> None:
        pending.since, pending.era = now, era
        pending.ok = pending.fail = pending.weighted_latency = pending.weight = 0

    def next(self, policy: Policy, *, due_by: float, now: float, wall_at: float) -> Outgoing | None:
        """What is to be written first, if anything was due by `due_by`.

        It counts as written until `failed` says otherwise.
        """
        due_at = self.next_due(policy)
        if due_at is None or due_at > due_by:
            return None
        _, instance = heapq.heappop(self._queue)
        pending = self._pending[instance]
        pending.queued = None
        return self._take(instance, pending, policy, now=now, wall_at=wall_at)

    def next_due(self, policy: Policy) -> float | None:
        """When the next write is due (monotonic); None while nothing waits."""
        if policy.report_interval_s != self._interval_s:
            self._interval_s = policy.report_interval_s
            self._requeue(policy)
        queue = self._queue
        while queue:
            due_at, instance = queue[0]
            pending = self._pending.get(instance)
            if pending is not None and pending.queued == due_at:
                return due_at
            heapq.heappop(queue)
        return None

    def _enqueue(self, instance: str, pending: _Pending, due_at: float) -> None:
        """Have it written at this time, unless it is to be written earlier."""
        if pending.queued is None or due_at < pending.queued:
            pending.queued = due_at
            heapq.heappush(self._queue, (due_at, instance))

    def _requeue(self, policy: Policy) -> None:
        """After a reload: by the new interval."""
        self._queue.clear()
        for instance, pending in self._pending.items():
            pending.queued = None
            if pending.dirty:
                self._enqueue(instance, pending, self._due_at(pending, policy))

    def _due_at(self, pending: _Pending, policy: Policy) -> float:
        """When this one is to be written; the time of its first post where that is at once."""
        first_failing = pending.fail > 0 and not pending.last_failed
        if self.through or first_failing or pending.last_write is None:
            return pending.posted
        return pending.last_write + policy.report_interval_s

    def _take(
        self, instance: str, pending: _Pending, policy: Policy, *, now: float, wall_at: float
    ) -> Outgoing:
        # A write-through window is still going on: its rate is that of the whole interval.
        interval_s = policy.report_interval_s if self.through else max(now - pending.since, 0.001)
        gauges = pending.gauges
        report = Report(
            timestamp_at=wall_at,
            rate_ok=pending.ok / interval_s,
            count_fail=pending.fail,
            count_ok=pending.ok,
            interval_s=interval_s,
            lag=gauges.lag if gauges else None,
            in_flight=gauges.in_flight if gauges else None,
            latency_ms=pending.weighted_latency / pending.weight if pending.weight else None,
            role=gauges.role if gauges else None,
            window=pending.since if self.through else None,
        )
        out = Outgoing(instance, report, pending.since, pending.posted)
        pending.dirty = False
        pending.last_write = now
        pending.last_failed = pending.fail > 0
        if not self.through:
            self._restart(pending, pending.era, now)
        return out

    def failed(self, outgoing: Outgoing, policy: Policy, *, now: float) -> None:
        """The write did not happen: add its counts back.

        What was posted three intervals ago is dropped instead: it would be stale by now, and a
        pile of old failures must not look like a burst of new ones.
        """
        pending = self._pending.get(outgoing.instance)
        if pending is None:
            return
        pending.last_failed = False  # nobody has been told: the next failing post is urgent again
        if now - outgoing.posted >= policy.fresh_for_s:
            return
        if not self.through:
            self._merge(pending, outgoing)
        pending.dirty = True
        # Behind the others that are due: one key that can't be written must not hold them up.
        self._enqueue(outgoing.instance, pending, max(now, self._due_at(pending, policy)))

    @staticmethod
    def _merge(pending: _Pending, outgoing: Outgoing) -> None:
        report = outgoing.report
        ok, fail = report.count_ok or 0, report.count_fail
        pending.since, pending.posted = outgoing.since, outgoing.posted
        pending.ok = min(MAX_COUNT, pending.ok + ok)
        pending.fail = min(MAX_COUNT, pending.fail + fail)
        if report.latency_ms is not None:
            pending.weighted_latency += report.latency_ms * max(ok + fail, 1)
            pending.weight += max(ok + fail, 1)

    def withdraw(self, instance: str) -> bool:
        """Forget an instance that says goodbye; False when it never reported here."""
        return self._pending.pop(instance, None) is not None

    def forget_silent(self, policy: Policy, *, now: float) -> None:
        """Drop who has been silent for `report_gc`: the evaluator has deleted its key by then."""
        limit_s = policy.report_gc_s or 86400.0
        for instance in [i for i, p in self._pending.items() if now - p.last_post >= limit_s]:
            del self._pending[instance]
