"""A real Kafka for the tests, and what a test does to it from outside.

What a test does to a topic or a group (create, produce, commit, look) are blocking calls with
deadlines, which also work inside a running event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import OffsetAndMetadata

from tools.servers.kafka import START_DEADLINE_S, Broker, KafkaCluster, blocking
from tools.servers.waiting import listens, poll_until_sync

__all__ = ["Broker", "Kafka", "blocking", "listens"]

T = TypeVar("T")


class Kafka(KafkaCluster):
    """A cluster on loopback. A context manager; `start` returns once all brokers serve."""

    def ask(self, work: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """One piece of work with an admin client."""

        async def run() -> T:
            admin = self._admin()
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()

        return blocking(run())

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        replication: int = 1,
        placement: Mapping[int, Sequence[int]] | None = None,
        **config: str,
    ) -> str:
        """Make a topic and wait until each partition's leader serves it; returns the name.

        Args:
            placement: the brokers of each partition, the preferred leader first.
            config: the topic's, with _ for dots.
        """
        topic = NewTopic(
            name,
            -1 if placement else partitions,
            -1 if placement else replication,
            replica_assignments={p: list(on) for p, on in placement.items()} if placement else None,
            topic_configs={key.replace("_", "."): value for key, value in config.items()},
        )

        async def create(admin: AIOKafkaAdminClient) -> None:
            for _, code, *_ in (await admin.create_topics([topic])).topic_errors:
                if code:
                    raise for_code(code)

        self.ask(create)
        expected = len(placement) if placement else partitions

        def led() -> bool:
            everybodys = [self.leaders(name, node) for node in self._running()]
            return all(
                len(leaders) == expected and min(leaders.values()) > 0 for leaders in everybodys
            )

        poll_until_sync(led, START_DEADLINE_S, f"every broker knows the leaders of {name}")
        leaders = self.leaders(name)
        # A broker knows what it leads a moment before it does.
        poll_until_sync(
            lambda: self.ask(lambda admin: _served(admin, name, leaders)),
            START_DEADLINE_S,
            f"{name} is served",
        )
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until nobody lists it."""

        async def delete(admin: AIOKafkaAdminClient) -> None:
            await admin.delete_topics([name])

        async def gone(admin: AIOKafkaAdminClient) -> bool:
            return name not in await admin.list_topics()

        self.ask(delete)
        poll_until_sync(lambda: self.ask(gone), START_DEADLINE_S, f"{name} is gone")

    def leaders(self, topic: str, node: int | None = None) -> dict[int, int]:
        """The leading broker of each partition, as one broker knows it; -1 where there is none."""
        return {p["partition"]: p["leader"] for p in self._partitions(topic, node)}

    def in_sync(self, topic: str, node: int | None = None) -> dict[int, list[int]]:
        """The brokers that have all of each partition, as one broker knows it."""
        return {p["partition"]: p["isr"] for p in self._partitions(topic, node)}

    def _partitions(self, topic: str, node: int | None) -> list[dict[str, Any]]:
        asked = node or self._running()[0]

        async def look(admin: AIOKafkaAdminClient) -> list[dict[str, Any]]:
            told = await admin._send_request_to_node(asked, MetadataRequest([topic]))
            (found,) = told.to_object()["topics"]
            partitions: list[dict[str, Any]] = found["partitions"]
            return partitions

        return self.ask(look)

    def _running(self) -> list[int]:
        return [node for node, broker in self.brokers.items() if broker.running]

    def produce(self, topic: str, values: Sequence[bytes], *, partition: int | None = None) -> None:
        """Send records and wait for all of them."""

        async def send() -> None:
            async with AIOKafkaProducer(**self.client_options()) as producer:
                sent = [await producer.send(topic, value, partition=partition) for value in values]
                await asyncio.gather(*sent)

        blocking(send())

    def end_offsets(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""

        async def look() -> dict[int, int]:
            async with AIOKafkaConsumer(topic, **self.client_options()) as consumer:
                found = await consumer.end_offsets(sorted(consumer.assignment()))
                return {at.partition: offset for at, offset in found.items()}

        return blocking(look())

    def read(self, topic: str, count: int, *, within_s: float = 20.0) -> list[Any]:
        """The first `count` records of a topic, in the order of each partition."""

        async def look() -> list[Any]:
            found: list[Any] = []
            options = {**self.client_options(), "auto_offset_reset": "earliest"}
            async with AIOKafkaConsumer(topic, **options) as consumer:
                async with asyncio.timeout(within_s):
                    while len(found) < count:
                        for records in (await consumer.getmany(timeout_ms=200)).values():
                            found += records
            return found

        return blocking(look())

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit offsets for a group without members."""

        async def write() -> None:
            options = {**self.client_options(), "group_id": group, "enable_auto_commit": False}
            consumer = AIOKafkaConsumer(**options)
            await consumer.start()
            try:
                wanted = {TopicPartition(topic, p): offset for p, offset in offsets.items()}
                consumer.assign(list(wanted))
                await consumer.commit(
                    {at: OffsetAndMetadata(offset, "") for at, offset in wanted.items()}
                )
            finally:
                await consumer.stop()

        blocking(write())

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What a group has committed, partitions without a commit left out."""

        async def look(admin: AIOKafkaAdminClient) -> dict[int, int]:
            found = await admin.list_consumer_group_offsets(group)
            return {
                at.partition: meta.offset
                for at, meta in found.items()
                if at.topic == topic and meta.offset >= 0
            }

        return self.ask(look)


async def _served(admin: AIOKafkaAdminClient, topic: str, leaders: Mapping[int, int]) -> bool:
    """Whether each leader says where its partitions end."""
    for node in set(leaders.values()):
        ends = [(partition, -1) for partition, leader in leaders.items() if leader == node]
        asked = OffsetRequest(-1, 0, [(topic, ends)])
        (told,) = (await admin._send_request_to_node(node, asked)).to_object()["topics"]
        if any(partition["error_code"] for partition in told["partitions"]):
            return False
    return True
