"""Consumers on a real Kafka, whose database or whose process breaks: each signal sees its own.

One fleet for all tests here. A breaker for each signal judges the reports of the same two
consumers, so that each test also shows what the other signals make of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaProducer

from tests.acceptance.support import timing
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import poll_until_sync

pytestmark = [pytest.mark.kafka, pytest.mark.slow]  # it opens and heals in real time

SOON_S = 40.0
CONSUMER = Path(__file__).parent / "clients" / "kit_consumer.py"
NAMES = ("c-1", "c-2")
EVERY_S = 0.05
"""Between two messages."""
SIGNALS: dict[str, dict[str, object]] = {
    "default": {},  # `failures`, with the threshold below
    "ratio": {"failure_ratio": {"threshold": 0.2, "minimum": 20, "window": "3s"}},
    "slow": {"slow": {"max_latency": "200ms"}},
    "stalled": {"stalled": {"after": "2s"}},
    "missing": {"missing": {"min_consumers": 2}},
}
THRESHOLD = 6


class Database(socketserver.ThreadingTCPServer):
    """A real server on loopback that can refuse, be slow or hang. A context manager."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.port = int(self.server_address[1])
        self.refused = 0
        """How many were not saved."""
        self.refuses_every = 0
        """So many calls, the last of them not saved; 0: none."""
        self.takes_s = 0.0
        self.answers = threading.Event()
        """Clear while it hangs."""
        self.answers.set()
        self._calls = 0
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def saves(self) -> bool:
        """Whether this call is one that it saves."""
        with self._turn:
            self._calls += 1
            bad = self.refuses_every > 0 and self._calls % self.refuses_every == 0
            self.refused += bad
        return not bad

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()
        self._thread.join(10)


class _Call(socketserver.StreamRequestHandler):
    """One client's wish."""

    server: Database

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.rfile.readline()
            self.server.answers.wait(SOON_S)
            threading.Event().wait(self.server.takes_s)
            self.wfile.write(b"saved\n" if self.server.saves() else b"no\n")


