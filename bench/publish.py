"""Publishing over HTTP: records taken durably, the replay, and `/allowed` beside it all.

The daemon has a core to itself, wrk and Kafka share the other one. The bare disk, a bare handler
and a bare producer are measured in the same run, on the same file system and the same core. What
goes to the disk alone is measured while there is no Kafka: that is what the disk is for, and even
an idle Kafka takes the core from wrk for milliseconds at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from bench import plain
from bench.handing import BATCH_CALLERS, LINES, RAW, Sender, lines
from bench.host import missing, on_core
from bench.spool import bare_writes
from bench.table import Row, percentile
from bench.wrk import CLIENT_CORE, SERVER_CORE, Load, same, tail, wrk
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import ROOT

SECTION = "Publish: records handed over by HTTP and synced (spool_all), and the way to Kafka"
FOLDER = "/var/tmp"
"""On a disk, where /tmp may be none."""
SMALL, LARGE = 200, 10_000
FRAMED = SMALL + 60
"""Bytes of a small record in the spool, about."""
CONNECTIONS = (64, 8, 1)
BATCHES = (1000, 100)
TAIL_ROUNDS = 15
TOPIC = "bench"
NOWHERE = "127.0.0.1:1"
"""Nobody listens there."""
REPLAYED = 100_000
WANTED = 60_000.0
"""Records a second in batches of 1,000."""
OF_SEQUENTIAL, OF_PRODUCER, TIMES_SYNC = 0.5, 0.7, 3.0
PLENTY = "64GiB"


@dataclass(slots=True)
class _Figures:
    """What the rounds brought."""

    sync_p50_ms: list[float] = field(default_factory=list)
    sync_p99_ms: list[float] = field(default_factory=list)
    sequential: list[float] = field(default_factory=list)
    """MB/s."""
    handler: list[Load] = field(default_factory=list)
    single: dict[tuple[int, int], list[Load]] = field(default_factory=lambda: defaultdict(list))
    """By the number of connections and the record's size."""
    batch: dict[tuple[int, int], list[Load]] = field(default_factory=lambda: defaultdict(list))
    """By records and their size."""


class _Bench:
    """A daemon with its spool on a disk, and what it is compared with.

    Args:
        folder: on the spool's file system.
        plain_port: where the bare handler answers.
    """

    def __init__(self, daemon: Daemon, folder: Path, plain_port: int, seconds: int) -> None:
        self._daemon = daemon
        self._folder = folder
        self._seconds = seconds
        self._sender = Sender(daemon.url, folder)
        self._plain = f"http://127.0.0.1:{plain_port}/publish"
        self._post = same(folder, "plain", os.urandom(SMALL), RAW)
        self.figures = _Figures()

    def learn(self) -> None:
        """Let the daemon find out that Kafka is away: until then each record waits for that."""
        self._sender.send(TOPIC, 1, SMALL, 64, 1)

    def tail_round(self) -> None:
        """64 who hand over a small record each, beside what they are compared with; a second each,
        so that a stall spoils one round of many."""
        figures = self.figures
        figures.handler.append(wrk(self._plain, 64, 1, script=self._post))
        with on_core(SERVER_CORE):
            syncs = bare_writes(self._folder, FRAMED, 1)
        figures.sync_p50_ms.append(percentile(syncs, 0.5) * 1000)
        figures.sync_p99_ms.append(percentile(syncs, 0.99) * 1000)
        figures.single[64, SMALL].append(self._sender.send(TOPIC, 1, SMALL, 64, 1))

    def small_round(self) -> None:
        """Small records by fewer, and in batches."""
        self.hand_over(TOPIC, SMALL, self.figures, callers=(8, 1))

    def large_round(self) -> None:
        """Large ones."""
        figures, seconds = self.figures, self._seconds
        with on_core(SERVER_CORE):
            written = bare_writes(self._folder, LARGE * 1000, seconds)
        figures.sequential.append(LARGE * 1000 / statistics.mean(written) / 1e6)
        self.hand_over(TOPIC, LARGE, figures)

    def hand_over(
        self, topic: str, size: int, figures: _Figures, callers: Sequence[int] = CONNECTIONS
    ) -> None:
        """Records by themselves, by so many callers, and in batches."""
        for several in callers:
            load = self._sender.send(topic, 1, size, several, self._seconds)
            figures.single[several, size].append(load)
        for records in BATCHES:
            load = self._sender.send(topic, records, size, BATCH_CALLERS, self._seconds)
            figures.batch[records, size].append(load)

    def straight(self) -> _Figures:
        """The same to Kafka, once."""
        figures = _Figures()
        for size in (SMALL, LARGE):
            self.hand_over("straight", size, figures)
        return figures

    def _allowed(self, seconds: int) -> Load:
        return wrk(f"{self._daemon.url}/allowed", 1, seconds, script=tail(self._folder))

    def beside(self) -> Iterator[Row]:
        """What a decision takes while records are spooled."""
        quiet = self._allowed(self._seconds)
        yield from _allowed_rows("quiet", quiet, None)
        for what, records, size, callers in (
            ("64 connections spool singly", 1, SMALL, 64),
            (f"batches of 1,000 of {SMALL} B are spooled", 1000, SMALL, BATCH_CALLERS),
            (f"batches of 100 of {LARGE:,} B are spooled", 100, LARGE, BATCH_CALLERS),
        ):
            with self._sender.sending(TOPIC, records, size, callers, self._seconds + 2) as loads:
                time.sleep(1.0)  # they have begun
                found = self._allowed(self._seconds)
            rate = loads[0].rate * records
            yield from _allowed_rows(f"while {what}", found, quiet, f"{rate:,.0f} records/s")


