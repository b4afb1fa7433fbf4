"""Where events go that could not be handled: retry and dead-letter topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, for_code

from sidecar.consumer.headers import Header, slimmed
from sidecar.consumer.told import words

log = logging.getLogger(__name__)

MOST_REQUEST_BYTES = 64 * 1024 * 1024
"""The broker decides what is too long, not the client."""
LINGER_MS = 50
"""Nobody waits for these events, and a request for each would cost more than all else."""
BATCH_BYTES = 256 * 1024
"""Of one partition; a topic with usual settings takes four times as much."""
TOPIC_ALREADY_EXISTS = 36


class SinkFailed(Exception):
    """It was not written, or nobody knows whether it was."""


class Sink(Protocol):
    """Writes events to other topics."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        partition: int | None = None,
    ) -> None:
        """On return it is there, on every replica that counts. Raises SinkFailed."""

    async def stop(self) -> None:
        """Give back what it holds."""


class KafkaSink:
    """A producer that waits for every replica, and is replaced when it gets stuck.

    An event may be written twice, when an answer was lost: whoever reads it must recognise it.

    Args:
        client: how to connect, for any of aiokafka's clients.
        timeout_s: for one event, connecting included.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str],
        client: Mapping[str, Any],
        timeout_s: float,
    ) -> None:
        self._settings = {
            **client,
            "bootstrap_servers": bootstrap_servers,
            "acks": "all",
            "max_request_size": MOST_REQUEST_BYTES,
            "request_timeout_ms": round(timeout_s * 1000),
            "linger_ms": LINGER_MS,
            "max_batch_size": BATCH_BYTES,
        }
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        partition: int | None = None,
    ) -> None:
        """Write one event. Raises SinkFailed."""
        try:
            await self._send(topic, key, value, headers, partition)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            slim = slimmed(headers)
            if slim == list(headers):
                raise SinkFailed(f"{topic} takes no event of that size") from error
            log.warning(
                "%s takes no event of that size; trying without its stack, and less of its error",
                topic,
            )
            await self.send(topic, key, value, slim, partition)

    async def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        partition: int | None,
    ) -> None:
        if key is None and value is None:
            value = b""  # said in the headers; aiokafka would not write it
        producer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._started()
                sent = await producer.send(
                    topic, value, key=key, partition=partition, headers=list(headers)
                )
                await sent
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            raise
        except (TimeoutError, KafkaError, OSError, AssertionError) as error:
            # Its connections may be stuck, and it never asks for the first addresses again.
            self._abandon(producer)
            raise SinkFailed(f"{topic}: {words(error)}") from error

    async def _started(self) -> Any:
        if self._producer is None:
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
            self._producer = None
            self._end(producer)

    def _end(self, producer: Any) -> None:
        """Stop it aside: that may take as long as it likes, within bounds."""
        task = asyncio.create_task(self._stop(producer), name="breaker-sink-end")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self, producer: Any) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.stop()
        except (TimeoutError, KafkaError, OSError) as error:
            log.warning("a producer did not stop in good order: %s", error)

    async def stop(self) -> None:
        """Stop the producer, and those that were replaced."""
        self._abandon(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=self._timeout_s * 2)


async def ensure_topics(
    wanted: Mapping[str, Collection[str]],
    *,
    bootstrap_servers: str | Sequence[str],
    client: Mapping[str, Any],
    timeout_s: float,
) -> list[str]:
    """Make the topics that are missing, each like its model: as many partitions and replicas.

    Args:
        wanted: topics by the topic they are modelled on.

    Returns:
        Those that were made.

    Raises:
        SinkFailed: a model isn't there, or they can't be made.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **client)
    try:
        async with asyncio.timeout(timeout_s):
            await admin.start()
            there = set(await admin.list_topics())
            if unknown := sorted(set(wanted) - there):
                raise SinkFailed(f"there is no topic {', '.join(unknown)}")
            missing = {
                model: [t for t in topics if t not in there] for model, topics in wanted.items()
            }
            models = [model for model, topics in missing.items() if topics]
            shapes = await admin.describe_topics(models) if models else []
            new = [
                NewTopic(name, *_shape(shape))
                for shape in shapes
                for name in missing[shape["topic"]]
            ]
            if new:
                _check(await admin.create_topics(new))
            return [topic.name for topic in new]
    except (TimeoutError, KafkaError, OSError) as error:
        raise SinkFailed(f"topics can't be made: {words(error)}") from error
    finally:
        async with asyncio.timeout(timeout_s):
            await admin.close()


def _shape(topic: Mapping[str, Any]) -> tuple[int, int]:
    partitions = topic["partitions"]
    return len(partitions), max(len(partition["replicas"]) for partition in partitions)


def _check(answer: Any) -> None:
    """Raises SinkFailed for a topic that could not be made; one that somebody else made is fine."""
    for name, code, *rest in answer.topic_errors:
        if code not in {0, TOPIC_ALREADY_EXISTS}:
            raise SinkFailed(f"{name} can't be made: {for_code(code).__name__} {rest[0] or ''}")
