"""`failure_threshold: auto`: what is normal for a flow, and how much more is trouble.

Failures are set against throughput: of each sample, the share of all messages that failed. The
normal share is a median of means (Nemirovsky and Yudin), which neither a bad quarter of an hour
moves, nor, as a plain median would, the many intervals without any failure pull down to zero.
Counts scatter as Poisson's do, so the bound is taken in square roots, where their deviation is the
same one half whatever the mean (Bartlett, Anscombe); what the flow scatters beyond that is learned
too, by the median absolute residual. Latency decides how sure is sure: a fleet that is also slower
than it ever is gets half of the allowance.

Only what looked healthy is learned from, so that an outage does not become the normal. A slow
creep does, as far as the cap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from sidecar.core.observe import Kind, Seen
from sidecar.core.reports import MAX_COUNT, PRODUCER, Tally, successes
from sidecar.core.signal_settings import AutoThreshold
from sidecar.core.types import Evidence, Policy, Scalar, State

SAMPLES = 120
"""How many intervals the normal is made of, spread over the history."""
NEEDED = 24
"""With fewer samples nothing is known yet: a fifth of the history."""
GROUPS = 8
"""Of how many means the median is taken."""
FORGOTTEN_S = 7 * 86_400.0
"""What was learned so long ago says nothing about today."""
_MAD = 1.4826
"""A normal distribution's deviation in units of its median absolute deviation."""
_SLOWER = 1.5
"""Latency must be at least so many times the usual before it counts as slow."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval of the whole fleet. `at` counts on the clock of whoever holds it."""

    at: float
    messages: float
    failures: float
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What was learned, as it is stored: each sample's `at` is relative to `saved_at`."""

    saved_at: float
    interval_s: float
    """The `report_interval` that the samples are of."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """What is normal for a flow."""

    share: float
    """Failed of all messages."""
    spread: float
    """Standard deviation of the failures in units of Poisson's; at least 1."""
    messages: float
    """Handled and failed in an interval."""
    latency_s: float | None
    latency_spread_s: float
    samples: int
    first: float
    last: float
    """When the first and the last sample were taken (monotonic)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The threshold now, and why it is that."""

    threshold: int
    evidence: Evidence = field(default_factory=dict)
    why: str = ""


