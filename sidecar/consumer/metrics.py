"""A runner's figures for Prometheus. Imported by those who want them; nothing else needs it.

from sidecar.consumer.metrics import export
export(runner, registry)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    REGISTRY,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.consumer.dual import Dual
from sidecar.consumer.flow import BUCKETS_S
from sidecar.consumer.runner import Runner


def export(
    runner: Runner[Any], registry: CollectorRegistry = REGISTRY, *, durations: bool = True
) -> Collector:
    """Register a runner's figures; they are read when somebody scrapes.

    Args:
        durations: also how long handlers take, as a histogram. It takes a look at the clock for
            each event, which only matters to handlers that take microseconds.

    Returns:
        What was registered, to unregister.

    Raises:
        ValueError: another runner of this process is registered there already.
    """
    if durations and runner.flow.durations is None:
        runner.flow.durations = [0] * (len(BUCKETS_S) + 1)
    collector = _Figures(runner)
    registry.register(collector)
    return collector


def export_dual(dual: Dual, registry: CollectorRegistry = REGISTRY) -> Collector:
    """Register the figures of a source of two clusters, as `export` does.

    Raises:
        ValueError: another one of this process is registered there already.
    """
    collector = _DualFigures(dual)
    registry.register(collector)
    return collector


class _DualFigures(Collector):
    """Reads them at each scrape."""

    def __init__(self, dual: Dual) -> None:
        self._dual = dual

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        figures = self._dual.figures
        for name, meaning, value in (
            ("given", "Records that were read from two clusters, each once.", figures.given),
            ("copies", "Second copies of records, which were dropped.", figures.copies),
            ("gaps", "Gaps that neither cluster has filled in time.", figures.gaps),
            ("lost", "Records in these gaps.", figures.lost),
            ("late", "Records that came after their gap was reported.", figures.late),
        ):
            yield CounterMetricFamily(f"breaker_consumer_dual_{name}", meaning, value=value)
        yield GaugeMetricFamily(
            "breaker_consumer_dual_withheld",
            "Records that wait for those before them.",
            value=figures.withheld,
        )


class _Figures(Collector):
    """Reads them at each scrape."""

    def __init__(self, runner: Runner[Any]) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        flow = self._runner.flow
        attempts = CounterMetricFamily(
            "breaker_consumer_attempts",
            "Attempts to handle an event, by how they ended.",
            labels=["topic", "outcome"],
        )
        for topic, counts in flow.counts.items():
            for outcome, count in counts.items():
                attempts.add_metric([topic, str(outcome)], count)
        yield attempts
        yield CounterMetricFamily(
            "breaker_consumer_misnamed",
            "Records with a header whose name is no UTF-8 text, read with its bytes written out.",
            value=self._runner.misnamed,
        )
        shards = list(flow.shards.values())
        gauges = (
            ("in_flight", "Events that were read and are not done with.", flow.open),
            ("moving", "Events on their way to another topic.", flow.moving),
            ("busy", "Handlers at work.", self._runner.workers.seats.busy),
            ("partitions", "Partitions that are this member's.", len(shards)),
            ("paused", "Of those, the ones that are paused.", sum(s.paused for s in shards)),
            (
                "held",
                "Events of retry topics that are not yet due.",
                sum(len(s.held) for s in shards),
            ),
            ("braked", "1 while handlers are held back because nothing succeeds.", flow.braked),
            (
                "stuck",
                "1 while marks can't be written, so that nothing is read.",
                flow.stuck is not None,
            ),
            ("uncommitted", "Commits that failed in a row.", flow.uncommitted),
        )
        for name, meaning, value in gauges:
            yield GaugeMetricFamily(f"breaker_consumer_{name}", meaning, value=float(value))
        if flow.lag is not None:
            yield GaugeMetricFamily(
                "breaker_consumer_lag",
                "Events of the topics themselves that are not done with, as last reported.",
                value=flow.lag,
            )
        if flow.durations is not None:
            yield _histogram(flow.durations, flow.durations_s)


def _histogram(durations: list[int], total_s: float) -> Metric:
    below, buckets = 0, []
    for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], durations, strict=True):
        below += count
        buckets.append((bound, below))
    return HistogramMetricFamily(
        "breaker_consumer_handling_seconds",
        "How long handlers took, those that failed in a way that may pass too.",
        buckets=buckets,
        sum_value=total_s,
    )
