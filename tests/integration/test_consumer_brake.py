"""The kit's brake on a real Kafka: held while nothing succeeds, released once something does."""

from __future__ import annotations

import asyncio

from sidecar.consumer import Event, Limits, RetryPolicy, Runner
from tests.kafka import Kafka
from tests.servers import poll_until

EVENTS = 40
HELD_BACK = 5


async def test_it_lets_go_also_when_all_that_was_in_line_has_failed(
    kafka: Kafka, prefix: str
) -> None:
    """Every event in line went to the retry topic: the next trial needs another one."""
    topic = kafka.create_topic(prefix, 2)
    kafka.produce(topic, [b"%d" % n for n in range(EVENTS)])
    healthy = False
    tried: list[bytes | None] = []
    handled: set[bytes | None] = set()

    async def handle(event: Event[bytes]) -> None:
        tried.append(event.value)
        if not healthy:
            raise ConnectionError("the database is away")
        handled.add(event.value)

    runner = Runner(
        topic,
        group=prefix,
        handler=handle,
        bootstrap_servers=kafka.bootstrap,
        retry=RetryPolicy(in_place=0, delays_s=(1.0, 120.0)),
        limits=Limits(
            concurrency=2,
            in_flight=8,
            brake_after=HELD_BACK,
            brake_first_s=0.05,
            brake_most_s=0.1,
        ),
    )
    running = asyncio.create_task(runner.run(signals=False))
    try:
        await poll_until(lambda: len(set(tried)) > 12, 60.0, "more is tried than was in line")
        healthy = True
        await poll_until(
            lambda: len(handled | set(tried)) == EVENTS, 60.0, "all the others are read again"
        )
        # Those that failed wait on retry topics: most for a second, few for two minutes.
        await poll_until(lambda: len(handled) > EVENTS / 2, 60.0, "most are handled")
    finally:
        runner.stop()
        await running
