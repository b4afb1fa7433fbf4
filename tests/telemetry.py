"""A telemetry that remembers, so that tests can ask what was counted and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sidecar.core.types import Scalar


class RecordedTelemetry:
    """The port `Telemetry`, in lists."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.observed: list[tuple[str, float, dict[str, str]]] = []
        self.events: list[tuple[str, str, dict[str, Scalar | Sequence[str]]]] = []

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Remember a count."""
        self.counts[str(metric), tuple(sorted(labels.items()))] += int(amount)

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Remember a duration."""
        self.observed.append((str(metric), value, labels))

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """Remember an event."""
        self.events.append((str(name), level, fields))

    def counted(self, metric: str, **labels: str) -> int:
        """How much was counted under exactly these labels."""
        return self.counts[metric, tuple(sorted(labels.items()))]
