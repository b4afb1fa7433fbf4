"""What the histories say: each breaker's last transitions, and what shadow would have done.

A history is read when somebody asks and its breaker has been written since the last look; every
write moves the state's index. A store that doesn't answer costs the asker a second at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import time

from sidecar.core.board import Cell
from sidecar.core.errors import StoreError
from sidecar.core.override import Mode
from sidecar.core.ports import Backend
from sidecar.core.types import State, Transition
from sidecar.core.wire import rfc3339

KEPT = 10
"""Transitions of each breaker that are shown, and kept here."""
LOOK_S = 1.0
"""For all the histories that one answer needs; those not read by then are unknown in it."""
AT_ONCE = 8
"""Reads under way at a time, for one answer."""

_Mark = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Past:
    """What one history said when it was read."""

    mark: _Mark
    last: tuple[Transition, ...]
    """The last few, newest last."""
    opened_at: tuple[float, ...]
    """When the breaker opened (epoch seconds), as far back as the history reaches."""
    reaches_at: float | None
    """The history's oldest entry; None where it holds none."""


class Histories:
    """The pasts of one daemon's breakers, for all its listeners' answers.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, backend: Backend, now: Callable[[], float]) -> None:
        self._backend = backend
        self._now = now
        self._known: dict[str, Past] = {}

    async def look(self, cells: Iterable[Cell]) -> None:
        """Read what has changed since it was read last; gives up after `LOOK_S`."""
        board = self._backend.board
        for gone in self._known.keys() - board.cells.keys():
            del self._known[gone]
        missing = [cell for cell in cells if self.of(cell) is None]
        if not missing:
            return
        room = asyncio.Semaphore(AT_ONCE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await asyncio.gather(*(self._read(cell, room) for cell in missing))

    def of(self, cell: Cell) -> Past | None:
        """A breaker's past; None where it couldn't be read since its last change."""
        past = self._known.get(cell.policy.name)
        return past if past is not None and past.mark == _mark(cell) else None

    async def _read(self, cell: Cell, room: asyncio.Semaphore) -> None:
        async with room:
            mark = _mark(cell)
            try:
                entries = await self._backend.history(cell)
            except StoreError:
                return
            self._known[cell.policy.name] = _past(mark, entries)

    def shadow(self, cell: Cell) -> dict[str, object] | None:
        """What would have happened: `shadow` in `/v1/status`; None where nothing is shadowed."""
        if not shadowed(cell):
            return None
        standing, past = cell.standing, self.of(cell)
        by_override = _by_override(cell)
        since_at = past.reaches_at if past is not None else None
        if past is not None and since_at is None and cell.seen is not None and cell.seen.record:
            since_at = cell.seen.record.last_changed_at  # nothing has happened since
        if by_override and standing is not None and standing.override.set_at is not None:
            since_at = max(since_at or 0.0, standing.override.set_at)
        return {
            "by": "override" if by_override else "mode",
            "openings": None
            if past is None
            else sum(at >= (since_at or 0.0) for at in past.opened_at),
            "since": rfc3339(min(since_at, time())) if past is not None and since_at else None,
            "rejected": cell.shadow_rejected,
            "rejected_for_s": round(max(0.0, self._now() - cell.began), 3),
        }


def shadowed(cell: Cell) -> bool:
    """Does the breaker only watch, by its mode or by an override?"""
    return cell.policy.shadow or _by_override(cell)


def _by_override(cell: Cell) -> bool:
    override = cell.decision.override
    return override is not None and override.mode is Mode.SHADOW


def _mark(cell: Cell) -> _Mark:
    """Differs once there may be another entry."""
    return (cell.seen.index, cell.seq) if cell.seen is not None else (0, 0)


def _past(mark: _Mark, entries: Sequence[Transition]) -> Past:
    return Past(
        mark=mark,
        last=tuple(entries[-KEPT:]),
        opened_at=tuple(entry.at for entry in entries if entry.to_state is State.OPEN),
        reaches_at=entries[0].at if entries else None,
    )
