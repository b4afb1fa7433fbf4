"""`reject` and `drop`: what becomes of records when Kafka takes them, and when it doesn't."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sidecar.core.absence import Presence
from sidecar.core.outage import Outage
from sidecar.core.publishing import (
    Delivered,
    DeliveryFault,
    Draft,
    Dropped,
    Outcome,
    Refusal,
    Refused,
)
from sidecar.publish import probing
from sidecar.telemetry import names
from tests.servers import poll_until
from tests.telemetry import RecordedTelemetry
from tests.unit.publish.kit import TOPIC, PaperKafka, Shop, shop

AWAY = DeliveryFault("away")
UNSENT = DeliveryFault("no connection", unsent=True)


def whys(outcomes: list[Outcome]) -> list[Refusal | str]:
    return [o.why if isinstance(o, Refused) else type(o).__name__ for o in outcomes]


def dead(one: Shop, why: Refusal) -> int:
    telemetry = cast("RecordedTelemetry", one.telemetry)
    return telemetry.counted(names.PUBLISH_DEAD, topic=TOPIC, reason=str(why))


async def test_records_are_delivered_each_with_its_offset() -> None:
    async with shop(Outage.REJECT) as one:
        outcomes = await one.publish(b"1", b"2", partition=1)
        assert outcomes == [Delivered(1, 0), Delivered(1, 1)]
        (record, _) = one.kafka.logs["orders", 1]
        assert [name for name, _ in record.headers] == ["breaker-id"]
        ids = {dict(r.headers)["breaker-id"] for r in one.kafka.logs["orders", 1]}
        assert len(ids) == 2


async def test_reject_says_what_it_knows_then_refuses_at_once_then_tries_again() -> None:
    async with shop(Outage.REJECT) as one:
        assert whys(await one.publish(b"0", partition=0)) == ["Delivered"]
        one.kafka.fault = AWAY
        assert whys(await one.publish(b"1", partition=0)) == [Refusal.UNKNOWN_OUTCOME]
        before = one.kafka.sends
        assert whys(await one.publish(b"2", partition=0)) == [Refusal.UNAVAILABLE]
        assert one.kafka.sends == before, "nothing was tried"
        one.kafka.fault = None

        async def back() -> bool:
            return isinstance((await one.publish(b"3", partition=0))[0], Delivered)

        await poll_until(back, 5.0, "it is delivered again")


async def test_kafka_that_was_never_there_is_asked_once_a_second_and_keeps_nobody_waiting() -> None:
    async with shop(Outage.REJECT) as one:
        one.kafka.fault, one.kafka.told = AWAY, False
        for number in (b"0", b"1", b"2"):
            assert whys(await one.publish(number)) == [Refusal.UNAVAILABLE]
        assert one.kafka.looks == 1
        one.kafka.fault = None

        async def again() -> bool:
            outcomes = whys(await one.publish(b"3"))
            return one.kafka.looks > 1 and outcomes == ["Delivered"]

        await poll_until(again, 5.0, "the record that asks anew is delivered")
        assert (one.kafka.looks, one.kafka.total) == (2, 1)


@pytest.mark.parametrize("outage", [Outage.REJECT, Outage.DROP])
async def test_a_topic_that_nobody_sends_to_is_well_again_when_kafka_is(
    monkeypatch: pytest.MonkeyPatch, outage: Outage
) -> None:
    monkeypatch.setattr(probing, "PROBE_S", 0.05)

    async with shop(outage) as one:
        one.kafka.fault = DeliveryFault("away")

        async def direct() -> bool:
            (told,) = (await one.desk.describe()).topics
            return told["direct"] is True

        await one.publish(b"0", partition=0)
        assert not await direct()
        await asyncio.sleep(0.2)
        assert not await direct()
        one.kafka.fault = None
        await poll_until(direct, 5.0, "it is well without a record")


async def test_what_never_left_is_refused_as_such() -> None:
    async with shop(Outage.REJECT) as one:
        one.kafka.fault = UNSENT
        assert whys(await one.publish(b"1", partition=0)) == [Refusal.UNAVAILABLE]


async def test_drop_gives_up_counts_and_tells() -> None:
    async with shop(Outage.DROP) as one:
        one.kafka.fault = AWAY
        outcomes = await one.publish(b"1", partition=0) + await one.publish(b"2", b"3", partition=0)
        assert all(isinstance(outcome, Dropped) for outcome in outcomes)
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        assert told.counted(names.PUBLISH_RECORDS, topic="orders", outcome="dropped") == 3
        events = [name for name, _, _ in told.events]
        assert events.count(names.PUBLISH_DROPPED) == 1, "a sample, not each"


async def test_a_silent_kafka_costs_the_delivery_timeout_and_no_more() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.REJECT, kafka=kafka) as one:
        assert whys(await one.publish(b"1", partition=0)) == [Refusal.UNKNOWN_OUTCOME]
        kafka.takes.set()


async def test_one_bad_record_costs_itself_alone() -> None:
    kafka = PaperKafka()
    kafka.poison = b"bad"
    async with shop(Outage.REJECT, kafka=kafka) as one:
        outcomes = await one.publish(b"1", b"2", b"bad", b"3", partition=0)
        assert whys(outcomes) == ["Delivered", "Delivered", Refusal.TOO_LARGE, "Delivered"]
        assert kafka.values(0) == [b"1", b"2", b"3"]
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        assert told.counted(names.PUBLISH_DEAD, topic="orders", reason="record-too-large") == 1


async def test_an_unknown_topic_is_refused_for_good() -> None:
    async with shop(Outage.REJECT, kafka=PaperKafka(None)) as one:
        assert whys(await one.publish(b"1")) == [Refusal.UNKNOWN_TOPIC]
        assert dead(one, Refusal.UNKNOWN_TOPIC) == 1


async def test_a_topic_that_is_gone_is_refused_for_good_once_that_is_certain() -> None:
    async with shop(Outage.REJECT, missing_topic_after_s=0.2) as one:
        assert whys(await one.publish(b"1", partition=0)) == ["Delivered"]
        one.kafka.said = Presence.ABSENT
        assert whys(await one.publish(b"2", partition=0)) == [Refusal.UNAVAILABLE]

        async def gone() -> bool:
            return whys(await one.publish(b"3", partition=0)) == [Refusal.UNKNOWN_TOPIC]

        await poll_until(gone, 10.0, "it is gone")
        one.kafka.said = Presence.PRESENT

        async def back() -> bool:
            return whys(await one.publish(b"4", partition=0)) == ["Delivered"]

        await poll_until(back, 10.0, "it was made again")


async def test_what_is_outstanding_is_bounded() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.REJECT, kafka=kafka, max_outstanding=3) as one:
        first = asyncio.create_task(one.publish(b"1", b"2", b"3", partition=0))
        await poll_until(lambda: kafka.sends, 2.0, "it is on its way")
        assert whys(await one.publish(b"4", partition=0)) == [Refusal.OVERLOADED]
        kafka.takes.set()
        assert whys(await first) == ["Delivered"] * 3
        assert whys(await one.publish(b"5", partition=0)) == ["Delivered"]


async def test_a_key_is_accepted_once() -> None:
    async with shop(Outage.REJECT) as one:
        first = await one.publish(b"1", b"2", once=("k", b"print"))
        again = await one.publish(b"1", b"2", once=("k", b"print"))
        assert first == again
        assert one.kafka.total == 2
        other = await one.publish(b"9", b"2", once=("k", b"other"))
        assert whys(other) == [Refusal.OTHER_CONTENT] * 2


async def test_a_key_in_use_is_told_and_a_failed_one_is_free_again() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.REJECT, kafka=kafka) as one:
        first = asyncio.create_task(one.publish(b"1", partition=0, once=("k", b"p")))
        await poll_until(lambda: kafka.sends, 2.0, "it is on its way")
        assert whys(await one.publish(b"1", partition=0, once=("k", b"p"))) == [Refusal.IN_PROGRESS]
        assert whys(await first) == [Refusal.UNKNOWN_OUTCOME]
        kafka.takes.set()

        async def accepted() -> bool:
            return whys(await one.publish(b"1", partition=0, once=("k", b"p"))) == ["Delivered"]

        await poll_until(accepted, 5.0, "the key is free again")


async def test_a_stop_answers_everybody() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.REJECT, kafka=kafka, delivery_timeout_s=30.0) as one:
        first = asyncio.create_task(one.publish(b"1", partition=0))
        await poll_until(lambda: kafka.sends, 2.0, "it is on its way")
        one.desk.stop()
        assert whys(await first) == [Refusal.UNKNOWN_OUTCOME]
        assert whys(await one.publish(b"2", partition=0)) == [Refusal.UNAVAILABLE]


async def test_a_partition_that_isnt_there_is_refused_alone() -> None:
    async with shop(Outage.REJECT) as one:
        drafts = [Draft(None, b"0", (), 0), Draft(None, b"1", (), 7)]
        outcomes = await one.desk.publish(TOPIC, drafts, delivered=False, idempotency=None)
        assert whys(outcomes) == ["Delivered", Refusal.UNKNOWN_PARTITION]
        assert dead(one, Refusal.UNKNOWN_PARTITION) == 1
        assert set(one.desk.topics[TOPIC].lanes) == {0}


async def test_a_name_that_nothing_is_known_of_is_not_kept() -> None:
    async with shop(Outage.BREAKER, kafka=PaperKafka(None)) as one:
        assert whys(await one.publish(b"1", partition=5)) == [Refusal.UNKNOWN_TOPIC]
        assert not one.desk.topics
        assert not one.spool.lists
