"""One producer of aiokafka's from its start to its end, each bounded.

It is idempotent, so a batch that a broker has taken and not confirmed is not written twice while
the producer lives. Such a producer repeats a batch for ever; whoever stops waiting for one has to
give the whole producer up, or a later batch would follow with a gap in its numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition, errors
from aiokafka.errors import KafkaError, LeaderNotAvailableError, UnknownTopicOrPartitionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.metadata import MetadataRequest

CLOSE_S: Final = 1.0
BATCH_BYTES: Final = 16 * 1024 * 1024
"""More than is ever put into one batch: callers bound their batches themselves."""
METADATA_AGE_MS: Final = 30_000
"""How long a grown topic stays unnoticed at most."""
_POLL_S: Final = 0.02


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """A record that the broker's rules refuse: one without a key for a compacted topic, say."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker's validation refused a record"


# The library doesn't know this code and calls it an unknown error, which could be anything.
errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)


class Link:
    """A started producer and how many sends are on their way through it."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self.sending = 0
        self.retired = False
        """Nothing new goes through it."""

    @classmethod
    async def open(cls, options: dict[str, Any], within_s: float) -> Link:
        """Connect, within a bound.

        Raises:
            KafkaError, OSError, TimeoutError: it can't be.
        """
        producer = AIOKafkaProducer(
            **options,
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            metadata_max_age_ms=METADATA_AGE_MS,
        )
        try:
            async with asyncio.timeout(within_s):
                await producer.start()
        except BaseException:
            await end(producer)
            raise
        return cls(producer)

    def partitions(self, topic: str) -> int | None:
        """How many partitions the topic had when Kafka last told; None: it didn't tell."""
        known = self.producer.client.cluster.partitions_for_topic(topic)
        return len(known) if known else None

    async def ask(self, topic: str) -> bool:
        """Let the cluster tell anew, this topic included. False: nobody did."""
        client = self.producer.client
        client.add_topic(topic)
        return bool(await client.force_metadata_update())

    def forget(self, topic: str) -> None:
        """Ask no more for a topic that isn't there, or each name ever asked for would be told."""
        asked = self.producer.client._topics
        if len(asked) > 1:  # none would mean all that the cluster has
            asked.discard(topic)

    def unauthorized(self, topic: str) -> bool:
        """Whether Kafka has said that this client may not see the topic."""
        return topic in self.producer.client.cluster.unauthorized_topics

    def brokers(self) -> list[int]:
        """The brokers that are there, by what Kafka told last."""
        return sorted(broker.nodeId for broker in self.producer.client.cluster.brokers())

    async def has(self, broker: int, topic: str) -> bool | None:
        """Whether one broker knows the topic; None: it didn't say."""
        asked = MetadataRequest([topic], allow_auto_topic_creation=False)
        try:
            told = await self.producer.client.send(broker, asked)
        except (KafkaError, OSError, TimeoutError):
            return None
        codes = [code for code, name, *_ in told.topics if name == topic]
        if UnknownTopicOrPartitionError.errno in codes:
            return False
        # One without leaders is being made.
        return True if {0, LeaderNotAvailableError.errno} & set(codes) else None

    def led(self, topic: str, partition: int) -> bool:
        """Whether the partition has a leader, by what Kafka told last."""
        leader = self.producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return leader is not None and leader != -1

    def builder(self) -> BatchBuilder:
        """An empty batch."""
        return self.producer.create_batch()

    async def send(self, batch: BatchBuilder, topic: str, partition: int) -> int | None:
        """Send a batch and wait for its confirmation; the first offset, None where none is told.

        Raises:
            KafkaError: it was refused, or the producer gave it up.
        """
        try:
            confirmed = await self.producer.send_batch(batch, topic, partition=partition)
        except AssertionError as error:  # how the library says that there is no such partition
            raise UnknownTopicOrPartitionError(f"{topic} has no partition {partition}") from error
        metadata = await confirmed
        return None if metadata is None or metadata.offset < 0 else int(metadata.offset)


async def end(producer: AIOKafkaProducer) -> None:
    """Close a producer whatever it is doing, within about a second; never raises.

    Its own `stop` waits for every batch, which an idempotent producer may repeat for ever. Cutting
    the connections first lets its tasks run to their ends.
    """
    producer._closed = True
    client = producer.client
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    sender = producer._sender.sender_task
    if sender is None or sender.done():
        return
    sender.cancel()
    for _ in range(int(CLOSE_S / _POLL_S)):
        waited_for = client._md_update_fut  # nobody is left who would ever answer it
        if waited_for is not None and not waited_for.done():
            waited_for.set_result(False)
        done, _ = await asyncio.wait({sender}, timeout=_POLL_S)
        if done:
            break
    if sender.done() and not sender.cancelled():
        sender.exception()
