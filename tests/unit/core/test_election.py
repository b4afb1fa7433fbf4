"""Who tries for a free lock, and when."""

from __future__ import annotations

import itertools
import random

from sidecar.core.election import ROUND_S, ROUNDS, probability, starts_after


def test_the_last_round_is_for_everybody() -> None:
    chances = [probability(i) for i in range(ROUNDS)]
    assert chances[0] == 1 / 64
    assert chances[-1] == 1.0
    assert all(after == 2 * before for before, after in itertools.pairwise(chances))
    assert probability(1000) == 1.0


def test_a_contest_is_over_well_within_a_second() -> None:
    assert ROUNDS * ROUND_S < 0.8


def test_a_thousand_do_not_stampede() -> None:
    """Whoever sees the lock taken after a round stops: few of a thousand ever try."""
    draw = random.Random(7)
    for _ in range(50):
        tries = (
            sum(draw.random() < probability(round_no) for _ in range(1000))
            for round_no in range(ROUNDS)
        )
        assert next(tried for tried in tries if tried) < 40


def test_only_a_lock_lost_with_its_session_is_waited_for() -> None:
    assert starts_after(released=True, lock_delay_s=1.0, first_ever=False) == 0.0
    assert starts_after(released=False, lock_delay_s=1.0, first_ever=True) == 0.0
    assert starts_after(released=False, lock_delay_s=1.0, first_ever=False) == 1.0
