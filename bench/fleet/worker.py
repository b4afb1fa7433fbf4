"""The child's side of a crew: orders come as lines on stdin, answers go as JSON to stdout.

| order | answer |
|---|---|
| (none) | `{"ready": true}` once all have started |
| `totals` | what all did so far |
| `expect STATE` | `{"times": […]}`, since when each is in this state, once all are |
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Protocol

import msgspec


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated programs of one process, or of all, did since their start."""

    requests: int = 0
    """Answers had from Consul."""
    received: int = 0
    sent: int = 0
    """Bytes inside TCP."""
    elected: int = 0
    """Locks won."""
    writes: int = 0
    """State records written."""
    cpu_s: float = 0.0
    faults: dict[str, int] = {}

    def __add__(self, other: Totals) -> Totals:
        return self._with(other, 1)

    def __sub__(self, other: Totals) -> Totals:
        return self._with(other, -1)

    def _with(self, other: Totals, sign: int) -> Totals:
        both = {**self.faults, **other.faults}
        return Totals(
            requests=self.requests + sign * other.requests,
            received=self.received + sign * other.received,
            sent=self.sent + sign * other.sent,
            elected=self.elected + sign * other.elected,
            writes=self.writes + sign * other.writes,
            cpu_s=self.cpu_s + sign * other.cpu_s,
            faults={
                name: count
                for name in both
                if (count := self.faults.get(name, 0) + sign * other.faults.get(name, 0))
            },
        )


class Gang(Protocol):
    """The simulated programs of one process."""

    async def start(self) -> None:
        """Start all; returns when each has begun its work."""

    async def times(self, state: str) -> list[float]:
        """Since when each is in this state, once all are."""

    def totals(self) -> Totals:
        """What they did."""


async def obey(make: Callable[[], Gang]) -> None:
    """Answer orders until stdin ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    gang = make()
    await gang.start()
    _say({"ready": True})
    expecting: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        order, _, argument = line.decode().strip().partition(" ")
        if order == "totals":
            _say(msgspec.structs.replace(gang.totals(), cpu_s=time.process_time()))
        elif order == "expect":
            # Other orders are obeyed meanwhile.
            expecting.add(asyncio.create_task(_expect(gang, argument)))


async def _expect(gang: Gang, state: str) -> None:
    _say({"times": await gang.times(state)})


def _say(what: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()
