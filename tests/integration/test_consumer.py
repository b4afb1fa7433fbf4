"""The consumer kit on a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.consumer import Event, Limits, Permanent, RetryPolicy, Runner
from sidecar.consumer.headers import number_of, text_of
from tests.kafka import Kafka
from tests.servers import poll_until

PATIENCE_S = 30.0


@pytest.fixture
def topic(kafka: Kafka, prefix: str) -> str:
    """A topic of four partitions that nobody else uses."""
    return kafka.create_topic(prefix, 4)


@asynccontextmanager
async def running(runner: Runner[Any]) -> AsyncIterator[Runner[Any]]:
    """A runner that has joined; afterwards it is stopped and must have ended well."""
    task = asyncio.create_task(runner.run(signals=False))
    joined = asyncio.create_task(runner.joined())
    await asyncio.wait({task, joined}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield runner
    finally:
        runner.stop()
        await asyncio.wait_for(task, PATIENCE_S)


def quick(kafka: Kafka, topic: str, handler: Any, **more: Any) -> Runner[Any]:
    """A runner with short pauses."""
    settings: dict[str, Any] = {
        "group": f"g-{topic}",
        "handler": handler,
        "bootstrap_servers": kafka.bootstrap,
        "retry": RetryPolicy(in_place=1, first_s=0.02, delays_s=(0.5, 1.0)),
        "limits": Limits(commit_every_s=0.1),
        **more,
    }
    return Runner(topic, **settings)


async def test_each_event_is_handled_retried_or_set_aside_and_all_of_it_committed(
    kafka: Kafka, topic: str
) -> None:
    kafka.produce(topic, [b"%d" % n for n in range(300)])
    seen: list[tuple[int, int, int]] = []

    async def handle(event: Event[bytes]) -> None:
        number = int(event.value)
        if number == 7:
            raise Permanent("never")
        if number == 8 and event.attempt < 4:
            raise ConnectionError("away for a while")
        if number == 9:
            raise ConnectionError("away for ever")
        seen.append((number, event.tier, event.attempt))

    async with running(quick(kafka, topic, handle)) as runner:
        await poll_until(lambda: len(seen) >= 298, PATIENCE_S, "all good events are handled")
        dead = await asyncio.to_thread(kafka.read, f"{topic}.dlq", 2, within_s=PATIENCE_S)
        counts = runner.flow.counts[topic]

    assert sorted(number for number, *_ in seen) == [n for n in range(300) if n not in {7, 9}]
    assert [s for s in seen if s[0] == 8] == [(8, 1, 4)]
    assert (counts["handled"], counts["dead"], counts["later"]) == (298, 2, 3)
    letters = {record.value: record.headers for record in dead}
    assert text_of(letters[b"7"], "breaker-reason") == "permanent"
    assert text_of(letters[b"7"], "breaker-error") == "Permanent: never"
    assert "in handle" in (text_of(letters[b"7"], "breaker-stack") or "")
    assert number_of(letters[b"7"], "breaker-attempts") == 1
    assert text_of(letters[b"9"], "breaker-reason") == "exhausted"
    assert number_of(letters[b"9"], "breaker-attempts") == 6
    assert text_of(letters[b"9"], "breaker-topic") == topic
    committed = kafka.committed(f"g-{topic}", topic)
    assert committed == {p: end for p, end in kafka.end_offsets(topic).items() if end}
