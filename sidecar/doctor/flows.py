"""The brokers of `kafka` and `kafka_second`, and the topics and groups that are of use there: to a
signal that reads them, and to who publishes.

Asked as the daemon asks: by its own client, with its own credentials. A broker that takes a TCP
connection and answers nothing is found out here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar.config.model import Breaker, Config
from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.core.lag import ABSENT, NO_ANSWER
from sidecar.core.outage import Outage
from sidecar.core.types import Scalar
from sidecar.doctor.findings import Finding, Level, fault, fine, warning

if TYPE_CHECKING:
    from sidecar.core.backlog import Reading
    from sidecar.kafka.connection import Connection
    from sidecar.kafka.offsets import Flow

CHECK = "kafka"
KEY = "kafka.bootstrap_servers"
TIMEOUTS = 4.0
"""The topics and groups may take this many request timeouts together."""


class _Quiet:
    """Nobody counts what `doctor` asks."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """See the port `Telemetry`."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """See the port `Telemetry`."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """See the port `Telemetry`."""


async def kafka(connection: Connection, config: Config) -> list[Finding]:
    """What the brokers say, and then what they say of each breaker's flow."""
    found = await brokers(connection)
    read = {
        name: each
        for name, each in config.breakers.items()
        if each.topic is not None and each.group is not None and each.signals.lag is not None
    }
    if any(each.level is Level.FAULT for each in found):
        return found
    if read:
        found += await _flows(connection, read)
    return found + await _published(connection, _topics(config))


async def second(connection: Connection, config: Config) -> list[Finding]:
    """What the brokers of the second cluster say, and whether what goes to both can go there."""
    found = await brokers(connection)
    if any(each.level is Level.FAULT for each in found):
        return found
    return found + await _published(connection, _topics(config, only=Outage.DUAL))


def _topics(config: Config, only: Outage | None = None) -> list[str]:
    """The topics that are published to, by name; with `only`, those of one strategy."""
    topics = config.publish.topics if config.publish is not None else {}
    return [name for name, each in topics.items() if name != "*" and only in {None, each.outage}]


async def _published(connection: Connection, topics: Collection[str]) -> list[Finding]:
    """Whether the cluster has the topics that are published to."""
    from sidecar.kafka import reach

    if not topics:
        return []
    try:
        told = await reach.has_topics(connection, topics)
    except (KafkaUnavailable, KafkaDenied) as error:
        mend = "see that every broker can be reached by the address that it tells its clients"
        return [fault(CHECK, f"nothing can be published: {error}", mend)]
    return [_topic(connection.section, name, there) for name, there in told.items()]


def _topic(section: str, name: str, there: bool | None) -> Finding:
    key = f"publish.topics.{name}"
    if there:
        return fine(CHECK, f"{section} has the topic", key)
    if there is None:
        mend = "give this user the right to describe it and to write to it"
        return warning(CHECK, f"{section} doesn't say whether it has the topic", mend, key)
    said = f"{section} has no such topic: unless it makes topics by itself, records are refused"
    return warning(CHECK, said, "create it, or correct the name", key)


async def brokers(connection: Connection) -> list[Finding]:
    """What the brokers of one cluster say; a fault where none can be used."""
    from sidecar.kafka import reach

    servers, section = connection.bootstrap_servers, connection.section
    key, value = f"{section}.bootstrap_servers", ", ".join(servers)
    try:
        told = await asyncio.gather(*(reach.fault(connection, server) for server in servers))
    except KafkaDenied as refused:
        return [fault(CHECK, str(refused), "see to the file, or correct the setting")]
    away = [each for each in told if each is not None]
    if not away:
        return [fine(CHECK, f"{len(servers)} brokers answer", key, value)]
    said = f"{len(away)} of {len(servers)} brokers can't be used ({'; '.join(map(str, away))})"
    denied = any(isinstance(each, KafkaDenied) for each in away)
    mend = (
        f"correct {section}.tls and {section}.sasl, or give this user its rights"
        if denied
        else "start them, open the network to them, or correct their addresses"
    )
    grade = fault if len(away) == len(servers) else warning
    return [grade(CHECK, said, mend, key, value)]


async def _flows(connection: Connection, breakers: Mapping[str, Breaker]) -> list[Finding]:
    """One round over the flows of all breakers that read lag."""
    from sidecar.kafka.client import Client
    from sidecar.kafka.lag import Asking
    from sidecar.kafka.offsets import Flow

    flows = {name: Flow(str(each.topic), str(each.group), 0) for name, each in breakers.items()}
    client = Client(
        lambda: Asking(connection, _Quiet(), time.monotonic),
        Asking.close,
        now=time.monotonic,
        draw=random.random,
    )
    try:
        readings = await client.call(
            lambda asking: asking.round(set(flows.values())),
            TIMEOUTS * connection.request_timeout_s,
        )
    except KafkaUnavailable as error:
        mend = "see that every broker can be reached by the address that it tells its clients"
        return [fault(CHECK, f"topics and groups can't be asked for: {error}", mend, KEY)]
    finally:
        await client.close()
    return [each for name, flow in flows.items() for each in _flow(name, flow, readings[flow])]


def _flow(name: str, flow: Flow, reading: Reading) -> Iterator[Finding]:
    """What is the case with one breaker's topic and group."""
    topic, group = f"breakers.{name}.topic", f"breakers.{name}.group"
    if reading.fault is not None:
        mend = "create it, correct the name, or give this user the right to describe it"
        about = (topic, flow.topic) if flow.topic in reading.fault else (group, flow.group)
        yield fault(CHECK, reading.fault, mend, *about)
        return
    if NO_ANSWER in reading.committed or NO_ANSWER in reading.ends:
        said = f"not every partition of {flow.topic} has a leader that answers"
        yield fault(CHECK, said, "see to the brokers", topic, flow.topic)
    elif all(offset == ABSENT for offset in reading.committed):
        said = f"the group has committed nothing on {flow.topic}: its lag is unknown"
        mend = "correct the name, or start its consumers"
        yield warning(CHECK, said, mend, group, flow.group)
    else:
        behind = sum(
            max(0, end - max(offset, reading.begins.get(partition, 0)))
            for partition, (offset, end) in enumerate(
                zip(reading.committed, reading.ends, strict=True)
            )
            if offset != ABSENT
        )
        said = f"{behind} messages behind on {flow.topic} (partitions: {len(reading.ends)})"
        yield fine(CHECK, said, group, flow.group)
