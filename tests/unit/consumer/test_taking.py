"""What is taken of an aiokafka consumer, which here forgets as aiokafka does.

Where a header's name is no text, it is aiokafka's own fetcher that forgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, NotLeaderForPartitionError

from sidecar.consumer.taking import FAULTS, Taker
from tests.misnamed import batch


class Fetched:
    """Records by partition, in the order in which their turn is. None: can't be read."""

    def __init__(self, **records: list[int] | None) -> None:
        self.records = {TopicPartition(name, 0): found for name, found in records.items()}

    def assignment(self) -> frozenset[TopicPartition]:
        """All of them."""
        return frozenset(self.records)

    async def getmany(
        self, *only: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[int]]:
        """What is taken is gone, also where the next partition raises."""
        drained = {}
        for tp, found in self.records.items():
            if only and tp not in only:
                continue
            if found is None:
                raise CorruptRecordException
            if found:
                drained[tp], self.records[tp] = found[:max_records], found[max_records:]
                max_records -= len(drained[tp])
            if not max_records:
                break
        return drained


async def taken(fetched: Any, most: int) -> dict[str, list[Any]]:
    got = await Taker(fetched).take(most, 0.1)
    return {place.topic: list(found) for place, found in got.items()}


async def test_of_all_partitions_that_can_be_read_all_is_taken_in_order() -> None:
    fetched = Fetched(b=[1, 2, 3], c=[], a=[4, 5])
    assert await taken(fetched, 100) == {"b": [1, 2, 3], "a": [4, 5]}
    assert await taken(fetched, 100) == {}


async def test_no_more_is_taken_than_there_is_room_for_and_the_rest_comes_next() -> None:
    fetched = Fetched(b=[1, 2, 3], c=[4, 5], a=[6])
    assert await taken(fetched, 1) == {"b": [1]}
    assert await taken(fetched, 3) == {"b": [2, 3], "c": [4]}
    assert await taken(fetched, 3) == {"c": [5], "a": [6]}


async def test_one_that_can_not_be_read_loses_nothing_of_the_others() -> None:
    fetched = Fetched(a=[1, 2], b=None, c=[3])
    got = await taken(fetched, 100)
    assert got == {"a": [1, 2]}
    with pytest.raises(CorruptRecordException):
        await taken(fetched, 100)
    fetched.records = {tp: found for tp, found in fetched.records.items() if found is not None}
    assert await taken(fetched, 100) == {"c": [3]}


# --- a header whose name is no text ---------------------------------------------------------


class Cluster:
    """A broker's log, and a consumer of it whose fetcher is aiokafka's own.

    Args:
        logs: batches by topic, each with its first offset.
    """

    def __init__(self, isolation_level: str = "read_uncommitted", **logs: list[bytes]) -> None:
        self.parts = {name: TopicPartition(name, 0) for name in logs}
        self.logs = logs
        self.aborted: list[tuple[int, int]] | None = None
        self.version, self.code = 11, 0
        self.asked = 0
        """Fetches that aiokafka's fetcher didn't make."""
        self.meanwhile: Callable[[], object] = lambda: None
        """Called before one of those is answered."""
        self.fault: Exception | None = None
        self._loop, self._metadata_max_age_ms = asyncio.get_running_loop(), 300_000
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
        self._client = self
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user(list(self.parts.values()))
        for tp in self.parts.values():
            self._subscription.seek(tp, 0)
        self._fetcher = Fetcher(
            self, self._subscription, fetcher_timeout=0.01, isolation_level=isolation_level
        )

    async def send(self, node: int, request: Any) -> Any:
        """A fetch's answer: whole batches, from the one with that offset on."""
        ours = asyncio.current_task() not in self._fetcher._pending_tasks
        await asyncio.sleep(0.005)
        if ours:
            self.asked += 1
            self.meanwhile()
            if self.fault is not None:
                raise self.fault
        between = {3: [], 5: [0, 0, self.aborted], 11: [0, 0, self.aborted, -1]}[self.version]
        topics = [
            (name, [(0, self.code if ours else 0, 99, *between, self._from(name, parts[0][1]))])
            for name, parts in request.topics
        ]
        return SimpleNamespace(API_VERSION=self.version, topics=topics)

    def _from(self, name: str, offset: int) -> bytes:
        ends = (int.from_bytes(b[:8]) + int.from_bytes(b[23:27]) for b in self.logs[name])
        return b"".join(b for b, end in zip(self.logs[name], ends, strict=True) if end >= offset)

    def assignment(self) -> Any:
        """What it reads."""
        return self._subscription.assigned_partitions()

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on from there."""
        self._fetcher.seek_to(tp, offset)

    async def getmany(self, *only: Any, timeout_ms: int, max_records: int) -> Any:
        """As aiokafka's consumer."""
        return await self._fetcher.fetched_records(only, timeout_ms / 1000, max_records)


