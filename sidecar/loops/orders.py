"""An operator's orders given to this sidecar: written to the store, and in force here at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sidecar.core.board import Cell
from sidecar.core.errors import StoreUnreachable
from sidecar.core.override import Override
from sidecar.loops.around import Around
from sidecar.loops.books import Books
from sidecar.loops.elect import Elector
from sidecar.telemetry import names

DEADLINE_S = 5.0
"""For a whole order, whatever the store does."""


class Orders:
    """Carries orders out, one after the other."""

    def __init__(self, around: Around, elector: Elector) -> None:
        self._around = around
        self._elector = elector
        self._books = Books(around.store, around.wire, around.clock, around.instance)
        self._one = asyncio.Lock()

    async def force(self, cell: Cell, override: Override, *, replace: bool) -> None:
        """See the port `Backend`."""
        async with self._bounded():
            await self._books.force(cell.policy.name, override, replace=replace, seen=cell.standing)
            await self._look(cell)

    async def release(self, cell: Cell) -> None:
        """See the port `Backend`."""
        async with self._bounded():
            await self._books.release(cell.policy.name)
            await self._look(cell)

    async def forget(self, cell: Cell) -> None:
        """See the port `Backend`."""
        async with self._bounded():
            name = cell.policy.name
            # Longer than all this can take: it must not stand while its keys go.
            await self._elector.give_up(name, DEADLINE_S, "the breaker is to be forgotten")
            await self._books.forget(name)
            cell.forget()
            self._around.telemetry.event(names.FORGOTTEN, level="warning", breaker=name)
            self._around.changed()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """One order at a time, and each within its deadline."""
        try:
            async with asyncio.timeout(DEADLINE_S), self._one:
                yield
        except TimeoutError as error:
            raise StoreUnreachable("the store did not answer in time") from error

    async def _look(self, cell: Cell) -> None:
        """What was ordered here holds here at once, not when the watch brings it."""
        around, name = self._around, cell.policy.name
        entry = await around.store.read(around.wire.override(name))
        index = entry.modify_index if entry is not None else 0
        around.board.override(
            name,
            self._books.decoded(entry),
            index,
            max(cell.override_as_of or 0, index),
            live=True,
            now=around.clock.now(),
            wall_at=around.clock.wall_at(),
        )
        around.changed()
