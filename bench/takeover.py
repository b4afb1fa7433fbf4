"""Takeover after kill -9: until another holds the lock, by the session's ttl alone and fast."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.host import BenchError
from bench.table import Row, percentile
from tests.integration.fleet import Fleet
from tests.integration.takeover import Takeover, fast, kill
from tests.servers import ConsulServer

SECTION = "Takeover after kill -9: until another holds the lock"
SESSION_TTL_S = 10.0
LOCK_DELAY_S = 1.0
WITHIN_S = 40.0
_STARTING = threading.Lock()
"""Thirty daemons that start at once are a measurement of something else."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to notice that an evaluator is dead.

    Fleets run side by side; each kills its evaluators one after the other.
    """

    what: str
    check_ttl: str | None
    fleets: int
    kills: int
    limit_s: float


CASES = (
    Case("fast_takeover: 2s", "2s", 4, 5, 4.0),
    # Consul lets a session live for up to twice its ttl; then come lock-delay and contest.
    Case("the session's ttl of 10 s alone", None, 10, 2, 2 * SESSION_TTL_S + LOCK_DELAY_S + 2.0),
)
QUICK = (Case("fast_takeover: 2s", "2s", 1, 2, 4.0),)


def _fleet(consul: ConsulServer, case: Case, number: int) -> list[Takeover]:
    kind = "fast" if case.check_ttl else "slow"
    with Fleet(consul, f"takeover-{kind}-{number}") as fleet:
        with _STARTING:
            fleet.start(case.kills + 1, consul=fast(fleet, case.check_ttl))
        return [kill(fleet, WITHIN_S) for _ in range(case.kills)]


def measure(*, quick: bool) -> Iterator[Row]:
    """Median and p99 of each way, and how many writes of dead evaluators were let through."""
    with ConsulServer() as consul:
        for case in QUICK if quick else CASES:
            yield from _rows(case, _runs(consul, case))


def _runs(consul: ConsulServer, case: Case) -> list[Takeover]:
    try:
        with ThreadPoolExecutor(case.fleets) as pool:
            fleets = pool.map(lambda number: _fleet(consul, case, number), range(case.fleets))
            return [run for fleet in fleets for run in fleet]
    except AssertionError as fault:
        raise BenchError(str(fault)) from fault


def _rows(case: Case, runs: list[Takeover]) -> Iterator[Row]:
    took_s = [run.seconds for run in runs]
    note = f"{len(runs)} kills, {case.fleets} fleets side by side"
    yield Row(
        section=SECTION,
        what=f"{case.what}, median",
        value=statistics.median(took_s),
        unit="s",
        note=f"{min(took_s):.2f} … {max(took_s):.2f}",
    )
    yield Row(
        section=SECTION,
        what=f"{case.what}, p99",
        value=percentile(took_s, 0.99),
        unit="s",
        target=f"≤ {case.limit_s:g} s",
        limit=case.limit_s,
        note=note,
    )
    yield Row(
        section=SECTION,
        what=f"{case.what}, late writes let through",
        value=float(sum(run.accepted for run in runs)),
        target="none",
        limit=0.0,
        note=f"of {sum(run.late for run in runs)} tried with the dead session",
    )
