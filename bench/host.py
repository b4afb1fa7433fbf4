"""This machine: its name in the report, processes' CPU and memory, and who runs on which core."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.servers import consul_binary

_CPUCLOCK_SCHED = 2


class BenchError(Exception):
    """A measurement went wrong; the text says which and how."""


def wait_until(check: Callable[[], bool], within_s: float, what: str, every_s: float) -> None:
    """Poll. Raises BenchError when time is over."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() >= deadline:
            raise BenchError(f"not within {within_s:g} s: {what}")
        time.sleep(every_s)


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, all threads, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def rss_mb(pid: int) -> float:
    """Resident memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no memory")


def stolen_s() -> float:
    """CPU seconds, over all cores, in which the host let others run (proc(5), steal)."""
    with Path("/proc/stat").open("rb") as file:
        ticks = int(file.readline().split()[8])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on_core(index: int) -> Iterator[None]:
    """Processes started inside run on one core: the first or the second this process may use."""
    mine = os.sched_getaffinity(0)
    cores = sorted(mine)
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def missing(*programs: str) -> str:
    """Names those that are not on PATH, with what brings them; empty when all are there."""
    absent = [name for name in programs if shutil.which(name) is None]
    return f"not on PATH: {', '.join(absent)} (Debian packages of that name)" if absent else ""


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe() -> dict[str, str]:
    """What the figures were measured on."""
    version = subprocess.run(
        [consul_binary(), "version"], capture_output=True, text=True, check=True, timeout=20
    ).stdout.splitlines()[0]
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.2f} before the first measurement",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "consul": version,
    }
