"""Load by wrk, and what it measured."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.host import BenchError, on_core

SERVER_CORE, CLIENT_CORE = 0, 1
_REPORTS = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local n = 0
function request()
  n = n + 1
  local body = '{"instance":"c-%d","count_ok":100,"count_fail":0,"latency_ms":12.5}'
  return wrk.format(nil, nil, nil, string.format(body, n % 1000))
end
"""
# What `--latency` leaves out: the far tail.
_TAIL = """
function done(summary, latency, requests)
  io.write(string.format("  99.9%% %fus\\n", latency:percentile(99.9)))
end
"""
_SAME = """
local file = assert(io.open("%s", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
"""
# Each connection waits a random while, so that they don't report in step.
_PACE = "function delay() return math.random(6, 16) end\n"
_UNIT_US = {"us": 1.0, "ms": 1e3, "s": 1e6}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured in one run."""

    requests: int
    rate: float
    p50_us: float
    p99_us: float
    p999_us: float | None = None
    """Only where the script says it (`tail`, `same`)."""


def parse(text: str, *, rejections: bool = False) -> Load:
    """Read wrk's report. Raises BenchError where an answer was no 2xx and should have been."""
    if ("Non-2xx" in text and not rejections) or "Socket errors" in text:
        raise BenchError(f"wrk met errors:\n{text}")
    requests = re.search(r"^\s*(\d+) requests in", text, re.MULTILINE)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    shares = {
        found.group(1): float(found.group(2)) * _UNIT_US[found.group(3)]
        for found in re.finditer(r"^\s+(50|99|99\.9)%\s+([\d.]+)(us|ms|s) *$", text, re.MULTILINE)
    }
    if requests is None or rate is None or not {"50", "99"} <= shares.keys():
        raise BenchError(f"wrk said something else:\n{text}")
    return Load(
        int(requests.group(1)),
        float(rate.group(1)),
        shares["50"],
        shares["99"],
        shares.get("99.9"),
    )


def reports(folder: Path, *, paced: bool = False) -> Path:
    """A script for wrk: each request reports for one of a thousand instances.

    Args:
        paced: each connection about every 12 ms, instead of as fast as it goes.
    """
    script = folder / "report.lua"
    script.write_text(_REPORTS + (_PACE if paced else ""), "utf-8")
    return script


def tail(folder: Path) -> Path:
    """A script for wrk: GET, and the 99.9th percentile is told too."""
    script = folder / "tail.lua"
    script.write_text(_TAIL, "utf-8")
    return script


def same(folder: Path, name: str, body: bytes, headers: Mapping[str, str]) -> Path:
    """A script for wrk: the same body is posted again and again; tells the tail as `tail` does."""
    content, script = folder / f"{name}.body", folder / f"{name}.lua"
    content.write_bytes(body)
    given = [f'wrk.headers["{key}"] = "{value}"\n' for key, value in headers.items()]
    script.write_text("".join([_SAME % content, *given, _TAIL]), "utf-8")
    return script


def command(url: str, connections: int, seconds: int, script: Path | None = None) -> list[str]:
    """The command line; a script in Lua says what is sent instead of GET."""
    scripted = ["-s", str(script)] if script is not None else []
    fixed = ["wrk", "-t1", "--latency", "--timeout", "10s"]
    return [*fixed, f"-c{connections}", f"-d{seconds}s", *scripted, url]


def wrk(
    url: str,
    connections: int,
    seconds: int,
    *,
    rejections: bool = False,
    script: Path | None = None,
) -> Load:
    """Ask as fast as it goes. Raises BenchError as `parse` does."""
    with on_core(CLIENT_CORE):
        done = subprocess.run(
            command(url, connections, seconds, script),
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        )
    return parse(done.stdout, rejections=rejections)
