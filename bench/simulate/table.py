"""The figures as a table, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from bench.simulate.day import Day
from bench.simulate.scenarios import Figures

HEAD = (
    "| what happens | policy | goodput | longest wait | most behind | recovered after | transitions"
    " | steps | rejected |\n|---|---|---|---|---|---|---|---|---|"
)


def render(rows: Iterable[Figures]) -> str:
    """One row a scenario and policy: medians, and in brackets the worst where it differs."""
    return "\n".join([HEAD, *map(_row, rows)])


def told(found: Day) -> str:
    """What a day was with `auto`, in a sentence."""
    after = found.tripped_after
    return (
        f"auto: a day of a noisy, healthy fleet with {found.normal:.0f} failures an interval: "
        f"{found.trips} trips, threshold {found.lowest} to {found.highest}; then five times the "
        f"failures: " + ("not noticed" if after is None else f"open after {after} intervals")
    )


def _row(row: Figures) -> str:
    cells = (
        row.scenario,
        row.policy,
        _with_worst(_share(row.goodput), _share(row.goodput_worst)),
        _with_worst(f"{row.peak_lag_s:.0f} s", f"{row.peak_lag_worst_s:.0f} s"),
        f"{row.peak_backlog / 1000:.1f}k",
        _with_worst(_time(row.recovered_s), _time(row.recovered_worst_s)),
        _with_worst(f"{row.transitions:.0f}", f"{row.transitions_worst}"),
        f"{row.steps:.0f}",
        f"{row.rejected:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.2f}"


def _time(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s"


def _with_worst(middle: str, worst: str) -> str:
    return middle if middle == worst else f"{middle} ({worst})"
