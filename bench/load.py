"""What /allowed is worth while everything else is busy: Consul hangs, reports rain, many watch."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.host import BenchError, missing, on_core, wait_until
from bench.table import Row
from bench.wire import DEADLINE_S
from bench.wrk import CLIENT_CORE, SERVER_CORE, Load, command, parse, reports, wrk
from tests.daemon import Daemon
from tests.servers import ROOT, ConsulServer

SECTION = "Under load: Consul frozen, reports and watchers beside /allowed"
REPORTS_PER_S = 10_000
REPORTERS = 128
"""Connections that report, each about every 12 ms."""
WATCHERS = 1_000
TIMES_QUIET = 3.0
SPREAD_LIMIT_MS = 500.0


@dataclass(slots=True)
class _Figures:
    """What the rounds brought."""

    quiet: dict[int, list[Load]] = field(default_factory=lambda: {1: [], 32: []})
    loaded: dict[int, list[Load]] = field(default_factory=lambda: {1: [], 32: []})
    reports: list[Load] = field(default_factory=list)
    spreads_ms: list[float] = field(default_factory=list)


class _Bench:
    """A daemon on Consul, and those who keep it busy.

    Whoever measures has the clients' core to itself as far as that goes: the others there give way.
    """

    def __init__(self, consul: ConsulServer, daemon: Daemon, folder: Path, seconds: int) -> None:
        self._consul = consul
        self._daemon = daemon
        self._seconds = seconds
        self._script = reports(folder, paced=True)
        self.figures = _Figures()

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        with on_core(CLIENT_CORE):
            return subprocess.Popen(
                ["nice", "-n", "10", *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    @contextlib.contextmanager
    def _reporting(self, seconds: int) -> Iterator[None]:
        url = f"{self._daemon.url}/v1/report"
        process = self._start(command(url, REPORTERS, seconds, self._script))
        try:
            yield
            said, _ = process.communicate(timeout=seconds + DEADLINE_S)
            self.figures.reports.append(parse(said))
        finally:
            process.kill()
            process.wait(10)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        module = [sys.executable, "-m", "bench.watchers"]
        process = self._start([*module, str(self._daemon.port), str(WATCHERS)])
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise BenchError("the watchers did not get what they watch")
            yield
            said, _ = process.communicate(timeout=DEADLINE_S)
            self.figures.spreads_ms += map(float, said.split())
        finally:
            process.kill()
            process.wait(10)

    def _ask(self, into: dict[int, list[Load]]) -> None:
        for connections, loads in into.items():
            loads.append(wrk(f"{self._daemon.url}/allowed", connections, self._seconds))

    def quiet(self) -> None:
        """Nothing but the question."""
        self._ask(self.figures.quiet)

    def loaded(self) -> None:
        """The same beside everything else, with Consul frozen."""
        self._consul.freeze()
        try:
            with self._watching(), self._reporting(2 * self._seconds + 2):
                time.sleep(1.0)  # they have begun
                self._ask(self.figures.loaded)
        finally:
            self._consul.thaw()
        self._settled("CLOSED")

    def transitions(self, count: int) -> None:
        """Beside the reports, but with Consul there to make them."""
        with self._watching(), self._reporting(count + 2):
            for number in range(count):
                state = "CLOSED" if number % 2 else "OPEN"
                changed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                record: dict[str, object] = {"current_state": state, "last_changed": changed}
                self._consul.kv_put("breaker/state", record)
                self._settled(state)
                time.sleep(0.5)  # the last of them has it

    def _settled(self, state: str) -> None:
        """The state is in force here and the evaluator's own in Consul."""

        def there() -> bool:
            value = self._consul.kv_get("breaker/state")
            record = json.loads(value) if value is not None else {}
            answer = self._daemon.allowed(peek=True).body
            return (
                record.get("current_state") == answer["state"] == state
                and record.get("seq") == answer["seq"]
                and not answer["stale"]
            )

        wait_until(there, 60, f"the breaker is {state}", 0.05)


def _rounds(rounds: int, seconds: int, transitions: int) -> _Figures:
    with (
        tempfile.TemporaryDirectory(prefix="breaker-load-") as name,
        contextlib.ExitStack() as stack,
    ):
        with on_core(CLIENT_CORE):
            consul = stack.enter_context(ConsulServer())
        with on_core(SERVER_CORE):
            daemon = Daemon({"consul": {"address": consul.address}}).start()
        stack.callback(daemon.close)
        daemon.wait_ready()
        bench = _Bench(consul, daemon, Path(name), seconds)
        bench._settled("CLOSED")
        for _ in range(rounds):
            bench.quiet()
            bench.loaded()
        bench.transitions(transitions)
        return bench.figures


def measure(*, quick: bool) -> Iterator[Row]:
    """Latency of /allowed beside its quiet value, and how far apart watchers are told."""
    if absent := missing("wrk"):
        yield Row(section=SECTION, what="/allowed", note=absent)
        return
    rounds, seconds, transitions = (1, 2, 4) if quick else (5, 5, 20)
    figures = _rounds(rounds, seconds, transitions)
    rate = statistics.median(load.rate for load in figures.reports)
    yield Row.over(
        (load.rate for load in figures.reports),
        section=SECTION,
        what=f"reports over {REPORTERS} connections",
        unit="1/s",
        note="" if rate >= REPORTS_PER_S else f"fewer than {REPORTS_PER_S:,}: the rest says less",
    )
    for connections, loads in figures.loaded.items():
        yield Row.over(
            (load.p99_us for load in loads),
            (load.p99_us for load in figures.quiet[connections]),
            section=SECTION,
            what=f"/allowed p99, {connections} connection{'s' if connections > 1 else ''}",
            unit="µs",
            peer="quiet",
            target=f"≤ {TIMES_QUIET:g}× quiet",
            most_ratio=TIMES_QUIET,
            note=f"{WATCHERS:,} watchers",
        )
    yield Row(
        section=SECTION,
        what=f"from the first to the last of {WATCHERS:,} watchers, at most",
        value=max(figures.spreads_ms, default=None),
        unit="ms",
        target=f"≤ {SPREAD_LIMIT_MS:g} ms",
        limit=SPREAD_LIMIT_MS,
        note=f"{len(figures.spreads_ms)} transitions",
    )
