"""Carries records to Kafka: every send bounded, a producer that fell silent replaced at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from sidecar.core.absence import Presence, agreed
from sidecar.core.errors import KafkaDenied
from sidecar.core.publishing import DeliveryFault, NeverDelivered, NotListed, Refusal
from sidecar.core.spooling import NewRecord
from sidecar.kafka.link import CLOSE_S, InvalidRecordError, Link, end
from sidecar.kafka.reach import named

BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 5.0
"""Between two attempts to connect; sends in between fail at once."""
CONNECT_S: Final = 10.0
"""One attempt to connect, all addresses together."""
UNKNOWN_AFTER_S: Final = 1.0
"""A topic of which an answering cluster knows nothing for so long isn't there; where there is less
time, nearly all of it has to do …"""
LEAST_UNKNOWN_S: Final = 0.25
"""… but never less than this: a topic that is made as it is asked for takes a moment."""
WITNESSES: Final = 3
"""So many brokers are asked at most whether there is a topic, others each time."""
PIECE: Final = 200
"""Of a large batch so many records are written down at once."""
_POLL_S: Final = 0.1
_TOO_LARGE: Final = "the topic takes no record of this size: see its max.message.bytes"
_PERMANENT: Final[dict[type[KafkaError], tuple[Refusal, str]]] = {
    MessageSizeTooLargeError: (Refusal.TOO_LARGE, _TOO_LARGE),
    RecordListTooLargeError: (Refusal.TOO_LARGE, _TOO_LARGE),
    InvalidTopicError: (Refusal.REFUSED, "nobody may write to this topic"),
    InvalidTimestampError: (Refusal.REFUSED, "the topic takes no record of this time"),
    PolicyViolationError: (Refusal.REFUSED, "it is against the cluster's policy"),
    CorruptRecordException: (Refusal.REFUSED, "a compacted topic takes no record without a key"),
    UnsupportedForMessageFormatError: (Refusal.REFUSED, "the topic's format is too old for it"),
    InvalidRecordError: (
        Refusal.REFUSED,
        "it is against the topic's rules; a compacted one takes no record without a key",
    ),
}
"""What no repetition changes, and what may be wrong."""


class Publisher:
    """The port `Carrier` on real Kafka.

    Args:
        options: what the library's producer takes; asked anew for each.
        now: monotonic seconds.
        draw: a random number from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        options: Callable[[], dict[str, Any]],
        *,
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._options = options
        self._now = now
        self._draw = draw
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None
        self._failures = 0
        self._not_before = float("-inf")
        self._why = "not connected yet"
        self._counts: dict[str, int] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.rebuilt = 0
        """How many producers were given up."""

    def partitions(self, topic: str) -> int | None:
        """See the port."""
        if self._link is not None:
            told = self._link.partitions(topic)
            if told is not None:
                self._counts[topic] = told
        return self._counts.get(topic)

    async def look(self, topic: str, within_s: float) -> int:
        """See the port."""
        ends = self._now() + within_s - _POLL_S
        async with self._using(within_s) as link:
            now = self._now()
            until = now + min(UNKNOWN_AFTER_S, max(LEAST_UNKNOWN_S, ends - now))
            while True:
                answered = await link.ask(topic)
                if (known := link.partitions(topic)) is not None:
                    self._counts[topic] = known
                    return known
                if link.unauthorized(topic):
                    raise DeliveryFault(f"not authorized for the topic {topic}", unsent=True)
                if answered and self._now() >= until and topic not in self._counts:
                    link.forget(topic)
                    raise NeverDelivered(
                        Refusal.UNKNOWN_TOPIC, f"Kafka has no topic {topic}, and makes none"
                    )
                await asyncio.sleep(_POLL_S)

    async def presence(self, topic: str, within_s: float) -> Presence:
        """See the port."""
        try:
            async with self._using(within_s) as link:
                if not await link.ask(topic):
                    return Presence.UNREACHABLE
                there = link.brokers()
                start = int(self._draw() * len(there))
                asked = (there[start:] + there[:start])[:WITNESSES]
                return agreed(await asyncio.gather(*(link.has(each, topic) for each in asked)))
        except DeliveryFault:
            return Presence.UNREACHABLE

    async def send(
        self, topic: str, partition: int, records: Sequence[NewRecord], within_s: float
    ) -> int | None:
        """See the port."""
        async with self._using(within_s) as link:
            await self._check(link, topic, partition)
            link.sending += 1
            try:
                return await link.send(await _batch(link, records), topic, partition)
            except BaseException:
                self._retire(link)
                raise
            finally:
                link.sending -= 1
                self._end_if_done(link)

    async def _check(self, link: Link, topic: str, partition: int) -> None:
        """What the cluster's own word rules out isn't sent, and so leaves the producer whole."""
        if link.partitions(topic) is None:
            answered = await link.ask(topic)
            if answered and link.partitions(topic) is None and not link.unauthorized(topic):
                raise NotListed(topic)
        known = link.partitions(topic)
        if known is not None:
            self._counts[topic] = known
            if partition >= known:
                raise NeverDelivered(
                    Refusal.UNKNOWN_PARTITION,
                    f"{topic} has {known} partitions: there is no {partition}",
                )
        if not link.led(topic, partition):
            await link.ask(topic)
            if not link.led(topic, partition):
                raise DeliveryFault(f"{topic}/{partition} has no leader", unsent=True)

    @asynccontextmanager
    async def _using(self, within_s: float) -> AsyncIterator[Link]:
        """A connected producer for some work; its errors come out as those of the port."""
        try:
            async with asyncio.timeout(within_s):
                yield await self._linked()
        except TimeoutError as error:
            raise DeliveryFault(f"Kafka gave no answer within {within_s:g} s") from error
        except (KafkaError, OSError) as error:
            raise _fault(error) from error

    async def _linked(self) -> Link:
        if self._link is not None:
            return self._link
        if self._connecting is None:
            if self._now() < self._not_before:
                raise DeliveryFault(f"no connection to {self._why}", unsent=True)
            self._connecting = asyncio.get_running_loop().create_task(
                self._connect(), name="connect to Kafka"
            )
        # Shielded: whoever waits too long leaves, and the attempt goes on for the others.
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Link:
        try:
            link = await Link.open(self._options(), CONNECT_S)
        except (KafkaError, KafkaDenied, OSError, TimeoutError) as error:
            pause_s = min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** min(self._failures, 16))
            self._failures += 1
            self._not_before = self._now() + pause_s * (0.5 + 0.5 * self._draw())
            self._why = str(named(error, "Kafka"))
            raise DeliveryFault(f"no connection to {self._why}", unsent=True) from error
        finally:
            self._connecting = None
        self._failures = 0
        self._link = link
        return link

    def _retire(self, link: Link) -> None:
        """Nothing new goes through it; what others have on their way may still arrive."""
        if link is self._link:
            self._link = None
            self.rebuilt += 1
        link.retired = True

    def _end_if_done(self, link: Link) -> None:
        if link.retired and link.sending == 0:
            task = asyncio.get_running_loop().create_task(end(link.producer), name="end a producer")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """See the port."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=2 * CLOSE_S)
        if self._link is not None:
            link = self._link
            self._retire(link)
            link.sending = 0
            self._end_if_done(link)
        if self._ending:
            await asyncio.wait(self._ending, timeout=2 * CLOSE_S)


async def _batch(link: Link, records: Sequence[NewRecord]) -> BatchBuilder:
    """All of them as one; decisions have a turn in between."""
    batch = link.builder()
    for at, record in enumerate(records):
        if at % PIECE == PIECE - 1:
            await asyncio.sleep(0)
        batch.append(
            timestamp=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
        )
    batch.close()
    return batch


def _fault(error: KafkaError | OSError) -> DeliveryFault:
    """An error of the library's in the words of the port."""
    kind = type(error).__name__
    said = str(error).removeprefix(
        f"[Error {getattr(error, 'errno', None)}] "
    )  # which is the name's number
    detail = said if said.startswith(kind) else f"{kind}: {said}".removesuffix(": ")
    for permanent, (why, words) in _PERMANENT.items():
        if isinstance(error, permanent):
            return NeverDelivered(why, f"{words} ({detail})")
    unsent = isinstance(error, UnknownTopicOrPartitionError)
    return DeliveryFault(detail, unsent=unsent)
