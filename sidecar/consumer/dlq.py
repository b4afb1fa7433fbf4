"""Dead-letter topics from outside any group: looking, putting back, deleting. Everything ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from sidecar.consumer.headers import replayed
from sidecar.consumer.letters import SUFFIX, Letter, Wanted, letter_of
from sidecar.consumer.sink import KafkaSink, Sink, SinkFailed
from sidecar.consumer.taking import FAULTS, Taker
from sidecar.consumer.told import words

SILENCE_S = 10.0
"""So long nothing comes of what must be there: then it doesn't."""
SCANNED = 500
"""Letters that are looked at together, at most."""
AT_ONCE = 200
"""Letters that are put back are under way together, at most."""


class Unreachable(Exception):
    """Kafka gave no answer, or none in time."""


class NoSuchTopic(Exception):
    """There is no such dead-letter topic."""

    def __init__(self, topic: str, there: list[str]) -> None:
        known = f"; there are {', '.join(there)}" if there else "; there is none at all"
        super().__init__(f"there is no topic {topic}{known}")


@dataclass(slots=True)
class Replayed:
    """What came of putting letters back."""

    seen: int = 0
    put_back: int = 0
    failed: str | None = None
    """What ended it too early."""
    topics: dict[str, int] = field(default_factory=dict)
    """How many went where."""


