"""How much of a slow answer is the daemon's own doing: the CPU time it spends within each request.

By the clock a request also waits for a host that stalls and for whoever else wants the core. What
the daemon computes meanwhile, the collector and its timers included, is what it could do without.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.decisions import STATES, daemon
from bench.host import cpu_s, on_core
from bench.table import Row, percentile
from bench.wire import Connection
from bench.wrk import CLIENT_CORE

SECTION = "Stalls: the daemon's own CPU time within one request, one connection"


def _samples(port: int, pid: int, breaker: str, seconds: float) -> tuple[list[float], list[float]]:
    """(microseconds by the clock, microseconds of the daemon's CPU) of each request."""
    by_clock, own = [], []
    end = time.monotonic() + seconds
    with Connection(port) as connection:
        spent = cpu_s(pid)
        while (began := time.monotonic()) < end:
            connection.request("GET", f"/allowed/{breaker}")
            by_clock.append(1e6 * (time.monotonic() - began))
            before, spent = spent, cpu_s(pid)
            own.append(1e6 * (spent - before))
    return by_clock, own


def measure(*, quick: bool) -> Iterator[Row]:
    """The worst of each state, beside the slowest answer."""
    with daemon() as ours, on_core(CLIENT_CORE):
        for state, breaker in STATES.items():
            by_clock, own = _samples(ours.port, ours.pid, breaker, 1.0 if quick else 5.0)
            for share, said in ((0.999, "p99.9"), (1.0, "worst")):
                yield Row(
                    section=SECTION,
                    what=f"/allowed {state}, {said}",
                    value=percentile(own, share),
                    unit="µs",
                    peer="by the clock",
                    peer_value=percentile(by_clock, share),
                    note=f"{len(own):,} requests",
                )
