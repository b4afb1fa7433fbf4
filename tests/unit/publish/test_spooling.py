"""What goes to the spool, in which order, and how it comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from sidecar.core.absence import Presence
from sidecar.core.errors import SpoolDiskFull, SpoolFault, SpoolFull, SpoolUnknown
from sidecar.core.idempotency import of_record
from sidecar.core.outage import Outage
from sidecar.core.placing import UNPLACED, partition_of
from sidecar.core.publishing import (
    ANY_TOPIC,
    Delivered,
    DeliveryFault,
    Outcome,
    Refusal,
    Refused,
    Spooled,
    TopicPolicy,
)
from sidecar.core.spooling import Accepted
from sidecar.publish import sight
from sidecar.publish.deadletters import DeadLetters, Walked, walk
from sidecar.publish.replay import TRIAL_RECORDS
from sidecar.telemetry import names
from tests.servers import poll_until
from tests.telemetry import RecordedTelemetry
from tests.unit.publish.kit import TOPIC, PaperKafka, PaperSpool, Shop, shop

AWAY = DeliveryFault("away")


def firsts(values: list[bytes | None]) -> list[int]:
    """The first deliveries, in their order; values are numbers."""
    return [int(value or b"") for value in dict.fromkeys(values)]


def kinds(outcomes: list[Outcome]) -> list[str]:
    return [type(outcome).__name__ for outcome in outcomes]


async def until_empty(one: Shop) -> None:
    await poll_until(
        lambda: not any(b.records for b in one.spool.backlogs()), 10.0, "the spool is empty"
    )


@pytest.mark.parametrize("outage", [Outage.BREAKER, Outage.SPOOL_FAILED])
async def test_what_isnt_confirmed_is_spooled_and_replayed_in_order(outage: Outage) -> None:
    async with shop(outage) as one:
        assert kinds(await one.publish(b"0", partition=0)) == ["Delivered"]
        one.kafka.fault = AWAY
        assert await one.publish(b"1", b"2", partition=0) == [Spooled(0, 1), Spooled(0, 2)]
        assert await one.publish(b"3", partition=0) == [Spooled(0, 3)]
        one.kafka.fault = None
        await until_empty(one)
        assert firsts(one.kafka.values(0)) == [0, 1, 2, 3]

        async def direct() -> bool:
            return kinds(await one.publish(b"4", partition=0)) == ["Delivered"]

        await poll_until(direct, 5.0, "it goes straight again")


async def test_disk_first_delivers_all_the_same() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        assert kinds(await one.publish(b"0", b"1", partition=1)) == ["Spooled", "Spooled"]
        await until_empty(one)
        assert firsts(one.kafka.values(1)) == [0, 1]
        (outcome,) = await one.publish(b"2", partition=1, delivered=True)
        assert outcome == Delivered(1, 2)


async def test_a_backlog_is_tried_with_a_little_of_it_until_kafka_takes_something() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        one.kafka.fault = AWAY
        many = [b"%d" % number for number in range(4 * TRIAL_RECORDS)]
        await one.publish(*many, partition=1)
        await poll_until(lambda: one.kafka.sends > 2, 5.0, "it was tried again")
        first, *trials = one.spool.reads
        assert first > TRIAL_RECORDS
        assert set(trials) == {TRIAL_RECORDS}
        one.kafka.fault = None
        await until_empty(one)
        assert one.kafka.values(1) == many
        assert max(one.spool.reads[len(trials) + 1 :]) > TRIAL_RECORDS


async def test_the_spool_counts_by_the_topic_itself_and_what_has_arrived() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        any_topic = {ANY_TOPIC: TopicPolicy(outage=Outage.SPOOL_ALL)}
        await one.desk.reconfigure(replace(one.around.policy, topics=any_topic))
        one.kafka.fault = AWAY
        assert kinds(await one.publish(b"0", b"1", partition=1)) == ["Spooled", "Spooled"]
        await poll_until(lambda: one.kafka.sends > 1, 5.0, "it was tried")
        assert (await one.desk.describe()).whole["replay_rate"] == 0.0
        told = (await one.desk.describe()).whole
        assert (told["records"], told["left_s"]) == (2, None)
        assert isinstance(told["oldest_age_s"], float)
        one.kafka.fault = None
        await until_empty(one)
        telemetry = cast("RecordedTelemetry", one.telemetry)
        assert telemetry.counted(names.SPOOL_REPLAYED, topic=TOPIC) == 2
        assert telemetry.counted(names.PUBLISH_RECORDS, topic=ANY_TOPIC, outcome="spooled") == 2


async def test_who_waits_for_delivery_is_told_the_truth_at_the_end_of_its_time() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        one.kafka.fault = AWAY
        assert await one.publish(b"0", partition=1, delivered=True) == [Spooled(1, 1)]


async def test_who_waits_for_delivery_is_told_at_a_stop_that_it_is_safe() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.SPOOL_ALL, kafka=kafka, delivery_timeout_s=30.0) as one:
        waiting = asyncio.create_task(one.publish(b"0", b"1", partition=0, delivered=True))
        await poll_until(lambda: kafka.sends, 2.0, "they are on their way from the spool")
        assert not waiting.done()
        one.desk.stop()
        async with asyncio.timeout(1.0):
            assert kinds(await waiting) == ["Spooled", "Spooled"]


async def test_who_waits_on_the_way_to_the_spool_is_told_at_a_stop_too() -> None:
    kafka = PaperKafka()
    kafka.takes = asyncio.Event()
    async with shop(Outage.BREAKER, kafka=kafka, delivery_timeout_s=30.0) as one:
        waiting = asyncio.create_task(one.publish(b"0", partition=0, delivered=True))
        await poll_until(lambda: kafka.sends, 2.0, "it is on its way to Kafka")
        one.desk.stop()
        async with asyncio.timeout(1.5):
            assert kinds(await waiting) == ["Spooled"]


async def test_a_broken_circuit_sends_the_whole_topic_to_disk_at_once() -> None:
    async with shop(Outage.BREAKER) as one:
        one.kafka.down = {0}
        assert kinds(await one.publish(b"0", partition=0)) == ["Spooled"]
        before = one.kafka.sends
        assert kinds(await one.publish(b"0", partition=1)) == ["Spooled"]
        assert before <= one.kafka.sends
        await poll_until(lambda: one.kafka.values(1), 5.0, "the other partition is replayed")

        async def direct() -> bool:
            return kinds(await one.publish(b"1", partition=1)) == ["Delivered"]

        await poll_until(direct, 5.0, "the other partition goes straight again")
        assert kinds(await one.publish(b"1", partition=0)) == ["Spooled"], "this one waits"
        one.kafka.down = set()
        await until_empty(one)
        assert firsts(one.kafka.values(0)) == [0, 1]


async def test_order_holds_whatever_fails_when() -> None:
    """A stream of records while Kafka comes and goes: first deliveries are in order."""
    async with shop(Outage.BREAKER) as one:
        stop = asyncio.Event()

        async def weather() -> None:
            while not stop.is_set():
                await asyncio.sleep(0.07)
                one.kafka.fault = AWAY if one.kafka.fault is None else None
            one.kafka.fault = None

        task = asyncio.create_task(weather())
        sent = 0
        for number in range(0, 600, 3):
            batch = [b"%d" % n for n in range(number, number + 3)]
            outcomes = await one.publish(*batch, partition=2)
            assert set(kinds(outcomes)) <= {"Delivered", "Spooled"}
            sent += 3
            await asyncio.sleep(0.002)
        stop.set()
        await task
        await until_empty(one)
        assert firsts(one.kafka.values(2)) == list(range(sent))


async def test_new_records_wait_a_moment_for_the_last_of_the_backlog() -> None:
    kafka = PaperKafka()
    async with shop(Outage.BREAKER, kafka=kafka, delivery_timeout_s=1.0) as one:
        kafka.fault = AWAY
        assert kinds(await one.publish(b"0", partition=0)) == ["Spooled"]
        kafka.takes = asyncio.Event()
        kafka.fault = None
        await poll_until(lambda: kafka.waiting, 5.0, "the replay is on its way")
        held = asyncio.create_task(one.publish(b"1", partition=0))
        await asyncio.sleep(0.02)
        kafka.takes.set()
        assert kinds(await held) == ["Delivered"]
        assert one.spool.appends == 1
        assert firsts(kafka.values(0)) == [0, 1]


async def test_a_full_disk_is_told_and_it_goes_on_when_there_is_room() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        for fault, why in (
            (SpoolDiskFull("no room"), Refusal.DISK_FULL),
            (SpoolFull("budget"), Refusal.SPOOL_FULL),
        ):
            one.spool.refuses = fault
            assert await one.publish(b"0", partition=0) == [Refused(why, str(fault))]
        one.spool.refuses = None
        assert kinds(await one.publish(b"1", partition=0)) == ["Spooled"]
        await until_empty(one)
        assert one.kafka.values(0) == [b"1"]


async def test_a_spool_that_takes_nothing_more_is_seen_as_such() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        read = one.desk.sight.families()[names.SPOOL_WRITABLE]
        assert list(read()) == [((), 1.0)]
        one.spool.fault = "a sync failed"
        assert list(read()) == [((), 0.0)]
        assert (await one.desk.describe()).whole["fault"] == "a sync failed"


async def test_what_is_seen_of_many_partitions_is_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sight, "PIECE", 2)
    async with shop(Outage.SPOOL_ALL) as one:
        assert (await one.desk.describe()).whole["oldest_age_s"] is None
        one.kafka.fault = AWAY
        for partition in (0, 1, 2):
            await one.publish(*[b"x"] * (partition + 1), partition=partition)
        told = await one.desk.describe()
        assert (told.whole["records"], told.whole["bytes"]) == (6, 600)
        (topic,) = told.topics
        assert (topic["records"], topic["bytes"]) == (6, 600)
        assert topic["oldest_age_s"] == told.whole["oldest_age_s"]
        backlogs = cast("list[dict[str, object]]", topic["backlogs"])
        assert [(b["partition"], b["records"]) for b in backlogs] == [(0, 1), (1, 2), (2, 3)]


async def test_what_may_be_in_kafka_is_never_called_refused() -> None:
    async with shop(Outage.BREAKER) as one:
        assert kinds(await one.publish(b"0", partition=0)) == ["Delivered"]
        one.kafka.fault = AWAY
        one.spool.refuses = SpoolDiskFull("no room")
        (outcome,) = await one.publish(b"0", partition=0)
        assert isinstance(outcome, Refused)
        assert outcome.why is Refusal.UNKNOWN_OUTCOME


async def test_without_ever_hearing_of_partitions_records_are_kept_and_placed_later() -> None:
    async with shop(Outage.BREAKER) as one:
        one.kafka.fault = AWAY
        assert await one.publish(b"0", key=b"k") == [Spooled(None, 1)]
        assert await one.publish(b"1", key=b"k") == [Spooled(None, 2)]
        assert one.spool.backlog(TOPIC, UNPLACED).records == 2
        one.kafka.fault = None
        await until_empty(one)

        async def direct() -> bool:
            return kinds(await one.publish(b"2", key=b"k")) == ["Delivered"]

        await poll_until(direct, 5.0, "it goes straight")
        values = firsts(one.kafka.values(partition_of(b"k", 3)))
        assert values == list(range(len(values)))
        assert len(values) >= 3


async def test_a_grown_topic_drains_its_old_placements_first() -> None:
    key = next(
        b"%d" % n for n in range(99) if partition_of(b"%d" % n, 3) != partition_of(b"%d" % n, 6)
    )
    async with shop(Outage.BREAKER) as one:
        assert kinds(await one.publish(b"0", key=key)) == ["Delivered"]
        one.kafka.fault = AWAY
        one.spool.still.add(TOPIC)
        await one.publish(b"1", key=key)
        one.kafka.fault, one.kafka.count = None, 6
        (outcome,) = await one.publish(b"2", key=key)
        assert isinstance(outcome, Spooled)
        assert outcome.partition == partition_of(key, 3)
        one.spool.still.clear()
        await until_empty(one)

        async def moved() -> bool:
            (outcome,) = await one.publish(b"3", key=key)
            return isinstance(outcome, Delivered) and outcome.partition == partition_of(key, 6)

        await poll_until(moved, 5.0, "the new number counts")
        assert firsts(one.kafka.values(partition_of(key, 3)))[:3] == [0, 1, 2]


async def test_a_paused_topic_stands_still_until_it_is_resumed() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        await one.desk.pause(TOPIC, paused=True)
        await one.publish(b"0", partition=0)
        await asyncio.sleep(0.1)
        assert one.kafka.total == 0
        described = (await one.desk.describe()).whole
        assert described["records"] == 1
        await one.desk.pause(TOPIC, paused=False)
        await until_empty(one)
        assert one.kafka.values(0) == [b"0"]


async def test_an_order_to_a_disk_that_hangs_is_answered_in_time() -> None:
    async with shop(Outage.BREAKER, timeout_s=0.2) as one:
        one.spool.takes = asyncio.Event()
        with pytest.raises(SpoolFault, match="no answer within"):
            await one.desk.pause(TOPIC, True)


async def test_only_what_is_known_is_paused() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        with pytest.raises(SpoolUnknown):
            await one.desk.pause("ordres", paused=True)
        one.spool.still.add("of-yesterday")
        await one.desk.pause("of-yesterday", paused=False)
        assert not one.spool.paused("of-yesterday")
    async with shop(Outage.REJECT) as one:
        with pytest.raises(SpoolUnknown, match=r"spool\.dir"):
            await one.desk.pause(TOPIC, paused=True)


async def test_a_spooled_record_that_kafka_never_takes_is_set_aside_and_holds_nothing_up() -> None:
    kafka = PaperKafka()
    kafka.poison = b"666"
    async with shop(Outage.SPOOL_ALL, kafka=kafka) as one:
        await one.publish(b"0", b"1", b"666", b"2", partition=0)
        await until_empty(one)
        assert firsts(kafka.values(0)) == [0, 1, 2]
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        assert told.counted(names.PUBLISH_DEAD, topic=TOPIC, reason="record-too-large") == 1


async def test_what_waits_for_a_topic_that_is_gone_is_set_aside_and_nothing_new_is_taken(
    tmp_path: Path,
) -> None:
    letters = DeadLetters(tmp_path)
    async with shop(Outage.BREAKER, letters=letters, missing_topic_after_s=0.5) as one:
        assert kinds(await one.publish(b"0", partition=0)) == ["Delivered"]
        one.kafka.said = Presence.ABSENT
        assert kinds(await one.publish(b"1", b"2", partition=0)) == ["Spooled", "Spooled"]
        assert kinds(await one.publish(b"3", partition=1)) == ["Spooled"]
        (topic,) = list(one.desk.topics.values())
        await poll_until(lambda: topic.absence.for_s(one.around.now()), 5.0, "it is missing")
        assert list(walk(tmp_path, Walked())) == [], "not yet"
        await until_empty(one)
        found = [letter for _, letter in walk(tmp_path, Walked())]
        assert {letter.reason for letter in found} == {"unknown-kafka-topic"}
        by_partition = {p: [x.record.value for x in found if x.partition == p] for p in (0, 1)}
        assert by_partition == {0: [b"1", b"2"], 1: [b"3"]}
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        assert told.counted(names.PUBLISH_DEAD, topic=TOPIC, reason="unknown-kafka-topic") == 3
        assert [name for name, _, _ in told.events].count(names.TOPIC_GONE) == 1
        (refused,) = await one.publish(b"4", partition=0)
        assert isinstance(refused, Refused)
        assert refused.why is Refusal.UNKNOWN_TOPIC
        one.kafka.said = Presence.PRESENT

        async def direct() -> bool:
            return kinds(await one.publish(b"5", partition=0)) == ["Delivered"]

        await poll_until(direct, 5.0, "the topic was made again")
        assert firsts(one.kafka.values(0)) == [0, 5]


@pytest.mark.parametrize("said", [Presence.CONFLICTING, Presence.UNREACHABLE])
async def test_only_an_absence_that_is_certain_sets_anything_aside(
    tmp_path: Path, said: Presence
) -> None:
    letters = DeadLetters(tmp_path)
    async with shop(Outage.SPOOL_ALL, letters=letters, missing_topic_after_s=0.2) as one:
        one.kafka.said = said
        await one.publish(b"0", partition=0)
        before = one.kafka.sends
        await poll_until(lambda: one.kafka.sends >= before + 3, 10.0, "it was tried for a while")
        assert one.spool.backlog(TOPIC, 0).records == 1
        one.kafka.said = Presence.PRESENT
        await until_empty(one)
        assert one.kafka.values(0) == [b"0"]
        assert list(walk(tmp_path, Walked())) == []


async def test_records_for_a_topic_that_never_was_are_set_aside_too(tmp_path: Path) -> None:
    kafka, letters = PaperKafka(), DeadLetters(tmp_path)
    async with shop(Outage.BREAKER, kafka=kafka, letters=letters, missing_topic_after_s=0.3) as one:
        kafka.fault = AWAY
        assert await one.publish(b"0") == [Spooled(None, 1)]
        kafka.count, kafka.said, kafka.fault = None, Presence.ABSENT, None
        await until_empty(one)
        ((_, letter),) = walk(tmp_path, Walked())
        assert (letter.partition, letter.record.value) == (UNPLACED, b"0")


async def test_where_no_letter_fits_the_partition_waits_and_says_so(tmp_path: Path) -> None:
    kafka, letters = PaperKafka(), DeadLetters(tmp_path, max_bytes=100)
    kafka.poison = b"666"
    async with shop(Outage.SPOOL_ALL, kafka=kafka, letters=letters) as one:
        await one.publish(b"666", b"1", partition=0)
        told = one.telemetry
        assert isinstance(told, RecordedTelemetry)
        await poll_until(
            lambda: names.REPLAY_STOPPED in [name for name, _, _ in told.events], 5.0, "it says so"
        )
        assert one.spool.backlog(TOPIC, 0).records == 2
        letters.max_bytes = 10_000
        await until_empty(one)
        assert kafka.values(0) == [b"1"]


async def test_a_key_is_accepted_once_also_through_the_spool() -> None:
    async with shop(Outage.BREAKER) as one:
        one.kafka.fault = AWAY
        first = await one.publish(b"0", b"1", partition=0, once=("k", b"p"))
        assert await one.publish(b"0", b"1", partition=0, once=("k", b"p")) == first
        one.kafka.fault = None
        await until_empty(one)
        assert firsts(one.kafka.values(0)) == [0, 1]
        assert await one.publish(b"0", b"1", partition=0, once=("k", b"p")) == first


async def test_a_key_is_held_until_the_end_of_what_its_sender_waits_for_no_longer() -> None:
    """A disk that hangs, and comes to itself: the record is accepted once, however often it is sent
    meanwhile."""
    async with shop(Outage.SPOOL_ALL, timeout_s=0.3) as one:
        one.kafka.fault = AWAY
        one.spool.takes = asyncio.Event()
        once = ("k", b"p")
        for why in (Refusal.UNKNOWN_OUTCOME, Refusal.IN_PROGRESS):
            (refused,) = await one.publish(b"0", partition=0, once=once)
            assert isinstance(refused, Refused)
            assert refused.why is why
        # This one isn't begun in time: whoever comes with its key finds it free.
        (refused,) = await one.publish(b"1", partition=0, once=("other", b"p"))
        assert isinstance(refused, Refused)
        one.spool.takes.set()

        async def told() -> list[Outcome]:
            return [
                *await one.publish(b"0", partition=0, once=once),
                *await one.publish(b"1", partition=0, once=("other", b"p")),
            ]

        async def known() -> bool:
            return await told() == [Spooled(0, 1), Spooled(0, 2)]

        await poll_until(known, 5.0, "both are accepted")
        one.kafka.fault = None
        await until_empty(one)
        assert one.kafka.values(0) == [b"0", b"1"]


async def test_a_repeated_request_waits_for_delivery_as_the_first_one_does() -> None:
    async with shop(Outage.BREAKER) as one:
        once = ("k", b"p")
        one.kafka.fault = AWAY
        spooled: list[Outcome] = [Spooled(0, 1), Spooled(0, 2)]
        assert await one.publish(b"0", b"1", partition=0, once=once) == spooled
        repeated = [
            asyncio.create_task(
                one.publish(b"0", b"1", partition=0, once=once, delivered=True), name=f"repeat {n}"
            )
            for n in range(2)
        ]
        (lane,) = one.desk.topics[TOPIC].lanes.values()
        await poll_until(lambda: len(lane.waiters) == 2, 2.0, "they wait")
        assert await one.publish(b"0", b"1", partition=0, once=once) == spooled, "others don't"
        assert not any(task.done() for task in repeated)
        one.kafka.fault = None
        for task in repeated:
            assert await task == [Delivered(0, 0), Delivered(0, 1)]
        assert one.kafka.values(0) == [b"0", b"1"]
        # Once it is delivered, nobody knows more of it than that it was spooled, and nobody waits.
        async with asyncio.timeout(1.0):
            assert await one.publish(b"0", b"1", once=once, delivered=True) == spooled


async def test_a_repeated_request_is_told_what_is_known_when_its_time_is_over() -> None:
    async with shop(Outage.SPOOL_ALL) as one:
        one.kafka.fault = AWAY
        assert await one.publish(b"0", partition=1, once=("k", b"p")) == [Spooled(1, 1)]
        again = asyncio.create_task(one.publish(b"0", once=("k", b"p"), delivered=True))
        (lane,) = one.desk.topics[TOPIC].lanes.values()
        await poll_until(lambda: len(lane.waiters) == 1, 2.0, "it waits")
        assert await again == [Spooled(1, 1)]
        await poll_until(lambda: len(lane.waiters) == 0, 2.0, "nobody is left behind")


async def test_a_key_that_came_with_anothers_spool_is_not_called_delivered() -> None:
    async with shop(Outage.BREAKER) as one:
        adopted = Accepted(partition=UNPLACED, spooled=True)
        one.spool.keys.settle(TOPIC, of_record("k", b"p", 0), adopted, one.around.wall())
        assert await one.publish(b"0", once=("k", b"p")) == [Spooled(None, None)]


async def test_what_an_earlier_process_left_is_replayed_before_anything_new() -> None:
    spool = PaperSpool()
    async with shop(Outage.BREAKER, spool=spool) as one:
        one.kafka.fault = AWAY
        await one.publish(b"0", b"1", partition=0)
    async with shop(Outage.BREAKER, spool=spool) as one:
        await one.publish(b"2", partition=0)
        await until_empty(one)
        assert firsts(one.kafka.values(0)) == [0, 1, 2]
