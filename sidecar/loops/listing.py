"""The reports of one breaker, followed by blocking queries while we evaluate it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import stamina

from sidecar.core.board import Cell
from sidecar.core.decision import poll_wait, stale_after
from sidecar.core.errors import StoreError
from sidecar.core.ports import Page
from sidecar.core.reports import Item, Reports
from sidecar.core.types import Policy
from sidecar.loops.around import Around
from sidecar.loops.cursor import Cursor
from sidecar.loops.pace import MIN_GAP_S, Pace
from sidecar.telemetry import names

GAP_FACTOR = 5
"""Between two reads: the minimum, or five times what the last one cost where that is more. Ten
thousand reports cost a tenth of a second each time, and must not take a whole core."""


class Listing:
    """Keeps `reports` up to date and has them evaluated after every read.

    Args:
        evaluate: awaited after each completed read; returns the seconds of work it took.
    """

    def __init__(
        self, around: Around, cell: Cell, evaluate: Callable[[], Awaitable[float]]
    ) -> None:
        self._cell = cell
        self._store = around.store
        self._wire = around.wire
        self._telemetry = around.telemetry
        self._clock = around.clock
        self._evaluate = evaluate
        self._cursor = Cursor()
        self._prefix = ""
        self._completed: float | None = None
        self._began = around.clock.now()
        self._resumed = self._began
        self._any = False
        self._pace = Pace()
        self.reports = Reports(around.wire.decode_report)

    def limit_s(self) -> float:
        """How old the last read may be: three intervals, or what one blocking query may take."""
        policy = self._cell.policy
        return max(3 * policy.evaluation_interval_s, stale_after(self._wait_s(policy)))

    def readable(self, now: float) -> bool:
        """True while the last completed read is recent enough to judge by."""
        return self._completed is not None and now - self._completed < self.limit_s()

    def given_up(self, now: float) -> bool:
        """True when no read has been completed for too long to go on as evaluator."""
        since = self._completed if self._completed is not None else self._began
        return now - max(since, self._resumed) >= self.limit_s()

    def resumed(self, now: float) -> None:
        """The process stood still until now: what could not be read meanwhile is no failure."""
        self._resumed = now

    @staticmethod
    def _wait_s(policy: Policy) -> float:
        return poll_wait(6 * policy.evaluation_interval_s)

    async def run(self) -> None:
        """Read, evaluate, pause, for ever."""
        while True:
            began, before, spent_s = self._clock.now(), self._cursor.index, 0.0
            async for attempt in stamina.retry_context(
                on=StoreError,
                attempts=None,
                timeout=None,
                wait_initial=0.05,
                wait_max=self._cell.policy.evaluation_interval_s,
                wait_jitter=0.1,
            ):
                with attempt:
                    spent_s = await self._read(self._wait_s(self._cell.policy))
            waited_s = self._clock.now() - began
            spent_s += await self._evaluate()
            idle_s = self._pace.after(news=self._cursor.index != before, waited_s=waited_s)
            await asyncio.sleep(max(MIN_GAP_S, GAP_FACTOR * spent_s, idle_s))

    async def read_now(self) -> None:
        """Read without waiting for a change."""
        self._cursor.reset()
        await self._read(0.0)

    async def _read(self, wait_s: float) -> float:
        """One read; returns the seconds it cost beyond waiting."""
        policy = self._cell.policy
        prefix = f"{policy.reports_prefix}/"
        if prefix != self._prefix:
            self._prefix = prefix
            self._cursor.reset()
            self.reports = Reports(self._wire.decode_report)
        asked = self._clock.now()
        page = await self._store.watch(prefix, self._cursor.ask, wait_s)
        started = self._clock.now()
        self._cursor.took(page.index, early=started - asked < wait_s / 2)
        self._take(page, policy, prefix)
        if page.known_leader:
            self._completed = self._clock.now()
        return page.spent_s + self._clock.now() - started

    def _take(self, page: Page, policy: Policy, prefix: str) -> None:
        # A key that is the bare prefix is a folder, as the web interface makes them: no report.
        items = (
            Item(entry.key[len(prefix) :], entry.value, entry.modify_index)
            for entry in page.entries
            if entry.key != prefix
        )
        bad = self.reports.update(
            items, page.index, policy, now=self._clock.now(), wall_at=self._clock.wall_at()
        )
        for instance, fault, first in bad:
            self._telemetry.count(names.BAD_RECORDS, kind="report")
            if first:
                self._telemetry.event(
                    names.BAD_REPORT,
                    level="warning",
                    breaker=policy.name,
                    reporter=instance,
                    fault=fault,
                )
        if self._any and not page.entries:
            # A token that lost its right to read sees an empty list: unknown, not healthy.
            self._telemetry.event(names.REPORTS_EMPTY, level="warning", breaker=policy.name)
        self._any = bool(page.entries)
