"""The shapes of bodies, as JSON Schema, for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.core.local_gate import Stand
from sidecar.core.override import Mode
from sidecar.core.types import State

Node = dict[str, Any]

_STRING: Node = {"type": "string"}
_TIME: Node = {"type": ["string", "null"], "format": "date-time"}
_BOOLEAN: Node = {"type": "boolean"}
_NATURAL: Node = {"type": "integer", "minimum": 0}
_NUMBER: Node = {"type": "number", "minimum": 0}
_RATIO: Node = {"type": "number", "minimum": 0, "maximum": 1}
_STATE: Node = {"$ref": "#/components/schemas/State"}


def _object(required: Node, optional: Node | None = None) -> Node:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
    }


def _or_null(schema: Node) -> Node:
    return {"anyOf": [schema, {"type": "null"}]}


def components(
    max_number: int,
    max_ttl_s: float,
    instance: str,
    roles: Sequence[str],
    producers: Mapping[str, str],
) -> Node:
    """Every named schema."""
    return {
        "State": {"type": "string", "enum": [state.value for state in State]},
        "Object": {"type": "object"},
        **_decisions(),
        "Breaker": _breaker(),
        "Breakers": _object({"breakers": _list("Breaker")}),
        "Status": _status(),
        "Transition": _transition(),
        "History": _object({"breaker": _STRING, "transitions": _list("Transition")}),
        "Report": _report(max_number, instance, roles, producers),
        "Override": _override(),
        "Order": _order(max_ttl_s),
        "Accepted": _object({"accepted": {"const": True}, "breaker": _STRING, "instance": _STRING}),
        **_publishing(),
        "Readiness": _object(
            {
                "ready": _BOOLEAN,
                "stale": _BOOLEAN,
                "sync": {"type": "object"},
                "breakers": {"type": "object"},
            }
        ),
        "Version": _object({"version": _STRING, "commit": _STRING, "python": _STRING}),
        "Problem": _object(
            {"type": _STRING, "title": _STRING, "status": {"type": "integer"}, "detail": _STRING},
            {
                "breakers": {"type": "array", "items": _STRING},
                "errors": {
                    "type": "array",
                    "items": _object({"field": _STRING, "detail": _STRING}),
                },
            },
        ),
    }


def _list(name: str) -> Node:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _publishing() -> Node:
    count = {"type": "integer", "minimum": 0}
    data = _object({"type": {"enum": ["BINARY", "STRING", "JSON"]}}, {"data": {}})
    header = _object({"name": _STRING}, {"value": _or_null(_STRING)})
    record = _object(
        {},
        {
            "key": _or_null(data),
            "value": _or_null(data),
            "headers": {"type": "array", "items": header},
            "partition_id": _or_null(count),
            "timestamp": {},
        },
    )
    kind = {"enum": ["delivered", "spooled", "dropped", "refused"]}
    place = _or_null(count)
    result = _object(
        {"status": kind},
        {
            "partition": place,
            "offset": place,
            "sequence": count,
            "cluster": {"enum": ["first", "second"]},
            "reason": _STRING,
            "problem": {"$ref": "#/components/schemas/Problem"},
        },
    )
    counts = dict.fromkeys(("delivered", "spooled", "dropped", "refused"), count)
    some = {"type": "array", "items": record, "minItems": 1}
    return {
        "Records": {"anyOf": [_object({"records": some}), record]},
        "Published": {
            "anyOf": [
                _object(
                    {"topic": _STRING, **counts, "results": {"type": "array", "items": result}}
                ),
                {**result, "required": ["topic", "status"]},
            ]
        },
        "Spool": _object({"records": count, "bytes": count, "topics": {"type": "array"}}),
    }


def _decisions() -> Node:
    decision = {
        "breaker": _STRING,
        "state": _STATE,
        "reason": _STRING,
        "detail": _STRING,
        "seq": _NATURAL,
        "admit_ratio": _RATIO,
        "stale": _BOOLEAN,
        "override": _or_null({"$ref": "#/components/schemas/Override"}),
    }
    explain = {"explain": {"$ref": "#/components/schemas/Explanation"}}
    refused = {"error": _STRING, "retry_after": {"type": "integer", "minimum": 1}}
    return {
        "Admission": _object({"allowed": {"const": True}, **decision}, explain),
        "Rejection": _object({"allowed": {"const": False}, **decision, **refused}, explain),
        "Explanation": _explanation(),
    }


def _explanation() -> Node:
    """Of `?explain=1`; a client that `/v1/*` isn't for gets `withheld` instead."""
    whole = _object(
        {
            "because": _STRING,
            "why": _STRING,
            "counted": _BOOLEAN,
            "more_admitted_in_s": _or_null(_NUMBER),
            "retry_spread_s": _NUMBER,
            "spread": _object(
                {
                    "ratio": _RATIO,
                    "shadow_ratio": _RATIO,
                    "position": _RATIO,
                    "next_admitted_call": _or_null({"type": "integer", "minimum": 1}),
                }
            ),
            "sync": {"type": "object"},
            "instance": _STRING,
            "known": {"$ref": "#/components/schemas/Breaker"},
        }
    )
    return {"anyOf": [whole, _object({"withheld": _STRING})]}


