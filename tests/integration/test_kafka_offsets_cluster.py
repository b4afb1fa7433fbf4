"""Lag read from three brokers, one of which doesn't answer: the others' flows stay known."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence

import pytest

from sidecar.core.lag import NO_ANSWER
from sidecar.core.types import Scalar
from sidecar.kafka.cluster import Cluster
from sidecar.kafka.connection import Connection
from sidecar.kafka.offsets import Flow, Offsets
from sidecar.loops.around import Clock
from tests.kafka import Kafka
from tests.servers import poll_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]  # three brokers, and one of them frozen


class _Silent:
    """Counts nothing."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """See the port `Telemetry`."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """See the port `Telemetry`."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """See the port `Telemetry`."""


@pytest.fixture(scope="module")
def three() -> Iterator[Kafka]:
    """Sessions of brokers are long enough that a frozen one goes on leading."""
    with Kafka(3, config={"broker.session.timeout.ms": "60000"}) as cluster:
        cluster.commit("first", cluster.create_topic("first"), {0: 0})
        yield cluster


async def test_a_frozen_broker_is_missing_from_its_flows_alone(three: Kafka) -> None:
    name = uuid.uuid4().hex[:8]
    placed = {
        node: three.create_topic(f"on-{node}-{name}", placement={0: [node]}) for node in (1, 2, 3)
    }
    groups = [f"g{i}-{name}" for i in range(8)]
    for topic in placed.values():
        three.produce(topic, [b"x"] * 4)
        for group in groups:
            three.commit(group, topic, {0: 1})
    flows = [Flow(topic, group, 0) for topic in placed.values() for group in groups]
    connection = Connection(
        bootstrap_servers=tuple(three.bootstrap.split(",")), request_timeout_s=1.0
    )
    cluster = Cluster(connection, _Silent(), Clock().now)
    offsets = Offsets(cluster, Clock().now)
    await cluster.start()
    try:
        found = await offsets.round(flows)
        assert {(r.fault, *r.committed, *r.ends) for r in found.values()} == {(None, 1, 4)}
        three.brokers[2].freeze()
        began = asyncio.get_running_loop().time()
        found = await offsets.round(flows)
        assert asyncio.get_running_loop().time() - began < 5
        lost = {flow.group for flow, reading in found.items() if reading.fault is not None}
        assert lost  # of eight groups in four parts of three brokers, some are coordinated there
        assert len(lost) < len(groups)
        for flow, reading in found.items():
            if flow.group in lost:
                assert "broker 2" in str(reading.fault)
            elif flow.topic == placed[2]:
                assert list(reading.ends) == [NO_ANSWER]
            else:
                assert (*reading.committed, *reading.ends) == (1, 4)
        three.brokers[2].thaw()

        async def whole() -> bool:
            again = await offsets.round(flows)
            return {(r.fault, *r.committed, *r.ends) for r in again.values()} == {(None, 1, 4)}

        await poll_until(whole, 40, "all of them are known again")
    finally:
        three.brokers[2].thaw()
        await cluster.close()
