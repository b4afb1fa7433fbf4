"""The tables of docs/scale.md, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.fleet.figures import Measured
from bench.fleet.model import Costs, medians
from bench.table import number
from tests.servers import ROOT
from tools import pages

PAGE = ROOT / "docs" / "scale.md"
BEGIN = "<!-- made by `make bench-fleet ARGS=--write`: begin -->"
END = "<!-- made by `make bench-fleet ARGS=--write`: end -->"
FLEETS = (10, 100, 1_000, 10_000)
BREAKERS = (1, 10, 50, 200)


def between(text: str, block: str) -> str:
    """The page with this block between its marks. Raises ValueError where one is missing."""
    return pages.between(text, BEGIN, END, f"\n{block}\n")


def write(measured: Measured, costs: Costs, machine: dict[str, str]) -> Path:
    """Put the block into the page. Raises OSError, ValueError."""
    PAGE.write_text(between(PAGE.read_text("utf-8"), block(measured, costs, machine)), "utf-8")
    return PAGE


def block(measured: Measured, costs: Costs, machine: dict[str, str]) -> str:
    """What stands between the marks."""
    plan = measured.plan
    sizes = ", ".join(f"{size:,}" for size in plan.sizes)
    counts = ", ".join(f"{count:,}" for count in plan.pages)
    said = "; ".join(
        f"{key} {machine[key]}" for key in ("cpu", "cores", "load", "python", "consul")
    )
    how = (
        f"Measured on: {said}. Fleets of {sizes} followers with one breaker, and"
        f" {plan.page_followers} followers with {counts} breakers; all else is worked out from"
        " the slopes between these. Rows in *italics* are beyond what was measured."
    )
    parts = {
        "Load on Consul": _loads(measured, costs),
        "Until the last one knows": _knowing(measured, costs),
        "The source system's polling": _polling(measured),
    }
    return "\n\n".join([how, *(f"### {head}\n\n{text}" for head, text in parts.items())])


def table(heads: Sequence[str], lines: Sequence[tuple[bool, Sequence[str]]]) -> str:
    """A Markdown table; a line whose flag is set stands in italics."""
    made = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for slanted, cells in lines:
        said = [f"*{cell}*" for cell in cells] if slanted else cells
        made.append("| " + " | ".join(said) + " |")
    return "\n".join(made)


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit, factor in (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if count >= factor:
            return f"{number(count / factor)} {unit}"
    return f"{number(count)} B"


def _loads(measured: Measured, costs: Costs) -> str:
    plan, lines = measured.plan, []
    for followers in FLEETS:
        for breakers in BREAKERS:
            load = costs.load(followers, breakers)
            # Within the measured sizes of one series or the other.
            beyond = followers > (plan.sizes[-1] if breakers == 1 else plan.page_followers)
            cells = [
                f"{followers:,}",
                f"{breakers:,}",
                number(load.requests_s),
                f"{size(load.bytes_s)}/s",
                f"{number(100 * load.consul_cores)} %",
                f"{followers:,}",
                size(load.transition_bytes),
                f"{number(load.transition_cpu_s)} s",
            ]
            lines.append((beyond, cells))
    heads = (
        "sidecars",
        "breakers",
        "requests/s at rest",
        "bytes at rest",
        "Consul's CPU at rest, of a core",
        "answers per transition",
        "bytes per transition",
        "Consul's CPU per transition",
    )
    return table(heads, lines)


def _knowing(measured: Measured, costs: Costs) -> str:
    last = dict(medians(measured.trips, lambda trip: trip.last_s))
    worst = {
        count: max(trip.last_s for trip in measured.trips if trip.followers == count)
        for count in last
    }
    cpu = dict(medians(measured.trips, lambda trip: trip.consul_cpu_s))
    lines = [
        (False, (f"{int(count):,}", *(f"{number(each[count])} s" for each in (last, worst, cpu))))
        for count in last
    ]
    far = FLEETS[-1]
    cpu_s = costs.load(far, 1).transition_cpu_s
    lines.append(
        (True, (f"{far:,}", f"{number(costs.last_s.at(far))} s", "–", f"{number(cpu_s)} s"))
    )
    handover = measured.handover
    return (
        f"{table(('sidecars', 'median', 'slowest', 'Consul CPU for it'), lines)}\n\n"
        f"When the evaluator of {handover.followers:,} stopped, one of them held its lock"
        f" {number(handover.seconds)} s later; at most {handover.most_sessions} sessions existed"
        " meanwhile."
    )


def _polling(measured: Measured) -> str:
    rest, trip = measured.polled, measured.polled_trip
    lines = []
    for producers in FLEETS:
        share = producers / rest.followers / rest.seconds
        lines.append(
            (
                producers > rest.followers,
                (
                    f"{producers:,}",
                    number(rest.did.requests * share),
                    f"{size((rest.did.received + rest.did.sent) * share)}/s",
                    f"{number(100 * rest.consul_cpu_s * share)} %",
                ),
            )
        )
    heads = ("producers", "requests/s", "bytes", "Consul's CPU, of a core")
    return (
        f"{table(heads, lines)}\n\n"
        f"{measured.plan.reporters} consumers reported, one breaker, `evaluation_interval`"
        f" {measured.plan.interval_s:g}s. At a transition the last of {trip.followers:,} producers"
        f" knew after {number(trip.last_s)} s, and {trip.writes} of them wrote the state."
    )
