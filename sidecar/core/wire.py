"""How records and transitions look outside, in the store and over HTTP: plain dicts and times."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from sidecar.core.decision import Decision
from sidecar.core.override import ENDLESS, Override
from sidecar.core.types import Evidence, Record, Scalar, Transition

EXACT = 2**53
"""Above this a JSON number may not survive a reader that keeps numbers as floats."""

ZERO_TIME_AT = -62135596800.0
"""Year 1 as epoch seconds: what Go writes for a time that was never set."""
_LAST_AT = 253402300799.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def rfc3339(at: float) -> str:
    """A wall time in UTC with microseconds. Raises ValueError on NaN; clamps to years 1 to 9999."""
    if math.isnan(at):
        raise ValueError("no time: NaN")
    clamped = min(max(at, ZERO_TIME_AT), _LAST_AT)
    moment = _EPOCH + timedelta(seconds=clamped)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> float:
    """Epoch seconds of an RFC 3339 time with any offset and precision. Raises ValueError."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("no RFC 3339 time")
    date, clock, fraction, offset = found.groups()
    moment = datetime.fromisoformat(f"{date}T{clock}{offset.upper()}")
    return (moment - _EPOCH).total_seconds() + float(fraction or 0)


def plain(value: float) -> float | int:
    """A number as it is written: whole ones as integers. Raises ValueError on NaN and infinity."""
    if not math.isfinite(value):
        raise ValueError(f"{value} can't be written")
    return int(value) if value == int(value) and abs(value) <= EXACT else value


def evidence_to_dict(evidence: Evidence) -> dict[str, Scalar]:
    """Evidence as JSON can hold it: a number that is none becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in evidence.items()
    }


def record_to_dict(record: Record) -> dict[str, object]:
    """A state record in its public form and order. Raises ValueError on NaN or infinity.

    The first two fields are all that a legacy reader knows.
    """
    forced_at = record.forced_at if record.override is not None else None
    changed_at = record.last_changed_at if forced_at is None else forced_at
    written: dict[str, object] = {
        "current_state": record.current_state.value,
        "last_changed": rfc3339(changed_at),
        "schema": record.schema,
        "seq": record.seq,
        "epoch": record.epoch,
        "automaton": record.automaton.value,
        "reason": str(record.reason),
        "detail": record.detail,
        "evidence": evidence_to_dict(record.evidence),
        "open_count": record.open_count,
        "open_for": _finite(record.open_for_s),
        "retry_at": rfc3339(record.retry_at) if record.retry_at is not None else None,
        "admit_ratio": _finite(record.admit_ratio),
        "automaton_ratio": _finite(record.automaton_ratio),
        "policy": record.policy,
        "evaluator": record.evaluator,
    }
    if record.override is not None:
        written["override"] = record.override
        written["automaton_last_changed"] = rfc3339(record.last_changed_at)
    return written


def transition_to_dict(transition: Transition) -> dict[str, object]:
    """A history entry in its public form and order."""
    return {
        "seq": transition.seq,
        "at": rfc3339(transition.at),
        "from": transition.from_state.value if transition.from_state is not None else None,
        "to": transition.to_state.value,
        "reason": str(transition.reason),
        "detail": transition.detail,
        "evidence": evidence_to_dict(transition.evidence),
        "epoch": transition.epoch,
        "evaluator": transition.evaluator,
    }


def override_to_dict(override: Override) -> dict[str, object]:
    """An override in its public form; a ttl without end is the word `none`."""
    ttl_s = override.ttl_s
    if ttl_s is not None:
        shown: str | float | None = ENDLESS if math.isinf(ttl_s) else plain(ttl_s)
    else:
        shown = None
    return {
        "mode": override.mode.value,
        "reason": override.reason,
        "author": override.author,
        "set_at": rfc3339(override.set_at) if override.set_at is not None else None,
        "ttl_s": shown,
        "expires_at": rfc3339(override.expires_at) if override.expires_at is not None else None,
    }


def decision_to_dict(decision: Decision) -> dict[str, object]:
    """What every public form of a decision says, in its order."""
    override = decision.override
    return {
        "state": decision.state,
        "reason": decision.reason,
        "detail": decision.detail,
        "seq": decision.seq,
        "admit_ratio": decision.admit_ratio,
        "stale": decision.stale,
        "override": override_to_dict(override) if override is not None else None,
    }


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} can't be written")
    return float(value)
