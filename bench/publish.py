"""Publishing over HTTP: records taken durably, and the replay beside a bare aiokafka producer."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvloop
from aiokafka import AIOKafkaProducer

from bench.host import BenchError
from bench.table import Row, percentile
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import ROOT

SECTION = "Publish: records handed over by HTTP and synced (spool_all), and the way to Kafka"
FOLDER = "/var/tmp"
SMALL, LARGE = 200, 10_000
TOPIC = "bench"
REPLAYED = 200_000
WANTED = 60_000.0
"""Records a second in batches of 1,000."""
RAW = {"Content-Type": "application/octet-stream", "Kafka-Partition": "0"}
LINES = {"Content-Type": "application/x-ndjson"}
PLENTY = "64GiB"


@dataclass(frozen=True)
class _Run:
    """Records a second, and how long each request took."""

    rate: float
    took_s: Sequence[float]


def _lines(records: int, size: int) -> bytes:
    value = base64.b64encode(os.urandom(size)).decode()
    line = f'{{"partition_id":0,"value":{{"type":"BINARY","data":"{value}"}}}}\n'
    return line.encode() * records


async def _hand_over(
    daemon: Daemon,
    topic: str,
    body: bytes,
    records: int,
    *,
    callers: int,
    seconds: float,
) -> _Run:
    """So many connections that send the same request again and again."""
    url, headers = f"{daemon.url}/v1/publish/{topic}", RAW if records == 1 else LINES
    took_s: list[float] = []
    connector = aiohttp.TCPConnector(limit=callers)
    async with aiohttp.ClientSession(connector=connector) as session:
        began = time.perf_counter()

        async def call() -> None:
            while (at := time.perf_counter()) < began + seconds:
                async with session.post(url, data=body, headers=headers) as answer:
                    if answer.status not in {200, 202}:
                        raise BenchError(f"publish: {answer.status} {await answer.text()}")
                    await answer.read()
                took_s.append(time.perf_counter() - at)

        await asyncio.gather(*[call() for _ in range(callers)])
        spent_s = time.perf_counter() - began
    return _Run(len(took_s) * records / spent_s, took_s)


async def _bare(kafka: Kafka, count: int) -> float:
    """Records a second of a producer that only sends, as an application would write it."""
    value = os.urandom(SMALL)
    async with AIOKafkaProducer(
        **kafka.client_options(), enable_idempotence=True, max_batch_size=512 * 1024, linger_ms=5
    ) as producer:
        began = time.perf_counter()
        sent: list[Any] = []
        for number in range(count):
            sent.append(await producer.send(TOPIC, value, partition=0))
            if number % 5_000 == 4_999:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
        return count / (time.perf_counter() - began)


def _config(kafka: Kafka, folder: str) -> dict[str, Any]:
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": kafka.bootstrap.split(",")},
        "spool": {
            "dir": folder,
            "max_bytes": PLENTY,
            "topics": {"*": {"max_bytes": PLENTY}},
        },
        "publish": {
            "max_request": "64MiB",
            "max_outstanding": "1GiB",
            "timeout": "30s",
            "replay_rate": 10_000_000,
            "topics": {
                TOPIC: {"outage": "spool_all", "max_outstanding": 1_000_000},
                "again": {"outage": "spool_all", "max_outstanding": 1_000_000},
                "straight": {"outage": "spool_failed", "max_outstanding": 1_000_000},
            },
        },
    }


def measure(*, quick: bool) -> Iterator[Row]:
    """Every row of the section."""
    seconds = 0.5 if quick else 4.0
    if shutil.which("java") is None or not (ROOT / ".tools" / "kafka").exists():
        yield Row(section=SECTION, what="publish", note="needs a JDK and Kafka (make tools)")
        return
    with (
        Kafka() as kafka,
        tempfile.TemporaryDirectory(prefix="breaker-publish-", dir=FOLDER) as folder,
        Daemon(_config(kafka, folder)) as daemon,
    ):
        kafka.create_topic(TOPIC)
        kafka.create_topic("straight")
        kafka.create_topic("again")
        yield from _replay(daemon, kafka, 20_000 if quick else REPLAYED)
        yield from _accepted(daemon, TOPIC, "to disk", seconds)
        yield from _accepted(daemon, "straight", "to Kafka", seconds, targets=False)


def _accepted(
    daemon: Daemon, topic: str, way: str, seconds: float, *, targets: bool = True
) -> Iterator[Row]:
    if targets:
        daemon.request("POST", f"/v1/spool/{topic}/pause", b"")  # the replay is measured by itself
    for callers in (1, 8, 64):
        run = uvloop.run(
            _hand_over(daemon, topic, os.urandom(SMALL), 1, callers=callers, seconds=seconds)
        )
        yield Row(
            section=SECTION,
            what=f"{way}: single records of {SMALL} B, {callers} connections",
            value=run.rate,
            unit="records/s",
            note=f"p99 {percentile(run.took_s, 0.99) * 1000:.1f} ms",
        )
    for size, records in ((SMALL, 100), (SMALL, 1000), (LARGE, 100), (LARGE, 1000)):
        run = uvloop.run(
            _hand_over(daemon, topic, _lines(records, size), records, callers=2, seconds=seconds)
        )
        wanted = targets and (size, records) == (SMALL, 1000)
        yield Row(
            section=SECTION,
            what=f"{way}: batches of {records} of {size} B",
            value=run.rate,
            unit="records/s",
            peer="what is asked for" if wanted else "",
            peer_value=WANTED if wanted else None,
            target="≥ 60,000" if wanted else "",
            least_ratio=1.0 if wanted else None,
            note=f"{run.rate * size / 1e6:.0f} MB/s",
        )


def _replay(daemon: Daemon, kafka: Kafka, count: int) -> Iterator[Row]:
    """How fast a backlog goes, beside a producer without anything around it."""
    bare = asyncio.run(_bare(kafka, count))
    daemon.request("POST", "/v1/spool/again/pause", b"")
    body = _lines(1_000, SMALL)
    for _ in range(count // 1_000):
        daemon.request("POST", "/v1/publish/again", body, LINES)
    daemon.request("POST", "/v1/spool/again/resume", b"")
    left, began = count, 0.0
    while left and (began == 0.0 or time.perf_counter() - began < 60.0):
        time.sleep(0.02)
        left = int(daemon.get("/v1/spool").body["records"])
        if left < count and began == 0.0:  # a paused replay looks twice a second
            began, count = time.perf_counter(), left
    rate = (count - left) / (time.perf_counter() - began)
    yield Row(
        section=SECTION,
        what=f"replay of {count} records of {SMALL} B",
        value=rate,
        unit="records/s",
        peer="aiokafka alone",
        peer_value=bare,
        target="≥ 0.7 x",
        least_ratio=0.7,
    )
