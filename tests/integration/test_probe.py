"""Canaries on a real broker: the topic they go to, and that nobody else's disturb them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from sidecar.core.probe import Round
from sidecar.kafka.canaries import Canaries
from sidecar.kafka.connection import Connection
from sidecar.kafka.probe_topic import CONFIG
from sidecar.telemetry import names
from tests.kafka import Kafka
from tests.servers import ROOT
from tests.telemetry import RecordedTelemetry

pytestmark = pytest.mark.kafka


class Probing:
    """Rounds from a test."""

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        *,
        instance: str = "i-1",
        create: bool = True,
        servers: tuple[str, ...] = (),
    ) -> None:
        self.telemetry = RecordedTelemetry()
        self.canaries = Canaries(
            Connection(bootstrap_servers=servers or tuple(kafka.bootstrap.split(","))),
            topic,
            self.telemetry,
            instance=instance,
            create=create,
            interval_s=20.0,
            now=time.monotonic,
            draw=lambda: 0.25,
        )

    async def came_back(self) -> Round:
        done = await self.canaries.round()
        assert done.fault is None
        assert [canary.broker for canary in done.canaries] == [1]
        assert [canary.fault for canary in done.canaries] == [""]
        return done

    def said(self, event: str) -> list[dict[str, Any]]:
        return [dict(fields) for name, _, fields in self.telemetry.events if name == event]


async def test_the_topic_is_made_with_a_partition_on_the_broker_and_little_retention(
    kafka: Kafka, prefix: str
) -> None:
    probing = Probing(kafka, prefix)
    try:
        await probing.came_back()
        await probing.came_back()
    finally:
        await probing.canaries.close()
    assert probing.said(names.PROBE_TOPIC_MADE) == [{"topic": prefix, "brokers": ["1"]}]
    assert kafka.leaders(prefix) == {0: 1}
    resource = ConfigResource(ConfigResourceType.TOPIC, prefix)
    (answer,) = kafka.ask(lambda admin: admin.describe_configs([resource]))
    told = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert told.items() >= CONFIG.items()


async def test_two_probers_share_a_topic_and_each_reads_its_own(kafka: Kafka, prefix: str) -> None:
    one, other = Probing(kafka, prefix, instance="i-1"), Probing(kafka, prefix, instance="i-2")
    try:
        for probing in (one, other, other, one):
            await probing.came_back()
    finally:
        await one.canaries.close()
        await other.canaries.close()
    keys = [record.key for record in kafka.read(prefix, 5)]
    assert set(keys) == {b"i-1", b"i-2"}


async def test_without_the_topic_nothing_is_sent_and_it_is_said_what_to_do(
    kafka: Kafka, prefix: str
) -> None:
    probing = Probing(kafka, prefix, create=False)
    try:
        done = await probing.canaries.round()
        assert done.canaries == ()
        assert done.fault is not None
        assert f"the topic {prefix} does not exist" in done.fault
        kafka.create_topic(prefix, partitions=3)
        await probing.came_back()  # three partitions, one broker: the worst of three canaries
        assert sum(kafka.end_offsets(prefix).values()) == 3
        kafka.delete_topic(prefix)
        done = await probing.canaries.round()
        assert done.fault is not None
    finally:
        await probing.canaries.close()
    assert probing.said(names.PROBE_TOPIC_MADE) == []


async def test_nobody_there_is_no_verdict_on_a_broker(kafka: Kafka, prefix: str) -> None:
    probing = Probing(kafka, prefix, servers=("127.0.0.1:1",))
    try:
        done = await probing.canaries.round()
    finally:
        await probing.canaries.close()
    assert done.canaries == ()
    assert done.fault is not None
    assert done.fault.startswith("127.0.0.1:1: ")


# --- rights ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Kafka]:
    """A broker that knows of rights; who has none against it may do all."""
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Kafka(config=config) as broker:
        yield broker


def deny(kafka: Kafka, operation: str, *resources: str) -> None:
    """Take a right from everybody, and leave them all others."""
    command = ["java", "-cp", f"{ROOT}/.tools/kafka/*", "kafka.admin.AclCommand"]
    what = ["--add", "--deny-principal", "User:*", "--operation", operation, *resources]
    everyone = ["--add", "--allow-principal", "User:*", "--operation", "All", *resources]
    for change in (everyone, what):
        subprocess.run(
            [*command, "--bootstrap-server", kafka.bootstrap, *change],
            check=True,
            capture_output=True,
            timeout=60,
        )


async def test_a_right_that_is_missing_is_no_ill_health(guarded: Kafka, prefix: str) -> None:
    guarded.create_topic(prefix)
    deny(guarded, "Write", "--topic", prefix)
    probing = Probing(guarded, prefix)
    try:
        (canary,) = (await probing.canaries.round()).canaries
    finally:
        await probing.canaries.close()
    assert (canary.latency_s, canary.denied) == (None, True)
    assert canary.fault == "TopicAuthorizationFailed"


async def test_a_topic_that_may_not_be_made_is_told_of(guarded: Kafka, prefix: str) -> None:
    deny(guarded, "Create", "--cluster", "--topic", prefix)
    probing = Probing(guarded, prefix)
    try:
        done = await probing.canaries.round()
        await probing.canaries.round()
    finally:
        await probing.canaries.close()
    assert done.fault is not None
    assert "does not exist" in done.fault
    (told,) = probing.said(names.PROBE_TOPIC_FAILED)
    assert told["topic"] == prefix
    assert "Authorization" in str(told["error"])
