"""The floor: the same chain on bare Consul, with nothing between its long polls.

One watcher lists the reports and adds them up, one PUT opens, three watchers see it. All in one
process: no election, no fence, no rules, no HTTP server. What a breaker on Consul can't beat.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import uvloop

from bench.host import BenchError
from bench.reporters import instances, report
from bench.wire import AsyncConnection

WATCHERS = 3
THRESHOLD = 20
STATE = "/v1/kv/floor/state"
SAMPLE_DEADLINE_S = 30.0


class _Key(msgspec.Struct):
    Value: str | None
    ModifyIndex: int


class _Report(msgspec.Struct):
    count_fail: int


_KEYS = msgspec.json.Decoder(list[_Key])
_REPORT = msgspec.json.Decoder(_Report)


def _state(name: str) -> bytes:
    return json.dumps({"current_state": name, "last_changed": "2026-01-01T00:00:00Z"}).encode()


class _Floor:
    def __init__(self, port: int, prefix: str, count: int) -> None:
        self._port = port
        self._prefix = prefix
        self._failing = f"/v1/kv/{prefix}/{instances(count)[0]}"
        self._changed = asyncio.Condition()
        self._seen = [""] * WATCHERS
        self._failures = -1
        self._armed = False

    async def _evaluate(self) -> None:
        """Whoever reads the reports opens once they add up to the threshold."""
        reports, writer = (
            await AsyncConnection.to(self._port),
            await AsyncConnection.to(self._port),
        )
        index = 0
        while True:
            _, index, body = await reports.request(
                "GET", f"/v1/kv/{self._prefix}/?recurse&index={index}&wait=60s"
            )
            failures = sum(
                _REPORT.decode(base64.b64decode(key.Value or "")).count_fail
                for key in _KEYS.decode(body)
            )
            if failures >= THRESHOLD and self._armed:
                self._armed = False
                await writer.request("PUT", STATE, _state("OPEN"))
            async with self._changed:
                self._failures = failures
                self._changed.notify_all()

    async def _follow(self, number: int) -> None:
        connection = await AsyncConnection.to(self._port)
        index = 0
        while True:
            status, index, body = await connection.request("GET", f"{STATE}?index={index}&wait=60s")
            if status == 200:
                value = base64.b64decode(_KEYS.decode(body)[0].Value or "")
                async with self._changed:
                    self._seen[number] = json.loads(value)["current_state"]
                    self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The watchers, for as long as the block runs."""
        tasks = [asyncio.create_task(self._evaluate(), name="floor-evaluate")]
        tasks += [
            asyncio.create_task(self._follow(number), name=f"floor-follow-{number}")
            for number in range(WATCHERS)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise BenchError(f"the floor's watcher ended: {outcome!r}") from outcome

    async def sample(self, connection: AsyncConnection) -> float:
        """Seconds from the report that reaches the threshold to the last watcher that saw OPEN."""
        await connection.request("PUT", self._failing, report())
        await connection.request("PUT", STATE, _state("CLOSED"))
        await self._until(lambda: self._failures == 0 and set(self._seen) == {"CLOSED"})
        # The watchers' next polls must be with Consul before the clock starts.
        await asyncio.sleep(0.01)
        self._armed = True
        began = time.perf_counter()
        put = asyncio.create_task(
            connection.request("PUT", self._failing, report(THRESHOLD + 5)), name="floor-put"
        )
        await self._until(lambda: set(self._seen) == {"OPEN"})
        took_s = time.perf_counter() - began
        await put
        return took_s

    async def _until(self, check: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(SAMPLE_DEADLINE_S), self._changed:
                await self._changed.wait_for(check)
        except TimeoutError:
            said = f"reports {self._failures}, states {self._seen}"
            raise BenchError(f"the floor stood still for {SAMPLE_DEADLINE_S:g} s: {said}") from None


async def _measure(port: int, prefix: str, count: int, samples: int) -> list[float]:
    floor = _Floor(port, prefix, count)
    connection = await AsyncConnection.to(port)
    async with floor.running():
        return [await floor.sample(connection) for _ in range(samples)]


def measure(port: int, prefix: str, count: int, samples: int) -> list[float]:
    """One round. The reports below `prefix` are there already. Raises BenchError, TimeoutError."""
    return uvloop.run(_measure(port, prefix, count, samples))
