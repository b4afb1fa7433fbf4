"""Tables for people: aligned, readable without colour, safe to print whatever a field holds."""

from __future__ import annotations

from collections.abc import Sequence
from time import time as wall

import click

from sidecar.core.words import span, time_at
from sidecar.telemetry.lines import printable

_COLOURS = {"CLOSED": "green", "OPEN": "red", "HALF_OPEN": "yellow"}
_LOUD = "FORCED"
"""A row with this word is printed in bold: a forced breaker is never overlooked."""


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with aligned columns; the last column runs on as long as it likes."""
    cells = [[printable("-" if c in {None, ""} else str(c)) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = []
    for row in [list(heads), *cells]:
        loud = any(_LOUD in cell for cell in row)
        padded = [c.ljust(width) for c, width in zip(row, widths, strict=True)]
        padded[-1] = row[-1]
        lines.append("  ".join(_styled(c, bold=loud) for c in padded))
    return "\n".join(lines)


def _styled(cell: str, *, bold: bool) -> str:
    """A state in its colour; what prints it takes all that away where none is wanted."""
    colour = _COLOURS.get(cell.split(maxsplit=1)[0] if cell.strip() else "")
    return click.style(cell, fg=colour, bold=bold or None) if colour or bold else cell


def loud(text: str) -> str:
    """Untrusted text as a line in bold, marked for those who see no bold."""
    return click.style(f"!! {printable(text)}", bold=True)


def ago(text: object) -> str:
    """How long an RFC 3339 time has been, by this machine's clock: `42s`, `3m12s`, `5h07m`."""
    return passed(time_at(text))


def passed(at: float | None) -> str:
    """How long epoch seconds have been; a dash where there are none."""
    return "-" if at is None else span(wall() - at)


def short_time(text: object) -> str:
    """An RFC 3339 time to the millisecond."""
    said = str(text)
    return f"{said[:23]}Z" if len(said) == 27 and said.endswith("Z") else said
