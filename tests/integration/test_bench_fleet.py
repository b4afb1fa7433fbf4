"""The fleet's measurement still runs, and what it says of the fleet holds whatever its size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.fleet import page
from bench.fleet.figures import QUICK, Measured, Plan
from bench.fleet.measure import measure
from bench.fleet.model import Line, costs, fit
from bench.fleet.rows import rows
from bench.fleet.worker import Totals

pytestmark = pytest.mark.slow  # a fleet has to start

SMALL = dataclasses.replace(
    QUICK,
    sizes=(4, 12),
    trips=1,
    pages=(1, 10),
    page_followers=4,
    pollers=6,
    processes=2,
    # A busy machine may let a poll wait for seconds; shorter ones would be given up.
    max_stale_s=16.0,
)
MACHINE = {"cpu": "one", "cores": "2", "load": "0", "python": "3.11", "consul": "Consul v1.22.3"}


@pytest.fixture(scope="module")
def measured() -> Measured:
    """A dozen followers."""
    return measure(SMALL, lambda _what: None)


@pytest.mark.consul
def test_only_evaluators_hold_sessions_and_a_trip_is_one_answer_each(
    measured: Measured,
) -> None:
    assert [rest.followers for rest in measured.rests] == [4, 12]
    # One, unless the machine was so busy that its evaluator gave a lock up to another.
    assert all(1 <= rest.sessions <= rest.evaluators for rest in measured.rests)
    assert all(rest.did.requests > 0 for rest in measured.rests)
    for trip in (*measured.trips, *measured.pages):
        # `measure` refuses followers that met a fault.
        assert trip.writes == 1
        assert 0 < trip.first_s <= trip.last_s
        # One answer brought the news; a poll may have timed out meanwhile.
        assert trip.did.requests >= trip.followers
        assert trip.did.received / trip.did.requests > 500
    one, ten = measured.pages
    assert ten.did.received / ten.did.requests > one.did.received / one.did.requests + 9 * 500


@pytest.mark.consul
def test_one_of_the_followers_takes_a_lock_over(measured: Measured) -> None:
    assert measured.handover.followers == 12
    assert 1 <= measured.handover.most_sessions <= 13
    assert measured.handover.seconds > 0


@pytest.mark.consul
def test_the_pollers_beside_it_poll(measured: Measured) -> None:
    """Three requests an interval each, all reports every time, and they know of a trip too."""
    rest = measured.polled
    rate = rest.did.requests / rest.seconds / rest.followers
    assert rate == pytest.approx(3 / SMALL.interval_s, rel=0.5)
    assert measured.polled_trip.writes >= 1
    assert 0 < measured.polled_trip.first_s <= measured.polled_trip.last_s


@pytest.mark.consul
def test_it_makes_its_rows_and_its_page(measured: Measured) -> None:
    slopes = costs(measured)
    sessions = next(row for row in rows(measured, slopes) if row.what == "sessions held")
    assert sessions.verdict == "met"
    made = page.block(measured, slopes, MACHINE)
    assert made.count("\n| *10,000* | *200* |") == 1, "extrapolated rows stand in italics"
    assert "\n| 10 | 1 |" in made


def test_lines_go_through_their_points() -> None:
    assert fit([(1, 3.0), (2, 5.0), (4, 9.0)]) == Line(1.0, 2.0)
    assert fit([(2, 5.0)]).at(4) == 10
    with pytest.raises(ValueError, match="no points"):
        fit([])


def test_totals_differ_by_what_was_done_between() -> None:
    before = Totals(requests=2, received=10, faults={"lost": 1})
    after = Totals(requests=5, received=30, cpu_s=0.5, faults={"lost": 1, "denied": 2})
    assert after - before == Totals(requests=3, received=20, cpu_s=0.5, faults={"denied": 2})


def test_the_block_replaces_what_was_between_the_marks() -> None:
    text = f"# Head\n\n{page.BEGIN}\n\nold\n\n{page.END}\n\n## Tail\n"
    assert page.between(text, "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="lacks a mark"):
        page.between("# no marks", "new")


def test_the_page_has_its_marks_and_a_table_of_every_fleet() -> None:
    text = Path(page.PAGE).read_text("utf-8")
    inside = text.partition(page.BEGIN)[2].partition(page.END)[0]
    for followers in page.FLEETS:
        for breakers in page.BREAKERS:
            named = f"| {followers:,} | {breakers:,} |"
            assert named in inside.replace("*", ""), f"no row for {named}"
    assert Plan().sizes[-1] == 1000
