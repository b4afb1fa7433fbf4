"""A reader of two clusters, for tests to kill: it writes down what it handles and what it is told.

Lines of the file, each written at once: `given P N PRODUCER/INCARNATION/COUNTER` (record N of
partition P), `late P N`, `gap P PRODUCER INCARNATION FIRST LAST`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable

from sidecar.consumer import Dual, Event, Gap, Limits, RetryPolicy, Runner
from sidecar.consumer.merge import SEQUENCE
from sidecar.consumer.source import Place, Record
from tests.publish_crash import number_of

WAIT_S = 60.0
"""Longer than any cluster is away: whatever one of them has is waited for."""


def of_both(
    servers: tuple[str, str],
    topic: str,
    handle: Callable[[Event[bytes]], Awaitable[None]],
    *,
    wait_s: float,
    on_gap: Callable[[Place, Gap], None],
    on_late: Callable[[Record], None],
    create_topics: bool = True,
) -> tuple[Runner[bytes], Dual]:
    """A runner on both clusters, and its source."""
    first, second = servers
    dual = Dual(
        topic,
        first=first,
        second=second,
        wait_s=wait_s,
        timeout_s=3.0,
        on_gap=on_gap,
        on_late=on_late,
    )
    runner = Runner(
        topic,
        group=f"g-{topic}",
        handler=handle,
        bootstrap_servers=first,
        retry=RetryPolicy(delays_s=()),
        limits=Limits(concurrency=1, commit_every_s=0.1),
        create_topics=create_topics,
        source=dual,
    )
    return runner, dual


def reader(first: str, second: str, topic: str, path: str) -> Runner[bytes]:
    """One that goes on where its predecessor was killed."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(*said: object) -> None:
        os.write(file, (" ".join(map(str, said)) + "\n").encode())

    async def handle(event: Event[bytes]) -> None:
        stamp = (event.header(SEQUENCE) or b"none").decode()
        write("given", event.record.partition, number_of(event.value), stamp)

    def late(record: Record) -> None:
        write("late", record.partition, number_of(record.value or b""))

    def gap(place: Place, told: Gap) -> None:
        write("gap", place.partition, *told)

    runner, _ = of_both(
        (first, second),
        topic,
        handle,
        wait_s=WAIT_S,
        on_gap=gap,
        on_late=late,
        create_topics=False,  # the first cluster may be away
    )
    return runner


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(reader(*sys.argv[1:5]).run())
