"""A cluster's brokers, asked directly: no group is joined, nothing is fetched or written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import RequestTimedOutError

from sidecar.core.errors import KafkaUnavailable
from sidecar.core.ports import Telemetry
from sidecar.kafka.connection import Connection
from sidecar.telemetry import names

LEAST = "3.0"
"""The first release whose brokers can be asked for many groups at once."""
_MARGIN = 0.9
"""aiokafka gives up a little before we do: then it closes the connection, which would hang else."""


class Cluster:
    """One client of a cluster.

    Args:
        connection: its `request_timeout_s` bounds each request, connecting included.
    """

    def __init__(
        self, connection: Connection, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self._within_s = connection.request_timeout_s
        self._telemetry = telemetry
        self._now = now
        options = connection.options()
        options["request_timeout_ms"] = int(options["request_timeout_ms"] * _MARGIN)
        self._client = AIOKafkaClient(**options)

    async def start(self) -> None:
        """Find the brokers.

        Raises:
            KafkaConnectionError: none of the bootstrap servers answers.
        """
        await self._client.bootstrap()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    @property
    def nodes(self) -> list[int]:
        """The brokers known now."""
        return [broker.nodeId for broker in self._client.cluster.brokers()]

    def learn(self, metadata: Any) -> None:
        """Take in which brokers there are, from an answer that says so."""
        self._client.cluster.update_metadata(metadata)

    def junk(self) -> None:
        """Count a part of an answer that made no sense and was left out."""
        self._telemetry.count(names.KAFKA_JUNK)

    async def ask(self, op: str, node: int, request: Any) -> Any:
        """One request to one broker.

        Args:
            op: what for, in the metrics.

        Raises:
            KafkaError, OSError: no usable answer.
            TimeoutError: none in time.
            KafkaUnavailable: the broker is too old to understand it.
        """
        began, outcome = self._now(), "failed"
        try:
            async with asyncio.timeout(self._within_s):
                answer = await self._client.send(node, request)
            outcome = "ok"
        except NotImplementedError as fault:  # aiokafka's word for a version not offered
            raise KafkaUnavailable(f"broker {node} is older than Kafka {LEAST}") from fault
        except (TimeoutError, RequestTimedOutError) as fault:
            outcome = "timeout"
            raise TimeoutError(f"broker {node} doesn't answer") from fault
        finally:
            self._telemetry.count(names.KAFKA_REQUESTS, op=op, outcome=outcome)
            self._telemetry.observe(names.KAFKA_DURATION, self._now() - began, op=op)
        return answer
