"""The consumer kit beside a bare aiokafka loop, and with poison among what it reads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.host import BenchError, on_core
from bench.table import Row
from sidecar.consumer import Event, Limits, Permanent, RetryPolicy, Runner
from tests.kafka import Kafka

SECTION = "The consumer kit"
LEAST_RATIO = 0.8
PARTITIONS = 4
KEYS = 5000
VALUE = b"x" * 100
POISON = b"poison"
COMMIT_S = 1.0
AT_ONCE = 2000
"""Events that the bare loop takes at a time; as many as the kit has in flight."""
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Took:
    """What a round took, from the first event to the last."""

    wall_s: float
    cpu_s: float


class Watch:
    """Counts events, and stops the time between the first and the last."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._wall = self._cpu = 0.0
        self._count = count
        self._done = asyncio.Event()
        self.took = Took(0.0, 0.0)

    def tick(self) -> None:
        """One more."""
        if self._left == self._count:
            self._wall, self._cpu = time.monotonic(), time.process_time()
        self._left -= 1
        if not self._left:
            self.took = Took(time.monotonic() - self._wall, time.process_time() - self._cpu)
            self._done.set()

    async def wait(self) -> None:
        """For the last one."""
        async with asyncio.timeout(PATIENCE_S):
            await self._done.wait()


async def _fill(kafka: Kafka, topic: str, good: int, poison: int) -> None:
    """The poison is spread evenly among the good."""
    every = good // poison if poison else good + 1
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, linger_ms=20, max_batch_size=200_000
    ) as producer:
        for n in range(good):
            await producer.send(topic, VALUE, key=b"k%d" % (n % KEYS))
            if poison and n % every == 0:
                await producer.send(topic, POISON, key=b"p%d" % n)
        await producer.flush()


async def _bare(kafka: Kafka, topic: str, count: int) -> Took:
    """What one writes without a kit: take some, handle each, commit them once a second."""
    watch = Watch(count)

    async def handle(_: object) -> None:
        watch.tick()

    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap,
        group_id=uuid.uuid4().hex,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        read, committed = 0, time.monotonic()
        while read < count:
            for records in (await consumer.getmany(timeout_ms=100, max_records=AT_ONCE)).values():
                for record in records:
                    await handle(record)
                read += len(records)
            if time.monotonic() - committed >= COMMIT_S:
                await consumer.commit()
                committed = time.monotonic()
        await consumer.commit()
    finally:
        await consumer.stop()
    return watch.took


async def _kit(
    kafka: Kafka, topic: str, count: int, wait_s: float | None, *, tiers: bool = False
) -> Took:
    """The same with the kit. Without `wait_s` the handler does nothing."""
    watch = Watch(count)

    async def nothing(event: Event[bytes]) -> None:
        if event.value == POISON:
            raise Permanent("poison")
        watch.tick()

    async def waiting(event: Event[bytes]) -> None:
        if event.value == POISON:
            raise Permanent("poison")
        await asyncio.sleep(wait_s or 0.0)
        watch.tick()

    runner = Runner(
        topic,
        group=uuid.uuid4().hex,
        handler=nothing if wait_s is None else waiting,
        bootstrap_servers=kafka.bootstrap,
        limits=Limits(commit_every_s=COMMIT_S, in_flight=AT_ONCE),
        retry=RetryPolicy() if tiers else RetryPolicy(delays_s=()),
    )
    running = asyncio.create_task(runner.run(signals=False))
    try:
        await watch.wait()
    finally:
        runner.stop()
        await running
    return watch.took


def _rounds(
    number: int, ours: Callable[[], Awaitable[Took]], peers: Callable[[], Awaitable[Took]]
) -> tuple[list[Took], list[Took]]:
    """By turns, so that whatever else this machine does hits both."""
    found: tuple[list[Took], list[Took]] = ([], [])

    async def one(run: Callable[[], Awaitable[Took]]) -> Took:
        return await run()

    for _ in range(number):
        with on_core(0):
            found[0].append(asyncio.run(one(ours)))
            found[1].append(asyncio.run(one(peers)))
    return found


@contextlib.contextmanager
def _broker() -> Iterator[Kafka]:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        with on_core(1):
            kafka = Kafka().start()
    except AssertionError as missing:
        raise BenchError(str(missing)) from missing
    try:
        yield kafka
    finally:
        kafka.close()


def _of_good(kafka: Kafka, *, quick: bool) -> Iterator[Row]:
    """Events of which none fails, and a handler that does nothing."""
    count, rounds = (50_000, 1) if quick else (500_000, 7)
    topic = kafka.create_topic("bench-kit", PARTITIONS)
    asyncio.run(_fill(kafka, topic, count, 0))
    ours, peers = _rounds(
        rounds,
        lambda: _kit(kafka, topic, count, None, tiers=True),
        lambda: _bare(kafka, topic, count),
    )
    yield Row.over(
        [count / took.wall_s for took in ours],
        [count / took.wall_s for took in peers],
        section=SECTION,
        what="events a second, a handler that does nothing",
        unit="/s",
        peer="bare aiokafka loop",
        target=f"≥ {LEAST_RATIO}×",
        least_ratio=LEAST_RATIO,
    )
    yield Row.over(
        [1e6 * took.cpu_s / count for took in ours],
        [1e6 * took.cpu_s / count for took in peers],
        section=SECTION,
        what="CPU for an event, a handler that does nothing",
        unit="µs",
        peer="bare aiokafka loop",
    )


def _among_poison(kafka: Kafka, *, quick: bool) -> Iterator[Row]:
    """Good events with poison among them, beside good ones alone."""
    good, poison = (5000, 500) if quick else (100_000, 10_000)
    clean = kafka.create_topic("bench-clean", PARTITIONS)
    mixed = kafka.create_topic("bench-poison", PARTITIONS)
    asyncio.run(_fill(kafka, clean, good, 0))
    asyncio.run(_fill(kafka, mixed, good, poison))
    for wait_s, what, least in (
        (0.001, "waits 1 ms", LEAST_RATIO),
        (None, "does nothing", None),
    ):
        ours, peers = _rounds(
            1 if quick else 3,
            partial(_kit, kafka, mixed, good, wait_s),
            partial(_kit, kafka, clean, good, wait_s),
        )
        yield Row.over(
            [good / took.wall_s for took in ours],
            [good / took.wall_s for took in peers],
            section=SECTION,
            what=f"good events a second among {poison:,} poison, a handler that {what}",
            unit="/s",
            peer="without poison",
            target=f"≥ {LEAST_RATIO}×" if least else "",
            least_ratio=least,
        )


def measure(*, quick: bool) -> Iterator[Row]:
    """Events a second: a handler that does nothing, then good events with poison among them."""
    with _broker() as kafka:
        yield from _of_good(kafka, quick=quick)
        yield from _among_poison(kafka, quick=quick)
