"""Tables for people: aligned, readable without colour, safe to print whatever a field holds."""

from __future__ import annotations

from collections.abc import Sequence
from time import time as wall

import click

from sidecar.core.wire import parse_rfc3339
from sidecar.telemetry.lines import printable

_COLOURS = {"CLOSED": "green", "OPEN": "red", "HALF_OPEN": "yellow"}


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with aligned columns; the last column runs on as long as it likes."""
    cells = [[printable("-" if c in {None, ""} else str(c)) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = []
    for row in [list(heads), *cells]:
        padded = [c.ljust(width) for c, width in zip(row, widths, strict=True)]
        lines.append("  ".join(_coloured(c) for c in padded).rstrip())
    return "\n".join(lines)


def _coloured(cell: str) -> str:
    """A state in its colour; what prints it takes the colour away where none is wanted."""
    colour = _COLOURS.get(cell.split(maxsplit=1)[0] if cell.strip() else "")
    return click.style(cell, fg=colour) if colour else cell


def ago(text: object) -> str:
    """How long an RFC 3339 time has been, by this machine's clock: `42s`, `3m12s`, `5h07m`."""
    try:
        at = parse_rfc3339(str(text))
    except ValueError:
        return "-"
    return span(wall() - at)


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def short_time(text: object) -> str:
    """An RFC 3339 time to the millisecond."""
    said = str(text)
    return f"{said[:23]}Z" if len(said) == 27 and said.endswith("Z") else said
