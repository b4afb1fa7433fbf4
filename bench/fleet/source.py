"""Producers of the system that the sidecar takes over from, as cheap as they can be: they poll.

python -m bench.fleet.source PORT PREFIX STATE_KEY INTERVAL_S THRESHOLD COUNT FIRST

Each reads the state twice an interval, and while it thinks CLOSED lists all reports once and
opens when their failures reach the threshold: without a lock, so several of them do.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import uvloop

from bench.fleet.wiretap import traffic
from bench.fleet.worker import Totals, obey
from bench.wire import AsyncConnection


class _Pair(msgspec.Struct):
    Value: str | None


class _Report(msgspec.Struct):
    count_fail: int


class _State(msgspec.Struct):
    current_state: str


_PAIRS = msgspec.json.Decoder(list[_Pair])
_REPORT = msgspec.json.Decoder(_Report)
_STATE = msgspec.json.Decoder(_State)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where Consul and the keys are, how often to evaluate, and how many failures open."""

    port: int
    prefix: str
    state_key: str
    interval_s: float
    threshold: int


class Producers:
    """All of this process, as a `worker.Gang`."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._port = settings.port
        self._list = f"/v1/kv/{settings.prefix}?recurse="
        self._state = f"/v1/kv/{settings.state_key}"
        self._interval_s = settings.interval_s
        self._threshold = settings.threshold
        self._states = ["CLOSED"] * count
        self._since = [0.0] * count
        self._requests = self._writes = 0
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect all, and start their two tickers each at a moment of its own."""
        for number in range(len(self._states)):
            for task in (self._sync, self._evaluate):
                connection = await AsyncConnection.to(self._port)
                self._tasks.add(asyncio.create_task(task(number, connection)))

    async def _sync(self, number: int, connection: AsyncConnection) -> None:
        await asyncio.sleep(random.random() * self._interval_s / 2)
        while True:
            status, _, body = await connection.request("GET", self._state)
            self._requests += 1
            if status == 200:
                value = base64.b64decode(_PAIRS.decode(body)[0].Value or "")
                self._become(number, _STATE.decode(value).current_state)
            await asyncio.sleep(self._interval_s / 2)

    async def _evaluate(self, number: int, connection: AsyncConnection) -> None:
        await asyncio.sleep(random.random() * self._interval_s)
        while True:
            if self._states[number] == "CLOSED":
                _, _, body = await connection.request("GET", self._list)
                self._requests += 1
                failures = sum(
                    _REPORT.decode(base64.b64decode(pair.Value or "")).count_fail
                    for pair in _PAIRS.decode(body)
                )
                if failures >= self._threshold:
                    await self._open(number, connection)
            await asyncio.sleep(self._interval_s)

    async def _open(self, number: int, connection: AsyncConnection) -> None:
        now = datetime.now(UTC).isoformat()
        value = json.dumps({"current_state": "OPEN", "last_changed": now}).encode()
        await connection.request("PUT", self._state, value)
        self._requests += 1
        self._writes += 1
        self._become(number, "OPEN")

    def _become(self, number: int, state: str) -> None:
        if state != self._states[number]:
            self._states[number] = state
            self._since[number] = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._news.set()

    async def times(self, state: str) -> list[float]:
        """Wait until all are in this state; since when each is (CLOCK_BOOTTIME)."""
        while any(known != state for known in self._states):
            await self._news.wait()
            self._news.clear()
        return list(self._since)

    def totals(self) -> Totals:
        """What they did so far."""
        ended = [task.exception() for task in self._tasks if task.done()]
        wire = traffic(self._port)
        return Totals(
            requests=self._requests,
            received=wire.received,
            sent=wire.sent,
            writes=self._writes,
            faults={repr(fault): 1 for fault in ended},
        )


def main(argv: Sequence[str]) -> None:
    """Poll until stdin ends."""
    port, prefix, state_key, interval, threshold, count, _first = argv
    settings = Settings(int(port), prefix, state_key, float(interval), int(threshold))
    uvloop.run(obey(lambda: Producers(settings, int(count))))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
