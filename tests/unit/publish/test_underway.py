"""What is counted as given up is what never reaches Kafka, whatever was on its way meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.outage import Outage
from sidecar.core.publishing import DeliveryFault, Spooled
from sidecar.core.spooling import Budget, GivenUp, SpoolSettings, Stored
from sidecar.publish.deadletters import DeadLetters, Walked, walk
from sidecar.publish.letters import Letter
from sidecar.publish.underway import UnderWay
from sidecar.spool.spool import DiskSpool
from sidecar.telemetry import names
from tests.servers import poll_until
from tests.telemetry import RecordedTelemetry
from tests.unit.publish.kit import TOPIC, PaperKafka, Shop, shop
from tests.unit.spool.kit import record

AWAY = DeliveryFault("Kafka is away", unsent=True)


def batch(*sequences: int) -> list[Stored]:
    return [Stored(seq, record(seq)) for seq in sequences]


def full(first: int, last: int) -> GivenUp:
    return GivenUp(first, last, last - first + 1, "full")


class Told:
    """How many were lost, by reason."""

    def __init__(self, *apart: int) -> None:
        self.lost: Counter[str] = Counter()
        self.apart = set(apart)
        self.way = UnderWay(self.apart, self._lose)

    def _lose(self, records: int, reason: str) -> None:
        assert records > 0
        self.lost[reason] += records


def test_what_is_confirmed_all_the_same_is_not_lost() -> None:
    told = Told()
    with told.way.of(batch(*range(1, 11))):
        told.way.given_up(full(1, 4))
        told.way.given_up(full(5, 12))
        assert told.lost["full"] == 2, "11 and 12 were on no way"
    assert told.lost["full"] == 2


def test_what_is_not_confirmed_is_lost() -> None:
    told = Told()
    with suppress(DeliveryFault), told.way.of(batch(1, 2, 4, 5)):
        told.way.given_up(GivenUp(1, 4, 3, "expired"))
        assert told.lost["expired"] == 0
        raise AWAY
    assert told.lost["expired"] == 3
    told.way.given_up(full(5, 5))
    assert told.lost["full"] == 1


def test_word_that_comes_late_is_of_what_has_arrived() -> None:
    told = Told()
    with told.way.of(batch(1, 2, 3)):
        pass
    told.way.given_up(full(2, 5))
    with told.way.of(batch(6, 7)):
        told.way.given_up(GivenUp(3, 6, 2, "full"))
    assert told.lost["full"] == 2, "4 and 5"


def test_those_of_a_failed_batch_that_arrived_apart_are_not_lost() -> None:
    told = Told(1, 3, 8)
    with suppress(DeliveryFault), told.way.of(batch(1, 2, 3, 4)):
        told.way.given_up(full(1, 3))
        raise AWAY
    assert told.lost["full"] == 1, "2"
    told.way.given_up(full(4, 9))
    assert told.lost["full"] == 1 + 5
    assert not told.apart


def dropped(one: Shop) -> int:
    telemetry = one.telemetry
    assert isinstance(telemetry, RecordedTelemetry)
    return telemetry.counted(names.SPOOL_DROPPED, topic=TOPIC, reason="full")


async def spooled(one: Shop, count: int, partition: int = 1) -> None:
    outcomes = await one.publish(*[b"%d" % n for n in range(count)], partition=partition)
    assert {type(outcome) for outcome in outcomes} == {Spooled}


async def until_sent(one: Shop) -> None:
    await poll_until(lambda: one.kafka.waiting, 5.0, "a batch is on its way")


async def until_empty(one: Shop) -> None:
    await poll_until(
        lambda: not any(b.records for b in one.spool.backlogs()), 10.0, "the spool is empty"
    )


@pytest.mark.parametrize("arrives", [True, False])
async def test_room_that_is_made_under_a_batch(arrives: bool) -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        one.kafka.takes = asyncio.Event()
        await spooled(one, 10)
        await until_sent(one)
        one.spool.give_up(TOPIC, 1, 4)
        await asyncio.sleep(0)
        assert dropped(one) == 0
        one.kafka.fault = None if arrives else AWAY
        one.kafka.takes.set()
        if not arrives:
            await poll_until(lambda: dropped(one) == 4, 5.0, "they are lost")
            one.kafka.fault = None
        await until_empty(one)
        assert one.kafka.total == (10 if arrives else 6)
        assert dropped(one) == 10 - one.kafka.total


async def test_those_that_were_given_up_since_they_were_read_are_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        one.kafka.takes = asyncio.Event()
        await spooled(one, 10)
        await until_sent(one)
        read = one.spool.read

        async def slowly(*where: Any, **how: Any) -> Sequence[Stored]:
            found = await read(*where, **how)
            monkeypatch.undo()
            one.spool.give_up(TOPIC, 1, 3)
            return found

        monkeypatch.setattr(one.spool, "read", slowly)
        one.kafka.fault = AWAY
        one.kafka.takes.set()
        await poll_until(lambda: one.spool.read == read, 5.0, "it is read again")
        one.kafka.fault = None
        await until_empty(one)
        assert one.kafka.values(1) == [b"%d" % n for n in range(3, 10)]
        assert dropped(one) == 3


async def test_a_dead_letter_is_not_lost_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = DeadLetters(tmp_path)
    async with shop(Outage.SPOOL_ALL, letters=letters) as one:
        one.kafka.poison = b"0"
        adding = letters.add

        async def add(letters: Sequence[Letter]) -> None:
            one.spool.give_up(TOPIC, 1, 1)
            await asyncio.sleep(0)
            await adding(letters)

        monkeypatch.setattr(letters, "add", add)
        await spooled(one, 3)
        await until_empty(one)
        assert one.kafka.total == 2
        assert dropped(one) == 0
        assert len(list(walk(tmp_path, Walked()))) == 1


async def test_on_a_real_disk_all_are_delivered_or_counted(tmp_path: Path) -> None:
    """Little room, and a Kafka that takes its time and goes away: each record has one fate."""
    draw = random.Random(7)
    budget = Budget(max_bytes=100_000, drop_oldest=True)
    telemetry = RecordedTelemetry()
    spool = await DiskSpool.open(
        tmp_path, "me", SpoolSettings(segment_bytes=65_536, others=budget), telemetry
    )
    kafka = PaperKafka()
    async with shop(Outage.SPOOL_ALL, spool=spool, kafka=kafka) as one:
        accepted = 0
        for _ in range(30):
            gate = kafka.takes = asyncio.Event()
            for _ in range(draw.randint(1, 20)):
                await one.publish(*[b"x" * 1_000] * 10, partition=1)
                accepted += 10
            kafka.fault = AWAY if draw.random() < 0.3 else None
            gate.set()
            for _ in range(draw.randint(0, 200)):
                await asyncio.sleep(0)
        kafka.takes, kafka.fault = None, None
        await poll_until(lambda: not spool.backlog(TOPIC, 1).records, 20.0, "all of it is done")
        await asyncio.sleep(0)
        lost = dropped(one) + telemetry.counted(names.SPOOL_DROPPED, topic=TOPIC, reason="full")
        assert 0 < lost < accepted
        assert kafka.total + lost == accepted
