"""The spool's own speed: records taken durably, beside the bare disk and SQLite; replay; memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.host import on_core, rss_mb
from bench.table import Row, percentile
from sidecar.core.spooling import Budget, NewRecord, SpoolSettings
from sidecar.spool.spool import DiskSpool
from tests.telemetry import RecordedTelemetry

SECTION = "Spool: records taken durably, on one core, beside the bare disk and SQLite"
FOLDER = "/var/tmp"
"""On a disk, where /tmp may be none."""
SMALL, LARGE = 200, 10_000
MIB = 1024 * 1024
_ENDLESS = 1 << 60
SETTINGS = SpoolSettings(max_bytes=_ENDLESS, others=Budget(max_bytes=_ENDLESS))


class _Quiet(RecordedTelemetry):
    """Remembers nothing, or memory would grow by the bench's own doing."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Nobody reads it."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Nobody reads it."""


@dataclass(frozen=True)
class _Run:
    """Records a second, and how long each call took."""

    rate: float
    calls_s: Sequence[float]


def _records(count: int, size: int) -> list[NewRecord]:
    return [NewRecord(b"key", os.urandom(size), (), 1, 1.7e9) for _ in range(count)]


async def _append(folder: Path, batch: Sequence[NewRecord], callers: int, seconds: float) -> _Run:
    spool = await DiskSpool.open(folder, "bench", SETTINGS, _Quiet())
    calls_s: list[float] = []
    await spool.append("t", 0, batch)  # makes the file
    began = time.perf_counter()

    async def call() -> None:
        while (at := time.perf_counter()) < began + seconds:
            await spool.append("t", 0, batch)
            calls_s.append(time.perf_counter() - at)

    await asyncio.gather(*[call() for _ in range(callers)])
    took_s = time.perf_counter() - began
    await spool.close()
    return _Run(len(calls_s) * len(batch) / took_s, calls_s)


def _timed(step: Callable[[], None], seconds: float) -> list[float]:
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while (at := time.perf_counter()) < ends:
        step()
        took.append(time.perf_counter() - at)
    return took


def bare_writes(folder: Path, size: int, seconds: float) -> list[float]:
    """Append so many bytes, fdatasync, again: how long each took."""
    data, at = os.urandom(size), 0
    path = folder / f"bare-{size}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def step() -> None:
        nonlocal at
        at += os.pwrite(fd, data, at)
        os.fdatasync(fd)

    try:
        return _timed(step, seconds)
    finally:
        os.close(fd)
        path.unlink()  # the next one grows from nothing, too


def _sqlite(folder: Path, batch: Sequence[NewRecord], seconds: float) -> float:
    """Records a second into a table, each batch a transaction that is synced (WAL, FULL)."""
    rows = [(record.key, record.value) for record in batch]
    db = sqlite3.connect(folder / "peer.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, key BLOB, value BLOB)")

    def step() -> None:
        db.execute("BEGIN")
        db.executemany("INSERT INTO log (key, value) VALUES (?, ?)", rows)
        db.execute("COMMIT")

    try:
        return len(rows) / statistics.mean(_timed(step, seconds))
    finally:
        db.close()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="breaker-spool-", dir=FOLDER) as folder:
        yield Path(folder)


def _ours(batch: Sequence[NewRecord], callers: int, seconds: float) -> _Run:
    with _folder() as folder, on_core(0):
        return uvloop.run(_append(folder, batch, callers, seconds))


def _peers(batch: Sequence[NewRecord], seconds: float) -> float:
    with _folder() as folder, on_core(0):
        return _sqlite(folder, batch, seconds)


def _single(rounds: int, seconds: float) -> Iterator[Row]:
    """One record a call; callers that wait together share a sync."""
    one = _records(1, SMALL)
    for callers in (1, 8, 64):
        ours, peers, bare, calls = [], [], [], []
        for _ in range(rounds):
            with _folder() as folder:
                bare.append(percentile(bare_writes(folder, SMALL + 60, seconds), 0.99) * 1000)
            peers.append(_peers(one, seconds))
            run = _ours(one, callers, seconds)
            ours.append(run.rate)
            calls.append(percentile(run.calls_s, 0.99) * 1000)
        what = f"{callers} caller{'s' * (callers > 1)}, 1 record of {SMALL} bytes"
        yield Row.over(
            ours, peers, section=SECTION, what=what, unit="records/s", peer="SQLite, 1 a commit"
        )
        yield Row.over(
            calls,
            bare,
            section=SECTION,
            what=f"… its 99th percentile, {callers} at once",
            unit="ms",
            peer="bare fdatasync",
            target="at most 3×" if callers == 64 else "",
            most_ratio=3.0 if callers == 64 else None,
        )


