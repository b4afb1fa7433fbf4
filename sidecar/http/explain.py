"""`?explain=1`: why one decision is as it is, from the snapshot alone and without waiting."""

from __future__ import annotations

import math

from sidecar.core.admission import UNIT
from sidecar.core.board import Board, Cell
from sidecar.core.decision import Decision
from sidecar.core.types import Reason
from sidecar.http import views

_WHY = {
    "override": "somebody has forced it: that beats the record, the loss policy and shadow mode",
    "forgotten": "its keys were deleted on purpose: everything is admitted until a reload",
    "local_gate": "this sidecar's own producers can't deliver, the fleet's can: it holds back its"
    " own callers alone, and the record is untouched",
    "no_state": "no state has been seen yet: on_loss decides",
    "loss_policy": "what is known is older than max_stale, or nobody evaluates: on_loss decides",
    "shadow": "it is in shadow mode: everything is admitted, and what would be rejected is counted",
    "record": "the record in the store decides",
}


def explain(cell: Cell, board: Board, now: float, *, counted: bool) -> dict[str, object]:
    """All that the decision rests on; what only the evaluator knows is null elsewhere.

    Args:
        now: monotonic seconds.
        counted: whether the decision was spent and counted, or only looked at.
    """
    decision = cell.decision
    because = _because(cell, decision)
    return {
        "because": because,
        "why": _WHY[because],
        "counted": counted,
        "more_admitted_in_s": _left(decision, now),
        "retry_spread_s": round(decision.spread_s, 3),
        "spread": _spread(cell, decision),
        "sync": views.sync(board, now),
        "instance": board.instance,
        "known": views.breaker(cell, now),
    }


def _because(cell: Cell, decision: Decision) -> str:
    """What had the last word."""
    if decision.override is not None:
        return "override"
    if decision.reason == Reason.DELIVERY_LOCAL:
        return "local_gate"
    if decision.reason in {Reason.FORGOTTEN, Reason.NO_STATE}:
        return str(decision.reason)
    if decision.lost:
        return "loss_policy"
    return "shadow" if cell.policy.shadow else "record"


def _left(decision: Decision, now: float) -> float | None:
    """Seconds until more is admitted; None where everything is, or no time is known."""
    known = decision.retry_from
    if decision.admit_ratio >= 1.0 or known is None or math.isinf(known):
        return None
    return round(max(0.0, known - now), 3)


def _spread(cell: Cell, decision: Decision) -> dict[str, object]:
    """Where the even spread of a half-open share stands."""
    share = min(decision.admit_ratio, decision.shadow_ratio)
    return {
        "ratio": decision.admit_ratio,
        "shadow_ratio": decision.shadow_ratio,
        "position": round(cell.spread.position, 6),
        "next_admitted_call": 1 if share >= 1.0 else cell.spread.until(round(share * UNIT)),
    }
