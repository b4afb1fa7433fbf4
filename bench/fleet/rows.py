"""The table that `make bench-fleet` prints."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bench.fleet.figures import Handover, Measured, Rest, Trip
from bench.fleet.model import Costs
from bench.table import Row

KNOWS_LIMIT_S = 1.0
LARGE = 10_000
_KIB, _MIB = 1024.0, 1024.0**2


def rows(measured: Measured, costs: Costs) -> list[Row]:
    """Every figure, the largest measured fleet first."""
    rest, polled = measured.rests[-1], measured.polled
    trips = [trip for trip in measured.trips if trip.followers == rest.followers]
    return [
        *_resting(rest, polled),
        *_changing(trips, measured.polled_trip),
        *_handing_over(measured.handover),
        *_large(measured, costs),
        *_slopes(measured, costs),
    ]


Figures = tuple[tuple[str, str, Callable[[Any], float]], ...]
"""What, its unit, and how to get it from a `Rest` or a `Trip`."""


def _resting(rest: Rest, polled: Rest) -> Iterator[Row]:
    section = f"{rest.followers:,} followers at rest, and as many of the source system's producers"
    yield Row(
        section=section,
        what="sessions held",
        value=rest.sessions,
        target=f"evaluators only: {rest.evaluators}",
        limit=rest.evaluators,
    )
    figures: Figures = (
        ("requests", "1/s", lambda each: each.did.requests / each.seconds),
        ("bytes", "KiB/s", lambda each: _moved(each) / each.seconds / _KIB),
        ("Consul's CPU", "% of a core", lambda each: 100 * each.consul_cpu_s / each.seconds),
    )
    for what, unit, figure in figures:
        yield Row(
            section=section,
            what=what,
            value=figure(rest),
            unit=unit,
            peer="source's polling",
            peer_value=figure(polled),
            note=f"over {rest.seconds:.1f} s",
        )


def _moved(each: Rest | Trip) -> int:
    return each.did.received + each.did.sent


def _changing(trips: list[Trip], polled: Trip) -> Iterator[Row]:
    section = f"{trips[0].followers:,} followers at a transition, from the failing report"
    figures: Figures = (
        ("the first one knows", "s", lambda trip: trip.first_s),
        ("requests answered", "", lambda trip: trip.did.requests),
        ("requests while it lasts", "1/s", lambda t: t.did.requests / (t.last_s - t.first_s)),
        ("bytes", "KiB", lambda trip: _moved(trip) / _KIB),
        ("Consul's CPU", "s", lambda trip: trip.consul_cpu_s),
        ("followers' CPU, all", "s", lambda trip: trip.did.cpu_s),
        ("state records written", "", lambda trip: trip.writes),
    )
    last = [trip.last_s for trip in trips]
    yield Row(
        section=section,
        what="the last one knows",
        value=statistics.median(last),
        unit="s",
        peer="source's polling",
        peer_value=polled.last_s,
        target=f"≤ {KNOWS_LIMIT_S:g} s",
        limit=KNOWS_LIMIT_S,
        note=f"median of {len(last)}, slowest {max(last):.2f} s",
    )
    for what, unit, figure in figures:
        yield Row(
            section=section,
            what=what,
            value=statistics.median(figure(trip) for trip in trips),
            unit=unit,
            peer="source's polling",
            peer_value=figure(polled),
        )


def _handing_over(handover: Handover) -> Iterator[Row]:
    section = f"The evaluator stops, and {handover.followers:,} may stand for its lock"
    yield Row(section=section, what="until one holds it", value=handover.seconds, unit="s")
    yield Row(section=section, what="most sessions meanwhile", value=handover.most_sessions)


def _large(measured: Measured, costs: Costs) -> Iterator[Row]:
    sizes = ", ".join(f"{size:,}" for size in measured.plan.sizes)
    section = f"{LARGE:,} followers, by the slope over {sizes}"
    load = costs.load(LARGE, 1)
    polls = measured.polled.did.requests / measured.polled.seconds * LARGE / measured.plan.pollers
    for what, value, unit, peer_value in (
        ("requests at rest", load.requests_s, "1/s", polls),
        ("bytes at rest", load.bytes_s / _KIB, "KiB/s", None),
        ("Consul's CPU at rest", 100 * load.consul_cores, "% of a core", None),
        ("bytes per transition", load.transition_bytes / _MIB, "MiB", None),
        ("Consul's CPU per transition", load.transition_cpu_s, "s", None),
        ("the last one knows, all on this machine", costs.last_s.at(LARGE), "s", None),
    ):
        yield Row(
            section=section,
            what=what,
            value=value,
            unit=unit,
            peer="source's polling" if peer_value is not None else "",
            peer_value=peer_value,
            note="extrapolated",
        )


def _slopes(measured: Measured, costs: Costs) -> Iterator[Row]:
    section = "What one more costs"
    memory = measured.consul_rss_mb
    for what, value, unit, note in (
        ("an answer, Consul's CPU", 1e6 * costs.answer_cpu_s, "µs", "one breaker"),
        ("an answer, the follower's CPU", 1e6 * costs.follower_cpu_s, "µs", "one breaker"),
        ("a further breaker in an answer, Consul's CPU", 1e6 * costs.breaker_cpu_s, "µs", ""),
        ("an answer and its request", costs.answer_bytes.at(1), "bytes", "one breaker"),
        ("a further breaker in an answer", costs.answer_bytes.slope, "bytes", ""),
        ("a follower, time until the last one knows", 1e3 * costs.last_s.slope, "ms", ""),
        (
            "a follower, Consul's memory",
            _KIB * (memory[-1][1] - memory[0][1]) / (memory[-1][0] - memory[0][0]),
            "KiB",
            "",
        ),
    ):
        yield Row(section=section, what=what, value=value, unit=unit, note=note)
