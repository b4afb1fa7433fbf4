"""The carrier of records against a real Kafka: what is delivered, and what never will be."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sidecar.core.absence import Presence
from sidecar.core.publishing import DeliveryFault, NeverDelivered, NotListed, Refusal
from sidecar.core.spooling import NewRecord
from sidecar.kafka.connection import Connection
from sidecar.kafka.publisher import Publisher
from tests.kafka import Kafka
from tests.servers import free_port

WITHIN_S = 20.0


def record(value: bytes | None, key: bytes | None = b"k") -> NewRecord:
    return NewRecord(key, value, (("h", b"1"), ("n", None)), 1_700_000_000_000, 0.0)


@pytest.fixture
async def publisher(kafka: Kafka) -> AsyncIterator[Publisher]:
    connection = Connection(bootstrap_servers=tuple(kafka.bootstrap.split(",")))
    made = Publisher(connection.options, now=time.monotonic, draw=random.random)
    yield made
    await made.close()


def fresh(kafka: Kafka, partitions: int = 1, **config: Any) -> str:
    return kafka.create_topic(f"t-{uuid.uuid4().hex[:8]}", partitions, **config)


async def test_batches_arrive_whole_and_in_order(kafka: Kafka, publisher: Publisher) -> None:
    topic = fresh(kafka, 3)
    assert publisher.partitions(topic) is None
    assert await publisher.look(topic, WITHIN_S) == 3
    assert publisher.partitions(topic) == 3
    assert await publisher.send(topic, 1, [record(b"0"), record(None)], WITHIN_S) == 0
    assert await publisher.send(topic, 1, [record(b"2", None)], WITHIN_S) == 2
    found = kafka.read(topic, 3)
    assert [(r.partition, r.key, r.value) for r in found] == [
        (1, b"k", b"0"),
        (1, b"k", None),
        (1, None, b"2"),
    ]
    assert found[0].headers == (("h", b"1"), ("n", None))
    assert found[0].timestamp == 1_700_000_000_000


async def test_what_kafka_never_takes_is_told_and_costs_nobody_else(
    kafka: Kafka, publisher: Publisher
) -> None:
    small = fresh(kafka, max_message_bytes="2000")
    compacted = fresh(kafka, cleanup_policy="compact")
    for topic, bad, why, mend in (
        (small, record(b"x" * 5_000), Refusal.TOO_LARGE, "see its max.message.bytes"),
        (compacted, record(b"x", None), Refusal.REFUSED, "no record without a key"),
    ):
        with pytest.raises(NeverDelivered) as caught:
            await publisher.send(topic, 0, [bad], WITHIN_S)
        assert caught.value.why is why
        assert mend in str(caught.value)
        assert "[Error" not in str(caught.value)
        assert await publisher.send(topic, 0, [record(b"good")], WITHIN_S) == 0


async def test_topics_and_partitions_that_are_not_there(kafka: Kafka, publisher: Publisher) -> None:
    with pytest.raises(NeverDelivered) as caught:
        await publisher.look("nobody-made-it", WITHIN_S)
    assert caught.value.why is Refusal.UNKNOWN_TOPIC
    with pytest.raises(NeverDelivered, match="makes none"):  # however little time there is
        await publisher.look("nobody-made-it", 0.6)
    topic = fresh(kafka)
    with pytest.raises(NeverDelivered) as caught:
        await publisher.send(topic, 1, [record(b"x")], WITHIN_S)
    assert caught.value.why is Refusal.UNKNOWN_PARTITION
    with pytest.raises(NeverDelivered):
        await publisher.look("nobody-made-it-either", WITHIN_S)
    assert publisher._link is not None
    assert "nobody-made-it-either" not in publisher._link.producer.client._topics, "it asks no more"


async def test_whether_there_is_a_topic_is_asked_of_brokers_one_by_one(
    kafka: Kafka, publisher: Publisher
) -> None:
    topic = fresh(kafka)
    assert await publisher.presence(topic, WITHIN_S) is Presence.PRESENT
    assert await publisher.send(topic, 0, [record(b"x")], WITHIN_S) == 0
    kafka.delete_topic(topic)
    assert await publisher.presence(topic, WITHIN_S) is Presence.ABSENT
    assert await publisher.presence(topic, 0.0) is Presence.UNREACHABLE
    with pytest.raises(NotListed):
        await publisher.send(topic, 0, [record(b"x")], WITHIN_S)
    assert publisher.partitions(topic) == 1, "what waits was placed by that"
    kafka.create_topic(topic, 2)
    assert await publisher.presence(topic, WITHIN_S) is Presence.PRESENT
    assert await publisher.send(topic, 1, [record(b"x")], WITHIN_S) == 0


async def test_nobody_there_costs_no_time_after_the_first_attempt() -> None:
    connection = Connection(bootstrap_servers=(f"127.0.0.1:{free_port()}",))
    publisher = Publisher(connection.options, now=time.monotonic, draw=lambda: 1.0)
    assert await publisher.presence("t", WITHIN_S) is Presence.UNREACHABLE
    with pytest.raises(DeliveryFault):
        await publisher.send("t", 0, [record(b"x")], WITHIN_S)
    began = time.monotonic()
    with pytest.raises(DeliveryFault) as caught:
        await publisher.send("t", 0, [record(b"x")], WITHIN_S)
    assert caught.value.unsent
    assert str(caught.value) == (
        "no connection to Kafka: none of the bootstrap servers can be reached"
    )
    assert time.monotonic() - began < 0.25
    await publisher.close()
