"""How far a group is behind, as Kafka has it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

TIMEOUT_S = 5.0
CLOSE_S = 1.0


class Lag:
    """Asks Kafka; joins no group."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self._group = group
        self._admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self._consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap)

    async def start(self) -> None:
        """Connect."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._admin.start()
            await self._consumer.start()

    async def look(self, partitions: Collection[tuple[str, int]]) -> int | None:
        """Events that are there and not committed; None: Kafka gave no answer.

        Args:
            partitions: those whose events count; what waits on a retry topic is meant to.
        """
        wanted = [TopicPartition(*each) for each in partitions]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                # The commits first: an event in between then counts as not handled.
                commits = await self._admin.list_consumer_group_offsets(self._group)
                ends = await self._consumer.end_offsets(wanted)
        except (KafkaError, OSError, TimeoutError):
            return None
        done = {at: max(0, commit.offset) for at, commit in commits.items()}
        behind: list[int] = [max(0, ends[at] - done.get(at, 0)) for at in wanted]
        return sum(behind)

    async def close(self) -> None:
        """Disconnect, whatever state Kafka is in."""
        for end in (self._consumer.stop, self._admin.close):
            try:
                async with asyncio.timeout(CLOSE_S):
                    await end()
            except (KafkaError, OSError, TimeoutError):
                continue
