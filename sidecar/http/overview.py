"""All that one sidecar knows: what `/v1/status` says and the status page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core.board import Cell
from sidecar.core.ports import Backend
from sidecar.http import views
from sidecar.http.past import Histories, shadowed


class Overview:
    """Looks at everything at once.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, backend: Backend, histories: Histories, now: Callable[[], float]) -> None:
        self._backend = backend
        self._histories = histories
        self._now = now

    def cells(self) -> list[Cell]:
        """Every breaker, by name."""
        cells = self._backend.board.cells
        return [cells[name] for name in sorted(cells)]

    async def status(self, *, whole_past: bool = False) -> dict[str, Any]:
        """The daemon, its store, and every breaker with its shadow report.

        Only what is shadowed has its history read, or with `whole_past` all of them.
        """
        board, histories = self._backend.board, self._histories
        await histories.look(c for c in self.cells() if whole_past or shadowed(c))
        now = self._now()
        return {
            **self._backend.describe(),
            "instance": board.instance,
            "default": board.default,
            "sync": views.sync(board, now),
            "breakers": [
                {**views.breaker(cell, now), "shadow": histories.shadow(cell)}
                for cell in self.cells()
            ],
        }
