"""A daemon's memory while its spool grows: Kafka is away, and records keep coming by HTTP."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.handing import BATCH_CALLERS, Sender
from bench.host import BenchError, missing, on_core, rss_mb
from bench.table import Row
from bench.wrk import SERVER_CORE
from tests.daemon import Daemon
from tests.servers import free_port

SECTION = "Spool memory: RSS of a daemon without Kafka, fed by HTTP in batches of 1,000"
FOLDER = "/var/tmp"
SIZE = 200
MARKS = (1_000_000, 2_000_000, 5_000_000, 10_000_000)
GROWTH_LIMIT_MB = 4.0
"""What an allocator may need besides; a byte a record would be nine."""
LOOK_S = 0.2
WITHIN_S = 900
TOPIC = "bench"


def _config(folder: str) -> dict[str, Any]:
    budget = {"max_bytes": "64GiB"}
    return {
        "store": "memory",
        "kafka": {"bootstrap_servers": [f"127.0.0.1:{free_port()}"]},
        "spool": {"dir": folder, **budget, "topics": {"*": budget}},
        "publish": {"topics": {TOPIC: {"outage": "breaker"}}},
    }


def _grow(daemon: Daemon, folder: Path, marks: tuple[int, ...]) -> list[tuple[int, float]]:
    """Records that waited when a mark was passed, and the MiB at that moment."""
    found: list[tuple[int, float]] = []
    ends = time.monotonic() + WITHIN_S
    sender = Sender(daemon.url, folder)
    with sender.endless(TOPIC, 1000, SIZE, BATCH_CALLERS, WITHIN_S):
        while len(found) < len(marks):
            if time.monotonic() > ends:
                raise BenchError(f"not {marks[len(found)]:,} records within {WITHIN_S} s")
            waiting = int(daemon.get("/v1/spool").body["records"])
            if waiting >= marks[len(found)]:
                found.append((waiting, rss_mb(daemon.pid)))
            time.sleep(LOOK_S)
    return found


def measure(*, quick: bool) -> Iterator[Row]:
    """RSS at each mark."""
    if absent := missing("wrk"):
        yield Row(section=SECTION, what="RSS", note=absent)
        return
    marks = tuple(mark // 20 for mark in MARKS) if quick else MARKS
    with tempfile.TemporaryDirectory(prefix="breaker-grow-", dir=FOLDER) as name:
        with on_core(SERVER_CORE):
            daemon = Daemon(_config(f"{name}/spool")).start()
        try:
            daemon.wait_ready()
            began = time.monotonic()
            found = _grow(daemon, Path(name), marks)
            took_s = time.monotonic() - began
        finally:
            daemon.close()
    for number, (waiting, mb) in enumerate(found):
        last = number == len(found) - 1
        yield Row(
            section=SECTION,
            what=f"RSS with {waiting:,} records that wait",
            value=mb,
            unit="MiB",
            peer="the first" if number else "",
            peer_value=found[0][1] if number else None,
            target=f"≤ the first + {GROWTH_LIMIT_MB:g} MiB" if last else "",
            limit=found[0][1] + GROWTH_LIMIT_MB if last else None,
            note=f"all within {took_s:.0f} s" if last else "",
        )
