"""Several processes full of simulated programs, spoken to as one; `worker` is the other side."""

from __future__ import annotations

import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, Self, TypeVar

import msgspec

from bench.fleet.worker import Totals
from bench.host import BenchError
from tests.servers import ROOT

DEADLINE_S = 60.0

T = TypeVar("T")


class _Ready(msgspec.Struct):
    ready: bool


class _Times(msgspec.Struct):
    times: list[float]


class Crew:
    """A context manager that ends its processes. Every method raises BenchError."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self.size = 0

    def add(self, module: str, arguments: Sequence[str], count: int, processes: int) -> None:
        """So many more of a kind, started together; returns when all are at work."""
        fresh = []
        for part in _parts(count, processes):
            command = [sys.executable, "-m", module, *arguments, str(part), str(self.size)]
            fresh.append(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
                )
            )
            self.size += part
            self._children.append(fresh[-1])
        for child in fresh:
            _hear(child, _Ready)

    def totals(self) -> Totals:
        """What all did since their start. Nobody is asked before the one in front answered."""
        total = Totals()
        for child in self._children:
            _tell(child, "totals")
            total += _hear(child, Totals)
        return total

    def expect(self, state: str) -> None:
        """Have all tell when they are in this state; `times` has the answer."""
        for child in self._children:
            _tell(child, f"expect {state}")

    def times(self) -> list[float]:
        """When each came into the expected state, by CLOCK_BOOTTIME, in order."""
        return sorted(at for child in self._children for at in _hear(child, _Times).times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait(10)
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


def _parts(count: int, processes: int) -> list[int]:
    """As equal as may be; fewer processes where there is less than one for each."""
    processes = max(1, min(processes, count))
    return [count // processes + (number < count % processes) for number in range(processes)]


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise BenchError("a child without pipes")
    return stream


def _tell(child: subprocess.Popen[bytes], order: str) -> None:
    try:
        _pipe(child.stdin).write(order.encode() + b"\n")
    except BrokenPipeError as fault:
        raise BenchError(f"a child ended early: {child.args!r}") from fault


def _hear(child: subprocess.Popen[bytes], kind: type[T]) -> T:
    """The child's next line."""
    stream, line = _pipe(child.stdout), b""
    deadline = time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as waiting:
        waiting.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                raise BenchError(f"no answer within {DEADLINE_S:g} s: {child.args!r}")
            data = stream.read(1 << 20)
            if not data:
                raise BenchError(f"a child ended early: {child.args!r}")
            line += data
    return msgspec.json.decode(line, type=kind)
