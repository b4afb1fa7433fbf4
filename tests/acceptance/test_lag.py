"""Lag on a real sidecar and a real Kafka: what is done to a group opens its breaker, and it heals.

One broker of this module's own, whose clients come through Toxiproxy, so that it can be frozen
and its packets dropped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.acceptance.support import timing
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import free_port, poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow]  # it opens and heals in real time

SOON_S = 40.0
CONSUMER = Path(__file__).parent / "clients" / "lag_consumer.py"


@pytest.fixture(scope="module")
def way() -> Iterator[tuple[Kafka, Proxy]]:
    """A broker, and the way that clients have to take to it."""
    port = free_port()
    kafka = Kafka(advertised={1: port})
    with Toxiproxy() as toxiproxy:
        proxy = toxiproxy.proxy("kafka", kafka.broker.port, port)
        with kafka:
            # The first group makes Kafka set up what it keeps groups in.
            kafka.commit("first", kafka.create_topic("first"), {0: 0})
            yield kafka, proxy


class Flow:
    """A topic, its group, and a daemon that watches it."""

    def __init__(self, kafka: Kafka, proxy: Proxy, *, partitions: int = 2, **lag: object) -> None:
        name = uuid.uuid4().hex[:8]
        self.kafka = kafka
        self.topic = kafka.create_topic(f"orders-{name}", partitions)
        self.group = f"g-{name}"
        self._way = proxy.address
        self.daemon = Daemon(self.config(lag={"window": "3s", "floor": 5, **lag}))

    def config(self, **signals: object) -> dict[str, object]:
        """The daemon's, with these signals."""
        breaker = timing(
            topic=self.topic, group=self.group, evaluation_interval="400ms", signals=signals
        )
        return {
            "store": "memory",
            "kafka": {"bootstrap_servers": [self._way], "request_timeout": "1s"},
            "breakers": {"default": breaker},
        }

    def __enter__(self) -> Self:
        self.daemon.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.daemon.__exit__(kind, fault, trace)

    @property
    def word(self) -> Mapping[str, Any]:
        """What the signal says now; empty before it says anything."""
        shown = self.daemon.get("/v1/breakers/default").body
        words = [each for each in shown["signals"] or () if each["name"] == "lag"]
        return words[0] if words else {}

    @property
    def trip(self) -> Mapping[str, Any]:
        """The last transition to OPEN; empty where there was none."""
        entries = self.daemon.get("/v1/breakers/default/history").body["transitions"]
        opened = [entry for entry in entries if entry["to"] == "OPEN"]
        return opened[-1] if opened else {}

    def says(self, verdict: str) -> Callable[[], bool]:
        """Whether the signal has that verdict."""
        return lambda: self.word.get("verdict") == verdict

    def wait(self, verdict: str, what: str) -> None:
        """Until the signal has a verdict."""
        poll_until_sync(self.says(verdict), SOON_S, what)

    def opens(self) -> Mapping[str, Any]:
        """Wait until it opens, and return that transition."""
        return poll_until_sync(lambda: self.trip, SOON_S, f"it opens; it says {self.word}")

    def closes(self) -> None:
        """Wait until it is closed again."""

        def closed() -> bool:
            return bool(self.daemon.allowed(peek=True).body["state"] == "CLOSED")

        poll_until_sync(closed, SOON_S, "it closes")


