"""What the HTTP layer asks of the rest of the daemon, answered by the loops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from sidecar.core.board import Cell
from sidecar.core.errors import StoreError
from sidecar.core.intake import Post
from sidecar.core.override import Override
from sidecar.core.types import Transition
from sidecar.loops.around import Around
from sidecar.loops.orders import Orders
from sidecar.loops.report import Reporter

HISTORY_S = 3.0


class Inside:
    """The port `Backend`.

    Args:
        kind: of the store.
        role: `auto` or `follower`; a reload may set another.
    """

    def __init__(
        self,
        around: Around,
        reporter: Reporter,
        orders: Orders,
        *,
        version: str,
        kind: str,
        role: str,
    ) -> None:
        self.board = around.board
        self._around = around
        self._reporter = reporter
        self._orders = orders
        self._version = version
        self._kind = kind
        self.role = role
        self._began = around.clock.now()

    def take(self, cell: Cell, post: Post) -> bool:
        """See the port `Backend`."""
        return self._reporter.take(cell, post)

    async def report(self, cell: Cell, post: Post) -> None:
        """See the port `Backend`."""
        await self._reporter.post(cell, post)

    async def withdraw(self, cell: Cell, instance: str) -> bool:
        """See the port `Backend`."""
        return await self._reporter.withdraw(cell, instance)

    async def force(self, cell: Cell, override: Override, *, replace: bool) -> None:
        """See the port `Backend`."""
        await self._orders.force(cell, override, replace=replace)

    async def release(self, cell: Cell) -> None:
        """See the port `Backend`."""
        await self._orders.release(cell)

    async def forget(self, cell: Cell) -> None:
        """See the port `Backend`."""
        await self._orders.forget(cell)

    async def history(self, cell: Cell) -> Sequence[Transition]:
        """See the port `Backend`."""
        store, wire = self._around.store, self._around.wire
        try:
            async with asyncio.timeout(HISTORY_S):
                entry = await store.read(wire.history(cell.policy.name))
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        return wire.decode_history(entry.value if entry is not None else None)[0]

    def describe(self) -> Mapping[str, object]:
        """See the port `Backend`."""
        now, contact = self._around.clock.now(), self.board.contact
        return {
            "instance": self.board.instance,
            "version": self._version,
            "role": self.role,
            "uptime_s": round(now - self._began, 3),
            "store": {
                "kind": self._kind,
                "synced_s_ago": (
                    round(now - contact.synced, 3) if contact.synced is not None else None
                ),
                "on_loss": str(contact.on_loss),
                "max_stale_s": contact.max_stale_s,
            },
        }