def summed_up(samples: Sequence[Sample]) -> Normal | None:
    """The normal of these samples, oldest first; None: too few of them."""
    if len(samples) < NEEDED:
        return None
    size = -(-len(samples) // GROUPS)
    groups = [samples[i : i + size] for i in range(0, len(samples), size)]
    share = median(sum(s.failures for s in g) / sum(s.messages for s in g) for g in groups)
    residuals = [2 * abs(math.sqrt(s.failures) - math.sqrt(share * s.messages)) for s in samples]
    timed = [s.latency_s for s in samples if s.latency_s is not None]
    usual_s = median(timed) if len(timed) >= NEEDED else None
    return Normal(
        share=share,
        spread=max(1.0, _MAD * median(residuals)),
        messages=median(s.messages for s in samples),
        latency_s=usual_s,
        latency_spread_s=0.0 if usual_s is None else _MAD * median(abs(s - usual_s) for s in timed),
        samples=len(samples),
        first=samples[0].at,
        last=samples[-1].at,
    )


def latency(tally: Tally, policy: Policy) -> float | None:
    """Mean processing latency of the fresh reports in seconds, weighted by their messages."""
    timed = [
        (report.latency_ms / 1000, max(1.0, successes(report, policy) + report.count_fail))
        for _, report in tally.counting
        if report.role != PRODUCER and report.latency_ms is not None
    ]
    if not timed:
        return None
    weights = sum(min(weight, MAX_COUNT) for _, weight in timed)
    return sum(s * min(weight, MAX_COUNT) for s, weight in timed) / weights


def bound(normal: Normal | None, tally: Tally, seen: Seen, policy: Policy, *, now: float) -> Bound:
    """The threshold for the sum of failures in an interval.

    In CLOSED it goes with the messages of now, so that a fleet may grow, and shrink over night.
    While half open it is that of a usual interval, which the rule scales by the admitted share.
    """
    auto = policy.auto
    if auto is None:
        return Bound(policy.failure_threshold)
    limits: dict[str, Scalar] = {"floor": auto.floor, "cap": auto.cap}
    if normal is None:
        return Bound(
            policy.failure_threshold, {"normal": None, **limits}, "initial: no normal is known yet"
        )
    half_open = seen.own is not None and seen.own.automaton is State.HALF_OPEN
    messages = normal.messages if half_open else tally.failures + tally.successes
    expected = normal.share * messages
    latency_s = latency(tally, policy)
    slow = _slow(normal, latency_s, auto)
    allowed = auto.deviations / (2 if slow else 1)
    most = (math.sqrt(expected) + allowed * normal.spread / 2) ** 2
    timed: dict[str, Scalar] = {}
    if latency_s is not None and normal.latency_s is not None:
        timed = {
            "latency": round(latency_s, 6),
            "normal_latency": round(normal.latency_s, 6),
        }
    return Bound(
        max(auto.floor, min(auto.cap, math.ceil(most))),
        {
            "normal": round(expected, 2),
            "normal_share": round(normal.share, 6),
            "normal_spread": round(normal.spread, 2),
            "normal_samples": normal.samples,
            "normal_over": round(max(0.0, normal.last - normal.first)),
            "normal_age": round(max(0.0, now - normal.last)),
            **limits,
            **timed,
        },
        f"normal are {expected:.1f} of {messages:.0f} messages"
        + (", and they take longer than ever" if slow else ""),
    )


def _slow(normal: Normal, latency_s: float | None, auto: AutoThreshold) -> bool:
    if latency_s is None or normal.latency_s is None:
        return False
    beyond_s = auto.deviations * normal.latency_spread_s
    return latency_s > max(normal.latency_s * _SLOWER, normal.latency_s + beyond_s)


class Lessons:
    """The samples of one breaker, and the normal made of them. No clock, no I/O."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._interval_s: float | None = None
        self.normal: Normal | None = None

    def note(self, tally: Tally, seen: Seen, policy: Policy, *, healthy: bool, now: float) -> bool:
        """Learn from an interval, where it is time to and it was a good one; True: something was.

        Args:
            healthy: the verdict over all signals.
        """
        if policy.auto is None:
            return False
        self._fit(policy)
        if self._samples and now - self._samples[-1].at < gap(policy.auto, policy):
            return False
        own = seen.own if seen.kind is Kind.RECORD else None
        closed = own is not None and own.automaton is State.CLOSED
        messages = min(tally.failures + tally.successes, MAX_COUNT)
        most = bound(self.normal, tally, seen, policy, now=now).threshold
        if not (closed and healthy and messages > 0 and tally.failures < most):
            return False
        self._samples.append(Sample(now, messages, tally.failures, latency(tally, policy)))
        self.normal = summed_up(list(self._samples))
        return True

    def kept(self, *, now: float, wall_at: float) -> Kept | None:
        """What to store; None while there is nothing."""
        if not self._samples or self._interval_s is None:
            return None
        return Kept(
            wall_at,
            self._interval_s,
            tuple(replace(s, at=min(0.0, s.at - now)) for s in self._samples),
        )

    def recall(self, kept: Kept, policy: Policy, *, now: float, wall_at: float) -> None:
        """Go on from what another evaluator had learned; what was learned here since stays."""
        self._fit(policy)
        age_s = max(0.0, wall_at - kept.saved_at)
        if age_s > FORGOTTEN_S or kept.interval_s != self._interval_s:
            return
        before = (replace(s, at=now - age_s + min(0.0, s.at)) for s in kept.samples)
        since = list(self._samples)
        self._samples.clear()
        self._samples.extend([*sorted(before, key=lambda s: s.at), *since])
        self.normal = summed_up(list(self._samples))

    def _fit(self, policy: Policy) -> None:
        """Samples of another interval are other numbers."""
        if self._interval_s != policy.report_interval_s:
            self._interval_s = policy.report_interval_s
            self._samples.clear()
            self.normal = None


def gap(auto: AutoThreshold, policy: Policy) -> float:
    """Seconds between two samples."""
    return max(policy.report_interval_s, auto.history_s / SAMPLES)


def usable(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Of what somebody stored, what can be reckoned with."""
    return tuple(
        s for s in samples if s.messages > 0 and 0 <= s.failures <= s.messages <= MAX_COUNT
    )[-SAMPLES:]
