"""Sends events to Kafka with every bound that keeps a producer well while Kafka is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

log = logging.getLogger("publisher")


class Full(Exception):
    """As many events as may be are on their way; nothing was sent."""


class Unknown(Exception):
    """No answer in time, or a broken one: the event may be there or not."""


class Publisher:
    """One producer, which is replaced when it fails.

    Args:
        bootstrap_servers: of Kafka.
        most: how many events may be on their way at once. aiokafka itself has no such bound.
        timeout_s: for one event, connecting included.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, most: int, timeout_s: float) -> None:
        self._topic = topic
        self._most = most
        self._timeout_s = timeout_s
        self._settings = {
            "bootstrap_servers": bootstrap_servers,
            "acks": "all",
            "linger_ms": 2,
            # Not idempotent: such a producer never gives an event up. Whoever reads knows it by id.
            "enable_idempotence": False,
            "request_timeout_ms": round(timeout_s * 1000),
        }
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self.outstanding = 0
        """Events on their way."""

    async def publish(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        """Send one event; on return every replica that counts has it.

        The same key always goes to the same partition, as long as the topic has as many.

        Raises:
            Full: too many are on their way.
            Unknown: it may be there or not.
        """
        if self.outstanding >= self._most:
            raise Full
        self.outstanding += 1
        producer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._started()
                sent = await producer.send(self._topic, value, key=key, headers=list(headers))
                sent.add_done_callback(_heard)
                await asyncio.shield(sent)  # cancelling it would not take the event back
        except (TimeoutError, KafkaError, OSError) as fault:
            # It may be stuck for good, and never asks for the first addresses again.
            self._abandon(producer)
            raise Unknown(f"{type(fault).__name__}: {fault}".rstrip(": ")) from fault
        finally:
            self.outstanding -= 1

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._settings)
                try:
                    await producer.start()
                except BaseException:
                    self._end(producer)
                    raise
                self._producer = producer
            return self._producer

    def _abandon(self, producer: Any) -> None:
        if producer is not None and producer is self._producer:
            log.warning("the producer failed; the next event gets a new one")
            self._producer = None
            self._end(producer)

    def _end(self, producer: Any) -> None:
        task = asyncio.create_task(self._stop(producer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _stop(self, producer: Any) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()
        except (TimeoutError, KafkaError, OSError):
            log.warning("a producer did not stop in good order")

    async def close(self) -> None:
        """Let what is on its way arrive, within the time of one event."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            self._end(producer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=self._timeout_s + 1.0)


def _heard(sent: asyncio.Future[Any]) -> None:
    """What becomes of an event that nobody waits for any more is no news for asyncio to tell."""
    if not sent.cancelled():
        sent.exception()