def _config(servers: str, folder: Path) -> dict[str, Any]:
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": servers.split(",")},
        "spool": {
            "dir": str(folder),
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
    rounds, seconds = (1, 1) if quick else (4, 2)
    if shutil.which("java") is None or not (ROOT / ".tools" / "kafka").exists():
        yield Row(section=SECTION, what="publish", note="needs a JDK and Kafka (make tools)")
        return
    if absent := missing("wrk"):
        yield Row(section=SECTION, what="publish", note=absent)
        return
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="breaker-publish-", dir=FOLDER))
        )
        with on_core(SERVER_CORE):
            _, port = stack.enter_context(plain.serving())
        yield from _to_disk(folder, port, rounds, seconds)
        with on_core(CLIENT_CORE):
            kafka = stack.enter_context(Kafka())
        for topic in (TOPIC, "straight", "again"):
            kafka.create_topic(topic)
        with on_core(SERVER_CORE):
            daemon = stack.enter_context(Daemon(_config(kafka.bootstrap, folder / "present")))
        yield _replay(daemon, kafka, 20_000 if quick else REPLAYED, 1 if quick else 3)
        straight = _Bench(daemon, folder, port, seconds).straight()
        yield from _single(straight, "to Kafka")
        yield from _batches(straight, "to Kafka")


def _to_disk(folder: Path, port: int, rounds: int, seconds: int) -> Iterator[Row]:
    """What is taken while Kafka is away."""
    with contextlib.ExitStack() as stack:
        with on_core(SERVER_CORE):
            daemon = stack.enter_context(Daemon(_config(NOWHERE, folder / "away")))
        bench = _Bench(daemon, folder, port, seconds)
        bench.learn()
        # First what writes little: for a while after gigabytes disk and kernel are busy with them.
        for _ in range(1 if rounds == 1 else TAIL_ROUNDS):
            bench.tail_round()
        for _ in range(rounds):
            bench.small_round()
        allowed = list(bench.beside())
        for _ in range(rounds):
            bench.large_round()
        yield from _disk(bench.figures)
        yield from _single(bench.figures, "to disk")
        yield _tail(bench.figures)
        yield from _batches(bench.figures, "to disk")
        yield from _small_and_large(bench.figures)
        yield from allowed


# --- rows ----------------------------------------------------------------------------------


def _disk(figures: _Figures) -> Iterator[Row]:
    what = f"the bare disk: {FRAMED} B more and fdatasync"
    for said, rounds in (("p50", figures.sync_p50_ms), ("p99", figures.sync_p99_ms)):
        yield Row.over(rounds, section=SECTION, what=f"{what}, {said}", unit="ms")
    yield Row.over(
        figures.sequential,
        section=SECTION,
        what="the bare disk: 10 MB more and fdatasync",
        unit="MB/s",
    )
    yield Row.over(
        (load.rate for load in figures.handler),
        section=SECTION,
        what=f"aiohttp alone: a POST of {SMALL} B is answered, 64 connections",
        unit="1/s",
        note=_latencies(figures.handler),  # without a disk: what the machine itself does to them
    )


def _single(figures: _Figures, way: str) -> Iterator[Row]:
    for (callers, size), loads in figures.single.items():
        yield Row.over(
            (load.rate for load in loads),
            section=SECTION,
            what=f"{way}: single records of {size:,} B, {callers} connection{'s'[: callers - 1]}",
            unit="records/s",
            note=_latencies(loads),
        )


