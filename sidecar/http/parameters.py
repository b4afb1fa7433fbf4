"""Query parameters of the reading endpoints, and durations wherever they come."""

from __future__ import annotations

import re

from aiohttp import web

from sidecar.http.problems import Problem, shown

MAX_WAIT_S = 300.0
DEFAULT_WAIT_S = 30.0
_MAX_TEXT = 40
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_TERM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"\+?(?:0|(?:{_TERM.pattern})+)")


def index(request: web.Request) -> int | None:
    """The seq that the client knows; None where it doesn't ask to wait."""
    given = request.query.get("index")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise Problem(
            400, "bad-parameter", f"index is {shown(given)}; it must be a seq: 0 or a whole number"
        )
    return int(given)


def wait(request: web.Request) -> float:
    """How long to wait at most, in seconds: a duration as Go reads it, cut at five minutes."""
    given = request.query.get("wait")
    if given is None:
        return DEFAULT_WAIT_S
    seconds = duration(given)
    if seconds is None:
        raise Problem(
            400, "bad-parameter", f"wait is {shown(given)}; it must be a duration such as 30s"
        )
    return min(seconds, MAX_WAIT_S)


def duration(text: str) -> float | None:
    """Seconds of a duration as Go reads it; None where it is none."""
    if len(text) > _MAX_TEXT or _DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in _TERM.findall(text))
