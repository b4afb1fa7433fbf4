"""The consumer kit on a real Kafka."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from sidecar.consumer import Event, Limits, Permanent, RetryPolicy, Runner, SinkFailed
from sidecar.consumer.headers import number_of, text_of
from sidecar.consumer.kafka import KafkaSource
from sidecar.consumer.source import NotOurs, Place
from tests.kafka import Kafka
from tests.misnamed import READ_AS, produce
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
        "consumer": {"session_timeout_ms": 4000, "heartbeat_interval_ms": 200},
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


async def test_a_second_member_takes_over_what_the_first_has_committed_and_no_more(
    kafka: Kafka, topic: str
) -> None:
    kafka.produce(topic, [b"%d" % n for n in range(600)])
    seen: list[int] = []

    async def handle(event: Event[bytes]) -> None:
        seen.append(int(event.value))
        await asyncio.sleep(0.02)

    limits = Limits(concurrency=4, commit_every_s=30.0)
    async with running(quick(kafka, topic, handle, limits=limits)) as first:
        await poll_until(lambda: len(seen) >= 40, PATIENCE_S, "the first is at it")
        async with running(quick(kafka, topic, handle, limits=limits)) as second:
            await poll_until(lambda: len(set(seen)) == 600, PATIENCE_S, "all are handled")
            assert first.flow.shards.keys().isdisjoint(second.flow.shards.keys())
            assert second.flow.counts[topic]["handled"] > 0
    assert sorted(seen) == list(range(600)), "nothing is handled twice: all was drained"


async def test_of_a_topic_written_by_transactions_all_is_committed_and_there_is_no_lag(
    kafka: Kafka, topic: str
) -> None:
    seen: list[bytes] = []

    async def handle(event: Event[bytes]) -> None:
        seen.append(event.value)

    settings = {"isolation_level": "read_committed"}
    async with (
        running(quick(kafka, topic, handle, consumer=settings)),
        AIOKafkaProducer(**kafka.client_options(), transactional_id=topic) as producer,
    ):
        for value, partition in ((b"good", 0), (b"undone", 0), (b"undone", 1)):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value, partition=partition)
            await (
                producer.abort_transaction if value == b"undone" else producer.commit_transaction
            )()
        ends = kafka.end_offsets(topic)
        assert ends == {0: 4, 1: 2, 2: 0, 3: 0}
        await poll_until(
            lambda: kafka.committed(f"g-{topic}", topic) == {0: 4, 1: 2},
            PATIENCE_S,
            "all that was written is committed",
        )
    assert seen == [b"good"]


async def test_a_topic_that_can_not_be_read_takes_nothing_away_from_another(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiokafka.codec.has_zstd", lambda: False)
    packed = kafka.create_topic(f"{topic}-packed", compression_type="zstd")
    handled: set[bytes] = set()

    async def handle(event: Event[bytes]) -> None:
        handled.add(event.value)

    both = Runner([topic, packed], group=topic, handler=handle, bootstrap_servers=kafka.bootstrap)
    async with running(both), AIOKafkaProducer(**kafka.client_options()) as producer:
        for n in range(300):
            await producer.send(packed, b"packed")
            await producer.send_and_wait(topic, b"%d" % n)
        await poll_until(
            lambda: sum(kafka.committed(topic, topic).values()) == 300, PATIENCE_S, "committed"
        )
        assert handled == {b"%d" % n for n in range(300)}
    assert not kafka.committed(topic, packed)


async def test_without_its_dead_letter_topic_an_event_stays_uncommitted(
    kafka: Kafka, topic: str
) -> None:
    kafka.produce(topic, [b"bad", b"good"], partition=0)
    handled = asyncio.Event()

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"bad":
            raise Permanent("never")
        handled.set()

    runner = quick(
        kafka,
        topic,
        handle,
        create_topics=False,
        retry=RetryPolicy(delays_s=()),
        limits=Limits(commit_every_s=0.1, kafka_s=1.0, drain_s=1.0),
    )
    async with running(runner):
        await asyncio.wait_for(handled.wait(), PATIENCE_S)
        await poll_until(lambda: runner.flow.moving == 1, PATIENCE_S, "it is on its way")
        assert kafka.committed(f"g-{topic}", topic) in ({}, {0: 0})
        await asyncio.to_thread(kafka.create_topic, f"{topic}.dlq")
        await poll_until(lambda: runner.flow.moving == 0, PATIENCE_S, "it is written")
    assert kafka.committed(f"g-{topic}", topic) == {0: 2}
    assert [record.value for record in kafka.read(f"{topic}.dlq", 1)] == [b"bad"]


async def test_a_member_that_the_group_has_dropped_commits_nothing(
    kafka: Kafka, topic: str
) -> None:
    source = KafkaSource(
        bootstrap_servers=kafka.bootstrap,
        topics=[topic],
        group=topic,
        client={},
        consumer={},
        drain_s=1.0,
        timeout_s=5.0,
    )

    class Told:
        lost: bool | None = None

        async def assigned(self, places: Collection[Place]) -> None: ...

        async def revoked(self, places: Collection[Place], *, lost: bool) -> None:
            Told.lost = lost
            with pytest.raises(NotOurs):
                await source.commit(dict.fromkeys(places, 1))

    kafka.produce(topic, [b"1"], partition=0)
    await source.start(Told())
    try:
        await source.commit({Place(topic, 0): 1})
        # What aiokafka does when the broker does not know this member any more.
        source._consumer._coordinator.reset_generation()
        await poll_until(lambda: Told.lost, PATIENCE_S, "it was told")
    finally:
        await source.stop()
    assert kafka.committed(topic, topic) == {0: 1}


async def test_topics_that_are_missing_and_may_not_be_made_are_told(
    kafka: Kafka, prefix: str
) -> None:
    async def handle(event: Event[bytes]) -> None: ...

    with pytest.raises(SinkFailed, match=f"no topic {prefix}"):
        await quick(kafka, prefix, handle).run(signals=False)


@pytest.mark.parametrize("made", [True, False], ids=["made by the kit", "made by somebody else"])
async def test_events_that_their_topic_took_are_taken_by_the_others_too(
    kafka: Kafka, prefix: str, made: bool
) -> None:
    topic = kafka.create_topic(prefix, max_message_bytes="200000")
    values = [b"z" * 2_000_000]  # compressed, it takes little
    if made:
        values.append(os.urandom(199_700))
    else:
        kafka.create_topic(f"{topic}.dlq", max_message_bytes="200000")
    options = {**kafka.client_options(), "max_request_size": 4_000_000}
    async with AIOKafkaProducer(**options, compression_type="gzip") as producer:
        for value in values:
            await producer.send_and_wait(topic, value)

    async def handle(event: Event[bytes]) -> None:
        raise Permanent("never")

    async with running(quick(kafka, topic, handle, retry=RetryPolicy(delays_s=()))):
        await poll_until(
            lambda: kafka.committed(f"g-{topic}", topic) == {0: len(values)},
            PATIENCE_S,
            "all are set aside",
        )
    letters = await asyncio.to_thread(kafka.read, f"{topic}.dlq", len(values))
    assert sorted(letter.value for letter in letters) == sorted(values)


async def test_where_the_stack_is_too_long_for_the_topic_the_event_goes_without_it(
    kafka: Kafka, topic: str
) -> None:
    kafka.create_topic(f"{topic}.dlq", max_message_bytes="2000")
    kafka.produce(topic, [b"x" * 1000], partition=0)

    async def handle(event: Event[bytes]) -> None:
        raise Permanent("y" * 1500)

    async with running(quick(kafka, topic, handle, retry=RetryPolicy(delays_s=()))) as runner:
        await poll_until(lambda: runner.flow.counts.get(topic, {}).get("dead"), PATIENCE_S, "died")
        await poll_until(lambda: runner.flow.moving == 0, PATIENCE_S, "it is written")
    (letter,) = kafka.read(f"{topic}.dlq", 1)
    assert text_of(letter.headers, "breaker-stack") is None
    assert len(text_of(letter.headers, "breaker-error") or "") < 300
    assert text_of(letter.headers, "breaker-reason") == "permanent"


@pytest.mark.parametrize("misnamed", [[3], range(300)], ids=["one", "all"])
async def test_a_header_whose_name_is_no_text_stops_nobody(
    kafka: Kafka, topic: str, misnamed: Sequence[int], caplog: pytest.LogCaptureFixture
) -> None:
    values = [b"%d" % n for n in range(300)]
    async with AIOKafkaProducer(**kafka.client_options()) as producer:
        await produce(producer, topic, 0, values, misnamed)
    kafka.produce(topic, [b"%d" % n for n in range(300, 400)], partition=1)
    seen: list[int] = []

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"3":
            raise Permanent("never")
        seen.append(int(event.value))

    async with running(quick(kafka, topic, handle)) as runner:
        await poll_until(lambda: len(seen) >= 399, PATIENCE_S, "all are handled")
        kafka.produce(topic, [b"400"], partition=0)
        await poll_until(lambda: 400 in seen, PATIENCE_S, "what comes behind is handled")
        (dead,) = await asyncio.to_thread(kafka.read, f"{topic}.dlq", 1, within_s=PATIENCE_S)

    assert sorted(seen) == [n for n in range(401) if n != 3]
    assert runner.misnamed == len(misnamed)
    assert (dead.value, dead.headers[1]) == (b"3", (READ_AS, b"x"))
    told = [r.getMessage() for r in caplog.records if "name is no text" in r.getMessage()]
    assert len(told) == 1
    assert f"{topic}[0]@{misnamed[0]}, read as {READ_AS}" in told[0]
    committed = kafka.committed(f"g-{topic}", topic)
    assert committed == {p: end for p, end in kafka.end_offsets(topic).items() if end}
