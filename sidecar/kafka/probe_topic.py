"""The topic that canaries go to: a partition on each broker, with no other replica anywhere.

So a canary's acknowledgement by all replicas is that one broker's, and a broker that is gone takes
its partition along instead of leaving it to the others. A topic that somebody made otherwise is
used as it is: then leaders move, and what is tested is whether such topics can be written to.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from sidecar.core.errors import KafkaUnavailable
from sidecar.core.ports import Telemetry
from sidecar.kafka.client import Client
from sidecar.kafka.connection import Connection
from sidecar.kafka.line import bootstrap, options
from sidecar.telemetry import names

CONFIG = {
    "cleanup.policy": "delete",
    "min.insync.replicas": "1",
    "retention.ms": "600000",
    "retention.bytes": "1048576",
    "segment.bytes": "1048576",
    "segment.ms": "600000",
}
"""Of a topic made here: canaries are worth nothing once they are read back."""
AGAIN_S = 60.0
"""Between two tries to make what is missing."""
TRIES, PAUSE_S = 50, 0.1
"""How often and how far apart it is looked for the leaders of what was just made."""
_NO_TOPIC = 3
_NO_LEADER = 5
"""Error codes of Kafka's protocol."""


@dataclass(frozen=True, slots=True)
class Place:
    """One partition, and the broker that its canary tests."""

    partition: int
    broker: int
    led: bool
    """False where it has no leader now: its broker is not in the cluster."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The topic and the cluster as a broker told."""

    brokers: dict[int, str] = field(default_factory=dict)
    """The address of each broker that is in the cluster."""
    places: tuple[Place, ...] = ()
    single: bool = True
    """No partition has a second replica."""
    there: bool = True

    @property
    def missing(self) -> list[int]:
        """Brokers that have no partition of it."""
        return sorted(self.brokers.keys() - {place.broker for place in self.places})


class ProbeTopic:
    """Knows where the partitions are, and makes those that are missing.

    Args:
        create: whether to make any.
        now: monotonic seconds.
        draw: uniform random numbers from 0 to 1.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        telemetry: Telemetry,
        *,
        create: bool,
        now: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.topic = topic
        self._connection = connection
        self._telemetry = telemetry
        self._create = create
        self._draw = draw
        self._now = now
        self._not_before = -math.inf
        """When to try again to make something (monotonic)."""
        self._refused = False
        self._silent: set[int] = set()
        """Brokers that gave no answer when they were asked last; the others are asked first."""
        self._client = Client(
            self._make, _Cluster.close, now=now, draw=draw, stuck_s=0.0, backoff_s=0.0
        )
        self._admin = Client(
            lambda: AIOKafkaAdminClient(**options(connection)),
            AIOKafkaAdminClient.close,
            now=now,
            draw=draw,
            backoff_s=0.0,
        )
        self.layout: Layout | None = None
        """As last heard; None: never."""

    def _make(self) -> _Cluster:
        # One of the addresses may swallow packets: it must not be the first one for ever.
        servers = sorted(self._connection.bootstrap_servers, key=lambda _: self._draw())
        return _Cluster(self._connection, servers)

    async def look(self, within_s: float) -> tuple[Layout, bool]:
        """Ask the cluster, and make what is missing; tells whether anything was made just now.

        Raises:
            KafkaUnavailable, KafkaDenied: no answer in time, or no right to look.
        """
        made, layout = False, await self._client.call(self._asked, within_s)
        missing = layout.missing if layout.single or not layout.there else []
        if missing and self._create and self._now() >= self._not_before:
            made = await self._add(layout, missing, within_s)
            if made:
                layout = await self._client.call(self._led, within_s)
            self._not_before = self._now() + AGAIN_S
        self.layout = layout
        return layout, made

    async def close(self) -> None:
        """Let go of the connections."""
        await asyncio.gather(self._client.close(), self._admin.close())

    async def _asked(self, cluster: _Cluster) -> Layout:
        return _layout(await cluster.metadata(self.topic, self._silent, self._draw))

    async def _led(self, cluster: _Cluster) -> Layout:
        """The layout once each partition has a leader: of new ones that takes a moment."""
        layout = await self._asked(cluster)
        for _ in range(TRIES):
            if layout.there and all(place.led for place in layout.places):
                break
            await asyncio.sleep(PAUSE_S)
            layout = await self._asked(cluster)
        return layout

    async def _add(self, layout: Layout, missing: Sequence[int], within_s: float) -> bool:
        """Make the topic, or its missing partitions. False where that can't be done."""
        brokers = [str(broker) for broker in missing]
        try:
            await self._admin.call(lambda admin: self._make_in(admin, layout, missing), within_s)
        except KafkaUnavailable as fault:
            if not self._refused:
                self._refused = True
                self._telemetry.event(
                    names.PROBE_TOPIC_FAILED,
                    level="warning",
                    topic=self.topic,
                    brokers=brokers,
                    error=str(fault),
                )
            return False
        finally:
            self._admin.abandon()
        self._refused = False
        self._telemetry.event(names.PROBE_TOPIC_MADE, topic=self.topic, brokers=brokers)
        return True

    async def _make_in(
        self, admin: AIOKafkaAdminClient, layout: Layout, missing: Sequence[int]
    ) -> None:
        if layout.there:
            placed = [[broker] for broker in missing]
            total = len(layout.places) + len(placed)
            await admin.create_partitions({self.topic: NewPartitions(total, placed)})
            return
        first = {number: [broker] for number, broker in enumerate(missing)}
        made = await admin.create_topics([NewTopic(self.topic, -1, -1, first, CONFIG)])
        for _, code, *_ in made.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:  # another prober's, just now
                raise for_code(code)


