"""Freshness by changed value, and which evidence is old."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.reports import MAX_COUNT, Item, Reports, Tally, successes
from sidecar.core.types import Report
from tests.unit.core.kit import POLICY, WALL_AT, body, parse


class Listing:
    """Listings of one prefix at chosen times; `now` is 0 when the wall says WALL_AT."""

    def __init__(self) -> None:
        self.reports = Reports(parse)

    def take(
        self, *items: Item, now: float, wall_jump: float = 0.0, index: int = 0
    ) -> list[tuple[str, str, bool]]:
        top = index or max((i.index for i in items), default=1)
        wall_at = WALL_AT + now + wall_jump
        return self.reports.update(items, top, POLICY, now=now, wall_at=wall_at)

    def tally(self, floor: int = 0, *, now: float) -> Tally:
        return self.reports.tally(floor, POLICY, now=now)


def item(value: bytes, index: int, instance: str = "c-1") -> Item:
    return Item(instance, value, index)


def test_it_is_fresh_while_its_value_changes() -> None:
    listing = Listing()
    for i in range(10):
        listing.take(item(body(WALL_AT + 10 * i, fail=i), 10 + i), now=10.0 * i)
        assert listing.tally(now=10.0 * i + 9).fresh == 1


def test_an_identical_body_goes_stale_however_often_it_is_listed() -> None:
    listing = Listing()
    same = item(body(WALL_AT, fail=3), 10)
    for now in range(15):
        listing.take(same, now=now)
        assert listing.tally(now=now).failures == 3
    listing.take(same, now=15.0)
    assert listing.tally(now=15.0) == Tally(
        index=10, fresh=0, stale=1, reporters=0, failures=0, successes=0
    )


def test_a_touched_key_is_no_report() -> None:
    listing = Listing()
    value = body(WALL_AT, fail=3)
    listing.take(item(value, 10), now=0.0)
    listing.take(item(value, 50), now=14.0)
    assert listing.tally(10, now=14.0).reporters == 0
    assert listing.tally(now=15.0).stale == 1


@pytest.mark.parametrize(
    ("age", "left"),
    [(0.0, 15.0), (5.0, 10.0), (14.0, 1.0), (15.0, 0.0), (3600.0, 0.0), (-3600.0, 15.0)],
)
def test_the_first_look_believes_the_timestamp_within_bounds(age: float, left: float) -> None:
    for now in (0.1, 7.3, 1000.1, 123456.789):
        listing = Listing()
        listing.take(item(body(WALL_AT + now - age), 10), now=now)
        assert listing.tally(now=now).fresh == (left > 0)
        assert listing.tally(now=now + left).stale == 1


def test_an_hour_on_the_wall_changes_nothing_once_a_key_is_known() -> None:
    listing = Listing()
    listing.take(item(body(WALL_AT, fail=1), 10), now=0.0)
    for i, jump in enumerate((3600.0, -3600.0, 0.0), start=1):
        value = body(WALL_AT - 2 * jump, fail=i)
        listing.take(item(value, 10 + i), now=float(i), wall_jump=jump)
        assert listing.tally(now=float(i)).fresh == 1


def test_bad_ones_are_ignored_alone_counted_each_and_named_once() -> None:
    listing = Listing()
    good = item(body(WALL_AT, fail=4), 10, "good")
    assert listing.take(good, item(b"{", 11), now=0.0)[0][0::2] == ("c-1", True)
    assert listing.take(good, item(b"{", 11), now=1.0) == []
    assert [b[2] for b in listing.take(good, item(b"[]", 12), now=2.0)] == [False]
    assert listing.tally(now=2.0).failures == 4
    assert listing.take(good, item(body(WALL_AT, fail=1), 13), now=3.0) == []
    assert listing.tally(now=3.0).failures == 5


@pytest.mark.parametrize(
    ("instance", "value"),
    [
        ("c-1", body(WALL_AT + 86401)),
        ("c-1", b" " * 65537),
        ("", body(WALL_AT)),
        ("a/b", body(WALL_AT)),
        ("-a", body(WALL_AT)),
        ("a" * 129, body(WALL_AT)),
    ],
)
def test_what_makes_a_report_bad(instance: str, value: bytes) -> None:
    listing = Listing()
    assert len(listing.take(item(value, 10, instance), now=0.0)) == 1
    assert listing.tally(now=0.0).fresh == 0


def test_a_timestamp_an_hour_ahead_is_no_fault() -> None:
    listing = Listing()
    assert listing.take(item(body(WALL_AT + 3600), 10), now=0.0) == []


def test_old_evidence_is_known_by_the_index_of_its_last_change() -> None:
    listing = Listing()
    listing.take(item(body(WALL_AT, fail=9), 10), item(body(WALL_AT, fail=1), 12, "c-2"), now=0.0)
    tally = listing.tally(10, now=0.0)
    assert (tally.fresh, tally.reporters, tally.failures) == (2, 1, 1)


def test_a_quiet_prefix_behind_the_floor_makes_nothing_new() -> None:
    """A prefix's own index lags behind the state's whenever nobody reports."""
    listing = Listing()
    listing.take(item(body(WALL_AT), 5), now=0.0)
    listing.take(item(body(WALL_AT, fail=25), 10), now=1.0)
    assert listing.tally(11, now=1.0).reporters == 0


def test_spent_evidence_stays_spent_when_the_store_goes_back() -> None:
    listing = Listing()
    value = body(WALL_AT, fail=25)
    listing.take(item(value, 10), now=0.0)
    assert listing.tally(10, now=0.0).reporters == 0
    listing.take(item(value, 7), now=1.0)
    assert listing.tally(0, now=1.0).reporters == 0
    listing.take(item(body(WALL_AT, fail=1), 8), now=2.0)
    assert listing.tally(0, now=2.0).failures == 1


def test_a_report_brought_back_by_a_snapshot_is_as_old_as_it_says() -> None:
    listing = Listing()
    listing.take(item(body(WALL_AT + 100), 30), now=100.0)
    listing.take(item(body(WALL_AT, fail=25), 9), now=101.0)
    assert listing.tally(0, now=101.0).stale == 1


def test_a_key_that_keeps_its_value_in_the_snapshot_gets_its_index_back() -> None:
    listing = Listing()
    value = body(WALL_AT, fail=25)
    listing.take(item(value, 900), now=0.0)
    listing.take(item(value, 200), now=1.0)
    assert listing.tally(250, now=1.0).reporters == 0


def test_only_what_has_been_silent_for_long_is_collected_at_its_last_index() -> None:
    listing = Listing()
    value = body(WALL_AT)
    listing.take(item(value, 10), item(b"{", 11, "bad"), now=0.0)
    listing.take(item(value, 20), item(b"{", 11, "bad"), now=1.0)
    assert listing.reports.expired(POLICY, now=3599.0) == []
    assert listing.reports.expired(POLICY, now=3600.0) == [("c-1", 20)]
    assert listing.reports.expired(replace(POLICY, report_gc_s=0.0), now=1e9) == []


def test_absurd_counts_stay_numbers() -> None:
    listing = Listing()
    listing.take(*(item(body(WALL_AT, fail=1e308), 10, f"c-{i}") for i in range(9)), now=0.0)
    assert listing.tally(now=0.0).failures == 9 * MAX_COUNT


def test_the_successes_of_an_interval() -> None:
    report = Report(timestamp_at=0, rate_ok=98.2, count_fail=0)
    assert successes(report, POLICY) == pytest.approx(491)
    assert successes(replace(report, interval_s=10.0), POLICY) == pytest.approx(982)
