"""A line to one broker alone: what it is asked doesn't wait for any other.

aiokafka's clients connect to one broker after the other, so that one that swallows packets holds
the others' canaries up. A line has a client of its own, which begins at that broker's address.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.kafka.connection import Connection
from sidecar.kafka.reach import DENIALS, fault

# What these log of a broker that is away, they also say by exceptions, each time they are asked.
for _logger in ("aiokafka", "aiokafka.cluster", "aiokafka.conn"):  # its client logs as the first
    logging.getLogger(_logger).addFilter(lambda record: record.levelno >= logging.CRITICAL)

MARGIN = 0.9
"""aiokafka gives up a little before we do: then it closes a connection, which would hang else."""
NEVER_MS = 86_400_000
"""Between two looks of aiokafka's own at all topics, which nobody here needs."""
AGAIN_S = 0.02
"""Between two tries to read what has just been written."""
_ALL_REPLICAS = -1
_BATCH = 2048


def options(connection: Connection, *addresses: str) -> dict[str, Any]:
    """What a client needs that begins at these addresses and never looks around by itself.

    Raises:
        KafkaDenied: a file of `kafka.tls` or `kafka.sasl` can't be used.
    """
    made = connection.options()
    made["request_timeout_ms"] = int(made["request_timeout_ms"] * MARGIN)
    made["metadata_max_age_ms"] = NEVER_MS
    if addresses:
        made["bootstrap_servers"] = list(addresses)
    return made


class Line:
    """One broker, spoken to directly.

    Args:
        address: host:port, as the cluster advertises it.
    """

    def __init__(self, connection: Connection, broker: int, address: str) -> None:
        self._connection = connection
        self._address = address
        self._broker = broker
        self._timeout_ms = int(connection.request_timeout_s * 1000)
        self._client = AIOKafkaClient(**options(connection, address))

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaUnavailable, KafkaDenied: it can't be had, and why.
        """
        await bootstrap(self._client, self._connection, self._address)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()

    async def write(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        """Append one record with the acknowledgement of all replicas; returns its offset.

        Raises:
            KafkaUnavailable, KafkaDenied: no answer, or one that is no acknowledgement.
        """
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, _BATCH)
        builder.append(0, None, key, value, [])
        batch = [(topic, [(partition, builder.build())])]
        request = ProduceRequest(None, _ALL_REPLICAS, self._timeout_ms, batch)
        answer = await self._ask(request)
        for _, partitions in answer.topics:
            for _, code, offset, *_ in partitions:
                _check(code)
                return int(offset)
        raise KafkaUnavailable("an acknowledgement of nothing")

    async def read(self, topic: str, partition: int, offset: int) -> tuple[bytes | None, bytes]:
        """Key and value of the record at an offset; waits until it can be read.

        Raises:
            KafkaUnavailable, KafkaDenied: no answer, or an error of the broker's.
        """
        wait_ms = min(500, self._timeout_ms)
        asked = [(topic, [(partition, offset, _BATCH * 4)])]
        while True:
            request = FetchRequest(wait_ms, 1, _BATCH * 8, 0, asked)
            answer = await self._ask(request)
            for _, partitions in answer.topics:
                for _, code, _, *rest in partitions:
                    _check(code)
                    found = _record(rest[-1], offset)
                    if found is not None:
                        return found
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, request: Any) -> Any:
        try:
            return await self._client.send(self._broker, request)
        except RequestTimedOutError as error:
            raise KafkaUnavailable(f"no answer within {self._timeout_ms / 1000:g} s") from error
        except (KafkaConnectionError, NodeNotReadyError) as error:
            raise KafkaUnavailable("the connection was lost, and there is no other") from error


async def bootstrap(client: AIOKafkaClient, connection: Connection, address: str) -> None:
    """Start a client.

    Args:
        address: one of those that it begins at, to be asked why where it doesn't start.

    Raises:
        KafkaUnavailable, KafkaDenied: it didn't, and why.
    """
    try:
        await client.bootstrap()
    except KafkaConnectionError as error:
        raise await fault(connection, address) or KafkaUnavailable(str(error)) from error


def _check(code: int) -> None:
    if code:
        error = for_code(code)
        kind = KafkaDenied if error in DENIALS else KafkaUnavailable
        raise kind(error.__name__.removesuffix("Error"))


def _record(data: bytes | None, offset: int) -> tuple[bytes | None, bytes] | None:
    records = MemoryRecords(bytes(data or b""))
    while records.has_next():
        for record in records.next_batch():
            if record.offset == offset:
                return record.key, record.value or b""
            if record.offset > offset:
                raise KafkaUnavailable(f"offset {offset} is gone")
    return None
