"""What each follower and each breaker adds, by the measured slopes, and what larger fleets cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.fleet.figures import Measured, Rest, Trip
from sidecar.core.decision import poll_wait


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through measured points."""

    start: float
    slope: float

    def at(self, x: float) -> float:
        """Where it is at `x`."""
        return self.start + self.slope * x


def fit(points: Iterable[tuple[float, float]]) -> Line:
    """Least squares; a single place gives a line through the origin. Raises ValueError for none."""
    places = list(points)
    if len({x for x, _ in places}) < 2:
        x, y = places[0] if places else (0.0, 0.0)
        if not x:
            raise ValueError("no points to fit")
        return Line(0.0, y / x)
    slope, start = statistics.linear_regression(*zip(*places, strict=True))
    return Line(start, slope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a fleet asks of Consul."""

    requests_s: float
    bytes_s: float
    """Both ways, HTTP headers included."""
    consul_cores: float
    transition_bytes: float
    transition_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Slopes. An answer is one blocking query that returned."""

    wait_s: float
    rest_rate: float
    """Requests/s of one follower at rest."""
    rest_cores: float
    """Consul's cores for one follower at rest, one breaker."""
    answer_bytes: Line
    """Of one request and its answer, over the number of breakers."""
    answer_cpu_s: float
    """Consul's, one breaker."""
    breaker_cpu_s: float
    """Consul's, more for each further breaker."""
    follower_cpu_s: float
    """The follower's own."""
    last_s: Line
    """Until the last one knows, over the number of followers."""

    def load(self, followers: int, breakers: int) -> Load:
        """Of a whole fleet."""
        more_cpu_s = self.breaker_cpu_s * (breakers - 1)
        bytes_each = self.answer_bytes.at(breakers)
        return Load(
            requests_s=followers * self.rest_rate,
            bytes_s=followers * self.rest_rate * bytes_each,
            consul_cores=followers * (self.rest_cores + self.rest_rate * more_cpu_s),
            transition_bytes=followers * bytes_each,
            transition_cpu_s=followers * (self.answer_cpu_s + more_cpu_s),
        )


def medians(trips: Sequence[Trip], figure: Callable[[Trip], float]) -> list[tuple[float, float]]:
    """The median of a figure for each number of followers."""
    return [
        (size, statistics.median(figure(trip) for trip in trips if trip.followers == size))
        for size in sorted({trip.followers for trip in trips})
    ]


def _through(points: Sequence[tuple[float, float]]) -> Line:
    """The fitted slope, through the first point: keys differ in length, and one breaker is what
    most fleets have."""
    slope = fit(points).slope
    return Line(points[0][1] - slope * points[0][0], slope)


def _rate(rest: Rest) -> float:
    return rest.did.requests / rest.seconds


def _bytes_each(trip: Trip) -> float:
    return (trip.did.received + trip.did.sent) / trip.did.requests


def _by_breakers(
    pages: Sequence[Trip], figure: Callable[[Trip], float]
) -> list[tuple[float, float]]:
    return [
        (count, statistics.median(figure(trip) for trip in pages if trip.breakers == count))
        for count in sorted({trip.breakers for trip in pages})
    ]


def costs(measured: Measured) -> Costs:
    """Every slope."""
    rests, trips, pages = measured.rests, measured.trips, measured.pages
    per_page = fit(_by_breakers(pages, lambda trip: trip.consul_cpu_s / trip.did.requests))
    largest = [trip for trip in trips if trip.followers == trips[-1].followers]
    return Costs(
        wait_s=poll_wait(measured.plan.max_stale_s),
        rest_rate=fit((rest.followers, _rate(rest)) for rest in rests).slope,
        rest_cores=max(
            0.0, fit((rest.followers, rest.consul_cpu_s / rest.seconds) for rest in rests).slope
        ),
        answer_bytes=_through(_by_breakers(pages, _bytes_each)),
        answer_cpu_s=fit(medians(trips, lambda trip: trip.consul_cpu_s)).slope,
        breaker_cpu_s=max(0.0, per_page.slope),
        follower_cpu_s=statistics.median(trip.did.cpu_s / trip.did.requests for trip in largest),
        last_s=fit(medians(trips, lambda trip: trip.last_s)),
    )
