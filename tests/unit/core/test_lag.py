"""The classification of one partition: Burrow's known cases, and what it is known to miss.

Burrow's cases are those of its evaluator's tests and of the issues that brought them. It sees each
commit; here offsets are looked at on a clock, so `polled` turns its commits into what a look every
ten seconds finds.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sidecar.core.lag import (
    ABSENT,
    NO_ANSWER,
    PartitionState,
    Sample,
    classify,
    rising,
    sample,
)

EVERY_S = 10


def polled(
    commits: Sequence[tuple[float, int]], ends: Sequence[tuple[float, int]], until: float
) -> list[Sample]:
    """What looks find of commits and ends, each given as (from when, offset)."""

    def at(moves: Sequence[tuple[float, int]], when: float) -> int:
        return [offset for since, offset in moves if since <= when][-1]

    begin = max(commits[0][0], ends[0][0])
    times = [begin + i * EVERY_S for i in range(int((until - begin) / EVERY_S) + 1)]
    return [sample(t, at(commits, t), at(ends, t)) for t in times]


def state(
    samples: Sequence[Sample],
    *,
    window_s: float = 400,
    floor: int = 0,
    members: bool = True,
    troughs: Sequence[int] = (),
) -> PartitionState:
    last = samples[-1].at
    seen = [s for s in samples if s.at >= last - window_s]
    return classify(seen, floor=floor, need_s=window_s * 0.8, members=members, troughs=troughs)


GROWING = [(100, 1000), (200, 2000), (300, 3000), (400, 4000), (500, 5000)]
"""Burrow's commits of its cases 0 to 3 and 8."""

BURROW = [
    # Its cases 0 and 1, rule 1: zero lag somewhere in the window.
    ("caught_up_in_the_window", GROWING, [(100, 1000), (200, 2050), (300, 3100), (400, 4150),
      (500, 5200)], 500, PartitionState.OK),
    # Its case 2 (#290): stopped for longer than the window, though the lag was zero before it.
    ("stopped_since_it_had_zero_lag", GROWING, [(100, 1000), (200, 2050), (500, 5200)], 1000,
     PartitionState.STOPPED),
    # Its case 3: stopped, and the lag was never zero.
    ("stopped_with_lag_throughout", GROWING, [(100, 1050), (500, 5250)], 1000,
     PartitionState.STOPPED),
    # Its case 4: committing the same offset, but zero lag in the window.
    ("stands_still_but_had_none", [(100, 1000)], [(100, 1000), (200, 1050), (500, 1200)], 500,
     PartitionState.OK),
    # Its cases 5 and 6: the same offset over and over, the lag rising or level.
    ("stalled_while_lag_rises", [(100, 1000)], [(100, 1100), (300, 1200), (500, 1300)], 600,
     PartitionState.STALLED),
    ("stalled_while_lag_is_level", [(100, 1000)], [(100, 1100)], 600, PartitionState.STALLED),
    # Its case 7: rewound, even though the lag goes down again.
    ("rewound", [(100, 1000), (200, 2000), (300, 3000), (400, 2000), (500, 2500)],
     [(100, 1100), (200, 2150), (300, 3200), (400, 3250), (500, 3400)], 500,
     PartitionState.REWOUND),
    # Its case 8: whatever was, there is no lag now.
    ("no_lag_now", GROWING, [(100, 1050), (500, 5000)], 1000, PartitionState.OK),
    # Its case 9 (#290): zero lag all along, then it stops and new messages come.
    ("stop_at_zero_lag", [(100, 792748079), (110, 792748093)],
     [(100, 792748079), (110, 792748093), (200, 792749024)], 700, PartitionState.STOPPED),
    # Its case 10 (#303): nothing came for long, and the first new message is only just there.
    ("recently_caught_up", [(100, 792748093)], [(100, 792748093), (640, 792748094)], 650,
     PartitionState.OK),
    # #716: back at the start from zero lag, which its first rule used to forgive.
    ("rewound_from_zero_lag", [(100, 5000), (500, 10)], [(100, 5000)], 540,
     PartitionState.REWOUND),
    # #716: it has got to where it was again.
    ("recovered_rewind", [(100, 1000), (200, 2000), (300, 1500), (400, 2000), (500, 2600)],
     [(100, 1100), (200, 2200), (300, 2400), (400, 2500), (500, 2650)], 500, PartitionState.OK),
]  # fmt: skip


@pytest.mark.parametrize(
    ("commits", "ends", "until", "expected"), [case[1:] for case in BURROW],
    ids=[case[0] for case in BURROW],
)  # fmt: skip
def test_burrows_cases(
    commits: list[tuple[float, int]],
    ends: list[tuple[float, int]],
    until: float,
    expected: PartitionState,
) -> None:
    members = expected is not PartitionState.STOPPED
    assert state(polled(commits, ends, until), members=members) is expected


def test_missing_samples_change_nothing() -> None:
    """Burrow's case 11: entries without a lag are passed over."""
    whole = polled([(100, 1000)], [(100, 1100), (300, 1200)], 600)
    holes = [s._replace(end=NO_ANSWER) if i % 2 else s for i, s in enumerate(whole)]
    assert state(holes[:-2] + whole[-1:]) is PartitionState.STALLED
    missing = [s._replace(committed=NO_ANSWER) if i % 3 else s for i, s in enumerate(whole)]
    assert state(missing + whole[-1:]) is PartitionState.STALLED


