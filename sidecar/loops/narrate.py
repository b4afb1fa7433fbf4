"""Says what changed here, once when it begins and once when it ends."""

from __future__ import annotations

import math

from sidecar.core.board import Board, Cell
from sidecar.core.observe import Kind
from sidecar.core.override import Override
from sidecar.core.ports import Telemetry
from sidecar.core.types import Reason
from sidecar.telemetry import names

REMIND_S = 600.0
"""How often a forced breaker is told of."""


class Narrator:
    """Listens to the board and logs what an operator would ask for."""

    def __init__(self, board: Board, telemetry: Telemetry) -> None:
        self._board = board
        self._telemetry = telemetry
        self._said: dict[str, tuple[str, str, bool]] = {}
        self._conditions: set[tuple[str, str]] = set()
        self._forced: dict[str, tuple[Override, float]] = {}
        """The override that was told of, and when to tell of it again."""

    @property
    def due(self) -> float:
        """When to look again though nothing changed (monotonic; infinite: never)."""
        return min((at for _, at in self._forced.values()), default=math.inf)

    def look(self, now: float) -> None:
        """Compare the board with what was said last."""
        for name, cell in self._board.cells.items():
            self._decision(name, cell)
            self._override(name, cell, now)
            missing = cell.seen is not None and cell.seen.kind is Kind.MISSING
            self._condition(names.STATE_MISSING, name, missing and cell.seq > 0)
            newer = cell.seen is not None and cell.seen.followed_only
            self._condition(names.NEWER_SCHEMA, name, newer)
            if self._condition(names.MISMATCH, name, cell.mismatched) is False:
                self._telemetry.event(names.MISMATCH_OVER, breaker=name)

    def _decision(self, name: str, cell: Cell) -> None:
        decision = cell.decision
        if decision.reason == Reason.NO_STATE and self._board.contact.synced is not None:
            return  # the store answers, so the first evaluator is about to write a state
        said = (str(decision.state), decision.reason, decision.lost)
        if self._said.get(name) == said:
            return
        self._said[name] = said
        self._telemetry.event(
            names.DECISION,
            level="warning" if decision.lost else "info",
            breaker=name,
            state=str(decision.state),
            admit_ratio=decision.admit_ratio,
            reason=decision.reason,
            detail=decision.detail,
            seq=decision.seq,
            stale=decision.stale,
        )

    def _override(self, name: str, cell: Cell, now: float) -> None:
        """A forced breaker is never forgotten: it is said when it begins, and again and again."""
        override = cell.decision.override
        said, again_at = self._forced.get(name, (None, math.inf))
        if override is None:
            if said is not None:
                del self._forced[name]
                self._telemetry.event(
                    names.OVERRIDE_OVER, level="warning", breaker=name, mode=str(said.mode)
                )
            return
        if said is not None and _order(said) == _order(override) and now < again_at:
            return
        self._forced[name] = (override, now + REMIND_S)
        ends = cell.standing.ends if cell.standing is not None else math.inf
        self._telemetry.event(
            names.OVERRIDE_HOLDS,
            level="warning",
            breaker=name,
            mode=str(override.mode),
            author=override.author,
            why=override.reason,
            left_s=None if math.isinf(ends) else round(max(0.0, ends - now), 1),
        )

    def _condition(self, event: str, name: str, holds: bool) -> bool | None:
        """Say that a condition begins; returns True or False when it changed, else None."""
        key = (event, name)
        if holds == (key in self._conditions):
            return None
        if holds:
            self._conditions.add(key)
            self._telemetry.event(event, level="warning", breaker=name)
        else:
            self._conditions.discard(key)
        return holds


def _order(override: Override) -> tuple[str, str, str]:
    """What makes it another order: not its times, which the evaluator fills in."""
    return override.mode, override.author, override.reason
