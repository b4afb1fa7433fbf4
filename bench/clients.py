"""What a decision costs an application that follows the sidecar through `sidecar.client`."""

from __future__ import annotations

import asyncio
import statistics
import timeit
from collections.abc import Iterator

from bench.decisions import STATES, daemon
from bench.host import wait_until
from bench.table import Row
from sidecar.client import AsyncBreaker, Breaker, Source
from tests.servers import poll_until

SECTION = "A decision in the application, by sidecar.client"
LIMIT_US = 1.0
CALLS = 200_000
FOLLOW_S = 10.0


def _each_us(breaker: Breaker | AsyncBreaker, rounds: int) -> float:
    """The median round; each call is made as an application makes it, method look-up included."""
    taken = timeit.repeat("breaker.allowed()", repeat=rounds, number=CALLS, globals=locals())
    return 1e6 * statistics.median(taken) / CALLS


def _threaded(name: str, address: str, rounds: int) -> float:
    with Breaker(name, address=address, on_no_answer=False) as breaker:
        wait_until(lambda: breaker.source is Source.WATCH, FOLLOW_S, "the stream is followed", 0.01)
        return _each_us(breaker, rounds)


async def _asynchronous(name: str, address: str, rounds: int) -> float:
    async with AsyncBreaker(name, address=address, on_no_answer=False) as breaker:
        await poll_until(lambda: breaker.source is Source.WATCH, FOLLOW_S, "it is followed")
        return _each_us(breaker, rounds)


def measure(*, quick: bool) -> Iterator[Row]:
    """In each state, for threads and for asyncio."""
    rounds = 3 if quick else 15
    with daemon() as ours:
        address = f"127.0.0.1:{ours.port}"
        for state, name in STATES.items():
            for kind, value in (
                ("threads", _threaded(name, address, rounds)),
                ("asyncio", asyncio.run(_asynchronous(name, address, rounds))),
            ):
                yield Row(
                    section=SECTION,
                    what=f"allowed(), {state}, {kind}",
                    value=value,
                    unit="µs",
                    target=f"< {LIMIT_US:g} µs",
                    limit=LIMIT_US,
                    note=f"median of {rounds} rounds of {CALLS:,}",
                )
