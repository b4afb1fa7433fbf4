"""Trip latency: from the report that reaches the threshold to the last of three daemons' 503."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection

from bench import floor
from bench.host import BenchError, wait_until
from bench.reporters import instances, report, write_all
from bench.table import Row, over_rounds
from bench.wire import DEADLINE_S, Connection
from tests.daemon import Daemon
from tests.servers import ROOT, ConsulServer

DAEMONS = 3
THRESHOLD = floor.THRESHOLD
PREFIX = "service-metrics/kafka-consumer"
FLOOR_PREFIX = "floor-reports"
SAMPLE_DEADLINE_S = 20.0
POLL_PAUSE_S = 0.0002
"""Between two looks at a daemon: without it the looking takes a core of its own."""


@dataclass(frozen=True, slots=True)
class Case:
    """How many report, how often, and what is asked of the p99 there."""

    reporters: int
    busy: bool
    """Whether the others report meanwhile, each every 5 s; else they are quiet."""
    rounds: int
    samples: int
    limit_ms: float | None
    """None: three times the floor's p99."""
    quiet_s: float
    """Pause before each trip, so that a quiet evaluator owes no gap to its last round."""


CASES = (
    Case(3, False, 5, 40, None, 0.15),
    Case(100, False, 3, 30, 25.0, 0.15),
    Case(100, True, 3, 30, 25.0, 0.15),
    Case(10_000, False, 3, 6, 1000.0, 2.0),
    Case(10_000, True, 3, 6, 1000.0, 0.5),
)
QUICK = (Case(3, False, 1, 15, None, 0.15), Case(100, False, 1, 10, 25.0, 0.15))


class _Fleet:
    """Three daemons on one Consul, and the one reporter that trips them."""

    def __init__(self, consul: ConsulServer, daemons: list[Daemon], case: Case) -> None:
        self._consul = Connection(consul.port)
        self._doors = [Connection(daemon.port) for daemon in daemons]
        self._case = case
        self._failing = f"/v1/kv/{PREFIX}/{instances(case.reporters)[0]}"

    def _put(self, path: str, value: bytes) -> None:
        status, _ = self._consul.request("PUT", path, value)
        if status != 200:
            raise BenchError(f"PUT {path}: {status}")

    def _closed(self) -> bool:
        """Ours again in Consul, and admitting at every door."""
        status, body = self._consul.request("GET", "/v1/kv/breaker/state?raw")
        record = json.loads(body) if status == 200 else {}
        if record.get("current_state") != "CLOSED" or "seq" not in record:
            return False
        return all(door.request("GET", "/allowed")[0] == 200 for door in self._doors)

    def settle(self) -> None:
        """Until the fleet has made its record and admits."""
        wait_until(self._closed, 60, "the fleet has a state", 0.05)

    def _reset(self) -> None:
        """Healthy again, and closed by hand as the source system's scripts do it."""
        self._put(self._failing, report())
        state = {"current_state": "CLOSED", "last_changed": "2026-01-01T00:00:00Z"}
        self._put("/v1/kv/breaker/state", json.dumps(state).encode())
        wait_until(self._closed, SAMPLE_DEADLINE_S, "the breaker is closed again", 0.005)
        time.sleep(self._case.quiet_s)

    def sample(self) -> float:
        """Seconds of one trip."""
        self._reset()
        value = report(THRESHOLD + 5)
        began = time.perf_counter()
        self._consul.send("PUT", self._failing, value)
        ended = self._all_reject(began + SAMPLE_DEADLINE_S)
        self._consul.receive()
        return ended - began

    def _all_reject(self, deadline: float) -> float:
        """When all doors were found to answer 503 (perf_counter).

        One is asked at a time: asking all at once would take the cores that the trip needs, and
        the moment at which the last one rejects is the same.
        """
        for door in self._doors:
            while door.request("GET", "/allowed")[0] != 503:
                if time.perf_counter() > deadline:
                    raise BenchError(f"no trip within {SAMPLE_DEADLINE_S:g} s")
                time.sleep(POLL_PAUSE_S)
        return time.perf_counter()

    def close(self) -> None:
        for connection in (self._consul, *self._doors):
            connection.close()


@contextlib.contextmanager
def _reporting(consul: ConsulServer, prefix: str, case: Case) -> Iterator[None]:
    """All others report every 5 s, from a process of their own; nobody in a quiet case."""
    if not case.busy:
        yield
        return
    command = [sys.executable, "-m", "bench.reporters", str(consul.port), prefix]
    process = subprocess.Popen([*command, str(case.reporters), "5"], cwd=ROOT)
    try:
        yield
        if process.poll() is not None:
            raise BenchError("the reporters ended early")
    finally:
        process.kill()
        process.wait(10)


def _config(consul: ConsulServer) -> dict[str, object]:
    breaker = {
        "consul_key_prefix": PREFIX,
        "failure_threshold": THRESHOLD,
        # Quiet reporters stay fresh through the whole measurement.
        "report_interval": "10m",
        "open_duration": "5m",
    }
    return {"consul": {"address": consul.address}, "breakers": {"default": breaker}}


def _seed(consul: ConsulServer, count: int) -> None:
    connection = HTTPConnection("127.0.0.1", consul.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        for prefix in (PREFIX, FLOOR_PREFIX):
            write_all(connection, prefix, instances(count))


def measure_case(case: Case) -> tuple[list[list[float]], list[list[float]]]:
    """Rounds of the daemons' samples and of the floor's, one after the other, in milliseconds."""
    ours: list[list[float]] = []
    bare: list[list[float]] = []
    with contextlib.ExitStack() as stack:
        consul = stack.enter_context(ConsulServer())
        _seed(consul, case.reporters)
        daemons = [stack.enter_context(Daemon(_config(consul))) for _ in range(DAEMONS)]
        fleet = _Fleet(consul, daemons, case)
        stack.callback(fleet.close)
        fleet.settle()
        fleet.sample()  # the first one warms up connections and code
        for _ in range(case.rounds):
            with _reporting(consul, FLOOR_PREFIX, case):
                taken = floor.measure(consul.port, FLOOR_PREFIX, case.reporters, case.samples)
            bare.append([1e3 * took_s for took_s in taken])
            with _reporting(consul, PREFIX, case):
                ours.append([1e3 * fleet.sample() for _ in range(case.samples)])
    return ours, bare


def measure(*, quick: bool) -> Iterator[Row]:
    """p50 and p99 of every case."""
    for case in QUICK if quick else CASES:
        ours, bare = measure_case(case)
        meanwhile = "all reporting" if case.busy else "quiet"
        what = f"{case.reporters:,} reporters, {meanwhile}"
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            peer_value = over_rounds(bare, share)
            limit = case.limit_ms if case.limit_ms is not None else 3 * peer_value
            target = f"≤ {case.limit_ms:g} ms" if case.limit_ms is not None else "≤ 3× floor"
            targeted = share == 0.99
            yield Row(
                section="Trip latency: failing report to the last of three 503s",
                what=f"{what}, {name}",
                value=over_rounds(ours, share),
                unit="ms",
                peer="bare Consul",
                peer_value=peer_value,
                target=target if targeted else "",
                limit=limit if targeted else None,
                note=f"{case.rounds} rounds of {case.samples}" if targeted else "",
            )
