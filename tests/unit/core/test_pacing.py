"""The replay's bound."""

from __future__ import annotations

import pytest

from sidecar.core.pacing import AHEAD, Pace, Rate


def test_a_rate_follows_what_happens_and_fades() -> None:
    rate = Rate()
    for second in range(60):
        rate.add(100, float(second))
    assert rate.value(60.0) == pytest.approx(100, rel=0.2)
    assert rate.value(120.0) < 1


def test_the_bound_is_never_below_twice_the_inflow() -> None:
    pace = Pace(limit=10)
    assert pace.bound(0.0) == 10
    for second in range(60):
        pace.inflow.add(1000, float(second))
    assert pace.bound(60.0) >= AHEAD * 800


def test_batches_wait_for_their_share() -> None:
    pace = Pace(limit=100)
    sent, now = 0, 0.0
    while now < 10.0:
        wait_s = pace.wait_s(now)
        if wait_s > 0:
            now += wait_s
            continue
        pace.sent(50, now)
        sent += 50
    assert 900 <= sent <= 1150


def test_what_was_only_tried_brings_no_end_nearer() -> None:
    pace = Pace(limit=1000)
    for second in range(60):
        pace.sent(100, float(second))
    assert pace.outflow.value(60.0) == 0.0
    assert pace.estimate_s(500, 60.0) is None


def test_the_estimate_is_what_is_left_by_what_is_gained() -> None:
    pace = Pace(limit=1000)
    assert pace.estimate_s(0, 0.0) == 0.0
    assert pace.estimate_s(10, 0.0) is None
    for second in range(60):
        pace.outflow.add(100, float(second))
        pace.inflow.add(50, float(second))
    assert pace.estimate_s(500, 60.0) == pytest.approx(10, rel=0.3)
