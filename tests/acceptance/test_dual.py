"""A topic on two clusters of which one is killed and comes back: written by a sidecar, read by the
kit."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.consumer import Dual, Event, Limits, RetryPolicy, Runner
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import poll_until

pytestmark = pytest.mark.kafka

PATIENCE_S = 40.0
RAW = {"Content-Type": "application/octet-stream"}
Clusters = tuple[Kafka, Kafka]


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    with Kafka() as first, Kafka() as second:
        yield first, second


@pytest.fixture
def topic(clusters: Clusters) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    for kafka in clusters:
        kafka.create_topic(name, 2)
    return name


class Producer:
    """Hands over numbered records, and knows which of them were accepted."""

    def __init__(self, daemon: Daemon, topic: str) -> None:
        self._daemon, self._topic = daemon, topic
        self.accepted: dict[int, list[int]] = {0: [], 1: []}
        self._next = 0

    def send(self) -> dict[str, Any]:
        """One record; where it went."""
        number, self._next = self._next, self._next + 1
        answer = self._daemon.request(
            "POST",
            f"/v1/publish/{self._topic}",
            b"%d" % number,
            {**RAW, "Kafka-Partition": str(number % 2)},
            timeout_s=30.0,
        )
        assert answer.status in {200, 202}, answer.body
        self.accepted[number % 2].append(number)
        return dict(answer.body)

    async def send_until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Some a second, until an answer is of that kind."""
        until = time.monotonic() + PATIENCE_S
        while not holds(await asyncio.to_thread(self.send)):
            assert time.monotonic() < until, what
            await asyncio.sleep(0.02)


@asynccontextmanager
async def reading(
    clusters: Clusters, topic: str
) -> AsyncIterator[tuple[Dual, dict[int, list[int]]]]:
    """A runner on both, and what it has handled."""
    seen: dict[int, list[int]] = defaultdict(list)

    async def handle(event: Event[bytes]) -> None:
        seen[event.record.partition].append(int(event.value))

    first, second = (kafka.bootstrap for kafka in clusters)
    dual = Dual(topic, first=first, second=second, wait_s=3.0, timeout_s=5.0)
    runner = Runner(
        topic,
        group=f"g-{topic}",
        handler=handle,
        bootstrap_servers=first,
        retry=RetryPolicy(delays_s=()),
        limits=Limits(concurrency=1, commit_every_s=0.2),
        source=dual,
    )
    task = asyncio.create_task(runner.run(signals=False))
    try:
        yield dual, seen
    finally:
        runner.stop()
        await asyncio.wait_for(task, PATIENCE_S)


def config(clusters: Clusters, topic: str, folder: Path) -> dict[str, Any]:
    first, second = ([kafka.bootstrap] for kafka in clusters)
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": first},
        "kafka_second": {"bootstrap_servers": second},
        "spool": {"dir": str(folder)},
        "publish": {"delivery_timeout": "1s", "topics": {topic: {"outage": "dual"}}},
    }


async def test_a_killed_cluster_loses_nothing_and_takes_part_again(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    first, second = clusters
    with Daemon(config(clusters, topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        async with reading(clusters, topic) as (dual, seen):
            for cluster in ("first", "second"):  # whichever is quicker, each gets its copies

                def there(kafka: Kafka = first if cluster == "first" else second) -> bool:
                    producer.send()
                    return sum(kafka.end_offsets(topic).values()) > 5

                await poll_until(
                    lambda: asyncio.to_thread(there), PATIENCE_S, f"{cluster} has copies"
                )
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")

            await asyncio.to_thread(first.broker.kill)
            for _ in range(60):
                await asyncio.to_thread(producer.send)
            assert (await asyncio.to_thread(producer.send))["cluster"] == "second"
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "nobody waits for it")

            await asyncio.to_thread(first.start)
            metric = 'breaker_publish_copies_total{cluster="first",outcome="confirmed"'

            def confirmed() -> str:
                text = daemon.get("/metrics").content.decode()
                return next(line for line in text.splitlines() if line.startswith(metric))

            before = confirmed()
            await producer.send_until(lambda _: confirmed() != before, "the first takes copies")
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")
            figures = dual.figures

            # The other one goes, so that only what came back is left.
            await asyncio.to_thread(second.broker.kill)
            await producer.send_until(lambda b: b.get("cluster") == "first", "the first confirms")
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")
            await asyncio.to_thread(second.start)
    assert (figures.gaps, figures.lost, figures.late) == (0, 0, 0)
    assert figures.copies > 0
    assert figures.given == sum(map(len, producer.accepted.values()))
    for kafka in clusters:
        committed = kafka.committed(f"g-{topic}", topic)
        assert committed, "each cluster knows what is done"


async def test_what_neither_takes_is_spooled_and_comes_once(
    clusters: Clusters, topic: str, tmp_path: Path
) -> None:
    with Daemon(config(clusters, topic, tmp_path)) as daemon:
        producer = Producer(daemon, topic)
        async with reading(clusters, topic) as (dual, seen):
            for _ in range(6):
                await asyncio.to_thread(producer.send)
            await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all are handled")
            for kafka in clusters:
                kafka.broker.freeze()
            try:
                answers = [await asyncio.to_thread(producer.send) for _ in range(6)]
            finally:
                for kafka in clusters:
                    kafka.broker.thaw()
            assert {answer["status"] for answer in answers} == {"spooled"}
            daemon.kill()
            with Daemon(config(clusters, topic, tmp_path)) as again:
                producer._daemon = again
                for _ in range(6):
                    await asyncio.to_thread(producer.send)
                await poll_until(lambda: seen == producer.accepted, PATIENCE_S, "all came, once")
            assert (dual.figures.gaps, dual.figures.late) == (0, 0)
