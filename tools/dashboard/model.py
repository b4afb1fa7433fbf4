"""What a dashboard is made of: rows, panels, queries and annotations, as plain values.

In the queries `%B` stands for the matchers of what belongs to a breaker, `%S` for those of what
belongs to a sidecar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "state-timeline", "table"]

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "gray"

MATCHERS = {
    "%B": 'job=~"$job", fleet=~"$fleet", breaker=~"$breaker"',
    "%S": 'job=~"$job", fleet=~"$fleet"',
    "%R": 'fleet=~"$fleet", breaker=~"$breaker"',
    "%F": 'fleet=~"$fleet"',
}
"""`%R` and `%F` are for recorded series, which know no job."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and what its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        says: the text behind its (i), also the row in docs/monitoring.md.
        unit: as Grafana names it.
        top: the end of the axis, where that is known.
        mapped: number → (text, colour).
        steps: colour from this value on; the first one is where everything begins.
        stacked: series add up to something.
        width: of 24.
    """

    title: str
    says: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    unit: str = "short"
    top: float | None = None
    mapped: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Annotation:
    """A mark over every graph where an expression has a value above 0."""

    name: str
    expr: str
    text: str
    colour: str


Row = tuple[str, tuple[Panel, ...]]
"""A title, and the panels that fill lines of 24 from left to right."""
