"""Clients that wait for a breaker's next record: bounded, and let go at once on shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.core.board import Board
from sidecar.http.problems import Problem

MAX_WAITERS = 4096
"""Per application. A waiting client holds a connection and little else."""


class Waiters:
    """Futures by breaker name, resolved by the board's next change.

    Args:
        board: is listened to while anybody waits.
    """

    def __init__(self, board: Board, limit: int = MAX_WAITERS) -> None:
        self._board = board
        self._limit = limit
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._count = 0
        self._closed = False
        self._unlisten: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many wait now."""
        return self._count

    async def change(self, name: str, timeout_s: float) -> bool:
        """Wait until the breaker may have changed; False after the timeout or on shutdown.

        Raises:
            Problem: 503 when too many wait already.
        """
        if self._closed or timeout_s <= 0:
            return False
        if self._count >= self._limit:
            raise Problem(
                503,
                "too-many-waiters",
                f"{self._limit} clients wait here already; ask without `index`, or later",
                headers={"Retry-After": "1"},
            )
        future = asyncio.get_running_loop().create_future()
        self._add(name, future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._remove(name, future)
        return not self._closed

    def close(self) -> None:
        """Let everybody go with what there is; who comes later doesn't wait."""
        self._closed = True
        self.wake_all()

    def wake_all(self) -> None:
        """Let everybody look again; who still has a reason to wait goes on waiting."""
        for name in list(self._waiting):
            self._wake(name)

    def _add(self, name: str, future: asyncio.Future[None]) -> None:
        if self._unlisten is None:
            self._unlisten = self._board.listen(self._wake)
        self._waiting.setdefault(name, set()).add(future)
        self._count += 1

    def _remove(self, name: str, future: asyncio.Future[None]) -> None:
        self._count -= 1
        waiting = self._waiting[name]
        waiting.discard(future)
        if not waiting:
            del self._waiting[name]
        if self._count == 0 and self._unlisten is not None:
            self._unlisten()
            self._unlisten = None

    def _wake(self, name: str) -> None:
        for future in self._waiting.get(name, ()):
            if not future.done():
                future.set_result(None)
