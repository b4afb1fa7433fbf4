"""One of two clusters that are read as one: partitions that are assigned by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from sidecar.consumer.closing import close, hear_commits
from sidecar.consumer.source import Place, Record, SourceError
from sidecar.consumer.taking import FAULTS, Taker
from sidecar.consumer.told import words

log = logging.getLogger(__name__)

OWN_SETTINGS = frozenset(
    {"enable_auto_commit", "group_id", "key_deserializer", "value_deserializer"}
)


class Kept(NamedTuple):
    """What is committed of a partition."""

    offset: int
    note: str
    """See `frontier`."""


class Cluster:
    """A consumer that comes when its cluster does.

    Args:
        settings: of AIOKafkaConsumer, `bootstrap_servers` among them.
        timeout_s: for each call.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], group: str, timeout_s: float
    ) -> None:
        if taken := OWN_SETTINGS & {*settings}:
            raise ValueError(f"{', '.join(sorted(taken))} can't be set: the kit does")
        self.name = name
        self._timeout_s = timeout_s
        self._settings = {
            "auto_offset_reset": "earliest",
            **settings,
            "group_id": group,
            "enable_auto_commit": False,
        }
        self._consumer: Any = None
        self._taker: Taker | None = None
        self._paused: set[Place] = set()

    @property
    def connected(self) -> bool:
        """Whether it was reached since the start; it may be away by now."""
        return self._consumer is not None

    @property
    def misnamed(self) -> int:
        """Records with a header whose name is no UTF-8 text, since it was reached."""
        return 0 if self._taker is None else self._taker.misnamed

    async def connect(self, topics: Collection[str]) -> dict[Place, Kept | None]:
        """Reach it, and say which partitions the topics have, and what is committed of each.

        Raises:
            SourceError: it can't be reached, or lacks a topic.
        """
        consumer = AIOKafkaConsumer(**self._settings)
        try:
            async with asyncio.timeout(self._timeout_s):
                await consumer.start()
                hear_commits(consumer)
                told = await consumer._client.fetch_all_metadata()
                parts = sorted(
                    TopicPartition(t, p) for t in topics for p in told.partitions_for_topic(t) or ()
                )
                if missing := set(topics) - {part.topic for part in parts}:
                    raise SourceError(f"the {self.name} cluster has no topic {min(missing)}")
                # The library's own `committed` leaves the note out.
                kept = await consumer._coordinator.fetch_committed_offsets(parts)
        except (TimeoutError, KafkaError, OSError) as error:
            await close(consumer, self._timeout_s)
            raise SourceError(f"the {self.name} cluster: {words(error)}") from error
        except BaseException:
            await close(consumer, self._timeout_s)
            raise
        self._consumer, self._taker = consumer, Taker(consumer)
        return {Place(*tp): _kept(kept.get(tp)) for tp in parts}

    def assign(self, places: Collection[Place]) -> None:
        """Read these from now on, each from what was committed."""
        self._paused = set()
        self._consumer.assign([TopicPartition(*place) for place in places])

    async def poll(
        self, most: int, wait_s: float, full: set[Place]
    ) -> Mapping[Place, Sequence[Record]]:
        """At most so many records, none of the partitions that are full. Raises SourceError."""
        if self._taker is None:
            raise SourceError(f"the {self.name} cluster is away")
        self._consumer.pause(*(TopicPartition(*place) for place in full - self._paused))
        self._consumer.resume(*(TopicPartition(*place) for place in self._paused - full))
        self._paused = full
        try:
            return await self._taker.take(most, wait_s)
        except FAULTS as error:
            raise SourceError(f"the {self.name} cluster: {words(error)}") from error

    async def commit(self, positions: Mapping[Place, Kept]) -> None:
        """The offsets to go on from, and the notes. Raises SourceError."""
        if self._consumer is None:
            raise SourceError(f"the {self.name} cluster is away")
        offsets = {TopicPartition(*place): tuple(kept) for place, kept in positions.items()}
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.commit(offsets)
        except (TimeoutError, KafkaError, IllegalStateError, OSError) as error:
            raise SourceError(
                f"not committed in the {self.name} cluster: {words(error)}"
            ) from error

    async def unread(self, places: Collection[Place]) -> dict[Place, int]:
        """How many offsets lie before the end of each. Raises SourceError."""
        if self._consumer is None:
            raise SourceError(f"the {self.name} cluster is away")
        parts = [TopicPartition(*place) for place in places]
        try:
            async with asyncio.timeout(self._timeout_s):
                ends = await self._consumer.end_offsets(parts)
                return {Place(*tp): ends[tp] - await self._consumer.position(tp) for tp in parts}
        except (TimeoutError, KafkaError, IllegalStateError, OSError) as error:
            raise SourceError(f"the {self.name} cluster: {words(error)}") from error

    async def stop(self) -> None:
        """Let go of it."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await close(consumer, self._timeout_s)


def _kept(told: Any) -> Kept | None:
    return None if told is None else Kept(told.offset, told.metadata or "")
