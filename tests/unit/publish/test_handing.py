"""One record without a task of its own: what is taken so, and that it is as any other."""

from __future__ import annotations

import asyncio

from sidecar.core.outage import Outage
from sidecar.core.publishing import (
    Delivered,
    DeliveryFault,
    Draft,
    Outcome,
    Refusal,
    Refused,
    Spooled,
)
from sidecar.telemetry import names
from tests.servers import poll_until
from tests.telemetry import RecordedTelemetry
from tests.unit.publish.kit import TOPIC, PaperKafka, Shop, shop


def hand(one: Shop, value: bytes, partition: int | None = 0) -> asyncio.Future[Outcome] | None:
    """Its outcome; None: it wasn't taken."""
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    draft = Draft(b"k", value, (), partition)
    return told if one.desk.hand_over(TOPIC, draft, told.set_result) else None


async def test_what_isnt_known_yet_has_to_be_asked_for() -> None:
    async with shop(Outage.BREAKER) as one:
        assert hand(one, b"1") is None
        assert not one.desk.topics, "nothing has happened"
        await one.publish(b"2")
        assert hand(one, b"3", partition=17) is None, "there is no such partition"
        assert hand(one, b"4") is not None


async def test_it_keeps_its_place_among_others_and_is_counted_as_they_are() -> None:
    async with shop(Outage.BREAKER) as one:
        await one.publish(b"0", partition=0)
        first = hand(one, b"1")
        batch = asyncio.create_task(one.publish(b"2", b"3", partition=0))
        for _ in range(5):  # until its records have their places
            await asyncio.sleep(0)
        last = hand(one, b"4")
        assert first is not None
        assert last is not None
        assert await first == Delivered(0, 1)
        await batch
        assert await last == Delivered(0, 4)
        assert one.kafka.values(0) == [b"0", b"1", b"2", b"3", b"4"]
        assert {len(record.headers) for record in one.kafka.logs[TOPIC, 0]} == {1}
        assert len({record.headers for record in one.kafka.logs[TOPIC, 0]}) == 5
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        await asyncio.sleep(0)  # single ones are counted together
        assert told.counted(names.PUBLISH_RECORDS, topic=TOPIC, outcome="delivered") == 5
        assert one.desk.topics[TOPIC].outstanding == 0


async def test_during_an_outage_it_is_spooled_also_without_a_known_partition() -> None:
    kafka = PaperKafka()
    kafka.fault = DeliveryFault("away", unsent=True)
    async with shop(Outage.BREAKER, kafka=kafka) as one:
        await one.publish(b"1")
        told = hand(one, b"2", partition=None)
        assert told is not None
        assert await told == Spooled(None, 2)
        kafka.fault = None

        async def there() -> bool:
            return kafka.total == 2

        await poll_until(there, 5.0, "both are in Kafka")


async def test_it_counts_among_what_is_on_its_way() -> None:
    kafka = PaperKafka()
    async with shop(Outage.REJECT, kafka=kafka, max_outstanding=2) as one:
        await one.publish(b"0", partition=0)
        kafka.takes = asyncio.Event()
        taken = [hand(one, b"1"), hand(one, b"2")]
        assert None not in taken
        assert hand(one, b"3") is None
        kafka.takes.set()
        assert taken[1] is not None
        await taken[1]
        assert hand(one, b"4") is not None


async def test_who_was_taken_is_told_something_in_any_case() -> None:
    kafka = PaperKafka()
    async with shop(Outage.SPOOL_FAILED, kafka=kafka) as one:
        await one.publish(b"0", partition=0)
        kafka.takes = asyncio.Event()
        on_its_way = hand(one, b"1")
        await asyncio.sleep(0)
        behind = hand(one, b"2")
        one.desk.stop()
        assert hand(one, b"3") is None
    for told in (on_its_way, behind):
        assert told is not None
        outcome = await told
        assert isinstance(outcome, Refused)
        assert outcome.why is Refusal.UNKNOWN_OUTCOME
