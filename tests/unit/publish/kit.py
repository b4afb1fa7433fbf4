"""A Kafka and a spool of paper, and a desk between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from sidecar.core.absence import Presence
from sidecar.core.errors import SpoolFault
from sidecar.core.idempotency import MemoryKeys
from sidecar.core.outage import Outage
from sidecar.core.pacing import Pace
from sidecar.core.publishing import (
    DeliveryFault,
    Draft,
    NeverDelivered,
    NotListed,
    Outcome,
    PublishPolicy,
    Refusal,
    TopicPolicy,
)
from sidecar.core.spooling import Accepted, Adopted, Backlog, GivenUp, NewRecord, Spool, Stored
from sidecar.publish.around import Around
from sidecar.publish.deadletters import DeadLetters
from sidecar.publish.desk import Desk
from sidecar.publish.pair import Pair
from sidecar.publish.placements import Placements
from tests.telemetry import RecordedTelemetry

TOPIC = "orders"


class PaperKafka:
    """The port `Carrier`: keeps what it takes, and fails on demand."""

    def __init__(self, partitions: int | None = 3) -> None:
        self.count = partitions
        self.logs: dict[tuple[str, int], list[NewRecord]] = {}
        self.fault: DeliveryFault | None = None
        """What each send and look meets."""
        self.down: set[int] = set()
        """Partitions that fail alone."""
        self.takes: asyncio.Event | None = None
        """Cleared: sends wait."""
        self.said = Presence.PRESENT
        """What brokers say of the topic; sends succeed only where that is PRESENT."""
        self.poison: bytes | None = None
        """A value that makes a whole batch be refused."""
        self.sends = 0
        self.looks = 0
        self.told = True
        """False: how many partitions there are is told to who asks alone, for the first time."""
        self.waiting = 0
        self.closed = False

    def partitions(self, topic: str) -> int | None:
        return self.count if self.fault is None and self.told else None

    async def look(self, topic: str, within_s: float) -> int:
        self.looks += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        if self.count is None:
            raise NeverDelivered(Refusal.UNKNOWN_TOPIC, f"no {topic}")
        self.told = True
        return self.count

    async def presence(self, topic: str, within_s: float) -> Presence:
        await asyncio.sleep(0)
        return self.said if self.fault is None else Presence.UNREACHABLE

    async def send(
        self, topic: str, partition: int, records: Sequence[NewRecord], within_s: float
    ) -> int | None:
        self.sends += 1
        await asyncio.sleep(0)
        if self.takes is not None:
            self.waiting += 1
            try:
                await self.takes.wait()
            finally:
                self.waiting -= 1
        if self.fault is not None:
            raise self.fault
        if self.said is not Presence.PRESENT:
            raise NotListed(topic)
        if partition in self.down:
            raise DeliveryFault("no leader", unsent=True)
        if any(record.value == self.poison is not None for record in records):
            raise NeverDelivered(Refusal.TOO_LARGE, "too large")
        log = self.logs.setdefault((topic, partition), [])
        log += records
        return len(log) - len(records)

    async def close(self) -> None:
        self.closed = True

    def values(self, partition: int) -> list[bytes | None]:
        return [record.value for record in self.logs.get((TOPIC, partition), [])]

    @property
    def total(self) -> int:
        return sum(map(len, self.logs.values()))


class PaperSpool:
    """The port `Spool`, in lists; settles keys as the real one does."""

    def __init__(self) -> None:
        self.lists: dict[tuple[str, int], list[Stored]] = {}
        self.ends: dict[tuple[str, int], tuple[int, int]] = {}
        self.fault: str | None = None
        self.refuses: SpoolFault | None = None
        self.takes: asyncio.Event | None = None
        """Cleared: the disk hangs."""
        self.keys = MemoryKeys()
        self.orphans = 0
        self.still: set[str] = set()
        self.appends = 0
        self.heard_by: dict[tuple[str, int], Callable[[GivenUp], None] | None] = {}
        self.reads: list[int] = []
        """How many records each brought."""

    async def append(self, topic: str, partition: int, records: Sequence[NewRecord]) -> range:
        self.appends += 1
        await asyncio.sleep(0)
        if self.takes is not None:
            await self.takes.wait()
        if self.refuses is not None:
            raise self.refuses
        done, last = self.ends.get((topic, partition), (0, 0))
        seqs = range(last + 1, last + 1 + len(records))
        self.lists.setdefault((topic, partition), []).extend(map(Stored, seqs, records))
        self.ends[topic, partition] = (done, last + len(records))
        for seq, record in zip(seqs, records, strict=True):
            if record.idempotency is not None:
                accepted = Accepted(partition=partition, seq=seq, spooled=True)
                self.keys.settle(topic, record.idempotency, accepted, record.accepted_at)
        return seqs

    async def read(
        self,
        topic: str,
        partition: int,
        *,
        after: int = 0,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
    ) -> Sequence[Stored]:
        await asyncio.sleep(0)
        waiting = [s for s in self.lists.get((topic, partition), []) if s.seq > after]
        self.reads.append(len(waiting[:max_records]))
        return waiting[:max_records]

    def hear(self, topic: str, partition: int, hear: Callable[[GivenUp], None] | None) -> None:
        self.heard_by[topic, partition] = hear

    def give_up(self, topic: str, partition: int, records: int) -> None:
        """The oldest make room; it is told soon."""
        waiting = self.lists[topic, partition]
        first, last = waiting[0].seq, waiting[records - 1].seq
        del waiting[:records]
        self.ends[topic, partition] = (last, self.ends[topic, partition][1])
        hear = self.heard_by[topic, partition]
        assert hear is not None
        asyncio.get_running_loop().call_soon(hear, GivenUp(first, last, records, "full"))

    async def done(self, topic: str, partition: int, seq: int) -> None:
        await asyncio.sleep(0)
        done, last = self.ends[topic, partition]
        self.ends[topic, partition] = (max(done, seq), last)
        self.lists[topic, partition] = [s for s in self.lists[topic, partition] if s.seq > seq]

    def backlog(self, topic: str, partition: int) -> Backlog:
        waiting = self.lists.get((topic, partition), [])
        done, last = self.ends.get((topic, partition), (0, 0))
        return Backlog(
            topic=topic,
            partition=partition,
            records=len(waiting),
            bytes=100 * len(waiting),
            oldest_at=waiting[0].record.accepted_at if waiting else None,
            done_seq=done,
            last_seq=last,
        )

    def backlogs(self) -> Sequence[Backlog]:
        return [self.backlog(*at) for at in self.lists]

    async def pause(self, topic: str, paused: bool) -> None:
        if self.takes is not None:
            await self.takes.wait()
        (self.still.add if paused else self.still.discard)(topic)

    def paused(self, topic: str) -> bool:
        return topic in self.still

    async def adopt(self) -> Sequence[Adopted]:
        return ()

    async def close(self) -> None:
        return


class Runner:
    """Runs tasks as they are; a defect in one fails the test."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await loop()

        self.tasks.append(asyncio.get_running_loop().create_task(run(), name=name))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for ended in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