class _Cluster:
    """Any broker of it, asked for the layout."""

    def __init__(self, connection: Connection, servers: Sequence[str]) -> None:
        self._connection = connection
        self._first = servers[0]
        self._client = AIOKafkaClient(**options(connection, *servers))

    async def start(self) -> None:
        await bootstrap(self._client, self._connection, self._first)

    async def close(self) -> None:
        await self._client.close()

    async def metadata(self, topic: str, silent: set[int], draw: Callable[[], float]) -> Any:
        """What the first broker to answer says. Never makes the topic: a question must not."""
        nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
        fault: Exception = KafkaError("no broker is known")
        for node in sorted(nodes, key=lambda node: (node in silent, draw())):
            silent.add(node)
            try:
                answer = await self._client.send(node, MetadataRequest([topic], False))
            except (KafkaError, OSError) as error:
                fault = error
                continue
            silent.discard(node)
            self._client.cluster.update_metadata(answer)
            return answer
        raise fault


def _layout(answer: Any) -> Layout:
    """What an answer says of the only topic that was asked for."""
    brokers = {node: f"{host}:{port}" for node, host, port, *_ in answer.brokers}
    ((code, _, _, partitions),) = answer.topics
    if code == _NO_TOPIC:
        return Layout(brokers, there=False)
    if code and code != _NO_LEADER:
        raise for_code(code)
    found = list(_places(partitions))
    return Layout(
        brokers, tuple(place for place, _ in found), single=all(count == 1 for _, count in found)
    )


def _places(partitions: Iterable[Any]) -> Iterable[tuple[Place, int]]:
    """Each partition with the number of its replicas, by number."""
    for _, partition, leader, replicas, *_ in sorted(partitions, key=lambda each: each[1]):
        if leader >= 0 or replicas:
            broker = leader if leader >= 0 else replicas[0]
            yield Place(partition, broker, led=leader >= 0), len(replicas)


def needs(topic: str, layout: Layout) -> str | None:
    """What is missing for any canary to be sent; None: nothing."""
    if layout.there and layout.places:
        return None
    return f"the topic {topic} does not exist; make it, or let the sidecar (Create on the topic)"