class DeadLetters:
    """Kafka's dead-letter topics.

    Args:
        options: of every client of aiokafka's, `bootstrap_servers` among them.
        timeout_s: for each call of Kafka.
    """

    def __init__(self, options: Mapping[str, Any], timeout_s: float) -> None:
        self._options = dict(options)
        self._timeout_s = timeout_s

    def sink(self) -> KafkaSink:
        """Where letters are put back; whoever asks for it stops it."""
        client = {k: v for k, v in self._options.items() if k != "bootstrap_servers"}
        return KafkaSink(
            bootstrap_servers=self._options["bootstrap_servers"],
            client=client,
            timeout_s=self._timeout_s,
        )

    async def topics(self) -> dict[str, int]:
        """All dead-letter topics, with how many letters each has. Raises Unreachable."""
        counts = dict.fromkeys(await self._names(), 0)
        if counts:
            async with self._consumer() as consumer:
                begins, ends = await self._bounds(consumer, counts)
            for tp, end in ends.items():
                counts[tp.topic] += end - begins[tp]
        return counts

    async def find(self, name: str) -> str:
        """The dead-letter topic of this name, or of the topic of this name.

        Raises NoSuchTopic, Unreachable.
        """
        there = await self._names()
        for topic in (name, name + SUFFIX):
            if topic in there:
                return topic
        raise NoSuchTopic(name if name.endswith(SUFFIX) else name + SUFFIX, there)

    async def _names(self) -> list[str]:
        async with self._admin() as admin:
            return sorted(t for t in await admin.list_topics() if t.endswith(SUFFIX))

    async def scan(self, topic: str, wanted: Wanted) -> AsyncGenerator[Letter, None]:
        """What the topic has now that is meant, partition by partition. Raises Unreachable.

        Whoever leaves before its end closes it (`aclosing`).
        """
        async with self._consumer() as consumer:
            begins, ends = await self._bounds(consumer, [topic])
            if wanted.places:
                begins, ends = _narrowed(begins, ends, wanted.places)
            left = {tp for tp in ends if begins[tp] < ends[tp]}
            consumer.assign(sorted(left))
            for tp in left:
                consumer.seek(tp, begins[tp])
            heard, taker = time.monotonic(), Taker(consumer)
            while left:
                batch = await taker.take(SCANNED, 0.5)
                heard = time.monotonic() if batch else heard
                if time.monotonic() - heard > SILENCE_S:
                    raise Unreachable(f"nothing more of {topic} came for {SILENCE_S:g} s")
                for tp, records in batch.items():
                    inside = (record for record in records if record.offset < ends[tp])
                    for letter in (letter_of(record, topic) for record in inside):
                        if wanted.matches(letter):
                            yield letter
                left = {tp for tp in left if await consumer.position(tp) < ends[tp]}

    async def replay(
        self,
        topic: str,
        wanted: Wanted,
        sink: Sink,
        *,
        to: str | None = None,
        rate: float = 0.0,
        dry_run: bool = False,
    ) -> Replayed:
        """Put letters back where they came from, without what the kit wrote into their headers.

        They stay on the dead-letter topic. It ends at the first that can't be written; what was
        written by then is counted. Raises Unreachable.

        Args:
            to: another topic than that which they came from.
            rate: letters a second; 0: as many as Kafka takes.
        """
        done = Replayed()
        pending: set[asyncio.Task[None]] = set()
        began = time.monotonic()
        async with aclosing(self.scan(topic, wanted)) as letters:
            async for letter in letters:
                target = letter.origin.topic if to is None else to
                done.seen += 1
                if dry_run:
                    done.topics[target] = done.topics.get(target, 0) + 1
                    continue
                if rate:
                    due = began + (done.seen - 1) / rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                pending.add(asyncio.create_task(self._put_back(letter, target, sink, done)))
                if len(pending) >= AT_ONCE:
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if done.failed is not None:
                    break
        if pending:
            await asyncio.wait(pending)
        return done

    @staticmethod
    async def _put_back(letter: Letter, target: str, sink: Sink, done: Replayed) -> None:
        headers = replayed(letter.headers, letter.origin.replays + 1)
        try:
            await sink.send(target, letter.key, letter.value, headers)
        except SinkFailed as error:
            done.failed = done.failed or str(error)
        else:
            done.put_back += 1
            done.topics[target] = done.topics.get(target, 0) + 1

    async def purge(self, topic: str, before_at: float | None, *, dry_run: bool) -> int:
        """Delete the letters that failed before (None: all); how many those are.

        Kafka deletes from the beginning of a partition on: the first letter that is to stay keeps
        all behind it. Raises Unreachable.
        """
        async with self._consumer() as consumer:
            begins, ends = await self._bounds(consumer, [topic])
        until = dict(ends)
        if before_at is not None:
            async for letter in self.scan(topic, Wanted(since_at=before_at)):
                tp = TopicPartition(topic, letter.partition)
                until[tp] = min(until.get(tp, letter.offset), letter.offset)
        count: int = sum(until[tp] - begins[tp] for tp in begins)
        if count and not dry_run:
            async with self._admin() as admin:
                await admin.delete_records(
                    {tp: RecordsToDelete(before_offset=until[tp]) for tp in begins}
                )
        return count

    async def _bounds(
        self, consumer: Any, topics: Collection[str]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """The first offset of each partition, and the one after the last."""
        async with self._admin() as admin:
            described = await admin.describe_topics(list(topics))
        tps = [
            TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]
        ]
        async with asyncio.timeout(self._timeout_s):
            # All of them at once: of each that it must find itself, aiokafka asks one by one.
            await consumer._client.set_topics(topics)
            return await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            **self._options, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        async with self._open(consumer.start, consumer.stop):
            yield consumer

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        admin = AIOKafkaAdminClient(**self._options)
        async with self._open(admin.start, admin.close):
            yield admin

    @asynccontextmanager
    async def _open(self, start: Callable[[], Any], stop: Callable[[], Any]) -> AsyncIterator[None]:
        """A client, from its start to its end, both of them bounded."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await start()
            yield
        except FAULTS as error:
            raise Unreachable(f"Kafka: {words(error)}") from error
        finally:
            with suppress(TimeoutError, KafkaError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    await stop()


def _narrowed(
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    places: Collection[tuple[int, int]],
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """As little as holds these places."""
    first: dict[TopicPartition, int] = {}
    last: dict[TopicPartition, int] = {}
    for tp in ends:
        if offsets := [offset for partition, offset in places if partition == tp.partition]:
            first[tp] = max(begins[tp], min(offsets))
            last[tp] = min(ends[tp], max(offsets) + 1)
    return first, last
