"""Who reported what, and whether it is fresh: a report is fresh when its *value* changed lately.

A store doesn't note an identical PUT, and a session's death touches a key without any report, so
neither "was written" nor the modify index alone says that an instance is alive.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sidecar.core.types import BadReport, Policy, Report

PRODUCER = "producer"
"""The role of who reports deliveries to Kafka rather than messages handled."""
INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""What an instance may be called."""
MAX_VALUE_BYTES = 64 * 1024
MAX_COUNT = 1e12
"""More than any interval holds; keeps the sums of absurd reports finite and exact."""
MAX_CHANGES = 200_000
"""Reports remembered for `failure_ratio`: ten thousand reporters over a window of 100 s."""
ROUNDING_S = 1e-6
"""What a sum and a difference of clock readings may lose."""


@dataclass(frozen=True, slots=True)
class Item:
    """One report key as listed: the instance is the part behind the prefix."""

    instance: str
    value: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Change:
    """One report as it came in, for what looks at a window of time."""

    changed: float
    index: int
    instance: str
    handled: float
    failed: float


@dataclass(frozen=True, slots=True)
class Tally:
    """The consumers' reports that count, added up."""

    index: int
    fresh: int
    """Fresh reporters, whatever they reported before."""
    stale: int
    reporters: int
    """Fresh reporters whose report is not old evidence."""
    failures: float
    successes: float
    failing: int = 0
    """Reporters that count and report failures."""
    silent: int = 0
    """Consumers that went stale within `missing.window`."""
    watched_s: float = field(default=math.inf, compare=False)
    """For how long the reports have been read: who is alive has reported within three intervals."""
    counting: tuple[tuple[str, Report], ...] = ()
    """Fresh reports, of producers too, that are not old evidence; only where signals need them."""
    changes: tuple[Change, ...] = ()
    """Consumers' reports within `failure_ratio.window`; only where that signal is on."""


@dataclass(slots=True)
class _Known:
    value: bytes
    report: Report | None
    index: int
    """Modify index at which the value last changed."""
    changed: float
    """When it changed, by this machine's clock."""
    key_index: int
    spent: bool = False
    """True once it has been old evidence. It stays so until the value changes, even where the
    store's clock goes back and its index no longer says so."""
    older_s: float = 0.0
    """By how much it was older than stale when first seen, by its own word. Who died long ago is
    not missed anew by each new evaluator."""
    change: int = 0
    """Its number among the changes remembered."""


