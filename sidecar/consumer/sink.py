"""Where events go that could not be handled: retry and dead-letter topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
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
NOT_WITH_THAT = frozenset({40, 44})
"""A setting that the cluster doesn't know, or that its policy doesn't allow."""
MOST_BYTES = "max.message.bytes"
HEADERS_BYTES = 64 * 1024
"""What a retry or dead-letter topic takes beyond its model: more than the kit's headers have."""
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


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
        compression: what aiokafka calls a codec; None: none.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str],
        client: Mapping[str, Any],
        timeout_s: float,
        compression: str | None = None,
    ) -> None:
        self._settings = {
            **client,
            "bootstrap_servers": bootstrap_servers,
            "acks": "all",
            "max_request_size": MOST_REQUEST_BYTES,
            "request_timeout_ms": round(timeout_s * 1000),
            "linger_ms": LINGER_MS,
            "max_batch_size": BATCH_BYTES,
            "compression_type": compression,
        }
        self._timeout_s = timeout_s
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()
        self._packing: KafkaSink | None = None
        if compression is None:
            self._packing = KafkaSink(
                bootstrap_servers=bootstrap_servers,
                client=client,
                timeout_s=timeout_s,
                compression="gzip",  # the one that every client can read
            )
        self._told: set[str] = set()
        """Topics of which it was told that they took no event as it was."""

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
        except _TOO_LARGE as error:
            fault: KafkaError = error
        else:
            return
        self._tell_of(topic)
        slim = slimmed(headers)
        # What was compressed on its own topic may be too large only because it isn't now.
        for sink in (self, self._packing):
            if sink is None:
                continue
            try:
                await sink._send(topic, key, value, slim, partition)
            except _TOO_LARGE as error:
                fault = error
            else:
                return
        raise SinkFailed(f"{topic} takes no event of that size") from fault

    def _tell_of(self, topic: str) -> None:
        if topic in self._told:
            return
        self._told.add(topic)
        log.warning(
            "%s takes no event of that size; this one, and others, are tried without stack and "
            "most of the error, then compressed",
            topic,
        )

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
        except _TOO_LARGE:
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
        if self._packing is not None:
            await self._packing.stop()
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

    They take events of the model's size, and the kit's headers besides.

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
            sizes = await _sizes(admin, models)
            new = [
                NewTopic(name, *_shape(shape), topic_configs=sizes.get(shape["topic"]))
                for shape in shapes
                for name in missing[shape["topic"]]
            ]
            await _make(admin, new)
            return [topic.name for topic in new]
    except (TimeoutError, KafkaError, OSError) as error:
        raise SinkFailed(f"topics can't be made: {words(error)}") from error
    finally:
        async with asyncio.timeout(timeout_s):
            await admin.close()


def _shape(topic: Mapping[str, Any]) -> tuple[int, int]:
    partitions = topic["partitions"]
    return len(partitions), max(len(partition["replicas"]) for partition in partitions)


async def _sizes(admin: AIOKafkaAdminClient, models: Sequence[str]) -> dict[str, dict[str, str]]:
    """The setting for topics like these. Of a model that may not be looked at there is none."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, {MOST_BYTES: None}) for name in models]
    found = {}
    for answer in await admin.describe_configs(asked) if asked else []:
        for _, _, _, name, settings in answer.resources:
            for _, value, *_ in settings:
                found[name] = {MOST_BYTES: str(min(int(value) + HEADERS_BYTES, 2**31 - 1))}
    return found


async def _make(admin: AIOKafkaAdminClient, new: Sequence[NewTopic]) -> None:
    """Raises SinkFailed for a topic that could not be made; one that somebody else made is fine."""
    faults = _faults(await admin.create_topics(new)) if new else {}
    again = [topic for topic in new if faults.get(topic.name, (0, ""))[0] in NOT_WITH_THAT]
    for topic in again:
        topic.topic_configs = {}
        del faults[topic.name]
    faults |= _faults(await admin.create_topics(again)) if again else {}
    for name, (code, said) in faults.items():
        raise SinkFailed(f"{name} can't be made: {for_code(code).__name__} {said}")


def _faults(answer: Any) -> dict[str, tuple[int, str]]:
    return {
        name: (code, rest[0] or "" if rest else "")
        for name, code, *rest in answer.topic_errors
        if code not in {0, TOPIC_ALREADY_EXISTS}
    }
