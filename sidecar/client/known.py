"""What the sidecar said of a breaker, read out of its JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

Wall = Callable[[], float]
LONGEST_WAIT_S = 366 * 86400.0
"""More is no time to come back at."""


class NoSuchBreaker(Exception):
    """The sidecar answers, and knows no breaker of that name; the text lists those it knows."""


class NotASidecar(ValueError):
    """An answer that no sidecar gives."""


@dataclass(frozen=True, slots=True)
class Known:
    """One breaker as the sidecar last described it."""

    name: str
    state: str
    admit_ratio: float
    seq: int
    stale: bool
    reason: str
    retry_from: float | None
    """When to come back after a rejection (monotonic); None: no time is known."""

    def retry_after(self, now: float) -> int:
        """Whole seconds for a `Retry-After` header, at least 1."""
        if self.retry_from is None:
            return 1
        return max(1, math.ceil(self.retry_from - now))


def read(body: object, now: float, wall: Wall = time.time) -> Known:
    """A breaker out of the answer of `/allowed`, or out of an event.

    Args:
        now: when it came (monotonic).
        wall: epoch seconds now, for a `retry_at` that comes as a date.

    Raises:
        NotASidecar: it isn't one.
    """
    if not isinstance(body, dict):
        raise NotASidecar("no JSON object")
    name, state, ratio = name_in(body), body.get("state"), body.get("admit_ratio")
    if not name or not isinstance(state, str):
        raise NotASidecar("neither a name nor a state")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise NotASidecar("admit_ratio is no number from 0 to 1")
    seq = body.get("seq")
    return Known(
        name=name,
        state=state,
        admit_ratio=float(ratio),
        seq=seq if isinstance(seq, int) else 0,
        stale=body.get("stale") is True,
        reason=str(body.get("reason", "")),
        retry_from=_retry_from(body.get("retry_after"), body.get("retry_at"), now, wall),
    )


def _retry_from(after_s: object, at: object, now: float, wall: Wall) -> float | None:
    """The sidecar's own wait, which is spread over the fleet, or else the record's date."""
    if isinstance(after_s, int | float) and 0 <= after_s <= LONGEST_WAIT_S:
        return now + after_s
    if isinstance(at, str):
        try:
            return now + datetime.fromisoformat(at).timestamp() - wall()
        except ValueError:
            return None
    return None


def name_in(body: dict[str, object]) -> str:
    """The breaker's name; empty where there is none."""
    name = body.get("breaker", body.get("name"))
    return name if isinstance(name, str) else ""


def listed(data: str) -> list[dict[str, object]]:
    """The breakers in an event's data: all of a snapshot, the one of a transition.

    Raises:
        NotASidecar: there are none.
    """
    body = decoded(data)
    found = body.get("breakers", [body])
    if not isinstance(found, list):
        raise NotASidecar("breakers is no list")
    return [entry for entry in found if isinstance(entry, dict)]


def decoded(text: str | bytes) -> dict[str, object]:
    """A JSON object. Raises NotASidecar if it is none."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotASidecar("no JSON") from error
    if not isinstance(body, dict):
        raise NotASidecar("no JSON object")
    return body


def choose(names: list[str], wanted: str | None) -> str:
    """The name meant: the one given, else `default`, else the only one.

    Raises:
        NoSuchBreaker: the sidecar has none such.
    """
    if wanted is not None:
        if wanted in names:
            return wanted
    elif "default" in names:
        return "default"
    elif len(names) == 1:
        return names[0]
    there = ", ".join(sorted(names)) or "none"
    raise NoSuchBreaker(f"no breaker {wanted or 'default'!r} here; there are: {there}")
