"""How breakers look in JSON: one function a thing, from the snapshot alone."""

from __future__ import annotations

import math

from sidecar.core.board import Board, Cell
from sidecar.core.local_gate import Stand
from sidecar.core.types import Policy
from sidecar.core.wire import decision_to_dict, evidence_to_dict, override_to_dict, rfc3339


def breaker(cell: Cell, now: float) -> dict[str, object]:
    """All that is known here of one breaker; what nobody knows yet is null.

    Args:
        now: monotonic seconds.
    """
    decision, policy = cell.decision, cell.policy
    return {
        "name": policy.name,
        **decision_to_dict(decision),
        "override": _override(cell, now),
        "lost": decision.lost,
        "local_gate": _local_gate(cell, now),
        "mode": "shadow" if policy.shadow else "enforce",
        **_record(cell),
        "config_mismatch": cell.mismatched,
        "evaluator": _holder(cell),
        **_judgement(cell),
        "policy": _policy(policy),
        "decisions": {
            "admitted": cell.admitted,
            "rejected": cell.rejected,
            "shadow_rejected": cell.shadow_rejected,
            "for_s": round(max(0.0, now - cell.began), 3),
        },
    }


def _override(cell: Cell, now: float) -> dict[str, object] | None:
    """The override in force, with what is left of it by this sidecar's clock."""
    override, standing = cell.decision.override, cell.standing
    if override is None or standing is None:
        return None
    endless = math.isinf(standing.ends)
    left_s = None if endless else round(max(0.0, standing.ends - now), 3)
    return {**override_to_dict(override), "left_s": left_s}


def _local_gate(cell: Cell, now: float) -> dict[str, object] | None:
    """What this sidecar's own gate does, and on what it was shut; null where there is none."""
    if cell.policy.local is None:
        return None
    gate = cell.gate
    passing = gate.stand is Stand.PASSING
    return {
        "stand": gate.stand,
        "for_s": None if math.isinf(gate.since) else round(max(0.0, now - gate.since), 3),
        "detail": None if passing else gate.detail,
        "evidence": None if passing else evidence_to_dict(gate.evidence),
        "closures": gate.closures,
    }


def _record(cell: Cell) -> dict[str, object]:
    """What stands in the record behind the decision."""
    record = cell.seen.record if cell.seen is not None else None
    if record is None:
        unknown = ("automaton", "since", "epoch", "open_count", "open_for", "retry_at", "evidence")
        return dict.fromkeys(unknown)
    return {
        "automaton": record.automaton,
        "since": rfc3339(record.last_changed_at),
        "epoch": record.epoch,
        "open_count": record.open_count,
        "open_for": record.open_for_s,
        "retry_at": rfc3339(record.retry_at) if record.retry_at is not None else None,
        "evidence": evidence_to_dict(record.evidence),
    }


def _holder(cell: Cell) -> dict[str, object] | None:
    """Who holds the lock. A released lock's value names who held it last: that is nobody."""
    holder = cell.holder
    if cell.session is None or holder is None or holder.released:
        return None
    return {
        "instance": holder.instance,
        "address": holder.address,
        "since": rfc3339(holder.since_at),
    }


def _judgement(cell: Cell) -> dict[str, object]:
    """What only the evaluator knows."""
    judgement, tally = cell.judgement, cell.tally
    if not cell.evaluating or judgement is None:
        judgement = tally = None
    return {
        "evaluating": cell.evaluating,
        "verdict": judgement.verdict if judgement is not None else None,
        "signals": [
            {
                "name": signal.name,
                "verdict": signal.verdict,
                "detail": signal.detail,
                "evidence": evidence_to_dict(signal.evidence),
            }
            for signal in judgement.signals
        ]
        if judgement is not None
        else None,
        "reporters": {"fresh": tally.fresh, "stale": tally.stale} if tally is not None else None,
    }


def _policy(policy: Policy) -> dict[str, object]:
    """The settings in effect; durations in seconds."""
    return {
        "fingerprint": policy.fingerprint,
        "consul_key_prefix": policy.consul_key_prefix,
        "evaluation_interval": policy.evaluation_interval_s,
        "failure_threshold": policy.failure_threshold if policy.auto is None else "auto",
        "auto_threshold": _auto(policy),
        "report_interval": policy.report_interval_s,
        "report_gc": policy.report_gc_s,
        "open_duration": policy.open_duration_s,
        "max_open_duration": policy.max_open_duration_s,
        "half_open": {
            "initial": policy.initial_ratio,
            "ramp": policy.ramp_s,
            "max": policy.half_open_max_s,
        },
        "shed": _shed(policy),
        "on_unknown": "healthy" if policy.unknown_is_healthy else "hold",
        "foreign_writes": "reassert" if policy.reassert else "adopt",
        "deny_status": policy.deny_status,
    }


def _auto(policy: Policy) -> dict[str, object] | None:
    auto = policy.auto
    if auto is None:
        return None
    return {
        "initial": policy.failure_threshold,
        "floor": auto.floor,
        "cap": auto.cap,
        "history": auto.history_s,
        "deviations": auto.deviations,
    }


def _shed(policy: Policy) -> dict[str, object] | None:
    shed = policy.shed
    if shed is None:
        return None
    return {
        "start": shed.start_s,
        "full": shed.full_s,
        "least": shed.least,
        "minimum": shed.minimum,
    }


def sync(board: Board, now: float) -> dict[str, object]:
    """How far this sidecar's knowledge of the store reaches; seconds."""
    contact = board.contact
    age_s = None if contact.synced is None else round(max(0.0, now - contact.synced), 3)
    return {
        "age": age_s,
        "stale_after": contact.stale_after_s,
        "max_stale": contact.max_stale_s,
        "on_loss": contact.on_loss,
    }


def readiness(board: Board, now: float) -> dict[str, object]:
    """The body of `/readyz`."""
    cells = sorted(board.cells.items())
    return {
        "ready": True,
        "stale": any(cell.decision.stale for _, cell in cells),
        "sync": sync(board, now),
        "breakers": {
            name: {
                "state": cell.decision.state,
                "reason": cell.decision.reason,
                "stale": cell.decision.stale,
            }
            for name, cell in cells
        },
    }
