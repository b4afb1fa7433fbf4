"""The ways in which Kafka itself breaks, on a real cluster of three: each is seen for what it is.

A broker dies; packets are dropped rather than refused; one producer alone is cut off. The breaker
opens for that reason, with numbers that match what was done, and heals.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.acceptance.support import Place, timing
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import ConsulServer, free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow]  # brokers die and come back

NODES = (1, 2, 3)
FAILURES, INTERVAL_S = 2, 2.0
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """Three brokers, each behind a proxy for most clients and another for those on the side."""

    kafka: Kafka
    ways: dict[int, Proxy]
    side: dict[int, Proxy]

    @property
    def bootstrap(self) -> str:
        """Where most clients begin."""
        return ",".join(way.address for way in self.ways.values())

    @property
    def side_bootstrap(self) -> str:
        """Where those on the side begin."""
        return ",".join(way.address for way in self.side.values())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """For all tests here; each leaves it as it was."""
    told, told_aside = ({node: free_port() for node in NODES} for _ in range(2))
    with Toxiproxy() as toxiproxy:
        kafka = Kafka(len(NODES), advertised=told, side=told_aside)
        ways = {n: toxiproxy.proxy(f"way-{n}", kafka.brokers[n].port, told[n]) for n in NODES}
        side = {n: toxiproxy.proxy(f"side-{n}", kafka.side_ports[n], told_aside[n]) for n in NODES}
        with kafka:
            yield Cluster(kafka, ways, side)


def probing(cluster: Cluster, **more: object) -> dict[str, object]:
    """A sidecar that sends canaries, and nothing else to judge by."""
    probe = {"failures": FAILURES, "interval": f"{INTERVAL_S:g}s", **more}
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": cluster.bootstrap.split(",")},
        "breakers": {"default": timing(open_duration="3s", signals={"probe": probe})},
    }


def state(daemon: Daemon) -> str:
    return str(daemon.allowed(peek=True).body["state"])


def word(daemon: Daemon) -> dict[str, Any]:
    """What the signal says now."""
    signals = daemon.get("/v1/breakers/default").body["signals"] or []
    found: dict[str, Any] = next((s for s in signals if s["name"] == "probe"), {})
    return found


def healthy(daemon: Daemon) -> Callable[[], bool]:
    return lambda: word(daemon).get("verdict") == "healthy"


def opened(daemon: Daemon, reason: str = "probe") -> dict[str, Any]:
    """Wait until it opens for that reason; the transition's entry in the history."""
    poll_until_sync(
        lambda: daemon.get("/v1/breakers/default/history").body["transitions"],
        DEADLINE_S,
        "it opens",
    )
    first: dict[str, Any] = daemon.get("/v1/breakers/default/history").body["transitions"][0]
    assert (first["from"], first["to"], first["reason"]) == ("CLOSED", "OPEN", reason)
    return first


def heals(daemon: Daemon) -> None:
    poll_until_sync(lambda: state(daemon) == "CLOSED", DEADLINE_S, "it heals")
    assert daemon.get("/v1/breakers/default").body["reason"] == "recovered"


def test_a_broker_that_is_killed_is_named_and_is_healthy_again_when_it_is_back(
    cluster: Cluster,
) -> None:
    with Daemon(probing(cluster)) as daemon:
        poll_until_sync(healthy(daemon), DEADLINE_S, "canaries come back")
        assert word(daemon)["evidence"]["brokers"] == 3
        cluster.kafka.brokers[2].kill()
        try:
            evidence = opened(daemon)["evidence"]
            assert evidence["failing_brokers"] == "2"
            assert evidence["failed_in_row"] == FAILURES
            assert evidence["brokers"] == 3
            # Its only replica is with it, so that no other broker speaks for it.
            assert cluster.kafka.leaders("breaker-sidecar-probe").get(1, -1) in {-1, 2}
        finally:
            cluster.kafka.start()
        heals(daemon)
        metrics = daemon.get("/metrics").content.decode()
        assert 'breaker_probe_duration_seconds_count{broker="2"}' in metrics
        assert 'breaker_probe_failures_total{broker="2"}' in metrics


def test_packets_that_are_dropped_are_noticed_within_the_canarys_own_deadline(
    cluster: Cluster,
) -> None:
    """Nothing is refused and nothing answers: only a deadline tells."""
    with Daemon(probing(cluster)) as daemon:
        poll_until_sync(healthy(daemon), DEADLINE_S, "canaries come back")
        began = time.monotonic()
        cluster.ways[3].drop()
        try:
            first = opened(daemon)
            took_s = time.monotonic() - began
            assert first["evidence"]["failing_brokers"] == "3"
            assert first["evidence"]["failed_in_row"] == FAILURES
            assert "no answer within 1 s" in first["detail"]
            # One that is under way, then so many rounds with their deadlines; and a busy machine.
            assert took_s < (FAILURES + 1) * 2 * INTERVAL_S + 10
        finally:
            cluster.ways[3].heal()
        heals(daemon)


def test_a_broker_that_answers_late_is_slow_and_not_lost(cluster: Cluster) -> None:
    """Each canary comes back, and through one broker later than `max_latency`."""
    way_s, most_s = 0.6, 0.9
    latency = {"interval": "4s", "max_latency": f"{most_s:g}s"}
    with Daemon(probing(cluster, **latency)) as daemon:
        poll_until_sync(healthy(daemon), DEADLINE_S, "canaries come back")
        assert word(daemon)["evidence"]["latency"] <= most_s
        cluster.ways[2].slow(way_s)
        try:
            first = opened(daemon)
            evidence = first["evidence"]
            assert evidence["slow_brokers"] == "2"
            assert (evidence["failing_brokers"], evidence["failed_in_row"]) == (None, 0)
            assert evidence["max_latency"] == most_s
            # Its acknowledgement comes that much later, and what is read back again.
            assert 2 * way_s <= evidence["latency"] < 2.0
            late = f"{evidence['latency'] * 1000:.1f} ms"
            assert first["detail"] == (
                f"a canary is read back late, at most 900.0 ms: broker 2: {late}"
            )
        finally:
            cluster.ways[2].heal()
        poll_until_sync(healthy(daemon), DEADLINE_S, "canaries come back in time")


