"""What is to be seen at one moment, whoever shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One moment of a run."""

    run: str
    """With or without the breaker."""
    act: str
    what: str
    """What happens in this act, in a sentence."""
    at: float
    """Seconds into the run."""
    left_s: float | None
    """Of the act; None where something else ends it."""
    database: str
    state: str | None
    """Of the breaker; None without one."""
    admit_ratio: float
    accepted_rate: float
    """Requests accepted a second, just now."""
    other_rate: float
    """Refused or failed ones."""
    p99_ms: float
    lag: int
    lags: Sequence[int]
    """Of the run so far, the latest last."""
    handled: int
    accepted: int
