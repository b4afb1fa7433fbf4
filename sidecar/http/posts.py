"""Reads a posted report, or says every fault of it: the field, its value, what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from sidecar.core.intake import Post
from sidecar.core.reports import INSTANCE
from sidecar.http.problems import Problem, shown

MAX_NUMBER = 2**53
"""Beyond it a float can't count."""
ROLES = ("consumer", "producer")
_COUNTS = ("count_ok", "count_fail")
_GAUGES = ("lag", "in_flight", "latency_ms")
PRODUCERS = {"delivered": "count_ok", "errored": "count_fail", "outstanding": "in_flight"}
"""What a producer may call its numbers, and which of everybody's fields that is."""
_OF_THE_STORE = ("timestamp", "interval", "rate_ok")
"""Fields of the report as the store holds it. The sidecar measures these itself, so that they are
taken and not used: a reporter may send here what it used to write to the store."""

Fault = tuple[str, str]
"""(field, what is wrong and what would be right)."""


def parse(body: bytes) -> Post:
    """Read a report.

    Raises:
        Problem: 400 with every fault, in words and under `errors`.
    """
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "bad-report", f"the body is not JSON: {_ascii(error)}") from error
    if not isinstance(given, dict):
        raise Problem(400, "bad-report", "the body must be a JSON object")
    faults = list(_faults(given))
    if faults:
        raise Problem(
            400,
            "bad-report",
            "; ".join(said for _, said in faults),
            extra={"errors": [{"field": field, "detail": said} for field, said in faults]},
        )
    known = ("instance", *_COUNTS, *_GAUGES, "role")
    words = {field: given[word] for word, field in PRODUCERS.items() if word in given}
    return Post(**words, **{field: given[field] for field in known if field in given})


def bad_instance(value: object) -> str:
    """Says of a value why it is no instance."""
    return f"instance is {shown(value)}; it must match {INSTANCE.pattern}"


def _faults(given: Mapping[str, Any]) -> list[Fault]:
    faults: list[Fault] = []
    for field, check in _CHECKS.items():
        said = check(field, given)
        if said is not None:
            faults.append((field, said))
    if "rate_ok" in given and "count_ok" not in given:
        faults.append(("count_ok", "count_ok is missing; rate_ok alone doesn't count here"))
    faults += _of_producers(given)
    unknown = sorted(given.keys() - _CHECKS.keys() - set(_OF_THE_STORE))
    for field in unknown[:10]:
        known = ", ".join(_CHECKS)
        faults.append((_ascii(field), f"{shown(field)} is not a field; there are {known}"))
    return faults


def _of_producers(given: Mapping[str, Any]) -> Iterator[Fault]:
    """A producer's words are its own, and say nothing twice."""
    for word, field in PRODUCERS.items():
        if word in given and given.get("role") != "producer":
            yield word, f"{word} is a producer's; send role: producer, or {field}"
        elif word in given and field in given:
            yield word, f"{word} and {field} are the same; send one of the two"


def _instance(field: str, given: Mapping[str, Any]) -> str | None:
    if field not in given:
        return "instance is missing; it names who reports"
    value = given[field]
    if isinstance(value, str) and INSTANCE.fullmatch(value):
        return None
    return bad_instance(value)


def _count(field: str, given: Mapping[str, Any]) -> str | None:
    return _number(field, given[field]) if field in given else None


def _gauge(field: str, given: Mapping[str, Any]) -> str | None:
    return _number(field, given[field]) if given.get(field) is not None else None


def _number(field: str, value: object) -> str | None:
    # bool is an int to Python, and never a number that somebody counted; NaN is in no range.
    usable = (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
    )
    return None if usable else f"{field} is {shown(value)}; it must be a number from 0 to 2^53"


def _role(field: str, given: Mapping[str, Any]) -> str | None:
    value = given.get(field)
    if value is None or value in ROLES:
        return None
    return f"role is {shown(value)}; it must be {' or '.join(ROLES)}"


_CHECKS: Mapping[str, Callable[[str, Mapping[str, Any]], str | None]] = {
    "instance": _instance,
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_GAUGES, _gauge),
    "role": _role,
    "delivered": _count,
    "errored": _count,
    "outstanding": _gauge,
}


def _ascii(text: object) -> str:
    # JSON escapes every control character but the last.
    return str(text).encode("ascii", "backslashreplace").decode().replace("\x7f", "\\x7f")[:200]
