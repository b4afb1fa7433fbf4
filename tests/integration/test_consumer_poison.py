"""Ten thousand poison events among good ones: set aside whole, put back, and stale ones dropped."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from sidecar.consumer import (
    Event,
    Limits,
    MemoryStore,
    Permanent,
    RetryPolicy,
    Runner,
    by_header,
    version_header,
)
from sidecar.consumer.dlq import DeadLetters
from sidecar.consumer.headers import number_of
from sidecar.consumer.letters import Letter, Wanted
from tests.kafka import Kafka
from tests.servers import poll_until

POISON = 10_000
EVENTS = 2 * POISON
PATIENCE_S = 120.0


async def produce(kafka: Kafka, topic: str) -> None:
    """Of each key a poison event of version 1; of every other key a good one of version 2 behind.

    The rest are good events of keys of their own.
    """
    async with AIOKafkaProducer(**kafka.client_options(), linger_ms=10) as producer:
        for version, step in ((1, 1), (2, 2)):
            for n in range(0, POISON, step):
                key = b"key-%d" % n
                headers = [("id", b"%s-%d" % (key, version)), ("version", b"%d" % version)]
                value = b"poison" if version == 1 else b"good"
                await producer.send(topic, value, key=key, headers=headers)
        for n in range(POISON // 2):
            await producer.send(topic, b"good", key=b"other-%d" % n, headers=[("id", b"o%d" % n)])
        await producer.flush()


async def letters(dead: DeadLetters, topic: str) -> list[Letter]:
    return [letter async for letter in dead.scan(f"{topic}.dlq", Wanted())]


@pytest.mark.slow
async def test_they_are_set_aside_whole_and_only_those_that_still_matter_come_back(
    kafka: Kafka, prefix: str
) -> None:
    topic = kafka.create_topic(prefix, 4)
    await produce(kafka, topic)
    mended = False
    handled: list[tuple[bytes | None, bytes]] = []

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"poison" and not mended:
            raise Permanent(f"can't digest {event.key!r}")
        handled.append((event.key, event.value))

    runner = Runner(
        topic,
        group=topic,
        handler=handle,
        bootstrap_servers=kafka.bootstrap,
        store=MemoryStore(),
        identity=by_header("id"),
        version=version_header("version"),
        retry=RetryPolicy(delays_s=()),
        limits=Limits(commit_every_s=0.5),
    )
    dead = DeadLetters(kafka.client_options(), 10.0)
    running = asyncio.create_task(runner.run(signals=False))
    try:
        await poll_until(lambda: len(handled) == POISON, PATIENCE_S, "all good events are handled")
        await poll_until(lambda: runner.flow.open == 0, PATIENCE_S, "all others are set aside")
        found = await letters(dead, topic)
        assert sorted(letter.key or b"" for letter in found) == sorted(
            b"key-%d" % n for n in range(POISON)
        )
        for letter in found:
            assert letter.reason == "permanent"
            assert letter.error == f"Permanent: can't digest {letter.key!r}"
            assert "in handle" in (letter.stack or "")
            assert (letter.origin.topic, letter.origin.attempts, letter.group) == (topic, 1, topic)
            assert letter.origin.timestamp_ms > 0
            assert number_of(letter.headers, "version") == 1
        places = {(letter.origin.partition, letter.origin.offset) for letter in found}
        assert len(places) == POISON

        mended = True
        sink = dead.sink()
        done = await dead.replay(f"{topic}.dlq", Wanted(), sink)
        await sink.stop()
        assert (done.put_back, done.failed) == (POISON, None)
        counts = runner.flow.counts[topic]
        await poll_until(
            lambda: counts["handled"] + counts["stale"] == EVENTS, PATIENCE_S, "all are done with"
        )
    finally:
        runner.stop()
        await running
    # Of the keys that have a newer event by now, the old one is stale.
    assert (counts["stale"], counts["known"], counts["dead"]) == (POISON // 2, 0, POISON)
    again = {key for key, value in handled if value == b"poison"}
    assert again == {b"key-%d" % n for n in range(1, POISON, 2)}
    committed = kafka.committed(topic, topic)
    assert committed == {p: end for p, end in kafka.end_offsets(topic).items() if end}
