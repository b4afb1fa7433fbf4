"""What is taken of an aiokafka consumer, which here forgets as aiokafka does."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException

from sidecar.consumer.taking import take


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
    return {place.topic: list(found) for place, found in (await take(fetched, most, 0.1)).items()}


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
