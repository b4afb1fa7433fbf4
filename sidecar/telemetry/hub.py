"""The one object by which every part counts and tells: the core's `Telemetry` port."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.types import Scalar
from sidecar.telemetry import names
from sidecar.telemetry.logging import Log
from sidecar.telemetry.metrics import Metrics

ONCE_MAX = 4096
"""Keys remembered by `once`; past that the oldest is forgotten and may be told again."""


class Telemetry:
    """Counts and log events. Nothing here raises or waits.

    Args:
        log: where events go.
        metrics: where counts go.
    """

    def __init__(self, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._told: dict[str, None] = {}

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter; one that doesn't exist is a defect and told once."""
        try:
            self._metrics.count(metric, amount, **labels)
        except (KeyError, ValueError) as error:
            self._misused(metric, error)

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Record a duration in seconds; a histogram that doesn't exist is told once."""
        try:
            self._metrics.observe(metric, value, **labels)
        except (KeyError, ValueError) as error:
            self._misused(metric, error)

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """One structured log line."""
        if not self._log.event(name, level, fields):
            self._metrics.count(names.LOG_LINES_DROPPED)

    def once(
        self, key: str, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]
    ) -> bool:
        """The event, unless `key` has been told already. True when it was told now."""
        if key in self._told:
            return False
        if len(self._told) >= ONCE_MAX:
            del self._told[next(iter(self._told))]
        self._told[key] = None
        self.event(name, level=level, **fields)
        return True

    def again(self, key: str) -> None:
        """What `key` stands for is over: the next time it is news."""
        self._told.pop(key, None)

    def _misused(self, metric: str, error: Exception) -> None:
        self.once(
            f"{names.METRIC_MISUSED}:{metric}",
            names.METRIC_MISUSED,
            level="error",
            metric=metric,
            error=str(error),
        )