def test_a_whole_cluster_behind_dropped_packets_hangs_nothing(cluster: Cluster) -> None:
    with Daemon(probing(cluster)) as daemon:
        poll_until_sync(healthy(daemon), DEADLINE_S, "canaries come back")
        for way in cluster.ways.values():
            way.drop()
        try:
            first = opened(daemon)
            assert first["evidence"]["failing_brokers"] == "1,2,3"
            assert daemon.stop() == 0, "it ends in order while every connection hangs"
        finally:
            for way in cluster.ways.values():
                way.heal()


class Producer:
    """A real producer that asks its sidecar before each message, and reports what came of them.

    A context manager: it works in a thread of its own.
    """

    def __init__(self, name: str, bootstrap: str, topic: str, daemon: Daemon) -> None:
        self._name, self._bootstrap, self._topic = name, bootstrap, topic
        self._daemon = daemon
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.delivered = self.errored = self.held_back = 0

    async def _run(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=False,
            request_timeout_ms=1000,
        )
        await producer.start()
        try:
            while not self._ended.is_set():
                await self._turn(producer)
                await asyncio.sleep(0.25)
        finally:
            ending = asyncio.ensure_future(producer.stop())
            await asyncio.wait([ending], timeout=5)

    async def _turn(self, producer: AIOKafkaProducer) -> None:
        """Up to five messages, and a report of them."""
        sent = []
        for _ in range(5):
            if (await asyncio.to_thread(self._daemon.allowed)).status == 200:
                sent.append(self._send(producer))
            else:
                self.held_back += 1
        done = await asyncio.gather(*sent)
        good, bad = done.count(True), done.count(False)
        self.delivered += good
        self.errored += bad  # before it is reported: what is known there was counted here
        body = {"instance": self._name, "role": "producer", "count_ok": good, "count_fail": bad}
        await asyncio.to_thread(self._daemon.post, "/v1/report", body)

    async def _send(self, producer: AIOKafkaProducer) -> bool:
        try:
            async with asyncio.timeout(2):
                await producer.send_and_wait(self._topic, b"message")
        except (KafkaError, TimeoutError):
            return False
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_a_kafka_that_takes_nothing_from_anybody_shows_in_deliveries(
    cluster: Cluster, prefix: str
) -> None:
    topic = cluster.kafka.create_topic(prefix, 3, replication=3)
    breaker = timing(signals={"delivery": {"minimum": 5}})
    with (
        Daemon({"store": "memory", "breakers": {"default": breaker}}) as daemon,
        Producer("p-1", cluster.bootstrap, topic, daemon) as producer,
    ):
        poll_until_sync(lambda: producer.delivered > 20, DEADLINE_S, "it delivers")
        assert state(daemon) == "CLOSED"
        for way in cluster.ways.values():
            way.drop()
        try:
            evidence = opened(daemon, "delivery")["evidence"]
            assert 5 <= evidence["errored"] <= producer.errored
            assert evidence["messages"] <= producer.errored + producer.delivered
            assert evidence["producers"] == 1
        finally:
            for way in cluster.ways.values():
                way.heal()
        heals(daemon)


def test_a_producer_that_is_cut_off_alone_is_held_back_alone(
    cluster: Cluster, consul: ConsulServer, prefix: str
) -> None:
    place = Place(consul, prefix)
    topic = cluster.kafka.create_topic(prefix, 3, replication=3)
    delivery = {
        "minimum": 10,
        "quorum": 2,
        "local": {"minimum": 10, "window": "8s", "shut": "2s", "trial": 0.2},
    }
    config = place.config({"default": timing(signals={"delivery": delivery})})
    with (
        Daemon(config) as near,
        Daemon(config) as far,
        Producer("p-near", cluster.bootstrap, topic, near) as fine,
        Producer("p-far", cluster.side_bootstrap, topic, far) as cut,
    ):
        poll_until_sync(lambda: min(fine.delivered, cut.delivered) > 20, DEADLINE_S, "both send")
        before = place.record()
        assert (state(near), state(far), cut.held_back) == ("CLOSED", "CLOSED", 0)
        for way in cluster.side.values():
            way.drop()
        try:
            poll_until_sync(lambda: state(far) != "CLOSED", DEADLINE_S, "it is held back")
            answer = far.allowed(peek=True).body
            assert answer["reason"] == "delivery_local"
            gate = far.get("/v1/breakers/default").body["local_gate"]
            # Shut on what its own producer told until then, within one report of five.
            assert 5 <= gate["evidence"]["errored"] <= cut.errored
            assert gate["evidence"]["messages"] <= cut.errored + cut.delivered
            poll_until_sync(lambda: cut.held_back > 10, DEADLINE_S, "its calls are rejected")
            delivered = fine.delivered
            poll_until_sync(lambda: fine.delivered > delivered + 20, DEADLINE_S, "others go on")
            assert (state(near), fine.held_back) == ("CLOSED", 0)
            assert place.record() == before, "the fleet is as it was"
            assert place.history() == []
        finally:
            for way in cluster.side.values():
                way.heal()
        delivered = cut.delivered
        poll_until_sync(
            lambda: state(far) == "CLOSED" and cut.delivered > delivered + 20,
            DEADLINE_S,
            "its path has healed, and it has found out",
        )
        assert place.record() == before
