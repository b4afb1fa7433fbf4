"""What requests and connections leave behind in a daemon's memory."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.host import missing, on_core, rss_mb
from bench.plain import serving
from bench.table import Row
from bench.wrk import SERVER_CORE, reports, wrk
from tests.daemon import Daemon
from tests.servers import ConsulServer

SECTION = "Memory: after millions of requests, and with thousands of idle connections"
MILLION = 1_000_000
GROWTH_LIMIT_MB = 0.5
"""What an allocator may need besides, now and then; a leak of 1 byte a request would be ten."""
IDLE = 5_000
ABOVE_KIB = 2.0
SETTLE_S = 2.0
_REQUEST = b"GET /allowed HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def _daemon() -> Iterator[Daemon]:
    """On Consul, which takes the reports."""
    with ConsulServer() as consul:
        with on_core(SERVER_CORE):
            daemon = Daemon({"consul": {"address": consul.address}}).start()
        try:
            yield daemon.wait_ready()
        finally:
            daemon.close()


def _ask(daemon: Daemon, count: int, seconds: int, script: Path) -> int:
    """So many requests at least: most for decisions, some by aiohttp's way, some reports."""
    done = 0
    while done < count:
        done += wrk(f"{daemon.url}/allowed", 32, 5 * seconds).requests
        done += wrk(f"{daemon.url}/allowed?peek=1", 32, seconds).requests
        done += wrk(f"{daemon.url}/v1/report", 32, seconds, script=script).requests
    return done


def _growth(count: int, seconds: int) -> tuple[float, int]:
    """(MiB, requests): what was added once the first part of the requests had been answered."""
    with _daemon() as daemon, tempfile.TemporaryDirectory(prefix="breaker-memory-") as folder:
        script = reports(Path(folder))
        _ask(daemon, count // 5, seconds, script)
        time.sleep(SETTLE_S)
        before = rss_mb(daemon.pid)
        done = _ask(daemon, count, seconds, script)
        time.sleep(SETTLE_S)
        return rss_mb(daemon.pid) - before, done


def _idle_kib(pid: int, port: int, count: int) -> float:
    """KiB that each of so many connections costs once it has had an answer and waits."""
    with contextlib.ExitStack() as stack:

        def connect() -> None:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            stack.callback(connection.close)
            connection.sendall(_REQUEST)
            connection.recv(4096)

        for _ in range(200):  # the first ones fill what is there for all
            connect()
        time.sleep(SETTLE_S)
        before = rss_mb(pid)
        for _ in range(count):
            connect()
        time.sleep(SETTLE_S)
        return 1024 * (rss_mb(pid) - before) / count


def _ours(count: int) -> float:
    with _daemon() as daemon:
        return _idle_kib(daemon.pid, daemon.port, count)


def _theirs(count: int) -> float:
    with serving() as (pid, port):
        return _idle_kib(pid, port, count)


def _median(measurement: Callable[[int], float], count: int, times: int) -> float:
    return statistics.median(measurement(count) for _ in range(times))


def _room() -> int:
    """How many connections this process may open, the soft limit raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return IDLE if hard == resource.RLIM_INFINITY else min(IDLE, hard - 500)


def measure(*, quick: bool) -> Iterator[Row]:
    """Growth over requests, and what an idle connection costs above aiohttp's own."""
    millions, seconds, times = (0.2, 1, 1) if quick else (10, 3, 3)
    if absent := missing("wrk"):
        yield Row(section=SECTION, what="requests", note=absent)
    else:
        growth, done = _growth(int(millions * MILLION), seconds)
        yield Row(
            section=SECTION,
            what=f"RSS growth over {done / MILLION:.1f} million requests",
            value=growth,
            unit="MiB",
            # The first million warms it up: half a MiB that has come to stay says nothing.
            target="" if quick else f"≤ {GROWTH_LIMIT_MB:g} MiB",
            limit=None if quick else GROWTH_LIMIT_MB,
            note="decisions, also by aiohttp's way, and reports",
        )
    count = _room()
    plain = _median(_theirs, count, times)
    yield Row(
        section=SECTION,
        what=f"RSS of an idle connection, of {count:,}",
        value=_median(_ours, count, times),
        unit="KiB",
        peer="plain aiohttp",
        peer_value=plain,
        target=f"≤ aiohttp + {ABOVE_KIB:g} KiB",
        limit=plain + ABOVE_KIB,
    )
