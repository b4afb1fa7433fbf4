"""Metrics: what is counted as it happens, and what is read off the board when somebody scrapes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from sidecar.core.board import Board, Cell
from sidecar.core.lag import Backlog
from sidecar.core.local_gate import Stand
from sidecar.core.table import TABLE
from sidecar.core.types import Reason, State, Verdict
from sidecar.telemetry import names
from sidecar.telemetry.names import METRICS, Metric

Sample = tuple[tuple[str, ...], float]
"""Label values in the order of the metric's labels, and the value."""

PIECE = 50
"""Samples written at a time, in half a millisecond or so: decisions are answered in between."""
_BY_NAME = {str(metric): metric for metric in METRICS}
_EVALUATORS = frozenset(m for m in METRICS if m.by == "evaluator")
_PUBLISHERS = frozenset(m for m in METRICS if m.by == "publisher")


def boottime() -> float:
    """Monotonic seconds that go on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Metrics:
    """All metrics of one sidecar.

    Args:
        board: what is in force; read at every scrape, so it can't be out of date.
        version: for `breaker_build_info`.
        now: the board's monotonic clock, in seconds.
        wall: epoch seconds.
    """

    def __init__(
        self,
        board: Board,
        *,
        version: str,
        now: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._read: dict[str, Callable[[], Iterable[Sample]]] = {
            **_Reading(board, now, wall).families
        }
        self._counts: dict[str, dict[tuple[str, ...], float]] = {}
        """Of each counter, by its labels' values in their order."""
        self._instruments: dict[str, Collector] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in METRICS:
            if metric not in self._read:
                self._declare(metric)
        self._evaluated = False
        self._publishes = False
        self._primed: set[str] = set()
        self._gauges[names.BUILD_INFO].labels(version, platform.python_version()).set(1)
        self._gauges[names.LAST_RELOAD].set(1)
        for kind in names.BAD_RECORDS.labels["kind"]:
            self._counts[names.BAD_RECORDS][(kind,)] = 0.0
        self._board = board
        self._process = ProcessCollector(registry=None)

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter.

        Raises:
            KeyError: there is no such counter.
            ValueError: its labels are others, or the amount is negative.
        """
        counts = self._counts[metric]
        declared = _BY_NAME[metric].labels
        if labels.keys() != declared.keys():
            raise ValueError(f"{metric} has the labels {list(declared)}, not {list(labels)}")
        if amount < 0:
            raise ValueError(f"{metric} can't fall, and it would by {-amount}")
        self._evaluated |= metric in _EVALUATORS
        values = tuple(str(labels[name]) for name in declared)
        counts[values] = counts.get(values, 0.0) + amount

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Record a duration in seconds.

        Raises:
            KeyError: there is no such histogram.
            ValueError: its labels are others.
        """
        histogram = self._histograms[metric]
        self._evaluated |= metric in _EVALUATORS
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def publishing(self, families: Mapping[Metric, Callable[[], Iterable[Sample]]]) -> None:
        """Export what only those that publish have; `families` is read at every scrape."""
        self._publishes = True
        self._read |= {str(metric): read for metric, read in families.items()}

    def reloaded(self, ok: bool) -> None:
        """Say whether the configuration read last is in effect."""
        self._gauges[names.LAST_RELOAD].set(1 if ok else 0)

    def render(self) -> tuple[Iterator[bytes], str]:
        """The text exposition, made piece by piece as it is asked for, and its content type.

        Whoever answers others meanwhile takes a piece at a time: of hundreds of breakers the whole
        takes tens of milliseconds.
        """
        return self._pieces(), CONTENT_TYPE_PLAIN_0_0_4

    def _pieces(self) -> Iterator[bytes]:
        for metric in METRICS:
            if metric in _EVALUATORS:
                self._prime()
            if metric in _PUBLISHERS and not self._publishes:
                continue
            read = self._read.get(metric)
            if read is not None:
                yield from _written(metric, iter(read()))
            elif metric in _EVALUATORS and not self._evaluated:
                # Afterwards it stays: what was counted did happen, and a sum over the fleet must
                # not fall because the lock has moved.
                continue
            elif (counts := self._counts.get(metric)) is not None:
                yield from _written(metric, iter(list(counts.items())))
            else:
                for family in self._instruments[metric].collect():
                    # When a series began is one more series each, and nobody asks.
                    family.samples = [s for s in family.samples if not s.name.endswith("_created")]
                    yield generate_latest(_Only(family))
        for family in self._process.collect():
            yield generate_latest(_Only(family))

    def _declare(self, metric: Metric) -> None:
        labels = tuple(metric.labels)
        made: Gauge | Histogram
        match metric.kind:
            case "counter":
                self._counts[metric] = {} if labels else {(): 0.0}
                return
            case "gauge":
                made = self._gauges[metric] = Gauge(metric, metric.help, labels, registry=None)
            case "histogram":
                made = self._histograms[metric] = Histogram(
                    metric, metric.help, labels, registry=None, buckets=metric.buckets
                )
        self._instruments[metric] = made

    def _prime(self) -> None:
        """An evaluator's counters start at 0, so that the first increase is seen as one."""
        for name, cell in self._board.cells.items():
            if not cell.evaluating or name in self._primed:
                continue
            self._evaluated = True
            self._primed.add(name)
            self._counts[names.FOREIGN_WRITES].setdefault((name,), 0.0)
            for result in names.EVALUATIONS.labels["result"]:
                self._counts[names.EVALUATIONS].setdefault((name, result), 0.0)
            for (before, after), reasons in TABLE.items():
                for reason in sorted(reasons):
                    self._counts[names.TRANSITIONS].setdefault((name, before, after, reason), 0.0)


