"""What a runner is put together of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.consumer.brake import Brake
from sidecar.consumer.flow import Flow
from sidecar.consumer.giving import Keeper
from sidecar.consumer.kafka import KafkaSource
from sidecar.consumer.moving import Mover
from sidecar.consumer.reading import Reader
from sidecar.consumer.settings import Limits
from sidecar.consumer.sink import KafkaSink, Sink, ensure_topics
from sidecar.consumer.source import Source
from sidecar.consumer.working import Work, Workers

MakeSource = Callable[[Collection[str], str], Source]
"""Of topics and a consumer group."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What all clients of Kafka have in common, and the clients made of it.

    Args:
        bootstrap_servers: of Kafka.
        client: how to connect, for any of aiokafka's clients.
        timeout_s: one call of Kafka.
    """

    bootstrap_servers: str | Sequence[str]
    client: Mapping[str, Any]
    timeout_s: float

    def sink(self) -> KafkaSink:
        """What writes to other topics."""
        return KafkaSink(
            bootstrap_servers=self.bootstrap_servers, client=self.client, timeout_s=self.timeout_s
        )

    def source(
        self, consumer: Mapping[str, Any], drain_s: float, topics: Collection[str], group: str
    ) -> KafkaSource:
        """What reads topics; see `KafkaSource`."""
        return KafkaSource(
            bootstrap_servers=self.bootstrap_servers,
            topics=topics,
            group=group,
            client=self.client,
            consumer=consumer,
            drain_s=drain_s,
            timeout_s=self.timeout_s,
        )

    async def ensure_topics(self, wanted: Mapping[str, Collection[str]]) -> list[str]:
        """Make what is missing; see `sink.ensure_topics`. Raises SinkFailed."""
        return await ensure_topics(
            wanted,
            bootstrap_servers=self.bootstrap_servers,
            client=self.client,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Side:
    """A source, with who reads and commits it."""

    source: Source
    reader: Reader
    keeper: Keeper


class Parts:
    """The workers and the mover, and sides as they are added. Nothing of it begins by itself."""

    def __init__(self, group: str, work: Work, limits: Limits, sink: Sink) -> None:
        self.group = group
        self.work = work
        self.limits = limits
        self.sink = sink
        self.flow = Flow(limits.in_flight)
        self.mover = Mover(self.flow, sink, group)
        brake = Brake(limits.brake_after, limits.brake_first_s, limits.brake_most_s)
        self.workers = Workers(self.flow, self.mover, brake, work)
        self.sides: list[Side] = []

    def read(self, topics: Collection[str], make: MakeSource) -> None:
        """Add what reads these topics, and what reads their retry topics if there are any.

        Raises:
            ValueError: there are no topics, or one is another's retry topic.
        """
        if not topics:
            raise ValueError("no topics: there is nothing to read")
        self.add(make(topics, self.group), {topic: (topic, 0) for topic in topics})
        later = {
            name: (topic, tier)
            for topic in topics
            for tier, name in enumerate(self.work.policy.topics(topic), start=1)
        }
        if twice := set(topics) & set(later):
            raise ValueError(f"{', '.join(sorted(twice))}: a retry topic of another one of them")
        if later:
            # With a consumer of their own: one that waits for events of retry topics, of which
            # there are few, would keep those of the topics themselves waiting.
            self.add(make(list(later), f"{self.group}.retry"), later)

    def add(self, source: Source, topics: Mapping[str, tuple[str, int]]) -> Side:
        """Add a side of `topics`: each with the topic whose events they are, and the tier."""
        reader = Reader(
            self.flow,
            source,
            self.work.policy,
            topics,
            per_partition=self.limits.per_partition,
            kick=self.workers.kick,
        )
        keeper = Keeper(
            self.flow,
            source,
            reader=reader,
            workers=self.workers,
            mover=self.mover,
            ledger=self.work.ledger,
            limits=self.limits,
        )
        side = Side(source, reader, keeper)
        self.sides.append(side)
        return side