@contextlib.contextmanager
def consuming(flow: Flow, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A consumer in the flow's group that commits what it reads, five times a second."""
    arguments = [address, flow.topic, flow.group]
    with subprocess.Popen([sys.executable, str(CONSUMER), *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_consumer_stopped_by_a_signal(way: tuple[Kafka, Proxy]) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy) as flow, consuming(flow, proxy.address) as consumer:
        kafka.produce(flow.topic, [b"x"] * 20)
        poll_until_sync(
            lambda: sum(kafka.committed(flow.group, flow.topic).values()) == 20, SOON_S, "read"
        )
        flow.wait("healthy", "it keeps pace")
        consumer.send_signal(signal.SIGSTOP)
        kafka.produce(flow.topic, [b"x"] * 30, partition=1)
        opened = flow.opens()
        assert opened["reason"] == "lag"
        evidence = opened["evidence"]
        # Its session ends after six seconds: then nobody is left in the group.
        assert evidence["status"] in {"stalled", "stopped"}
        assert (evidence["lag"], evidence["partition_lag"]) == (30, 30)
        assert evidence["partition"] == f"{flow.topic}-1"
        poll_until_sync(
            lambda: flow.word["evidence"].get("status") == "stopped",
            SOON_S,
            "the group is found deserted",
        )
        consumer.send_signal(signal.SIGCONT)
        flow.closes()


def test_a_group_rewound(way: tuple[Kafka, Proxy]) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy) as flow:
        kafka.produce(flow.topic, [b"x"] * 50, partition=0)
        kafka.commit(flow.group, flow.topic, {0: 50})
        flow.wait("healthy", "it has caught up")
        kafka.commit(flow.group, flow.topic, {0: 10})
        opened = flow.opens()
        assert (opened["reason"], opened["evidence"]["status"]) == ("lag", "rewound")
        assert (opened["evidence"]["lag"], opened["evidence"]["partition_lag"]) == (40, 40)
        kafka.commit(flow.group, flow.topic, {0: 50})
        flow.closes()


def test_lag_left_over_from_an_outage_may_take_its_time(way: tuple[Kafka, Proxy]) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy, partitions=1, max_messages=100) as flow:
        kafka.produce(flow.topic, [b"x"] * 50)
        kafka.commit(flow.group, flow.topic, {0: 50})
        flow.wait("healthy", "it has caught up")
        kafka.produce(flow.topic, [b"x"] * 20_000)
        opened = flow.opens()
        assert opened["evidence"]["lag"] >= 100
        began = time.monotonic()
        while flow.daemon.allowed(peek=True).body["state"] != "CLOSED":
            spent_s = time.monotonic() - began
            kafka.commit(flow.group, flow.topic, {0: 50 + int(300 * spent_s)})
            assert spent_s < SOON_S
        assert flow.word["evidence"]["lag"] > 5000  # worked off, and far past the limit still
        assert flow.trip["seq"] == opened["seq"]


@pytest.mark.parametrize("how", ["frozen", "dropped"])
def test_no_answer_is_unknown_and_heals(way: tuple[Kafka, Proxy], how: str) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy) as flow:
        kafka.produce(flow.topic, [b"x"] * 9, partition=0)
        kafka.commit(flow.group, flow.topic, {0: 9})
        flow.wait("healthy", "it has caught up")
        broken, mend = {
            "frozen": (kafka.broker.freeze, kafka.broker.thaw),
            "dropped": (proxy.drop, proxy.heal),
        }[how]
        broken()
        try:
            flow.wait("unknown", f"unknown while {how}")
            began = time.monotonic()
            assert flow.daemon.allowed(peek=True).status == 200
            assert time.monotonic() - began < 2
            # Another request may have been told of the connection's end before its own.
            poll_until_sync(
                lambda: "no answer" in flow.word.get("detail", ""), SOON_S, "it says why"
            )
            assert flow.daemon.allowed(peek=True).body["state"] == "CLOSED"
        finally:
            mend()
        flow.wait("healthy", "known again")
        assert flow.trip == {}


def test_a_reload_begins_and_ends_it(way: tuple[Kafka, Proxy]) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy) as flow:
        kafka.commit(flow.group, flow.topic, {0: 0})
        flow.wait("healthy", "read")
        for signals, verdict in (({}, None), ({"lag": {}}, "healthy")):
            flow.daemon.configure(flow.config(**signals))
            flow.daemon.send_signal(signal.SIGHUP)
            poll_until_sync(
                functools.partial(lambda said: flow.word.get("verdict") == said, verdict),
                SOON_S,
                f"it is {verdict} after the reload",
            )


def test_only_the_evaluator_tells_how_far_behind(way: tuple[Kafka, Proxy]) -> None:
    kafka, proxy = way
    with Flow(kafka, proxy) as flow:
        kafka.produce(flow.topic, [b"x"] * 9, partition=0)
        kafka.commit(flow.group, flow.topic, {0: 5})
        flow.wait("healthy", "read")

        def told() -> bool:
            text = flow.daemon.get("/metrics").content.decode()
            return 'breaker_lag_messages{breaker="default"} 4.0' in text

        poll_until_sync(told, SOON_S, "the metric")
        assert json.dumps(flow.word["evidence"]["lag"]) == "4"
