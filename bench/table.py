"""What a measurement is, and how the table of them is printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Required, Self, TypedDict, Unpack


class _Rest(TypedDict, total=False):
    """What `Row.over` doesn't work out."""

    section: Required[str]
    what: Required[str]
    unit: str
    peer: str
    target: str
    limit: float | None
    least_ratio: float | None
    most_ratio: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured figure beside a peer's, and what it should be at most.

    `value` None means that it could not be measured; then `note` says why. Where it is the median
    over rounds (`over` makes such rows), the table shows how far these lay apart.
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
    rounds: tuple[float, ...] = ()
    peer_rounds: tuple[float, ...] = ()
    """What each round measured, in their order, here and at the peer."""

    @classmethod
    def over(
        cls, rounds: Iterable[float], peer_rounds: Iterable[float] = (), **rest: Unpack[_Rest]
    ) -> Self:
        """A figure measured in rounds: the median, beside the median of the peer's rounds."""
        ours, peers = tuple(rounds), tuple(peer_rounds)
        return cls(
            value=statistics.median(ours),
            peer_value=statistics.median(peers) if peers else None,
            rounds=ours,
            peer_rounds=peers,
            **rest,
        )

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


def _range(rounds: Sequence[float]) -> str:
    return f"{number(min(rounds))} to {number(max(rounds))}"


def _note(row: Row) -> str:
    """The note, and between what the rounds lay: a median must not hide a bad one."""
    parts = [row.note] if row.note else []
    if row.rounds:
        parts.append(f"{len(row.rounds)} rounds: {_range(row.rounds)}")
    if row.peer_rounds:
        parts.append(f"the peer's: {_range(row.peer_rounds)}")
    return "; ".join(parts)


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
        _note(row),
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
