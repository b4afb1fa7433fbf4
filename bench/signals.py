"""What an evaluator of very many breakers costs, with what it reads of Kafka: one real Kafka, one
real Consul, one daemon on one core."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from bench.host import BenchError, cpu_s, on_core, rss_mb, wait_until
from bench.reporters import instances, write_all
from bench.table import Row
from bench.wire import DEADLINE_S
from bench.wrk import SERVER_CORE
from tests.daemon import Daemon
from tests.kafka import Kafka, blocking
from tests.servers import ConsulServer

SECTION = "Signals: one evaluator, lag and failures of every breaker, on one core"
INTERVAL_S = 5.0
PARTITIONS = 4
TOPICS = 10
ROUND_LIMIT_MS = 250.0
RSS_LIMIT_MB = 100.0
REQUESTS_LIMIT = 4.0
COUNTED = re.compile(r'^breaker_kafka_requests_total\{op="(\w+)",outcome="(\w+)"\} (\S+)$', re.M)
TOOK = re.compile(r"^breaker_evaluation_duration_seconds_(sum|count) (\S+)$", re.M)


@dataclass(frozen=True, slots=True)
class _Size:
    breakers: int
    reporters: int
    rounds: int

    @property
    def groups(self) -> list[tuple[str, str, str]]:
        """Name, topic and group of each breaker."""
        return [(f"b{i:03}", f"t{i % TOPICS}", f"g{i:03}") for i in range(self.breakers)]


def _config(kafka: Kafka, consul: ConsulServer, size: _Size) -> dict[str, object]:
    return {
        "consul": {"address": consul.address},
        "kafka": {"bootstrap_servers": [kafka.bootstrap]},
        "breakers": {
            name: {
                "topic": topic,
                "group": group,
                "consul_key_prefix": f"reports/{name}",
                # Longer than this takes: every partition lags, is classified, and trips nothing.
                "signals": {"lag": {"window": "10m"}},
            }
            for name, topic, group in size.groups
        },
    }


def _prepare(kafka: Kafka, size: _Size) -> None:
    """Topics with messages, and groups half way through them: every partition lags."""

    async def prepare() -> None:
        admin = AIOKafkaAdminClient(**kafka.client_options())
        await admin.start()
        await admin.create_topics([NewTopic(f"t{i}", PARTITIONS, 1) for i in range(TOPICS)])
        await admin.close()
        async with AIOKafkaProducer(**kafka.client_options()) as producer:
            for i in range(TOPICS * PARTITIONS * 1000):
                await producer.send(f"t{i % TOPICS}", b"x", partition=i // TOPICS % PARTITIONS)

    blocking(prepare())
    for _, topic, group in size.groups:
        blocking(_commit(kafka, topic, group, 500))


async def _commit(kafka: Kafka, topic: str, group: str, offset: int) -> None:
    consumer = AIOKafkaConsumer(**kafka.client_options(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(places)
    try:
        await consumer.commit({place: OffsetAndMetadata(offset, "") for place in places})
    finally:
        await consumer.stop()


class _Reporting(threading.Thread):
    """Every reporter of every breaker, once an interval, a breaker after the other."""

    def __init__(self, consul: ConsulServer, size: _Size) -> None:
        super().__init__(daemon=True)
        self._consul, self._size = consul, size
        self._ended = threading.Event()

    def run(self) -> None:
        names = instances(self._size.reporters)
        port = self._consul.port
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as http:
            due = time.monotonic()
            while not self._ended.is_set():
                for breaker, _, _ in self._size.groups:
                    write_all(http, f"reports/{breaker}", names)
                    due += INTERVAL_S / self._size.breakers
                    if self._ended.wait(max(0.0, due - time.monotonic())):
                        return

    def end(self) -> None:
        """Stop, and wait for it."""
        self._ended.set()
        self.join(DEADLINE_S)


@dataclass(frozen=True, slots=True)
class _Seen:
    requests: float
    evaluated_s: float
    evaluations: float


def _metrics(daemon: Daemon) -> str:
    return daemon.request("GET", "/metrics", timeout_s=DEADLINE_S).content.decode()


def _seen(daemon: Daemon) -> _Seen:
    text = _metrics(daemon)
    took = dict(TOOK.findall(text))
    failed = sum(float(n) for _, outcome, n in COUNTED.findall(text) if outcome != "ok")
    if failed:
        raise BenchError(f"{failed:g} requests to Kafka failed")
    return _Seen(
        sum(float(n) for _, _, n in COUNTED.findall(text)),
        float(took.get("sum", 0)),
        float(took.get("count", 0)),
    )


def _read(daemon: Daemon, size: _Size) -> bool:
    text = _metrics(daemon)
    return text.count("\nbreaker_lag_messages{") == size.breakers


@dataclass(frozen=True, slots=True)
class _Watched:
    """What an evaluator did over some rounds."""

    rounds: float
    evaluations: float
    evaluated_s: float
    requests: float
    cpu_s: float
    memory_mb: float


def _watched(size: _Size) -> _Watched:
    with Kafka() as kafka, ConsulServer() as consul:
        _prepare(kafka, size)
        reporting = _Reporting(consul, size)
        reporting.start()
        with on_core(SERVER_CORE):
            daemon = Daemon(_config(kafka, consul, size)).start()
        try:
            daemon.wait_ready(60)
            wait_until(lambda: _read(daemon, size), 90, "every group's lag is read", 1.0)
            time.sleep(2 * INTERVAL_S)
            before, cpu, began = _seen(daemon), cpu_s(daemon.pid), time.monotonic()
            time.sleep(size.rounds * INTERVAL_S)
            after, used_s = _seen(daemon), cpu_s(daemon.pid) - cpu
            return _Watched(
                rounds=(time.monotonic() - began) / INTERVAL_S,
                evaluations=after.evaluations - before.evaluations,
                evaluated_s=after.evaluated_s - before.evaluated_s,
                requests=after.requests - before.requests,
                cpu_s=used_s,
                memory_mb=rss_mb(daemon.pid),
            )
        finally:
            daemon.close()
            reporting.end()


def _rows(size: _Size, seen: _Watched) -> Iterator[Row]:
    said = f"{size.breakers} breakers × {size.reporters} reporters"
    each_ms = 1e3 * seen.evaluated_s / seen.evaluations
    yield Row(
        section=SECTION,
        what=f"{said}: a round of all",
        value=each_ms * size.breakers,
        unit="ms",
        target=f"≤ {ROUND_LIMIT_MS:g}",
        limit=ROUND_LIMIT_MS,
        note=f"{each_ms:.2f} ms each, of {seen.evaluations:.0f}; "
        f"lag of {PARTITIONS} partitions each",
    )
    yield Row(
        section=SECTION,
        what=f"{said}: CPU of everything an interval brings",
        value=1e3 * seen.cpu_s / seen.rounds,
        unit="ms",
        note=f"in {INTERVAL_S:g} s: all reports anew from Consul, Kafka read, all judged",
    )
    yield Row(
        section=SECTION,
        what=f"{said}: memory",
        value=seen.memory_mb,
        unit="MiB",
        target=f"≤ {RSS_LIMIT_MB:g}",
        limit=RSS_LIMIT_MB,
    )
    yield Row(
        section=SECTION,
        what=f"{said}: requests to Kafka, by broker and round",
        value=seen.requests / seen.rounds,
        target=f"≤ {REQUESTS_LIMIT:g}, whatever their number",
        limit=REQUESTS_LIMIT * 1.1,  # and twice a minute, who leads
        note="one broker; every partition lags, so its beginning is asked for too",
    )


def measure(*, quick: bool) -> Iterator[Row]:
    """Twice, with few breakers and with many: what doesn't grow with them shows."""
    sizes: Sequence[_Size] = (_Size(20, 5, 3),) if quick else (_Size(20, 50, 6), _Size(200, 50, 12))
    for size in sizes:
        yield from _rows(size, _watched(size))
