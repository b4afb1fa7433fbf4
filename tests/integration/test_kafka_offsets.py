"""Where groups stand and partitions end, asked of a real Kafka in few requests."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from sidecar.core.backlog import Reading
from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.lag import ABSENT
from sidecar.core.signal_settings import Lag, Shed, SignalSettings
from sidecar.core.types import Policy, Scalar
from sidecar.kafka.cluster import Cluster
from sidecar.kafka.connection import Connection
from sidecar.kafka.lag import LagReader
from sidecar.kafka.offsets import Flow, Offsets
from sidecar.loops.around import Clock
from tests.kafka import Kafka
from tests.servers import poll_until

pytestmark = pytest.mark.kafka


class Requests(Counter[str]):
    """Counts what is asked, by operation, and what made no sense."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        if metric == "breaker_kafka_requests_total":
            self[labels["op"]] += int(amount)

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Durations are of no interest here."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        raise AssertionError(f"nothing is to be said: {name}")


class Asking:
    """Offsets of one Kafka, and what asking for them took."""

    def __init__(self, kafka: Kafka) -> None:
        self.requests = Requests()
        connection = Connection(bootstrap_servers=tuple(kafka.bootstrap.split(",")))
        self.cluster = Cluster(connection, self.requests, Clock().now)
        self.offsets = Offsets(self.cluster, Clock().now)

    async def one(self, topic: str, group: str, floor: int = 0) -> Reading:
        """A round over one flow."""
        flow = Flow(topic, group, floor)
        return (await self.offsets.round([flow]))[flow]


@pytest.fixture
async def asking(kafka: Kafka) -> AsyncIterator[Asking]:
    asked = Asking(kafka)
    await asked.cluster.start()
    yield asked
    await asked.cluster.close()


def fresh(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:8]}"


async def test_offsets_and_ends_are_what_they_are(kafka: Kafka, asking: Asking) -> None:
    topic, group = kafka.create_topic(fresh("lag"), 3), fresh("g")
    kafka.produce(topic, [b"x"] * 7, partition=0)
    kafka.produce(topic, [b"x"] * 5, partition=1)
    kafka.commit(group, topic, {0: 3, 1: 5})
    found = await asking.one(topic, group)
    assert (found.fault, list(found.committed), list(found.ends)) == (
        None,
        [3, 5, ABSENT],
        [7, 5, 0],
    )
    assert not found.members
    assert found.begins == {0: 0}  # asked for where it lags, and nowhere else


async def test_a_group_that_never_was_has_no_commits(kafka: Kafka, asking: Asking) -> None:
    topic = kafka.create_topic(fresh("lag"), 2)
    assert list((await asking.one(topic, fresh("nobody"))).committed) == [ABSENT, ABSENT]


async def test_a_topic_that_is_missing_is_told_and_not_made(kafka: Kafka, asking: Asking) -> None:
    topic, group = fresh("never"), fresh("g")
    assert (await asking.one(topic, group)).fault == f"the topic {topic} does not exist"

    async def listed(admin: AIOKafkaAdminClient) -> list[str]:
        return list(await admin.list_topics())

    assert topic not in kafka.ask(listed)


