"""What a decision costs in instructions, counted by valgrind's callgrind.

The same on a busy machine as on a quiet one, so that it tells what a change to the fast lane is
worth. It is what the daemon executes itself, event loop included; what the kernel does for it isn't
in it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.decisions import STATES, daemon
from bench.host import BenchError, missing
from bench.table import Row
from bench.wire import Connection
from tests.daemon import PROGRAM, Daemon

SECTION = "Instructions: of the daemon itself, for each request, counted by callgrind"
REQUESTS, QUICK_REQUESTS = 6_400, 640
WARM = 5
"""Times that each connection has asked before it counts."""
START_DEADLINE_S = 120.0
"""Under valgrind everything takes some fifty times as long."""
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def _control(pid: int, *arguments: str) -> None:
    command = ["callgrind_control", *arguments, str(pid)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(command)}: {error.stderr or error.stdout}") from error


def _ask(connections: list[Connection], path: str, times: int) -> None:
    for _ in range(times):
        for connection in connections:
            connection.send("GET", path)
        for connection in connections:
            connection.receive()


def _counted(ours: Daemon, folder: Path, path: str, many: int, times: int) -> float:
    """Instructions a request, over so many connections that ask in step, so many times each."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(ours.port)) for _ in range(many)]
        _ask(connections, path, WARM)
        _control(ours.pid, "--instr=on")
        _control(ours.pid, "--zero")
        _ask(connections, path, times)
        before = set(folder.iterdir())
        _control(ours.pid, "--dump")
        _control(ours.pid, "--instr=off")
    texts = [dump.read_text("utf-8") for dump in set(folder.iterdir()) - before]
    totals = [int(total) for text in texts for total in _TOTAL.findall(text)[:1]]
    if len(totals) != 1:
        raise BenchError(f"callgrind wrote {len(totals)} totals")
    return totals[0] / (times * many)


def measure(*, quick: bool) -> Iterator[Row]:
    """Each state, at 32 connections and at one."""
    if absent := missing("valgrind"):
        yield Row(section=SECTION, what="/allowed", note=absent)
        return
    requests = QUICK_REQUESTS if quick else REQUESTS
    with tempfile.TemporaryDirectory(prefix="breaker-instructions-") as name:
        folder = Path(name)
        counting = ("valgrind", "--tool=callgrind", "--instr-atstart=no")
        program = (*counting, f"--callgrind-out-file={folder}/out", *PROGRAM)
        with daemon(program, within_s=START_DEADLINE_S) as ours:
            for state, breaker in STATES.items():
                for many in (32, 1):
                    yield Row(
                        section=SECTION,
                        what=f"/allowed {state}, {many} connection" + ("s" if many > 1 else ""),
                        value=_counted(ours, folder, f"/allowed/{breaker}", many, requests // many),
                        note=f"{requests:,} requests",
                    )
