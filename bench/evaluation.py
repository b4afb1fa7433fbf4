"""What one evaluation costs: the values of all reports in, what to write next out; no network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.reporters import instances, report
from bench.table import Row
from sidecar.core.breaker import step
from sidecar.core.observe import Seen, observe
from sidecar.core.reports import Item, Reports
from sidecar.core.signals import judge
from sidecar.core.types import Policy, Reason, Record, State
from sidecar.core.writing import Author
from sidecar.store.reports import decode_report

SIZES = (10, 1_000, 10_000)


@dataclass(slots=True)
class _Evaluator:
    """A breaker that is closed, and its reports."""

    reports: Reports
    seen: Seen
    policy: Policy
    index: int = 1

    def round(self, items: Sequence[Item], wall_at: float) -> float:
        """Seconds of one evaluation."""
        self.index += 1
        began = time.perf_counter()
        self.reports.update(items, self.index, self.policy, now=1000.0, wall_at=wall_at)
        tally = self.reports.tally(self.seen.floor_index, self.policy, now=1000.0)
        judgement = judge(tally, self.seen, self.policy)
        step(self.seen, judgement, self.policy, Author("bench", 1), now=1000.0, wall_at=wall_at)
        return time.perf_counter() - began


def _closed(policy: Policy, wall_at: float) -> Seen:
    record = Record(
        current_state=State.CLOSED,
        last_changed_at=wall_at,
        seq=1,
        epoch=1,
        automaton=State.CLOSED,
        reason=Reason.CREATED,
        detail="",
        admit_ratio=1.0,
        automaton_ratio=1.0,
        policy=policy.fingerprint,
        evaluator="bench",
    )
    return observe(None, record, 1, policy, now=0.0, wall_at=wall_at)


def _times(count: int, rounds: int, changed: int) -> list[float]:
    """Milliseconds of rounds in which so many reports are new."""
    policy, wall_at = Policy(name="default"), time.time()
    evaluator = _Evaluator(Reports(decode_report), _closed(policy, wall_at), policy)
    names = instances(count)
    items = [Item(name, report(), 1) for name in names]
    evaluator.round(items, wall_at)
    taken = []
    for index in range(2, rounds + 2):
        items[:changed] = [Item(name, report(), index) for name in names[:changed]]
        taken.append(1e3 * evaluator.round(items, wall_at))
    return taken


def measure(*, quick: bool) -> Iterator[Row]:
    """Medians, with every report new and with a single one."""
    for count in SIZES:
        rounds = max(5, (2_000 if quick else 40_000) // count)
        for changed, said in ((count, "all changed"), (1, "one changed")):
            yield Row(
                section="Evaluation: listed values to the next move, in process",
                what=f"{count:,} reporters, {said}",
                value=statistics.median(_times(count, rounds, changed)),
                unit="ms",
                note=f"median of {rounds}",
            )