async def test_a_topic_made_anew_shows_by_its_end(
    kafka: Kafka, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = kafka.create_topic(fresh("lag")), fresh("g")
    kafka.produce(topic, [b"x"] * 9)
    kafka.commit(group, topic, {0: 8})
    assert list((await asking.one(topic, group)).ends) == [9]
    kafka.delete_topic(topic)

    async def gone() -> bool:
        return (await asking.one(topic, group)).fault == f"the topic {topic} does not exist"

    await poll_until(gone, 20, "the topic is gone")
    kafka.create_topic(topic, 2)
    monkeypatch.setattr("sidecar.kafka.offsets.TOPOLOGY_S", 0.0)

    async def back() -> bool:
        found = await asking.one(topic, group)
        return found.fault is None and list(found.ends) == [0, 0]

    await poll_until(back, 20, "the new topic is found")


async def test_new_partitions_are_found(
    kafka: Kafka, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group = kafka.create_topic(fresh("lag")), fresh("g")
    kafka.commit(group, topic, {0: 0})
    assert len((await asking.one(topic, group)).ends) == 1

    async def grow(admin: AIOKafkaAdminClient) -> None:
        await admin.create_partitions({topic: NewPartitions(3)})

    kafka.ask(grow)
    monkeypatch.setattr("sidecar.kafka.offsets.TOPOLOGY_S", 0.0)

    async def grown() -> bool:
        found = await asking.one(topic, group)
        return list(found.committed) == [0, ABSENT, ABSENT] and list(found.ends) == [0, 0, 0]

    await poll_until(grown, 20, "three partitions")


async def test_what_retention_took_is_known(kafka: Kafka, asking: Asking) -> None:
    topic, group = kafka.create_topic(fresh("lag")), fresh("g")
    kafka.produce(topic, [b"x"] * 10)
    kafka.commit(group, topic, {0: 2})

    async def delete(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(6)})

    kafka.ask(delete)
    assert (await asking.one(topic, group)).begins == {0: 6}


async def test_members_and_rebalancing_are_seen(kafka: Kafka, asking: Asking) -> None:
    topic, group = kafka.create_topic(fresh("lag")), fresh("g")
    options = {**kafka.client_options(), "group_id": group, "auto_offset_reset": "earliest"}
    consumer = AIOKafkaConsumer(topic, **options, max_poll_interval_ms=10_000)
    await consumer.start()
    try:
        found = await asking.one(topic, group)
        assert (found.members, found.rebalancing) == (True, False)
        # The first member doesn't join again before its next poll: until then it is sorted out.
        other = AIOKafkaConsumer(topic, **options)
        starting = asyncio.create_task(other.start())

        async def seen() -> bool:
            return (await asking.one(topic, group)).rebalancing

        await poll_until(seen, 20, "a rebalance")
        await starting
        await other.stop()
    finally:
        await consumer.stop()

    async def left() -> bool:
        return not (await asking.one(topic, group)).members

    await poll_until(left, 20, "nobody is left")


async def test_the_number_of_requests_does_not_depend_on_the_number_of_flows(
    kafka: Kafka, asking: Asking
) -> None:
    topics = [kafka.create_topic(fresh("many"), 3) for _ in range(4)]
    flows = [Flow(topic, fresh("g"), 0) for topic in topics for _ in range(8)]
    kafka.produce(topics[0], [b"x"], partition=0)
    kafka.commit(flows[0].group, topics[0], {0: 0})
    await asking.offsets.round(flows[:1])
    asking.requests.clear()
    await asking.offsets.round(flows[:1])
    assert asking.requests == {"offsets": 1, "groups": 1, "ends": 1, "begins": 1}
    await asking.offsets.round(flows)  # new topics and groups are looked up, once
    asking.requests.clear()
    found = await asking.offsets.round(flows)
    assert asking.requests == {"offsets": 1, "groups": 1, "ends": 1, "begins": 1}
    assert {flow: reading.fault for flow, reading in found.items()} == dict.fromkeys(flows)


async def test_only_what_is_evaluated_here_is_read(kafka: Kafka) -> None:
    topic, group = kafka.create_topic(fresh("read")), fresh("g")
    kafka.produce(topic, [b"x"] * 5)
    kafka.commit(group, topic, {0: 2})
    policies = [
        Policy(
            name=name,
            topic=topic,
            group=group,
            evaluation_interval_s=0.1,
            signals=SignalSettings(lag=Lag()) if name in {"mine", "theirs"} else SignalSettings(),
            shed=Shed() if name == "sheds" else None,
        )
        for name in ("mine", "theirs", "without", "sheds")
    ]
    contact = Contact(synced=None, stale_after_s=1, max_stale_s=1, on_loss=OnLoss.KEEP)
    board = Board("me", policies, None, contact, now=0.0)
    mine, theirs, without, sheds = board.cells.values()
    mine.evaluating = without.evaluating = sheds.evaluating = True
    told: list[str] = []
    reader = LagReader(
        board,
        Connection(bootstrap_servers=(kafka.bootstrap,)),
        Requests(),
        news=told.append,
        now=Clock().now,
        draw=lambda: 0.5,
    )
    task = asyncio.create_task(reader.run())
    try:
        await poll_until(lambda: len(told) > 2, 20, "read a few times")
        assert mine.lag is not None
        behind = mine.lag.backlog(Clock().now())
        assert behind is not None
        assert behind.messages == 3
        assert set(told) == {"mine", "sheds"}
        read = {cell.policy.name for cell in board.cells.values() if cell.lag}
        assert read == {"mine", "sheds"}, "what sheds needs no signal for it"
        mine.evaluating, theirs.evaluating, sheds.evaluating = False, True, False

        def moved() -> bool:
            return {cell.policy.name for cell in board.cells.values() if cell.lag} == {"theirs"}

        await poll_until(moved, 20, "the lock moved")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
