"""Local reports on their way to the store, and their end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from sidecar.core.board import Cell
from sidecar.core.errors import StoreError
from sidecar.core.intake import MAX_INSTANCES, Intake, Outgoing, Post
from sidecar.loops.around import Around
from sidecar.loops.guard import Signal
from sidecar.telemetry import names

MAX_PARALLEL = 16
"""Report writes and deletions in flight at once."""
MAX_PAUSE_S = 5.0
FORGET_EVERY_S = 60.0
"""How often it is looked who has been silent for long; one look costs a walk over all."""


class Reporter:
    """Takes posts in and writes them behind the callers' backs.

    Args:
        settle: for a store in this process: awaited after a write, so that the report counts
            before the caller has its answer; None otherwise.
    """

    def __init__(self, around: Around, settle: Callable[[str], Awaitable[None]] | None) -> None:
        self._store = around.store
        self._wire = around.wire
        self._board = around.board
        self._telemetry = around.telemetry
        self._changed = around.changed
        self._clock = around.clock
        self._draw = around.draw
        self._settle = settle
        self._intakes: dict[str, Intake] = {}
        self._prefixes: dict[str, str] = {}
        """Where each breaker's reports have been written."""
        self._left: set[str] = set()
        """Keys of those who said goodbye that could not be deleted."""
        self._failures = 0
        self._slots = asyncio.Semaphore(MAX_PARALLEL)
        self._wake = Signal()
        self._planned = -math.inf
        """When `run` looks again by itself (monotonic); what is due later needs no waking."""
        self._forgotten = -math.inf
        """When the silent were last forgotten."""

    def take(self, cell: Cell, post: Post) -> bool:
        """Take a post in; False, and nothing done, where its sender must wait (`settle`).

        Raises:
            IntakeFull: too many instances report through this sidecar.
        """
        if self._settle is not None:
            return False
        intake = self._add(cell, post)
        due = intake.next_due(cell.policy)
        if due is not None and due < self._planned:
            self._wake.set()
        return True

    async def post(self, cell: Cell, post: Post) -> None:
        """Take a post in; it counts before this returns where the store is in this process.

        Raises:
            IntakeFull: too many instances report through this sidecar.
        """
        if self._settle is None:
            self.take(cell, post)
            return
        await self._write_due(cell, self._add(cell, post))
        await self._settle(cell.policy.name)

    def _add(self, cell: Cell, post: Post) -> Intake:
        name = cell.policy.name
        intake = self._intakes.get(name)
        if intake is None:
            intake = self._intakes[name] = Intake(through=self._settle is not None)
            self._prefixes[name] = cell.policy.reports_prefix
        era = cell.seen.since if cell.seen is not None else 0.0  # when the present state began
        now = self._clock.now()
        intake.add(post, cell.policy, era, now=now)
        if post.role == "producer" and self._board.delivered(cell, post, now=now):
            self._changed()
        return intake

    async def withdraw(self, cell: Cell, instance: str) -> bool:
        """A reporter says goodbye.

        Raises:
            StoreError: its key could not be deleted; it may be tried again, and a stop does.
        """
        intake = self._intakes.get(cell.policy.name)
        key = self._key(cell.policy.reports_prefix, instance)
        known = (intake is not None and intake.withdraw(instance)) or key in self._left
        if known:
            if len(self._left) < MAX_INSTANCES:
                self._left.add(key)
            await self._store.delete(key)
            self._left.discard(key)
            if self._settle is not None:
                await self._settle(cell.policy.name)
        return known

    async def run(self) -> None:
        """Write what is due, for ever."""
        while True:
            self._planned = self._next_due()
            await self._wake.wait(max(0.0, self._planned - self._clock.now()))
            self._planned = -math.inf  # it looks anyway before it waits again
            forget = self._clock.now() - self._forgotten >= FORGET_EVERY_S
            known = list(self._intakes.items())
            # All breakers at once: one after the other, many of them make a far store late.
            await asyncio.gather(*(self._tend(*one, forget=forget) for one in known))
            if forget:
                self._forgotten = self._clock.now()
            await asyncio.sleep(self._pause_s())

    async def _tend(self, name: str, intake: Intake, *, forget: bool) -> None:
        """Write what is due of one breaker; forget it where it is no longer configured."""
        await self._leave_former(name, intake)
        cell = self._board.cells.get(name)
        if cell is None:
            del self._intakes[name], self._prefixes[name]
            return
        if forget:
            intake.forget_silent(cell.policy, now=self._clock.now())
        await self._write_due(cell, intake)

    def _pause_s(self) -> float:
        """Posts that come together go out together; a store that fails is left alone longer."""
        if not self._failures:
            return 0.01
        return min(MAX_PAUSE_S, 0.1 * 2.0 ** min(self._failures, 8)) * (0.5 + self._draw())

    def _next_due(self) -> float:
        times = [
            due
            for name, intake in self._intakes.items()
            if name in self._board.cells
            and (due := intake.next_due(self._board.cells[name].policy)) is not None
        ]
        return min(times, default=self._clock.now() + FORGET_EVERY_S)

    async def _write_due(self, cell: Cell, intake: Intake) -> None:
        """Write all that is due by now, some at a time.

        Each is taken out of the intake when its turn comes, not before: while the store hangs, the
        others go on being added up, and what is written then is as new as it can be. What becomes
        due meanwhile waits for the next time, so that no key is written twice at once.
        """
        due_by = self._clock.now()
        workers: list[Awaitable[None]] = []
        while len(workers) < MAX_PARALLEL:
            out = self._next(cell, intake, due_by)
            if out is None:
                break
            workers.append(self._write_from(out, cell, intake, due_by))
        if workers:
            await asyncio.gather(*workers)

    async def _write_from(
        self, out: Outgoing | None, cell: Cell, intake: Intake, due_by: float
    ) -> None:
        """Write this one, and then what else is due until a write fails."""
        while out is not None:
            if not await self._write(cell, out):
                intake.failed(out, cell.policy, now=self._clock.now())
                return
            if out.instance not in intake:
                # It said goodbye meanwhile, and its key may have been deleted before this write.
                await self._delete(self._key(cell.policy.reports_prefix, out.instance))
            out = self._next(cell, intake, due_by)

    def _next(self, cell: Cell, intake: Intake, due_by: float) -> Outgoing | None:
        now, wall_at = self._clock.now(), self._clock.wall_at()
        return intake.next(cell.policy, due_by=due_by, now=now, wall_at=wall_at)

    async def _write(self, cell: Cell, out: Outgoing) -> bool:
        async with self._slots:
            try:
                value = self._wire.encode_report(out.report)
                await self._store.put(self._key(cell.policy.reports_prefix, out.instance), value)
            except StoreError as fault:
                self._failures += 1
                if self._failures == 1:
                    self._telemetry.event(
                        names.REPORT_UNWRITTEN,
                        level="warning",
                        breaker=cell.policy.name,
                        error=f"{type(fault).__name__}: {fault}",
                    )
                return False
        self._failures = 0
        return True

    @staticmethod
    def _key(prefix: str, instance: str) -> str:
        return f"{prefix}/{instance}"

    async def _leave_former(self, name: str, intake: Intake) -> None:
        """After a reload: delete what was written where this breaker no longer keeps reports.

        Not where another breaker does by now: its reporters may be the same.
        """
        former = self._prefixes[name]
        cells = self._board.cells
        if all(cell.policy.reports_prefix != former for cell in cells.values()):
            keys = [self._key(former, instance) for instance in intake.instances]
            await asyncio.gather(*(self._delete(key) for key in keys))
        if name in cells:
            self._prefixes[name] = cells[name].policy.reports_prefix

    async def say_goodbye(self) -> None:
        """Delete the keys of everybody who reported through here."""
        gone = self._left | {
            self._key(prefix, instance)
            for name, intake in self._intakes.items()
            for prefix in {self._prefixes[name], *self._prefix_of(name)}
            for instance in intake.instances
        }
        self._intakes.clear()
        self._prefixes.clear()
        await asyncio.gather(*(self._delete(key) for key in gone))

    def _prefix_of(self, name: str) -> list[str]:
        cell = self._board.cells.get(name)
        return [cell.policy.reports_prefix] if cell is not None else []

    async def _delete(self, key: str) -> None:
        async with self._slots:
            try:
                await self._store.delete(key)
            except StoreError:
                return  # it goes stale, and is collected later
