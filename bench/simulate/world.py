"""Producers, partitions and consumers, second by second; what is random comes from one seed.

A message that fails stays at the head of its partition and costs its consumer a turn, as it does
where offsets aren't committed. Producers that are rejected don't come back: that is their clients'
affair. A consumer that dies leaves its partitions alone until the group has rebalanced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from sidecar.core.admission import UNIT

REPORT_S = 5
"""Between two reports of a consumer; they take turns."""
REBALANCE_S = 15
LATENCY_S = 0.02
"""What a message takes while all is well."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there is of a flow. The defaults are four fifths busy."""

    consumers: int = 4
    partitions: int = 8
    capacity: float = 100.0
    """Messages a second that a consumer handles."""
    demand: float = 320.0
    """Messages a second that the producers offer."""
    demand_noise: float = 0.1
    capacity_noise: float = 0.05


@dataclass(frozen=True, slots=True)
class Health:
    """How one consumer is at one second."""

    capacity: float = 1.0
    """Of its usual one."""
    failing: float = 0.0
    """The share of its attempts that fail."""
    alive: bool = True


WELL = Health()
Story = Callable[[int, int], Health]
"""What happens: of a second and a consumer's number, how it is."""


@dataclass(frozen=True, slots=True)
class Said:
    """A consumer's report."""

    consumer: int
    at: float
    rate_ok: float
    failed: float
    lag: float
    latency_ms: float


@dataclass(slots=True)
class Partition:
    """Messages in the order in which they came: when each second's share of them did."""

    waiting: deque[list[float]] = field(default_factory=deque)
    """[second, messages], oldest first."""
    produced: float = 0.0
    handled: float = 0.0

    @property
    def backlog(self) -> float:
        """Messages not yet handled."""
        return self.produced - self.handled

    def add(self, second: int, messages: float) -> None:
        """They come in."""
        if messages > 0:
            self.waiting.append([float(second), messages])
            self.produced += messages

    def take(self, messages: float) -> float:
        """So many at most are handled, the oldest first; returns how many were."""
        left = messages
        while left > 1e-9 and self.waiting:
            head = self.waiting[0]
            taken = min(left, head[1])
            head[1] -= taken
            left -= taken
            if head[1] <= 1e-9:
                self.waiting.popleft()
        done = messages - left
        self.handled += done
        return done

    def age(self, second: int) -> float:
        """How long the oldest message has been waiting, in seconds."""
        return second - self.waiting[0][0] if self.waiting else 0.0


class World:
    """The flow. Two worlds of one seed are offered the same, and can do the same."""

    def __init__(self, fleet: Fleet, story: Story, seed: int) -> None:
        self.fleet = fleet
        self._story = story
        self._draw = Random(seed)
        self.partitions = [Partition() for _ in range(fleet.partitions)]
        self.owners = [p % fleet.consumers for p in range(fleet.partitions)]
        """The consumer of each partition; -1: nobody, until the group has rebalanced."""
        self._alive = [True] * fleet.consumers
        self._settled = 0
        """When the group has rebalanced."""
        self._ok = [0.0] * fleet.consumers
        self._failed = [0.0] * fleet.consumers
        self._spent = 0
        """Of the share admitted, as `core.admission` counts it."""
        self.offered = self.admitted = self.handled = self.able = 0.0
        """Of the last second; `able` is what the consumers could have handled."""

    def step(self, second: int, ratio: float) -> list[Said]:
        """One second at an admitted share; returns the reports that end with it."""
        draw, fleet = self._draw, self.fleet
        noise = fleet.demand_noise
        self.offered = round(fleet.demand * draw.uniform(1 - noise, 1 + noise))
        self._spent += int(self.offered) * round(ratio * UNIT)
        self.admitted, self._spent = divmod(self._spent, UNIT)
        for partition in self.partitions:
            partition.add(second, self.admitted / fleet.partitions)
        states = [self._story(second, i) for i in range(fleet.consumers)]
        self._rebalance(second, [state.alive for state in states])
        self.handled = self.able = 0.0
        for i, state in enumerate(states):
            noise = fleet.capacity_noise
            turns = fleet.capacity * state.capacity * draw.uniform(1 - noise, 1 + noise)
            if state.alive:
                self._work(i, turns, state)
        return [
            self._report(second, i, state)
            for i, state in enumerate(states)
            if state.alive and second % REPORT_S == i % REPORT_S
        ]

    def _work(self, consumer: int, turns: float, state: Health) -> None:
        self.able += turns * (1 - state.failing)
        mine = [
            p for p, owner in zip(self.partitions, self.owners, strict=True) if owner == consumer
        ]
        behind = sum(p.backlog for p in mine)
        tried = min(turns, behind) if state.failing < 1 else (turns if behind > 0 else 0.0)
        for partition in mine:
            if behind > 0:
                share = partition.backlog / behind
                done = partition.take(tried * share * (1 - state.failing))
                self.handled += done
                self._ok[consumer] += done
        self._failed[consumer] += tried * state.failing

    def _rebalance(self, second: int, alive: list[bool]) -> None:
        if alive != self._alive:
            self._alive, self._settled = alive, second + REBALANCE_S
            # Whoever is left goes on with its own until then.
            self.owners = [owner if owner >= 0 and alive[owner] else -1 for owner in self.owners]
        if second == self._settled:
            able = [i for i, lives in enumerate(alive) if lives]
            self.owners = [able[p % len(able)] if able else -1 for p in range(len(self.owners))]

    def _report(self, second: int, consumer: int, state: Health) -> Said:
        lag = sum(
            p.backlog
            for p, owner in zip(self.partitions, self.owners, strict=True)
            if owner == consumer
        )
        said = Said(
            consumer,
            float(second),
            self._ok[consumer] / REPORT_S,
            round(self._failed[consumer]),
            round(lag),
            1000 * LATENCY_S / max(state.capacity, 0.01),
        )
        self._ok[consumer] = self._failed[consumer] = 0.0
        return said

    @property
    def backlog(self) -> float:
        """Messages not yet handled."""
        return sum(p.backlog for p in self.partitions)

    def age(self, second: int) -> float:
        """How long the oldest message has been waiting, in seconds."""
        return max(p.age(second) for p in self.partitions)