@asynccontextmanager
async def reading(**logs: Any) -> AsyncIterator[tuple[Cluster, Taker]]:
    cluster = Cluster(**logs)
    try:
        yield cluster, Taker(cluster)
    finally:
        await cluster._fetcher.close()


async def until(taker: Taker, count: int, most: int = 100) -> dict[str, list[bytes]]:
    """What comes until there are so many, whatever is raised between."""
    got: dict[str, list[bytes]] = {}
    async with asyncio.timeout(10):
        while sum(map(len, got.values())) < count:
            try:
                batch = await taker.take(most, 0.02)
            except FAULTS:
                continue
            assert sum(map(len, batch.values())) <= most
            for place, records in batch.items():
                got.setdefault(place.topic, []).extend(r.value or b"" for r in records)
    return got


def values(first: int, count: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + count)]


@pytest.mark.parametrize("version", [3, 5, 11])
@pytest.mark.parametrize("most", [1, 7, 100])
async def test_every_record_comes_once_and_in_order(version: int, most: int) -> None:
    a = [
        batch(values(0, 20), [0, 11]),
        batch(values(20, 5), base=20),
        batch(values(25, 3), [2], base=25),
    ]
    async with reading(a=a, b=[batch(values(0, 30))]) as (cluster, taker):
        cluster.version = version
        got = await until(taker, 58, most)
        assert got == {"a": values(0, 28), "b": values(0, 30)}
        assert await taker.take(most, 0.02) == {}
    assert taker.misnamed == 3


async def test_one_that_has_nothing_else_stops_no_partition_that_has() -> None:
    junk = [batch(values(n * 10, 10), range(10), base=n * 10) for n in range(5)]
    async with reading(a=junk, b=[batch(values(0, 50))], c=junk) as (_, taker):
        assert await until(taker, 150) == dict.fromkeys("abc", values(0, 50))
    assert taker.misnamed == 100


async def test_where_nothing_is_amiss_nothing_is_fetched_twice() -> None:
    async with reading(a=[batch(values(0, 9))]) as (cluster, taker):
        assert await until(taker, 9) == {"a": values(0, 9)}
    assert (cluster.asked, taker.misnamed) == (0, 0)


async def test_what_was_aborted_does_not_come() -> None:
    log = [batch([b"0", b"1"], [0], producer=5), batch([b"2"], [0], base=2, producer=6)]
    async with reading(a=log, isolation_level="read_committed") as (cluster, taker):
        cluster.aborted = [(5, 0)]
        assert await until(taker, 1) == {"a": [b"2"]}
        assert await taker.take(10, 0.02) == {}
    assert taker.misnamed == 1


async def test_a_corrupt_batch_behind_is_no_reason_to_keep_what_can_be_read() -> None:
    corrupt = bytearray(batch(values(2, 2), base=2))
    corrupt[-1] ^= 1
    async with reading(a=[batch(values(0, 2), [1]), bytes(corrupt)]) as (_, taker):
        assert await until(taker, 2) == {"a": values(0, 2)}
        with pytest.raises(CorruptRecordException):
            await taker.take(10, 0.5)


@pytest.mark.parametrize(
    ("code", "fault", "raised"),
    [
        (6, None, NotLeaderForPartitionError),
        (0, KafkaConnectionError("away"), KafkaConnectionError),
    ],
)
async def test_where_it_can_not_be_had_now_it_is_asked_for_again(
    code: int, fault: Exception | None, raised: type[Exception]
) -> None:
    async with reading(a=[batch(values(0, 2), [0])]) as (cluster, taker):
        cluster.code, cluster.fault = code, fault
        with pytest.raises(raised):
            await taker.take(10, 0.5)
        cluster.code, cluster.fault = 0, None
        assert await until(taker, 2) == {"a": values(0, 2)}


async def test_nothing_is_taken_of_what_is_no_longer_ours_or_moved_or_paused() -> None:
    async with reading(a=[batch(values(0, 4), [0])]) as (cluster, taker):
        tp, told = cluster.parts["a"], cluster._subscription
        for meanwhile in (
            lambda: told.pause(tp),
            lambda: (told.resume(tp), told.seek(tp, 1)),
            told.unsubscribe,
        ):
            cluster.meanwhile = meanwhile
            told.resume(tp)
            cluster.seek(tp, 0)
            with pytest.raises(UnicodeDecodeError):
                await taker.take(10, 0.5)
    assert (cluster.asked, taker.misnamed) == (3, 0)
