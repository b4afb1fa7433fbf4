"""A rise that is one, and noise that isn't."""

from __future__ import annotations

import random

import pytest

from sidecar.core.trend import mann_kendall, theil_sen


def test_a_strict_rise_of_ten_is_certain() -> None:
    # S = 45, variance = 10 x 9 x 25 / 18 = 125.
    assert mann_kendall(range(10)) == pytest.approx(44 / 125**0.5)


def test_a_fall_is_as_certain_the_other_way() -> None:
    assert mann_kendall(range(10, 0, -1)) == pytest.approx(-44 / 125**0.5)


@pytest.mark.parametrize("values", [[], [1], [1, 2], [5, 5, 5, 5], [1, 2, 2, 1]])
def test_nothing_to_say(values: list[int]) -> None:
    assert mann_kendall(values) == 0.0


def test_ties_take_certainty_away() -> None:
    assert 0 < mann_kendall([1, 1, 1, 2, 2, 2]) < mann_kendall([1, 2, 3, 4, 5, 6])


def test_noise_seldom_looks_like_a_rise() -> None:
    draw = random.Random(6)
    rises = sum(mann_kendall([draw.random() for _ in range(10)]) >= 3.0 for _ in range(5000))
    assert rises <= 15  # one in a thousand by the theory


def test_one_outlier_doesnt_sway_the_slope() -> None:
    assert theil_sen([0, 10, 20, 30, 9000, 50, 60]) == 10


@pytest.mark.parametrize("values", [[], [7]])
def test_no_slope_without_two(values: list[int]) -> None:
    assert theil_sen(values) == 0.0