def _batches(rounds: int, seconds: float) -> Iterator[Row]:
    for size in (SMALL, LARGE):
        for count in (100, 1000):
            batch = _records(count, size)
            ours, peers, bare = [], [], []
            for _ in range(rounds):
                with _folder() as folder:
                    took = statistics.mean(bare_writes(folder, count * size, seconds))
                bare.append(count * size / took / MIB)
                peers.append(_peers(batch, seconds))
                ours.append(_ours(batch, 2, seconds).rate)
            yield Row.over(
                ours,
                peers,
                section=SECTION,
                what=f"batches of {count}, {size:,} bytes each",
                unit="records/s",
                peer="SQLite, a batch a commit",
                target="at least 60,000" if (size, count) == (SMALL, 1000) else "",
            )
            if size == LARGE:
                yield Row.over(
                    [rate * size / MIB for rate in ours],
                    bare,
                    section=SECTION,
                    what="… in bytes",
                    unit="MiB/s",
                    peer="writes of a batch's size, each synced",
                    target="at least 0.5×" if count == 1000 else "",
                    least_ratio=0.5 if count == 1000 else None,
                )


async def _grow(folder: Path, count: int) -> tuple[float, float, float, float]:
    """Fill, look at memory, reopen, replay: MiB, seconds to open, records/s, records left."""
    batch = _records(1000, SMALL)
    spool = await DiskSpool.open(folder, "bench", SETTINGS, _Quiet())
    for _ in range(count // 10_000):
        await spool.append("t", 0, batch)
    before = rss_mb(os.getpid())
    while spool.backlog("t", 0).records < count:
        await spool.append("t", 0, batch)
    grown = rss_mb(os.getpid()) - before
    await spool.close()
    _forget(folder)
    began = time.perf_counter()
    spool = await DiskSpool.open(folder, "bench", SETTINGS, _Quiet())
    opened_s = time.perf_counter() - began
    size = spool.backlog("t", 0).bytes
    began, done = time.perf_counter(), 0
    while done < count and (some := await spool.read("t", 0, max_records=1000)):
        await spool.done("t", 0, some[-1].seq)
        done += len(some)
    rate = done / (time.perf_counter() - began)
    await spool.close()
    return grown, opened_s * 1024 * MIB / size, rate, float(count - done)


def _forget(folder: Path) -> None:
    """Take the ledger away: nothing is known of the segments, so all of them are read."""
    for path in folder.rglob("ledger.db*"):
        path.unlink()


def _full(count: int) -> Iterator[Row]:
    with _folder() as folder, on_core(0):
        grown, opened_s, rate, left = uvloop.run(_grow(folder, count))
    yield Row(
        section=SECTION,
        what=f"memory, from {count // 10:,} records that wait to {count:,}",
        value=grown,
        unit="MiB more",
        target="at most 10",
        limit=10.0,
        note=f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most, "
        "with all of the bench",
    )
    yield Row(
        section=SECTION,
        what="opened without its ledger, per GiB",
        value=opened_s,
        unit="s",
        note="with it, at most 8 MiB of a partition are read",
    )
    yield Row(
        section=SECTION,
        what="read back and marked as done, 1,000 at a time",
        value=rate,
        unit="records/s",
        note="" if not left else f"{left:.0f} were missing",
    )


def measure(*, quick: bool = False) -> Iterator[Row]:
    """All of it; `quick` only shows that it runs."""
    rounds, seconds = (1, 0.2) if quick else (5, 1.0)
    yield from _single(rounds, seconds)
    yield from _batches(rounds, seconds)
    yield from _full(20_000 if quick else 10_000_000)
