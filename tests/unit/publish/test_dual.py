"""Two clusters: accepted as soon as one has it, counted without gaps, the same order in both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sidecar.core.absence import Presence
from sidecar.core.errors import SpoolFull
from sidecar.core.outage import Outage
from sidecar.core.publishing import (
    SEQUENCE_HEADER,
    Carrier,
    Delivered,
    DeliveryFault,
    PublishPolicy,
    Refusal,
    Refused,
    Spooled,
    TopicPolicy,
)
from sidecar.publish.deadletters import DeadLetters, Walked, walk
from sidecar.publish.pair import Pair
from sidecar.publish.placements import Placements
from tests.servers import poll_until
from tests.unit.publish.kit import TOPIC, PaperKafka, Shop, shop

AWAY = DeliveryFault("away", unsent=True)
PATIENCE_S = 10.0


@asynccontextmanager
async def two(
    first: PaperKafka | None = None, second: PaperKafka | None = None
) -> AsyncIterator[tuple[Shop, PaperKafka, PaperKafka]]:
    """A shop with a dual topic, and its clusters."""
    one, other = first or PaperKafka(), second or PaperKafka()
    async with shop(Outage.DUAL, kafka=one, second=other) as made:
        yield made, one, other


def counters(kafka: PaperKafka, partition: int = 0) -> list[str]:
    """What the records are stamped with, in their order."""
    found = []
    for record in kafka.logs.get((TOPIC, partition), []):
        (value,) = (value for name, value in record.headers if name == SEQUENCE_HEADER)
        found.append((value or b"").decode())
    return found


async def until_there(kafka: PaperKafka, *values: bytes) -> None:
    await poll_until(lambda: kafka.values(0) == list(values), PATIENCE_S, "the copies are there")


async def test_each_record_goes_to_both_with_one_counter() -> None:
    async with two() as (one, first, second):
        told = await one.publish(b"0", b"1", partition=0)
        told += await one.publish(b"2", partition=0)
        assert told == [Delivered(0, offset, "first") for offset in range(3)]
        for kafka in (first, second):
            await until_there(kafka, b"0", b"1", b"2")
            assert counters(kafka) == ["alloc/7/1", "alloc/7/2", "alloc/7/3"]
        await one.publish(b"3", partition=1)
        assert counters(first, 1) == ["alloc/7/1"]


async def test_one_cluster_is_enough_and_what_the_other_missed_is_not_resent() -> None:
    async with two() as (one, first, second):
        await one.publish(b"0", partition=0)
        await until_there(second, b"0")
        first.fault = AWAY
        assert await one.publish(b"1", partition=0) == [Delivered(0, 1, "second")]
        first.fault = None
        assert await one.publish(b"2", partition=0) == [Delivered(0, 1, "first")]
        await until_there(second, b"0", b"1", b"2")
        assert counters(first) == ["alloc/7/1", "alloc/7/3"]
        metric = "breaker_publish_copies_total"
        missed = {"topic": TOPIC, "cluster": "first", "outcome": "missed"}
        assert one.around.telemetry.counted(metric, **missed) == 1  # type: ignore[attr-defined]


async def test_a_silent_cluster_holds_nobody_up_and_gets_its_copies_in_their_order() -> None:
    async with two() as (one, first, _):
        first.takes = asyncio.Event()
        for number in range(3):
            told = await one.publish(b"%d" % number, partition=0)
            assert told == [Delivered(0, number, "second")]
        assert first.waiting == 1
        first.takes.set()
        await until_there(first, b"0", b"1", b"2")


async def test_where_neither_takes_it_the_spool_does_and_the_counter_goes_on() -> None:
    async with two() as (one, first, second):
        await one.publish(b"0", partition=0)
        await until_there(second, b"0")
        first.fault = second.fault = AWAY
        assert await one.publish(b"1", partition=0) == [Spooled(0, 1)]
        assert await one.publish(b"2", partition=0) == [Spooled(0, 2)]
        second.fault = None
        await until_there(second, b"0", b"1", b"2")
        first.fault = None
        await poll_until(
            lambda: not any(b.records for b in one.spool.backlogs()), PATIENCE_S, "it is empty"
        )
        await one.publish(b"3", partition=0)
        await until_there(second, b"0", b"1", b"2", b"3")
        assert counters(second) == [f"alloc/7/{n}" for n in range(1, 5)]


async def test_what_is_nowhere_takes_its_counter_back() -> None:
    async with two() as (one, first, second):
        first.poison = second.poison = b"bad"
        told = await one.publish(b"0", b"bad", b"1", partition=0)
        assert isinstance(told[1], Refused)
        assert told[1].why is Refusal.TOO_LARGE
        first.fault = second.fault = AWAY
        one.spool.refuses = SpoolFull("full")
        (full,) = await one.publish(b"lost", partition=0)
        assert isinstance(full, Refused)
        assert full.why is Refusal.SPOOL_FULL
        first.fault = second.fault = one.spool.refuses = None

        async def there() -> bool:
            (told,) = await one.publish(b"2", partition=0)
            return isinstance(told, Delivered)

        await poll_until(there, PATIENCE_S, "it goes straight again")
        await poll_until(lambda: len(counters(first)) >= 3, PATIENCE_S, "it is there")
        found = list(dict.fromkeys(counters(first)))
        assert found == [f"alloc/7/{n}" for n in range(1, len(found) + 1)]


async def test_what_nobody_can_place_is_refused_until_a_cluster_tells() -> None:
    async with two() as (one, first, second):
        first.fault = second.fault = AWAY
        (told,) = await one.publish(b"0")
        assert isinstance(told, Refused)
        assert told.why is Refusal.UNAVAILABLE
        second.fault = None

        async def there() -> bool:
            (told,) = await one.publish(b"1")
            return not isinstance(told, Refused)

        await poll_until(there, PATIENCE_S, "the second cluster tells")
        await poll_until(lambda: second.total > 0, PATIENCE_S, "and takes it")


async def test_what_waits_for_a_topic_that_neither_has_any_more_is_set_aside(
    tmp_path: Path,
) -> None:
    first, second, letters = PaperKafka(), PaperKafka(), DeadLetters(tmp_path)
    after_s = 0.4
    async with shop(
        Outage.DUAL, kafka=first, second=second, letters=letters, missing_topic_after_s=after_s
    ) as one:
        await one.publish(b"0", partition=0)
        first.said = Presence.ABSENT
        assert await one.publish(b"1", partition=0) == [Delivered(0, 1, "second")]
        second.fault = AWAY
        assert await one.publish(b"2", partition=0) == [Spooled(0, 1)]
        tries, began = first.sends, one.around.now()
        await poll_until(
            lambda: first.sends > tries + 1 and one.around.now() > began + 2 * after_s,
            PATIENCE_S,
            "it was tried for longer than that",
        )
        assert one.spool.backlog(TOPIC, 0).records == 1, "the second hasn't said so"
        second.fault, second.said = None, Presence.ABSENT
        await poll_until(
            lambda: not one.spool.backlog(TOPIC, 0).records, PATIENCE_S, "it is set aside"
        )
        ((_, letter),) = walk(tmp_path, Walked())
        assert (letter.reason, letter.record.value) == ("unknown-kafka-topic", b"2")
        (refused,) = await one.publish(b"3", partition=0)
        assert isinstance(refused, Refused)
        assert refused.why is Refusal.UNKNOWN_TOPIC
        second.said = Presence.PRESENT

        async def there() -> bool:
            (told,) = await one.publish(b"4", partition=0)
            return isinstance(told, Delivered)

        await poll_until(there, PATIENCE_S, "one of them has it again")


async def test_records_are_placed_by_the_smaller_number_of_partitions() -> None:
    async with two(PaperKafka(4), PaperKafka(2)) as (one, _, second):
        await one.publish(*(b"%d" % n for n in range(8)), key=None)
        told = await one.publish(*(b"%d" % n for n in range(8)), key=None)
        assert {outcome.partition for outcome in told if isinstance(outcome, Delivered)} <= {0, 1}
        await poll_until(lambda: second.total > 0, PATIENCE_S, "the copies are there")


async def test_a_repeated_request_has_the_same_answer() -> None:
    async with two() as (one, _, second):
        first = await one.publish(b"0", b"1", partition=0, once=("key", b"content"))
        assert first == [Delivered(0, 0, "first"), Delivered(0, 1, "first")]
        assert await one.publish(b"0", b"1", partition=0, once=("key", b"content")) == first
        await until_there(second, b"0", b"1")


async def test_a_reload_brings_a_second_cluster_and_counts_from_one() -> None:
    kafka, second = PaperKafka(), PaperKafka()
    async with shop(Outage.BREAKER, kafka=kafka) as one:
        assert await one.publish(b"0", partition=0) == [Delivered(0, 0)]

        def policy(outage: Outage) -> PublishPolicy:
            return replace(one.desk.policy, topics={TOPIC: TopicPolicy(outage=outage)})

        def pair(first: Carrier) -> Pair:
            return Pair(first, second, producer="alloc", telemetry=one.telemetry)

        assert await one.desk.reconfigure(policy(Outage.DUAL), pair)
        incarnation = one.around.pair.incarnation if one.around.pair is not None else 0
        assert incarnation > 0
        assert await one.publish(b"1", partition=0) == [Delivered(0, 1, "first")]
        await until_there(second, b"1")
        # What is there stays; and what goes to one cluster meanwhile leaves no gap in the other.
        assert not await one.desk.reconfigure(policy(Outage.BREAKER), pair)
        assert await one.publish(b"2", partition=0) == [Delivered(0, 2)]
        assert not await one.desk.reconfigure(policy(Outage.DUAL), pair)
        await one.publish(b"3", partition=0)
        await until_there(second, b"1", b"3")
        assert counters(second) == [f"alloc/{incarnation}/1", f"alloc/{incarnation}/2"]


async def test_an_incarnation_is_higher_than_the_last_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    assert await Placements(tmp_path).incarnation(1000.0) == 1_000_000
    assert await Placements(tmp_path).incarnation(10.0) == 1_000_001
    assert await Placements(tmp_path).incarnation(2000.0) == 2_000_000
    assert await Placements(None).incarnation(5.0) == 5_000