class Shop:
    """A desk and its surroundings."""

    def __init__(self, desk: Desk, around: Around, kafka: PaperKafka, spool: PaperSpool) -> None:
        self.desk, self.around, self.kafka, self.spool = desk, around, kafka, spool
        self.telemetry = around.telemetry

    async def publish(
        self,
        *values: bytes,
        key: bytes | None = b"k",
        partition: int | None = None,
        delivered: bool = False,
        once: tuple[str, bytes] | None = None,
    ) -> list[Outcome]:
        drafts = [Draft(key, value, (), partition) for value in values]
        return await self.desk.publish(TOPIC, drafts, delivered=delivered, idempotency=once)


@asynccontextmanager
async def shop(
    outage: Outage,
    *,
    kafka: PaperKafka | None = None,
    second: PaperKafka | None = None,
    spool: Spool | None = None,
    timeout_s: float = 2.0,
    delivery_timeout_s: float = 0.3,
    max_outstanding: int = 10_000,
    missing_topic_after_s: float = 3600.0,
    letters: DeadLetters | None = None,
) -> AsyncIterator[Shop]:
    """A desk for one topic with that strategy; short timeouts, so that nothing waits in vain."""
    settings = PublishPolicy(
        timeout_s=timeout_s,
        delivery_timeout_s=delivery_timeout_s,
        missing_topic_after_s=missing_topic_after_s,
        topics={TOPIC: TopicPolicy(outage=outage, max_outstanding=max_outstanding)},
    )
    loop, own_kafka, own_spool = asyncio.get_running_loop(), kafka or PaperKafka(), spool
    telemetry, pair = RecordedTelemetry(), None
    if second is not None:
        pair = Pair(own_kafka, second, producer="alloc", telemetry=telemetry)
        pair.incarnation = 7
    around = Around(
        policy=settings,
        carrier=own_kafka,
        pair=pair,
        spool=(own_spool or PaperSpool()) if outage.spools else None,
        letters=letters,
        pace=Pace(1e9),
        telemetry=telemetry,
        now=loop.time,
        wall=lambda: 1_795_000_000.0 + loop.time(),
        draw=lambda: 0.0,
    )
    runner = Runner()
    desk = Desk(around, runner, Placements(None))
    await desk.start(1.0)
    paper = around.spool if isinstance(around.spool, PaperSpool) else PaperSpool()
    try:
        yield Shop(desk, around, own_kafka, paper)
    finally:
        await runner.stop()
        await desk.close()