def _written(metric: Metric, samples: Iterator[Sample]) -> Iterator[bytes]:
    """One metric's text. Its samples may be read with others' work in between."""
    first = True
    while (some := list(islice(samples, PIECE))) or first:
        # The library takes a counter's name without its suffix and adds it again.
        family = Family(metric.removesuffix("_total"), metric.help, metric.kind)
        for values, value in some:
            family.add_sample(metric, dict(zip(metric.labels, values, strict=True)), value)
        text = generate_latest(_Only(family))
        # Help and type stand before the first piece alone.
        yield text if first else text.split(b"\n", 2)[2]
        first = False


class _Only(Collector):
    """One family, or a part of it, for the library to write."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterator[Family]:
        yield self._family


class _Reading:
    """What is read off the board."""

    def __init__(self, board: Board, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._board, self._now, self._wall = board, now, wall
        self.families: Mapping[str, Callable[[], Iterable[Sample]]] = {
            names.STATE: self._states,
            names.ADMIT_RATIO: lambda: self._each(lambda c: c.decision.admit_ratio),
            names.DECISIONS: self._decisions,
            names.LOCAL_GATE: lambda: self._gates(lambda c: c.gate.stand is not Stand.PASSING),
            names.LOCAL_CLOSURES: lambda: self._gates(lambda c: c.gate.closures),
            names.SHADOW_REJECTIONS: lambda: self._each(lambda c: c.shadow_rejected),
            names.STALE: lambda: self._each(lambda c: c.decision.stale),
            names.LAST_SYNC: self._last_sync,
            names.OVERRIDE: self._overrides,
            names.CONFIG_MISMATCH: lambda: self._each(lambda c: c.mismatched),
            names.EVALUATOR: lambda: self._each(lambda c: c.evaluating),
            names.VERDICT: self._verdicts,
            names.REPORTERS: self._reporters,
            names.LAG_MESSAGES: lambda: self._backlogs(lambda b: b.messages),
            names.LAG_SECONDS: lambda: self._backlogs(lambda b: b.seconds),
        }

    def _each(self, value: Callable[[Cell], float]) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            yield (name,), float(value(cell))

    def _states(self) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            for state in State:
                yield (name, state), float(cell.decision.state is state)

    def _decisions(self) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            yield (name, "admit"), cell.admitted
            yield (name, "reject"), cell.rejected

    def _last_sync(self) -> Iterator[Sample]:
        synced = self._board.contact.synced
        yield (), 0.0 if synced is None else round(self._wall() - (self._now() - synced), 3)

    def _gates(self, read: Callable[[Cell], float]) -> Iterator[Sample]:
        """Only where there is one."""
        for name, cell in self._board.cells.items():
            if cell.policy.local is not None:
                yield (name,), float(read(cell))

    def _overrides(self) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            override = cell.decision.override
            if override is not None:
                yield (name, override.mode), 1.0

    def _verdicts(self) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            judgement = cell.judgement
            if not cell.evaluating or judgement is None:
                continue
            said = {str(signal.name): signal.verdict for signal in judgement.signals}
            if not said:
                # The reports can't be read: no signal has a word, and that is a word too.
                said = {str(Reason.FAILURES): judgement.verdict}
            for signal, own in said.items():
                for verdict in Verdict:
                    yield (name, signal, verdict), float(own is verdict)

    def _backlogs(self, value: Callable[[Backlog], float | None]) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            if not cell.evaluating or cell.lag is None:
                continue
            backlog = cell.lag.backlog(self._now())
            number = value(backlog) if backlog is not None else None
            if number is not None:
                yield (name,), number

    def _reporters(self) -> Iterator[Sample]:
        for name, cell in self._board.cells.items():
            if cell.evaluating and cell.tally is not None:
                yield (name, "fresh"), cell.tally.fresh
                yield (name, "stale"), cell.tally.stale