def _status() -> Node:
    """The daemon's own members are left open."""
    shadow = _object(
        {
            "by": {"enum": ["mode", "override"]},
            "openings": _or_null(_NATURAL),
            "since": _TIME,
            "rejected": _NATURAL,
            "rejected_for_s": _NUMBER,
        }
    )
    breaker = {
        "allOf": [
            {"$ref": "#/components/schemas/Breaker"},
            _object({"shadow": _or_null(shadow)}),
        ]
    }
    return _object(
        {
            "instance": _STRING,
            "default": {"type": ["string", "null"]},
            "sync": {"type": "object"},
            "breakers": {"type": "array", "items": breaker},
        }
    )


def _breaker() -> Node:
    evaluator = _object({"instance": _STRING, "address": _STRING, "since": _TIME})
    reporters = _object({"fresh": _NATURAL, "stale": _NATURAL})
    counted = _object(
        {
            "admitted": _NATURAL,
            "rejected": _NATURAL,
            "shadow_rejected": _NATURAL,
            "for_s": _NUMBER,
        }
    )
    signals = {"type": "array", "items": {"type": "object"}}
    return _object(
        {
            "name": _STRING,
            "state": _STATE,
            "automaton": _or_null(_STATE),
            "reason": _STRING,
            "detail": _STRING,
            "since": _TIME,
            "seq": _NATURAL,
            "epoch": _or_null(_NATURAL),
            "admit_ratio": _RATIO,
            "open_count": _or_null(_NATURAL),
            "open_for": _or_null(_NUMBER),
            "retry_at": _TIME,
            "evidence": {"type": ["object", "null"]},
            "stale": _BOOLEAN,
            "lost": _BOOLEAN,
            "local_gate": _or_null(_local_gate()),
            "override": _or_null({"$ref": "#/components/schemas/Override"}),
            "mode": {"enum": ["enforce", "shadow"]},
            "config_mismatch": _BOOLEAN,
            "evaluator": _or_null(evaluator),
            "evaluating": _BOOLEAN,
            "verdict": {"enum": ["healthy", "unhealthy", "unknown", None]},
            "signals": _or_null(signals),
            "reporters": _or_null(reporters),
            "policy": {"type": "object"},
            "decisions": counted,
        }
    )


def _local_gate() -> Node:
    """This sidecar's own; null where `delivery.local` is off."""
    return _object(
        {
            "stand": {"enum": [stand.value for stand in Stand]},
            "for_s": _or_null(_NUMBER),
            "detail": {"type": ["string", "null"]},
            "evidence": {"type": ["object", "null"]},
            "closures": _NATURAL,
        }
    )


def _transition() -> Node:
    return _object(
        {
            "seq": _NATURAL,
            "at": _TIME,
            "from": _or_null(_STATE),
            "to": _STATE,
            "reason": _STRING,
            "detail": _STRING,
            "evidence": {"type": "object"},
            "epoch": _NATURAL,
            "evaluator": _STRING,
        }
    )


_MODE: Node = {"enum": [mode.value for mode in Mode]}
_SECONDS: Node = {"type": "number", "exclusiveMinimum": 0}
_TTL: Node = {"anyOf": [_SECONDS, {"const": "none"}]}
_SPAN = r"^(none|[1-9][0-9]{0,2}(h|m|s|ms)([1-9][0-9]{0,2}(m|s))?)$"
"""Durations that are sure to be taken; there are more that are, such as 1.5h."""


def _override() -> Node:
    """As ordered, or with what is left of it (null: no end) where a breaker is described."""
    return _object(
        {
            "mode": _MODE,
            "reason": _STRING,
            "author": _STRING,
            "set_at": _TIME,
            "ttl_s": _or_null(_TTL),
            "expires_at": _TIME,
        },
        {"left_s": _or_null(_NUMBER)},
    )


def _order(max_ttl_s: float) -> Node:
    """What may be asked for. Of `ttl_s` and `ttl` exactly one must be there."""
    text = {"type": "string", "pattern": r"\S", "maxLength": 1024}
    order = _object(
        {"mode": _MODE, "reason": text},
        {
            "ttl_s": {"anyOf": [{**_SECONDS, "maximum": max_ttl_s}, {"const": "none"}]},
            "ttl": {"type": "string", "pattern": _SPAN},
            "author": _or_null(text),
            "replace": _BOOLEAN,
            # What the key in the store has too; worked out here instead.
            "set_at": {},
            "expires_at": {},
        },
    )
    one = [{"required": ["ttl_s"]}, {"required": ["ttl"]}]
    return {**order, "additionalProperties": False, "oneOf": one}


def _report(
    max_number: int, instance: str, roles: Sequence[str], producers: Mapping[str, str]
) -> Node:
    count = {"type": "number", "minimum": 0, "maximum": max_number}
    gauge = _or_null(count)
    numbers: Node = {
        "count_ok": count,
        "count_fail": count,
        "lag": gauge,
        "in_flight": gauge,
        "latency_ms": gauge,
    }
    report = _object(
        {"instance": {"type": "string", "pattern": f"^{instance}$"}},
        {
            **numbers,
            "role": {"enum": [*roles, None]},
            **{word: numbers[field] for word, field in producers.items()},
            # What the report in the store has too; taken and not used.
            "timestamp": {},
            "interval": {},
            "rate_ok": {},
        },
    )
    said_by_producers = {"required": ["role"], "properties": {"role": {"const": "producer"}}}
    return {
        **report,
        "additionalProperties": False,
        # A rate alone doesn't count.
        "dependentRequired": {"rate_ok": ["count_ok"]},
        "dependentSchemas": {
            word: {**said_by_producers, "not": {"required": [field]}}
            for word, field in producers.items()
        },
    }
