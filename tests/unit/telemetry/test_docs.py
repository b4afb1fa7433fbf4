"""The reference page says what the list says: one row for each metric, reason and event."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.core.types import Reason
from sidecar.telemetry import names
from sidecar.telemetry.names import Event, Metric

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def metric_row(metric: Metric) -> str:
    labels = ", ".join(
        f"`{label}`" + (f" {{{', '.join(values)}}}" if values else "")
        for label, values in metric.labels.items()
    )
    return f"| `{metric}` | {metric.kind} | {labels} | {metric.by} | {metric.help} |"


def event_row(event: Event) -> str:
    return f"| `{event}` | {event.says} |"


def rows(page: str, heading: str) -> list[str]:
    section = page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_every_metric_has_its_row() -> None:
    assert rows(PAGE.read_text(), "Metrics") == [metric_row(m) for m in names.METRICS]


def test_every_event_has_its_row() -> None:
    assert rows(PAGE.read_text(), "The log") == [event_row(e) for e in names.EVENTS]


def test_the_reasons_are_a_closed_list() -> None:
    found = [re.match(r"\| `(\w+)`", row) for row in rows(PAGE.read_text(), "Reasons")]
    assert [m and m[1] for m in found] == [str(reason) for reason in Reason]


def test_every_name_is_used() -> None:
    """A name that nobody counts or tells is a promise that nobody keeps."""
    package = PAGE.parents[2] / "sidecar"
    rest = [p for p in package.rglob("*.py") if p != Path(names.__file__)]
    words = set(re.findall(r"\w+", "\n".join(p.read_text() for p in rest)))
    constants = [k for k, v in vars(names).items() if isinstance(v, Metric | Event)]
    assert [constant for constant in constants if constant not in words] == []