def test_allowed_lag() -> None:
    """Burrow's #591: transactional producers leave a lag of one that nobody can work off."""
    stuck = polled([(100, 1000)], [(100, 1001)], 600)
    assert state(stuck, members=False) is PartitionState.STOPPED
    assert state(stuck, floor=1, members=False) is PartitionState.OK


def test_falling_behind() -> None:
    ends = [(t, 1100 + 15 * (t - 100)) for t in range(100, 600, 10)]
    commits = [(t, 1000 + 10 * (t - 100)) for t in range(100, 600, 10)]
    assert state(polled(commits, ends, 590)) is PartitionState.FALLING_BEHIND


def test_level_lag_is_keeping_pace() -> None:
    """Burrow warns of this; a breaker has nothing to mend."""
    ends = [(t, 1100 + 10 * (t - 100)) for t in range(100, 600, 10)]
    commits = [(t, 1000 + 10 * (t - 100)) for t in range(100, 600, 10)]
    assert state(polled(commits, ends, 590)) is PartitionState.OK


def test_growth_by_a_little_is_the_traffic() -> None:
    commits = [(t, 100_000 * t) for t in range(100, 600, 10)]
    ends = [(t, 100_000 * t + 10_000 + t) for t in range(100, 600, 10)]
    assert state(polled(commits, ends, 590), floor=100) is PartitionState.OK


def saw_tooth(rise: int) -> list[list[int]]:
    """Lag by windows: up within each, a dip at its middle, and `rise` higher each time."""
    bases = [1000 + rise * i for i in range(10)]
    return [[base, base + 400, base + 100, base + 500] for base in bases]


def test_the_saw_tooth_that_burrow_misses() -> None:
    """#533: every window has a dip, so that rule 5 sees no steady rise; over ten it is plain."""
    windows = saw_tooth(150)
    lags = windows[-1]
    samples = [sample(100 * i, 10_000 * i, 10_000 * i + lag) for i, lag in enumerate(lags, 1)]
    assert state(samples, window_s=300) is PartitionState.OK
    troughs = [min(window) for window in windows]
    assert state(samples, window_s=300, troughs=troughs) is PartitionState.FALLING_BEHIND


def test_a_saw_tooth_that_comes_back_is_batches() -> None:
    assert not rising([min(window) for window in saw_tooth(0)], 100)


@pytest.mark.parametrize(
    "troughs",
    [
        [150 * i for i in range(9)],  # too few windows
        [50, *[1000 + 150 * i for i in range(9)]],  # it had caught up in one of them
        [10_000 + i for i in range(10)],  # rises, by nothing
        [1000, 2000, 1100, 1900, 1200, 1800, 1300, 1700, 1400, 1600],  # swings
    ],
)
def test_no_trend(troughs: list[int]) -> None:
    assert not rising(troughs, 100)


# --- what isn't there ------------------------------------------------------------------------


def test_no_commit_is_no_health() -> None:
    assert state([sample(0, ABSENT, 500)]) is PartitionState.UNCOMMITTED


def test_an_expired_offset_is_no_commit() -> None:
    looks = [sample(10 * i, 400, 500) for i in range(30)] + [sample(300, ABSENT, 500)]
    assert state(looks) is PartitionState.UNCOMMITTED


@pytest.mark.parametrize(("committed", "end"), [(NO_ANSWER, 500), (400, NO_ANSWER)])
def test_no_answer_is_no_health(committed: int, end: int) -> None:
    looks = [sample(0, 500, 500), sample(10, committed, end)]
    assert state(looks) is PartitionState.NO_ANSWER


def test_what_retention_took_away_is_no_work() -> None:
    assert sample(0, 100, 1000, begin=990).lag == 10
    assert sample(0, 995, 1000, begin=990).lag == 5


def test_a_recreated_topic_is_not_judged_by_the_old_one() -> None:
    old = [sample(10 * i, 5000, 5500) for i in range(40)]
    stale = sample(400, 5000, 12)
    assert state([*old, stale]) is PartitionState.RECREATED
    anew = [sample(400 + 10 * i, 10, 412) for i in range(1, 5)]
    assert state([*old, stale, *anew], floor=100) is PartitionState.TOO_EARLY


def test_a_small_step_back_at_a_rebalance_is_noise() -> None:
    looks = [sample(0, 1000, 2000), sample(10, 990, 2000)]
    assert state(looks) is PartitionState.REWOUND
    assert state(looks, floor=100) is PartitionState.TOO_EARLY


def test_a_rebalance_excuses_standing_still() -> None:
    still = [sample(10 * i, 1000, 2000, busy=i >= 20) for i in range(41)]
    assert state(still) is PartitionState.REBALANCING


def test_but_not_for_a_whole_window() -> None:
    still = [sample(10 * i, 1000, 2000, busy=True) for i in range(41)]
    assert state(still) is PartitionState.STALLED


def test_one_rebalance_after_another_excuses_nothing() -> None:
    still = [sample(10 * i, 1000, 2000, busy=i % 2 == 1) for i in range(41)]
    assert state(still) is PartitionState.STALLED


def test_lag_is_not_judged_before_it_was_watched() -> None:
    looks = [sample(10 * i, 1000, 2000) for i in range(10)]
    assert state(looks) is PartitionState.TOO_EARLY


def test_lag_that_falls_is_well_from_the_second_look() -> None:
    assert state([sample(0, 1000, 9000), sample(10, 1500, 9000)]) is PartitionState.OK
