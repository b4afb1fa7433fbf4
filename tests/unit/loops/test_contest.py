"""When a free lock is tried for, and when again."""

from __future__ import annotations

from sidecar.core.election import ROUND_S, ROUNDS
from sidecar.loops.contest import MAX_PAUSE_S, RETRY_S, Contest


def middle() -> float:
    """A draw."""
    return 0.5


def test_a_round_is_lost_until_the_chance_is_large_enough() -> None:
    contest, now, tries = Contest(10.0), 9.9, 0
    assert not contest.turn(now, middle, alone=False), "it hasn't begun"
    assert contest.next == 10.0
    now = 10.0
    while not contest.turn(now, middle, alone=False):
        assert contest.next == now + ROUND_S
        now, tries = contest.next, tries + 1
    assert tries == ROUNDS - 1


def test_nothing_is_left_to_chance_where_nobody_else_can_have_it() -> None:
    assert Contest(10.0).turn(10.0, middle, alone=True)
    assert not Contest(10.0).turn(9.0, middle, alone=True)


def test_a_refusal_is_tried_again_soon_and_a_failure_less_and_less() -> None:
    contest = Contest(0.0)
    for _ in range(3):
        contest.refused(10.0, middle)
        assert contest.next == 10.0 + RETRY_S
    pauses = []
    for _ in range(10):
        contest.failed(10.0, middle)
        pauses.append(contest.next - 10.0)
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == MAX_PAUSE_S
