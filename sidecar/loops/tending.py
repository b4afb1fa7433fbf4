"""The evaluator's care for the override's key: fills in its times, and deletes it when it is over.

What holds is every sidecar's own affair; a key left lying does no harm but to the eye.
"""

from __future__ import annotations

from sidecar.core.board import Cell
from sidecar.core.errors import StoreDenied, StoreError
from sidecar.core.override import completed
from sidecar.core.ports import Fence, Put
from sidecar.loops.around import Around
from sidecar.telemetry import names


class OverrideKey:
    """One breaker's override key, while this sidecar is its evaluator."""

    def __init__(self, around: Around, cell: Cell) -> None:
        self._around = around
        self._cell = cell
        self._told = 0
        """The index of the key of which we have said that it can't be written."""

    async def tend(self, session: str) -> None:
        """Do what is due; what fails now is tried again at the next tick."""
        standing, clock = self._cell.standing, self._around.clock
        if standing is None:
            return
        name = self._cell.policy.name
        key = self._around.wire.override(name)
        now = clock.now()
        try:
            if not standing.holds(now):
                await self._around.store.delete(key, standing.index)
                return
            whole = completed(standing, now=now, wall_at=clock.wall_at())
            if whole is not None:
                put = Put(key, self._around.wire.encode_override(whole), standing.index)
                await self._around.store.commit(
                    Fence(self._around.wire.leader(name), session), [put]
                )
        except StoreError as fault:
            self._tell(name, standing.index, fault)

    def _tell(self, name: str, index: int, fault: StoreError) -> None:
        """Only a lacking right stays until somebody mends it."""
        if isinstance(fault, StoreDenied) and self._told != index:
            self._told = index
            self._around.telemetry.event(
                names.OVERRIDE_KEPT, level="warning", breaker=name, error=str(fault)
            )
