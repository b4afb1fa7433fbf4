"""Lag in seconds, read off the curve of the partition's end."""

from __future__ import annotations

import pytest

from sidecar.core.ages import MOST_POINTS, Ages


def walked(*looks: tuple[float, int, int]) -> tuple[Ages, float]:
    """Looks at one partition, each (at, end, committed); and the time of the last."""
    ages = Ages()
    for at, end, committed in looks:
        ages.take(at, [end], [end - committed])
    return ages, looks[-1][0]


def test_no_lag_is_no_age() -> None:
    ages, now = walked((0, 100, 100), (10, 200, 200))
    assert ages.worst(now) == 0.0


def test_the_age_lies_between_two_points() -> None:
    # Offset 150 was written half way between 0 and 10; now it is 20.
    ages, now = walked((0, 100, 100), (10, 200, 100), (20, 300, 150))
    assert ages.worst(now) == pytest.approx(15)


def test_the_curve_is_continued_backwards() -> None:
    # Ten a second: the thousand messages before the first look took a hundred seconds.
    ages, now = walked((0, 2000, 1000), (10, 2100, 1000))
    assert ages.worst(now) == pytest.approx(110)


def test_one_point_is_no_curve() -> None:
    ages, now = walked((0, 2000, 1000))
    assert ages.worst(now) is None


def test_where_nothing_is_written_it_is_at_least_as_old_as_the_first_look() -> None:
    ages, now = walked((0, 2000, 1000), (60, 2000, 1000))
    assert ages.worst(now) == 60


def test_a_group_that_stands_still_grows_older_by_the_second() -> None:
    ages = Ages()
    for i in range(1000):
        ages.take(10.0 * i, [100 * i], [100 * max(0, i - 5)])
    assert ages.worst(9990.0) == pytest.approx(9990 - 50, abs=0.1)


def test_a_group_that_moves_on_from_long_ago_is_placed_by_where_it_stood() -> None:
    ages = Ages()
    for i in range(1000):
        ages.take(10.0 * i, [100 * i], [100 * max(0, i - 5)])
    ages.take(10_000.0, [100_000], [100_000 - 50_000])
    assert ages.worst(10_000.0) == pytest.approx(5000, rel=0.02)


def test_the_curve_is_bounded() -> None:
    ages = Ages()
    for i in range(10 * MOST_POINTS):
        ages.take(float(i), [i], [0])
    assert len(ages._points) <= MOST_POINTS


def test_another_topic_of_the_same_name_has_another_curve() -> None:
    ages, now = walked((0, 100, 100), (10, 9000, 9000), (20, 10, 0), (30, 20, 0))
    # Ten a tenth of a second: offset 0 of the new topic is ten seconds older than its first look.
    assert ages.worst(now) == pytest.approx(20)


def test_the_worst_partition_speaks() -> None:
    ages = Ages()
    ages.take(0, [100, 100], [0, 0])
    ages.take(10, [200, 200], [50, 100])
    assert ages.worst(10) == pytest.approx(10)


def test_partitions_without_an_answer_are_left_out() -> None:
    ages = Ages()
    ages.take(0, [100, -2], [0, -2])
    ages.take(10, [200, -2], [50, -2])
    assert ages.worst(10) == pytest.approx(5)
    nothing = Ages()
    nothing.take(0, [-2], [-2])
    assert nothing.worst(0) is None
