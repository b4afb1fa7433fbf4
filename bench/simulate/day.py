"""`failure_threshold: auto` over a simulated day: a fleet that is noisy and well, then not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random

from bench.simulate.policies import INTERVAL_S, WALL_AT, Ours
from sidecar.core.signal_settings import AutoThreshold
from sidecar.core.types import Policy, Report

DAY_INTERVALS = 24 * 3600 // INTERVAL_S
WATCHED = 10
"""How many intervals of trouble are looked at, at most."""
LEARNS = Policy(
    name="auto", failure_threshold=60, auto=AutoThreshold(floor=10, cap=1000, history_s=3600.0)
)
"""The initial threshold is what a careful operator would have set for this flow: three times what
is normal."""


@dataclass(frozen=True, slots=True)
class Day:
    """What came of a day, and of what followed."""

    normal: float
    """Failures in an interval, on average."""
    trips: int
    """While all was well; each is a false one."""
    lowest: int
    highest: int
    """The threshold's range, once it was learned."""
    tripped_after: int | None
    """Intervals with `times` the failures until it opened; None: not within those watched."""


def day(
    seed: int,
    *,
    times: float = 5.0,
    noise: float = 0.3,
    consumers: int = 4,
    rate: float = 100.0,
    share: float = 0.01,
    intervals: int = DAY_INTERVALS,
) -> Day:
    """A day of a fleet whose traffic and failures each swing by `noise` from interval to interval,
    and by half over the day; then the failures are multiplied.

    Args:
        rate: messages a second of each consumer, on average over the day.
        share: of them that fail.
    """
    draw, breaker = Random(seed), Ours(LEARNS)
    thresholds: list[int] = []

    def interval(number: int, times: float) -> None:
        now = float(number * INTERVAL_S)
        swing = 1 + 0.5 * math.sin(2 * math.pi * number / DAY_INTERVALS)
        traffic = swing * draw.uniform(1 - noise, 1 + noise)
        bad = times * share * draw.uniform(1 - noise, 1 + noise)
        for i in range(consumers):
            messages = rate * traffic * INTERVAL_S
            report = Report(
                timestamp_at=WALL_AT + now,
                rate_ok=messages * (1 - bad) / INTERVAL_S,
                count_fail=_poisson(draw, messages * bad),
                latency_ms=20 * draw.uniform(1 - noise, 1 + noise),
            )
            breaker.post(f"c-{i}", report)
        evidence = breaker.round(now).evidence
        threshold = evidence.get("threshold")
        if evidence.get("normal") is not None and isinstance(threshold, int):
            thresholds.append(threshold)

    for number in range(intervals):
        interval(number, 1.0)
    trips = len(breaker.trips)
    thresholds = thresholds or [LEARNS.failure_threshold]
    found = Day(
        normal=consumers * rate * share * INTERVAL_S,
        trips=trips,
        lowest=min(thresholds),
        highest=max(thresholds),
        tripped_after=None,
    )
    for extra in range(1, WATCHED + 1):
        interval(intervals + extra, times)
        if len(breaker.trips) > trips:
            return replace(found, tripped_after=extra)
    return found


def _poisson(draw: Random, mean: float) -> int:
    """Knuth's way for few, a normal distribution for many."""
    if mean > 50:
        return max(0, round(draw.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count
