"""Many sidecars in one process, without their HTTP: their watch, board and election as they are.

python -m bench.fleet.follower CONFIG COUNT FIRST

Each has a store, and so a connection to Consul, of its own. What a sidecar elsewhere would do
they do: poll, decode, decide, stand for election, and evaluate if they win. Orders come by stdin,
as `crew` says.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Sequence

import uvloop

from bench.fleet.wiretap import Traffic, traffic
from bench.fleet.worker import Totals, obey
from sidecar import compose
from sidecar.config.load import load_file
from sidecar.config.model import Config
from sidecar.core.types import Scalar
from sidecar.loops.around import Around, Clock
from sidecar.loops.elect import Elector
from sidecar.loops.evaluate import Evaluator
from sidecar.loops.guard import Tasks
from sidecar.loops.watch import Watch
from sidecar.store.codec import JsonWire
from sidecar.telemetry import names

START_GAP_S = 0.002
"""Between two starts, so that a fleet doesn't come as one burst."""


class Counting:
    """The port `Telemetry`: counts answered polls, faults and elections; nothing is logged."""

    def __init__(self) -> None:
        self.requests = 0
        self.faults: dict[str, int] = {}
        self.elected = 0

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Requests by their outcome; a lock that somebody else got first is no fault."""
        if metric == names.CONSUL_REQUESTS:
            self.requests += int(amount)
            if (outcome := labels["outcome"]) not in {"ok", "refused"}:
                self.faults[outcome] = self.faults.get(outcome, 0) + 1

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Durations aren't kept."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """A lock that was won, a loop that failed; the level says nothing more."""
        del level
        if name == names.ELECTED:
            self.elected += 1
        elif name == names.TASK_FAILED:
            self.faults[str(fields["error"])] = 1


class Follower:
    """One sidecar. `state` is what it decides for the default breaker, `since` from when on."""

    def __init__(self, config: Config, name: str, counting: Counting, told: Callable[[], None]):
        clock = Clock()
        self._now = clock.now
        self._told = told
        self._board = compose.board(config, name, now=clock.now())
        self.around = Around(
            instance=name,
            store=compose.store(config, clock.now, counting),
            wire=JsonWire(config.consul.state_prefix),
            board=self._board,
            telemetry=counting,
            clock=clock,
            draw=random.random,
            changed=self._changed,
        )
        self._tasks = Tasks(counting)
        self._elector = Elector(
            self.around, compose.candidate(config, name), self._gained, self._lost
        )
        self._evaluators: dict[str, Evaluator] = {}
        self._terms = 0
        self.state = ""
        self.since = 0.0

    def start(self) -> None:
        """Begin to follow."""
        self._tasks.start("watch", Watch(self.around).run)
        self._tasks.start("elect", self._elector.run)

    def _changed(self) -> None:
        self._board.refresh(self._now())
        decision = self._board.cells["default"].decision
        known = "" if decision.reason == "no_state" else str(decision.state)
        if known != self.state:
            self.state, self.since = known, self._now()
            self._told()
        self._elector.wake.set()
        for evaluator in self._evaluators.values():
            evaluator.wake.set()

    def _gained(self, name: str, lock_index: int) -> None:
        cell = self._board.cells[name]
        evaluator = Evaluator(self.around, self._elector, cell, lock_index)
        self._terms += 1
        self._evaluators[name] = evaluator
        self._tasks.start(f"evaluate {name} {self._terms}", evaluator.run)

    def _lost(self, name: str) -> None:
        # Its loop finds that it may write no more; the process ends with the measurement.
        self._evaluators.pop(name, None)


class Followers:
    """All of this process, as a `worker.Gang`."""

    def __init__(self, config: Config, count: int, first: int) -> None:
        self._port = int(config.consul.address.rpartition(":")[2])
        self._counting = Counting()
        self._news = asyncio.Event()
        self._all = [
            Follower(
                config,
                f"{config.consul.state_prefix}-follower-{number}",
                self._counting,
                self._news.set,
            )
            for number in range(first, first + count)
        ]

    async def start(self) -> None:
        """Start all, and wait until each knows a state."""
        for follower in self._all:
            follower.start()
            await asyncio.sleep(START_GAP_S)
        while any(not follower.state for follower in self._all):
            await self._heard()

    async def _heard(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def times(self, state: str) -> list[float]:
        """Wait until all are in this state; since when each is (CLOCK_BOOTTIME)."""
        while any(follower.state != state for follower in self._all):
            await self._heard()
        return [follower.since for follower in self._all]

    def totals(self) -> Totals:
        """What they did so far."""
        wire: Traffic = traffic(self._port)
        return Totals(
            requests=self._counting.requests,
            received=wire.received,
            sent=wire.sent,
            elected=self._counting.elected,
            faults=self._counting.faults,
        )


def main(argv: Sequence[str]) -> None:
    """Follow until stdin ends."""
    path, count, first = argv
    config = load_file(path, {})
    uvloop.run(obey(lambda: Followers(config, int(count), int(first))))
    os._exit(0)  # a thousand tasks and connections need no orderly end


if __name__ == "__main__":
    main(sys.argv[1:])
