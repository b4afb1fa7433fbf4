"""The four policies that are compared; two of them are this repository's core as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from bench.simulate.world import Said, World
from sidecar.core.backlog import LagBook, Reading
from sidecar.core.breaker import step
from sidecar.core.normal import Lessons
from sidecar.core.observe import observe
from sidecar.core.reports import Item, Reports
from sidecar.core.signal_settings import Lag, Shed, SignalSettings
from sidecar.core.signals import Judgement, Memory, judge
from sidecar.core.types import BadReport, Policy, Report, State, Verdict
from sidecar.core.writing import Author

WALL_AT = 1_763_668_800.0
START_S, FULL_S = 10.0, 60.0
THRESHOLD, OPEN_S, INTERVAL_S = 20, 30.0, 5
BINARY = Policy(
    name="binary",
    topic="orders",
    group="workers",
    failure_threshold=THRESHOLD,
    open_duration_s=OPEN_S,
    signals=SignalSettings(lag=Lag(max_seconds=FULL_S)),
)
"""Failures, and everything that `lag` sees."""
GRADUATED = Policy(
    name="graduated",
    failure_threshold=THRESHOLD,
    open_duration_s=OPEN_S,
    shed=Shed(start_s=START_S, full_s=FULL_S),
)
"""Failures, and what is behind is shed."""


class Breaker(Protocol):
    """What stands between producers and Kafka."""

    ratio: float
    """The share admitted now."""
    transitions: int
    steps: int
    """Changes of the share that are no transition."""

    def hear(self, second: int, reports: Sequence[Said], world: World) -> None:
        """Take in what is reported at a second, and decide."""


class NoBreaker:
    """Everything is admitted."""

    ratio = 1.0
    transitions = steps = 0

    def hear(self, second: int, reports: Sequence[Said], world: World) -> None:
        """Nothing comes of it."""


class SourceRule:
    """The source system's: a sum of failures opens it, and time alone brings all back.

    It adds up whatever keys there are, however old, and asks for nothing but failures. Half open
    admits everything, and is over at the next look.
    """

    def __init__(self) -> None:
        self.ratio, self.transitions, self.steps = 1.0, 0, 0
        self._state, self._changed = State.CLOSED, 0
        self._failed: dict[int, float] = {}

    def hear(self, second: int, reports: Sequence[Said], world: World) -> None:  # noqa: ARG002 - it looks at reports alone
        """See `Breaker.hear`."""
        self._failed |= {said.consumer: said.failed for said in reports}
        if second % INTERVAL_S:
            return
        match self._state:
            case State.CLOSED if sum(self._failed.values()) >= THRESHOLD:
                self._go(State.OPEN, second)
            case State.OPEN if second - self._changed > OPEN_S:
                self._go(State.HALF_OPEN, second)
            case State.HALF_OPEN:
                self._go(State.CLOSED, second)

    def _go(self, state: State, second: int) -> None:
        self._state, self._changed = state, second
        self.ratio = 0.0 if state is State.OPEN else 1.0
        self.transitions += 1


class Ours:
    """The core as the evaluator drives it: on each report, and at each tick."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.ratio, self.transitions, self.steps = 1.0, 0, 0
        self.trips: list[tuple[float, Judgement]] = []
        """When it left CLOSED for OPEN, and why."""
        self._index = 1
        self._said: dict[bytes, Report] = {}
        self._items: dict[str, Item] = {}
        self._reports = Reports(self._parse)
        self._book = LagBook(policy.lag_read.window_s) if policy.lag_read is not None else None
        self._memory = Memory()
        self.lessons = Lessons()
        self._author = Author("simulated", 1)
        self.seen = observe(None, None, 0, policy, now=0.0, wall_at=WALL_AT)

    def hear(self, second: int, reports: Sequence[Said], world: World) -> None:
        """See `Breaker.hear`."""
        tick = second % INTERVAL_S == 0
        if self._book is not None and tick:
            self._book.take(_reading(second, world), 3 * INTERVAL_S)
        for said in reports:
            report = Report(
                timestamp_at=WALL_AT + said.at,
                rate_ok=said.rate_ok,
                count_fail=said.failed,
                lag=said.lag,
                latency_ms=said.latency_ms,
            )
            self.post(f"c-{said.consumer}", report)
        if reports or tick:
            self.round(float(second))

    def post(self, instance: str, report: Report) -> None:
        """A report comes in; what follows from it is another matter."""
        self._index += 1
        value = f"{instance} {self._index}".encode()
        before = self._items.get(instance)
        if before is not None:
            del self._said[before.value]
        self._said[value] = report
        self._items[instance] = Item(instance, value, self._index)

    def round(self, now: float) -> Judgement:
        """Read the reports, judge, and write what follows."""
        wall_at, policy = WALL_AT + now, self.policy
        self._reports.update(self._items.values(), self._index, policy, now=now, wall_at=wall_at)
        tally = self._reports.tally(self.seen.floor_index, policy, now=now)
        judgement = judge(
            tally,
            self.seen,
            policy,
            self._memory,
            lag=self._book,
            now=now,
            normal=self.lessons.normal,
        )
        self._memory = judgement.memory
        healthy = judgement.verdict is Verdict.HEALTHY
        self.lessons.note(tally, self.seen, policy, healthy=healthy, now=now)
        move = step(self.seen, judgement, policy, self._author, now=now, wall_at=wall_at)
        if move is None:
            return judgement
        self._index += 1
        self.seen = observe(self.seen, move.record, self._index, policy, now=now, wall_at=wall_at)
        self.steps += move.transition is None and move.record.admit_ratio != self.ratio
        if move.transition is not None:
            self.transitions += 1
            if move.transition.from_state is State.CLOSED:
                self.trips.append((now, judgement))
        self.ratio = move.record.admit_ratio
        return judgement

    def _parse(self, value: bytes) -> Report | BadReport:
        return self._said[value]


def _reading(second: int, world: World) -> Reading:
    """What Kafka says of the group."""
    return Reading(
        at=float(second),
        committed=[math.floor(p.handled) for p in world.partitions],
        ends=[math.floor(p.produced) for p in world.partitions],
        members=any(owner >= 0 for owner in world.owners),
        rebalancing=any(owner < 0 for owner in world.owners),
    )