@dataclass(slots=True)
class Reports:
    """The reporters of one breaker. Not thread-safe; no clock, no I/O.

    Args:
        parse: turns a value into a report or says what is wrong with it.
    """

    parse: Callable[[bytes], Report | BadReport]
    _known: dict[str, _Known] = field(default_factory=dict)
    _bad: set[str] = field(default_factory=set)
    _index: int = 0
    _began: float | None = None
    """When the first listing was read."""
    _changes: OrderedDict[int, Change] = field(default_factory=OrderedDict)
    """By number, oldest first: a running sum has to find its predecessor among very many."""
    _number: int = 0

    def update(
        self, items: Iterable[Item], index: int, policy: Policy, *, now: float, wall_at: float
    ) -> list[tuple[str, str, bool]]:
        """Take in a completed listing.

        Returns the bad reports that are new: (instance, fault, first of this key).
        """
        bad: list[tuple[str, str, bool]] = []
        listed: dict[str, _Known] = {}
        for item in items:
            known = self._known.get(item.instance)
            if known is None or known.value != item.value:
                known = self._changed(item, known, policy, bad, now=now, wall_at=wall_at)
            known.index = min(known.index, item.index)
            known.key_index = item.index
            listed[item.instance] = known
        self._known = listed
        self._bad &= listed.keys()
        self._index = index
        if self._began is None:
            self._began = now
        return bad

    def _changed(
        self,
        item: Item,
        known: _Known | None,
        policy: Policy,
        bad: list[tuple[str, str, bool]],
        *,
        now: float,
        wall_at: float,
    ) -> _Known:
        report = self._parse(item, wall_at)
        if isinstance(report, BadReport):
            bad.append((item.instance, report.fault, item.instance not in self._bad))
            self._bad.add(item.instance)
            return _Known(item.value, None, item.index, now, item.index)
        age_s = older_s = 0.0
        if known is None or item.index < known.key_index:
            # Seen for the first time, or brought back by a restored snapshot, so nobody here
            # knows when it changed: its own word, clamped.
            own_s = max(0.0, wall_at - report.timestamp_at)
            age_s = min(own_s, policy.fresh_for_s)
            older_s = own_s - age_s
        changed = now - age_s
        now_known = _Known(item.value, report, item.index, changed, item.index, older_s=older_s)
        if policy.signals.failure_ratio is not None and report.role != PRODUCER:
            self._remember(item, report, known, now_known, policy)
        return now_known

    def _remember(
        self, item: Item, report: Report, before: _Known | None, after: _Known, policy: Policy
    ) -> None:
        """Note a change. A running sum holds what its predecessors in the same window held."""
        last = before.report if before is not None else None
        same = last is not None and last.window is not None and last.window == report.window
        if before is not None and same:
            self._changes.pop(before.change, None)
        handled = min(successes(report, policy), MAX_COUNT)
        failed = min(report.count_fail, MAX_COUNT)
        self._number += 1
        after.change = self._number
        self._changes[self._number] = Change(
            after.changed, item.index, item.instance, handled, failed
        )
        if len(self._changes) > MAX_CHANGES:
            self._changes.popitem(last=False)

    def _parse(self, item: Item, wall_at: float) -> Report | BadReport:
        if not INSTANCE.fullmatch(item.instance):
            return BadReport("the key is not an instance name")
        if len(item.value) > MAX_VALUE_BYTES:
            return BadReport(f"{len(item.value)} bytes, at most {MAX_VALUE_BYTES}")
        report = self.parse(item.value)
        if isinstance(report, Report) and report.timestamp_at > wall_at + 86400:
            return BadReport("its timestamp is more than a day ahead")
        return report

    def tally(self, floor_index: int, policy: Policy, *, now: float) -> Tally:
        """Add up what counts: fresh, and changed after `floor_index` of the store's clock."""
        fresh = stale = reporters = failing = silent = 0
        failed = succeeded = 0.0
        missing = policy.signals.missing
        forgotten_s = policy.fresh_for_s + (missing.window_s if missing is not None else 0.0)
        plain = policy.plain
        counting: list[tuple[str, Report]] = []
        for instance, known in self._known.items():
            report = known.report
            if report is None:
                continue
            known.spent = known.spent or known.index <= floor_index
            age_s = now - known.changed + ROUNDING_S
            if report.role == PRODUCER:
                if age_s < policy.fresh_for_s and not known.spent:
                    counting.append((instance, report))
                continue
            if age_s >= policy.fresh_for_s:
                stale += 1
                silent += age_s + known.older_s < forgotten_s
                continue
            fresh += 1
            if not known.spent:
                reporters += 1
                failed += min(report.count_fail, MAX_COUNT)
                succeeded += min(successes(report, policy), MAX_COUNT)
                failing += report.count_fail > 0
                if not plain:
                    counting.append((instance, report))
        return Tally(
            self._index,
            fresh,
            stale,
            reporters,
            failed,
            succeeded,
            failing=failing,
            silent=silent,
            watched_s=now - self._began if self._began is not None else 0.0,
            counting=tuple(counting),
            changes=self._window(policy, now),
        )

    def _window(self, policy: Policy, now: float) -> tuple[Change, ...]:
        settings = policy.signals.failure_ratio
        if settings is None:
            self._changes.clear()
            return ()
        while self._changes:
            number, oldest = next(iter(self._changes.items()))
            if now - oldest.changed < settings.window_s:
                break
            del self._changes[number]
        return tuple(self._changes.values())

    def expired(self, policy: Policy, *, now: float) -> list[tuple[str, int]]:
        """Instances unchanged for `report_gc`, with the index to delete each at."""
        if policy.report_gc_s <= 0:
            return []
        return [
            (instance, known.key_index)
            for instance, known in self._known.items()
            if known.report is not None and now - known.changed >= policy.report_gc_s
        ]


def successes(report: Report, policy: Policy) -> float:
    """Messages handled in the report's interval: rate x interval."""
    interval_s = report.interval_s if report.interval_s is not None else policy.report_interval_s
    return report.rate_ok * interval_s