class Flow:
    """Messages come in all the time, two consumers handle them, a sidecar watches."""

    def __init__(self, daemon: Daemon, database: Database, consumers: list[Any]) -> None:
        self.daemon = daemon
        self.database = database
        self.consumers: list[subprocess.Popen[bytes]] = consumers

    def state(self, breaker: str) -> str:
        return str(self.daemon.allowed(breaker, peek=True).body["state"])

    def word(self, breaker: str) -> dict[str, Any]:
        """What the breaker's last signal says: the one it is there for."""
        found: dict[str, Any] = self.daemon.get(f"/v1/breakers/{breaker}").body["signals"][-1]
        return found

    def transitions(self, breaker: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.get(f"/v1/breakers/{breaker}/history").body[
            "transitions"
        ]
        return found

    def opens(self, breaker: str, reason: str, since: int) -> dict[str, Any]:
        """Wait until it opens for this reason; what it rests on."""
        poll_until_sync(lambda: len(self.transitions(breaker)) > since, SOON_S, f"{breaker} opens")
        first = self.transitions(breaker)[since]
        assert (first["from"], first["to"], first["reason"]) == ("CLOSED", "OPEN", reason)
        evidence: dict[str, Any] = first["evidence"]
        return evidence

    def closed(self) -> bool:
        return all(self.state(breaker) == "CLOSED" for breaker in SIGNALS)

    def counts(self) -> dict[str, int]:
        """How many transitions there were of each breaker."""
        return {breaker: len(self.transitions(breaker)) for breaker in SIGNALS}

    def heals(self) -> None:
        poll_until_sync(self.closed, SOON_S, "all heal")


def produce(kafka: Kafka, topic: str, ended: threading.Event) -> None:
    """Until it is told to end, whatever the sidecar says: the backlog is not the matter here."""

    async def run() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            while not ended.is_set():
                await producer.send_and_wait(topic, uuid.uuid4().bytes)
                await asyncio.sleep(EVERY_S)

    asyncio.run(run())


@contextlib.contextmanager
def consuming(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, str(CONSUMER), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def flow(kafka: Kafka) -> Iterator[Flow]:
    name = uuid.uuid4().hex[:8]
    topic = kafka.create_topic(f"orders-{name}", 4)
    kafka.create_topic(f"orders-{name}.dlq", 1)
    shared = {"report_interval": "1s", "evaluation_interval": "200ms", "consul_key_prefix": name}
    breakers = {
        breaker: timing(
            **shared,
            failure_threshold=THRESHOLD if breaker == "default" else 10**6,
            signals=signals,
        )
        for breaker, signals in SIGNALS.items()
    }
    ended = threading.Event()
    producer = threading.Thread(target=produce, args=(kafka, topic, ended), daemon=True)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Daemon({"store": "memory", "breakers": breakers}))
        database = stack.enter_context(Database())
        producer.start()
        stack.callback(producer.join, 20)
        stack.callback(ended.set)
        rest = [f"g-{name}", daemon.url]
        consumers = [
            stack.enter_context(consuming([kafka.bootstrap, topic, *rest, who, str(database.port)]))
            for who in NAMES
        ]
        made = Flow(daemon, database, consumers)
        poll_until_sync(lambda: well(made), SOON_S, "both consumers are at work")
        made.heals()
        yield made


def well(flow: Flow) -> bool:
    """Every signal has a good word, of both consumers."""
    word = flow.word("missing")
    return word["evidence"].get("fresh") == len(NAMES) and all(
        flow.word(breaker)["verdict"] == "healthy" for breaker in SIGNALS
    )


def broken(flow: Flow) -> Callable[[], dict[str, int]]:
    """Wait until all is well; returns what tells how many transitions came since."""
    poll_until_sync(lambda: flow.closed() and well(flow), SOON_S, "all is well")
    before = flow.counts()
    return lambda: {breaker: now - before[breaker] for breaker, now in flow.counts().items()}


def test_a_database_that_refuses_shows_as_failures_and_as_their_share(flow: Flow) -> None:
    since, refused = broken(flow), flow.database.refused
    before = flow.counts()
    flow.database.refuses_every = 2
    try:
        failures = flow.opens("default", "failures", before["default"])
        assert THRESHOLD <= failures["failures"] <= flow.database.refused - refused
        assert failures["reporters"] == 2
        ratio = flow.opens("ratio", "failure_ratio", before["ratio"])
        assert ratio["failed"] <= flow.database.refused - refused
        assert 0.2 <= ratio["ratio"] <= 0.5
        told = since()
        assert (told["slow"], told["stalled"], told["missing"]) == (0, 0, 0)
    finally:
        flow.database.refuses_every = 0
    flow.heals()


def test_a_database_that_queues_shows_as_slow(flow: Flow) -> None:
    since, before = broken(flow), flow.counts()
    flow.database.takes_s = 0.4
    try:
        evidence = flow.opens("slow", "slow", before["slow"])
        assert 0.2 <= evidence["latency"] <= 5.0
        assert evidence["max_latency"] == 0.2
        told = since()
        assert (told["default"], told["ratio"], told["missing"]) == (0, 0, 0)
    finally:
        flow.database.takes_s = 0.0
    flow.heals()


def test_a_database_that_hangs_shows_as_a_stall(flow: Flow) -> None:
    """Consumers report, have events in their hands, and handle none: nothing fails either."""
    since, before = broken(flow), flow.counts()
    flow.database.answers.clear()
    try:
        evidence = flow.opens("stalled", "stalled", before["stalled"])
        assert evidence["stalled_for"] >= evidence["after"]
        assert evidence["in_flight"] > 0
        told = since()
        assert (told["default"], told["ratio"], told["missing"]) == (0, 0, 0)
    finally:
        flow.database.answers.set()
    flow.heals()


def test_a_consumer_that_is_stopped_is_missed(flow: Flow) -> None:
    """SIGSTOP: it is there, says nothing, and took no leave. Nothing fails, and nothing is slow."""
    since, before = broken(flow), flow.counts()
    flow.consumers[1].send_signal(signal.SIGSTOP)
    try:
        evidence = flow.opens("missing", "missing", before["missing"])
        assert (evidence["fresh"], evidence["silent"]) == (1, 1)
        told = since()
        assert (told["default"], told["ratio"], told["slow"]) == (0, 0, 0)
    finally:
        flow.consumers[1].send_signal(signal.SIGCONT)
    flow.heals()
