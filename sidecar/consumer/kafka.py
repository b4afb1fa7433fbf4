"""Kafka as a source, by aiokafka. Everything has a deadline, whatever state the cluster is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from sidecar.consumer.closing import close, hear_commits
from sidecar.consumer.source import Listener, NotOurs, Place, Record, SourceError
from sidecar.consumer.taking import FAULTS, Taker
from sidecar.consumer.told import words

log = logging.getLogger(__name__)

OWN_SETTINGS = frozenset(
    {"bootstrap_servers", "enable_auto_commit", "group_id", "key_deserializer"}
    | {"value_deserializer", "rebalance_timeout_ms"}
)
"""What the kit decides; the rest of aiokafka's settings may be given."""
REBALANCE_SLACK_S = 10.0
"""Between the end of a drain and the broker's losing patience."""


class KafkaSource:
    """A member of a consumer group that reads these topics.

    Args:
        client: how to connect, for any of aiokafka's clients (`security_protocol`, `ssl_context`,
            `sasl_…`, `client_id`, `request_timeout_ms`).
        consumer: more of AIOKafkaConsumer's settings.
        drain_s: how long the listener may take when partitions are revoked.
        timeout_s: for each call.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str],
        topics: Collection[str],
        group: str,
        client: Mapping[str, Any],
        consumer: Mapping[str, Any],
        drain_s: float,
        timeout_s: float,
    ) -> None:
        if taken := OWN_SETTINGS & {*client, *consumer}:
            raise ValueError(f"{', '.join(sorted(taken))} can't be set: the kit does")
        self._topics = sorted(topics)
        self._timeout_s = timeout_s
        self._settings = {
            "auto_offset_reset": "earliest",
            **client,
            **consumer,
            "bootstrap_servers": bootstrap_servers,
            "group_id": group,
            "enable_auto_commit": False,
            # The group waits for the slowest drain, and no longer.
            "rebalance_timeout_ms": round((drain_s + timeout_s + REBALANCE_SLACK_S) * 1000),
        }
        self._consumer: Any = None
        self._taker: Taker | None = None

    @property
    def misnamed(self) -> int:
        """Records with a header whose name is no UTF-8 text, since the start."""
        return 0 if self._taker is None else self._taker.misnamed

    async def start(self, listener: Listener) -> None:
        """Join the group, and wait for the first assignment. Raises SourceError."""
        consumer = self._consumer = AIOKafkaConsumer(**self._settings)
        self._taker = Taker(consumer)
        consumer.subscribe(self._topics, listener=_Told(listener, self._lost))
        try:
            # A group that is rebalancing answers when its slowest member has drained.
            async with asyncio.timeout(self._settings["rebalance_timeout_ms"] / 1000):
                await consumer.start()
            hear_commits(consumer)
        except (TimeoutError, KafkaError, OSError) as error:
            await self.stop()
            raise SourceError(f"the group can't be joined: {words(error)}") from error
        except BaseException:
            await self.stop()
            raise

    async def poll(self, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
        """At most so many records. Raises SourceError."""
        if self._taker is None:
            raise SourceError("it has not begun")
        # Without a timeout of ours: that would take a task, and with it a step between taking and
        # handing over. During a rebalance this waits until the group agrees, as it should.
        try:
            return await self._taker.take(most, wait_s)
        except FAULTS as error:
            raise SourceError(words(error)) from error

    def pause(self, places: Collection[Place]) -> None:
        """`poll` brings nothing of these until they are resumed."""
        self._switch(self._consumer.pause, places)

    def resume(self, places: Collection[Place]) -> None:
        """They come again."""
        self._switch(self._consumer.resume, places)

    def _switch(self, how: Any, places: Collection[Place]) -> None:
        assigned = self._consumer.assignment()
        how(*(TopicPartition(*place) for place in places if place in assigned))

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """The offsets to go on from. Raises NotOurs, SourceError."""
        if self._lost():
            raise NotOurs("the group goes on without this member")
        offsets = {TopicPartition(*place): offset for place, offset in positions.items()}
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise NotOurs(words(error)) from error
        except (TimeoutError, KafkaError, OSError) as error:
            raise SourceError(f"not committed: {words(error)}") from error

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offsets that the next records will have. Raises SourceError."""
        if not places:
            return {}
        try:
            async with asyncio.timeout(self._timeout_s):
                ends = await self._consumer.end_offsets([TopicPartition(*p) for p in places])
        except (TimeoutError, KafkaError, OSError) as error:
            raise SourceError(f"no end offsets: {words(error)}") from error
        return {Place(*place): offset for place, offset in ends.items()}

    async def positions(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offsets that `poll` goes on from. Raises SourceError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return {p: await self._consumer.position(TopicPartition(*p)) for p in places}
        except (TimeoutError, KafkaError, OSError) as error:
            raise SourceError(f"no positions: {words(error)}") from error

    def reached(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The same, of those that have a position already."""
        subscription = None if self._consumer is None else self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return {}
        states = {place: assignment.state_value(TopicPartition(*place)) for place in places}
        return {
            place: state.position
            for place, state in states.items()
            if state is not None and state.has_valid_position
        }

    async def stop(self) -> None:
        """Leave the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        if why := await close(consumer, self._timeout_s):
            log.warning("did not leave the group in good order: %s", why)

    def _lost(self) -> bool:
        """Whether the group has dropped this member.

        aiokafka does not say so, and asked to commit then, it would as somebody outside of any
        group, which a broker accepts when the group has no members left.
        """
        consumer = self._consumer
        coordinator = None if consumer is None else consumer._coordinator
        return coordinator is None or coordinator.generation < 0


class _Told(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """aiokafka's words for the listener's."""

    def __init__(self, listener: Listener, lost: Any) -> None:
        self._listener = listener
        self._lost = lost

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """All of them, each time: the whole group begins anew."""
        if revoked:
            await self._listener.revoked([Place(*tp) for tp in revoked], lost=self._lost())

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """What is ours from now on."""
        await self._listener.assigned([Place(*tp) for tp in assigned])