def _latencies(loads: Sequence[Load]) -> str:
    middle = statistics.median(load.p50_us for load in loads) / 1000
    high = statistics.median(load.p99_us for load in loads) / 1000
    return f"p50 {middle:.2f} ms, p99 {high:.2f} ms"


def _tail(figures: _Figures) -> Row:
    """Whoever waits at 64 connections waits for about a sync, and for the others' handling."""
    sync_ms = statistics.median(figures.sync_p99_ms)
    handled_ms = 64_000 / statistics.median(load.rate for load in figures.handler)
    return Row.over(
        (load.p99_us / 1000 for load in figures.single[64, SMALL]),
        section=SECTION,
        what=f"… p99 of those of {SMALL} B, 64 connections",
        unit="ms",
        target=f"≤ 3 × {sync_ms:.1f} + {handled_ms:.1f}",
        limit=TIMES_SYNC * sync_ms + handled_ms,
        note="three syncs' p99 and 64 turns of the bare handler",
    )


def _batches(figures: _Figures, way: str) -> Iterator[Row]:
    for (records, size), loads in figures.batch.items():
        rate = statistics.median(load.rate for load in loads)
        yield Row.over(
            (load.rate * records for load in loads),
            section=SECTION,
            what=f"{way}: batches of {records:,} of {size:,} B",
            unit="records/s",
            note=f"{rate * records * size / 1e6:.0f} MB/s",
        )


def _small_and_large(figures: _Figures) -> Iterator[Row]:
    """What is asked for of batches."""
    yield Row.over(
        (load.rate * 1000 for load in figures.batch[1000, SMALL]),
        [WANTED] * len(figures.sequential),
        section=SECTION,
        what=f"… of them 1,000 of {SMALL} B, against what is asked for",
        unit="records/s",
        peer="asked for",
        target="≥ 60,000",
        least_ratio=1.0,
    )
    for records in (100, 1000):
        yield Row.over(
            (load.rate * records * LARGE / 1e6 for load in figures.batch[records, LARGE]),
            figures.sequential,
            section=SECTION,
            what=f"… of them {records:,} of {LARGE:,} B, in bytes",
            unit="MB/s",
            peer="the bare disk, 10 MB a sync",
            target=f"≥ {OF_SEQUENTIAL:g}×",
            least_ratio=OF_SEQUENTIAL,
        )


def _allowed_rows(when: str, load: Load, quiet: Load | None, note: str = "") -> Iterator[Row]:
    for said, figure, peer in (
        ("p50", load.p50_us, quiet.p50_us if quiet else None),
        ("p99", load.p99_us, quiet.p99_us if quiet else None),
        ("p99.9", load.p999_us, quiet.p999_us if quiet else None),
    ):
        yield Row(
            section=SECTION,
            what=f"/allowed {when}, 1 connection, {said}",
            value=figure,
            unit="µs",
            peer="quiet" if quiet else "",
            peer_value=peer,
            note=note,
        )


# --- the way to Kafka ----------------------------------------------------------------------


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


def _replayed(daemon: Daemon, count: int) -> float:
    """Records a second of a backlog that is let go."""
    daemon.request("POST", "/v1/spool/again/pause", b"")
    body = lines(1_000, SMALL)
    for _ in range(count // 1_000):
        daemon.request("POST", "/v1/publish/again", body, LINES)
    daemon.request("POST", "/v1/spool/again/resume", b"")
    left, began = count, 0.0
    while left and (began == 0.0 or time.perf_counter() - began < 60.0):
        time.sleep(0.02)
        left = int(daemon.get("/v1/spool").body["records"])
        if left < count and began == 0.0:  # a paused replay looks twice a second
            began, count = time.perf_counter(), left
    return (count - left) / (time.perf_counter() - began)


def _replay(daemon: Daemon, kafka: Kafka, count: int, rounds: int) -> Row:
    """How fast a backlog goes, beside a producer without anything around it."""
    ours, bare = [], []
    for _ in range(rounds):
        with on_core(SERVER_CORE):
            bare.append(asyncio.run(_bare(kafka, count)))
        ours.append(_replayed(daemon, count))
    return Row.over(
        ours,
        bare,
        section=SECTION,
        what=f"replay of {count:,} records of {SMALL} B",
        unit="records/s",
        peer="aiokafka alone",
        target=f"≥ {OF_PRODUCER:g}×",
        least_ratio=OF_PRODUCER,
    )
