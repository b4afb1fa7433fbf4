"""What a measurement is, and how the table of them is printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured figure beside a peer's, and what it should be at most.

    `value` None means that it could not be measured; then `note` says why.
    """

    section: str
    what: str
    value: float | None = None
    unit: str = ""
    peer: str = ""
    peer_value: float | None = None
    target: str = ""
    limit: float | None = None
    least_ratio: float | None = None
    most_ratio: float | None = None
    """Targets that are measured against the peer."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        if self.value is None or not self.peer_value:
            return None
        return self.value / self.peer_value

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where there is no target or no figure."""
        if self.value is None:
            return "left out"
        kept = [
            figure <= most
            for figure, most in (
                (self.value, self.limit),
                (self.ratio, self.most_ratio),
                (self.least_ratio, self.ratio),
            )
            if figure is not None and most is not None
        ]
        if not kept:
            return ""
        return "met" if all(kept) else "MISSED"

    def as_dict(self) -> dict[str, object]:
        """For the JSON file."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; of few samples a high one is simply the largest."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def over_rounds(rounds: Sequence[Sequence[float]], share: float) -> float:
    """The median over the rounds of each round's percentile: one disturbed round weighs little."""
    return statistics.median(percentile(samples, share) for samples in rounds)


def number(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None:
        return "–"
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


HEADINGS = ("what", "value", "unit", "peer", "peer's", "ratio", "target", "", "")


def _cells(row: Row) -> tuple[str, ...]:
    ratio = f"{number(row.ratio)}×" if row.ratio is not None else ""
    peer_value = number(row.peer_value) if row.peer else ""
    return (
        row.what,
        number(row.value),
        row.unit,
        row.peer,
        peer_value,
        ratio,
        row.target,
        row.verdict,
        row.note,
    )


def render(rows: Sequence[Row]) -> str:
    """The table, a heading for each section."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in [HEADINGS, *cells]) for i in range(len(HEADINGS))]

    def line(parts: Sequence[str]) -> str:
        # Figures stand right, words left.
        padded = [
            part.rjust(width) if i in {1, 4, 5} else part.ljust(width)
            for i, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    lines = [line(HEADINGS)]
    section = ""
    for row, parts in zip(rows, cells, strict=True):
        if row.section != section:
            section = row.section
            lines += ["", f"{section}"]
        lines.append(line(parts))
    return "\n".join(lines)
