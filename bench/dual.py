"""Two clusters instead of one: what it costs to publish to both, and to read both as one."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import uvloop

from bench.host import BenchError, wait_until
from bench.kit import COMMIT_S, Took, Watch
from bench.table import Row
from sidecar.consumer import Dual, Event, Limits, RetryPolicy, Runner
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import ROOT

SECTION = "Two clusters (outage: dual) beside one"
FOLDER = "/var/tmp"
ONE, BOTH, READ = "one", "both", "read"
"""Topics: to one cluster, to both, and to both to be read."""
SIZE = 200
BATCH = 1_000
CALLERS = 2
PARTITIONS = 4
PATIENCE_S = 120.0
LINES = {"Content-Type": "application/x-ndjson"}
Clusters = tuple[Kafka, Kafka]


def measure(*, quick: bool) -> Iterator[Row]:
    """Every row of the section."""
    if shutil.which("java") is None or not (ROOT / ".tools" / "kafka").exists():
        yield Row(section=SECTION, what="dual", note="needs a JDK and Kafka (make tools)")
        return
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with Kafka() as first, Kafka() as second:
        if quick:
            yield from rows((first, second), rounds=1, seconds=0.5, count=20_000)
        else:
            yield from rows((first, second), rounds=5, seconds=4.0, count=300_000)


def rows(clusters: Clusters, *, rounds: int, seconds: float, count: int) -> Iterator[Row]:
    """Both halves; topics of its own, which must not be there yet."""
    for kafka in clusters:
        for topic in (ONE, BOTH, READ):
            kafka.create_topic(topic, PARTITIONS)
    with tempfile.TemporaryDirectory(prefix="breaker-dual-", dir=FOLDER) as folder:
        with Daemon(_config(clusters, folder)) as daemon:
            yield from _publishing(daemon, rounds, seconds)
            _fill(daemon, clusters, count)
        yield from _reading(clusters, rounds, count)


def _config(clusters: Clusters, folder: str) -> dict[str, Any]:
    first, second = ([kafka.bootstrap] for kafka in clusters)
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": first},
        "kafka_second": {"bootstrap_servers": second},
        "spool": {"dir": folder},
        "publish": {
            "max_request": "64MiB",
            "timeout": "30s",
            "delivery_timeout": "10s",
            "topics": {
                ONE: {"outage": "breaker", "max_outstanding": 1_000_000},
                BOTH: {"outage": "dual", "max_outstanding": 1_000_000},
                READ: {"outage": "dual", "max_outstanding": 1_000_000},
            },
        },
    }


def _body() -> bytes:
    value = base64.b64encode(os.urandom(SIZE)).decode()
    line = f'"value":{{"type":"BINARY","data":"{value}"}}}}\n'
    return "".join(f'{{"partition_id":{n % PARTITIONS},{line}' for n in range(BATCH)).encode()


async def _hand_over(daemon: Daemon, topic: str, *, seconds: float = 0.0, count: int = 0) -> float:
    """Records a second, for so long or so many, by batches from two connections."""
    url, body, sent = f"{daemon.url}/v1/publish/{topic}", _body(), 0
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()

        async def call() -> None:
            nonlocal sent
            while sent < count or time.perf_counter() < began + seconds:
                sent += BATCH
                async with session.post(url, data=body, headers=LINES) as answer:
                    text = await answer.text()
                    if f'"delivered":{BATCH},' not in text:
                        raise BenchError(f"publish: {answer.status} {text[:200]}")

        await asyncio.gather(*[call() for _ in range(CALLERS)])
        return sent / (time.perf_counter() - began)


def _missed(daemon: Daemon) -> float:
    lines = daemon.get("/metrics").content.decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("breaker_publish_copies_total") and 'outcome="missed"' in line
    )


def _publishing(daemon: Daemon, rounds: int, seconds: float) -> Iterator[Row]:
    found: dict[str, list[float]] = {ONE: [], BOTH: []}
    for topic in (ONE, BOTH):  # connections, and where the partitions are
        uvloop.run(_hand_over(daemon, topic, seconds=min(1.0, seconds)))
    for _ in range(rounds):
        for topic, rates in found.items():
            rates.append(uvloop.run(_hand_over(daemon, topic, seconds=seconds)))
    yield Row.over(
        found[BOTH],
        found[ONE],
        section=SECTION,
        what=f"published in batches of {BATCH} of {SIZE} B",
        unit="records/s",
        peer="to one cluster",
        note=f"{_missed(daemon):,.0f} copies missed",
    )


def _fill(daemon: Daemon, clusters: Clusters, count: int) -> None:
    """The topic to be read, until both clusters have all of it."""
    uvloop.run(_hand_over(daemon, READ, count=count))
    for kafka in clusters:

        def there(kafka: Kafka = kafka) -> bool:
            return sum(kafka.end_offsets(READ).values()) >= count

        wait_until(there, PATIENCE_S, "both have all copies", 0.2)


async def _read(clusters: Clusters, count: int, *, both: bool) -> Took:
    """All of the topic, by a handler that does nothing; from the start, since both are read ahead
    before the first record is handed over."""
    watch = Watch(count)

    async def nothing(event: Event[bytes]) -> None:
        del event
        watch.tick()

    first, second = (kafka.bootstrap for kafka in clusters)
    runner = Runner(
        READ,
        group=uuid.uuid4().hex,
        handler=nothing,
        bootstrap_servers=first,
        limits=Limits(commit_every_s=COMMIT_S),
        retry=RetryPolicy(delays_s=()),
        source=Dual(READ, first=first, second=second) if both else None,
    )
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    running = asyncio.create_task(runner.run(signals=False))
    try:
        await watch.wait()
        return Took(time.monotonic() - began_s, time.process_time() - began_cpu_s)
    finally:
        runner.stop()
        await running


def _reading(clusters: Clusters, rounds: int, count: int) -> Iterator[Row]:
    ours: list[Took] = []
    peers: list[Took] = []
    for _ in range(rounds):
        ours.append(asyncio.run(_read(clusters, count, both=True)))
        peers.append(asyncio.run(_read(clusters, count, both=False)))
    yield Row.over(
        [count / took.wall_s for took in ours],
        [count / took.wall_s for took in peers],
        section=SECTION,
        what="read by the kit, a handler that does nothing",
        unit="records/s",
        peer="from one cluster",
        note="both: two copies are fetched for each",
    )
    yield Row.over(
        [1e6 * took.cpu_s / count for took in ours],
        [1e6 * took.cpu_s / count for took in peers],
        section=SECTION,
        what="CPU for a record that is read",
        unit="µs",
        peer="from one cluster",
    )
