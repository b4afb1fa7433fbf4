"""What is learned of a flow, what isn't, and the bound made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest

from sidecar.core.normal import (
    FORGOTTEN_S,
    NEEDED,
    SAMPLES,
    Kept,
    Lessons,
    Normal,
    Sample,
    bound,
    gap,
    summed_up,
    usable,
)
from sidecar.core.observe import Seen
from sidecar.core.reports import Tally
from sidecar.core.signal_settings import AutoThreshold
from sidecar.core.signals import judge
from sidecar.core.types import Policy, Report, State, Verdict
from tests.unit.core.kit import POLICY, WALL_AT, Story

AUTO = AutoThreshold(floor=10, cap=1000, history_s=3600.0)
LEARNS = replace(POLICY, auto=AUTO)
SPACING_S = 30.0


def tally(failures: float, ok: float = 500, latency_ms: float | None = None) -> Tally:
    """What a fleet of one says of an interval."""
    report = Report(
        timestamp_at=WALL_AT,
        rate_ok=ok / 5,
        count_fail=failures,
        interval_s=5.0,
        latency_ms=latency_ms,
    )
    return Tally(
        index=1,
        fresh=1,
        stale=0,
        reporters=1,
        failures=failures,
        successes=ok,
        counting=(("c-1", report),),
    )


def seen_in(state: State, ratio: float = 1.0) -> Seen:
    seen = Story().a.seen
    assert seen.own is not None
    return replace(seen, own=replace(seen.own, automaton=state, automaton_ratio=ratio))


CLOSED = seen_in(State.CLOSED)


def poisson(draw: Random, mean: float) -> int:
    """Knuth's way, in pieces that don't underflow."""
    return sum(1 for _ in _arrivals(draw, mean))


def _arrivals(draw: Random, mean: float) -> Iterator[None]:
    at = draw.expovariate(1.0)
    while at < mean:
        yield
        at += draw.expovariate(1.0)


def learned(
    failures: Callable[[], float],
    *,
    ok: float = 500,
    latency_ms: float | None = None,
    samples: int = SAMPLES,
    policy: Policy = LEARNS,
) -> Lessons:
    """Lessons from so many intervals at the usual gap; the last at time 0."""
    lessons = Lessons()
    for i in range(samples):
        at = (i + 1 - samples) * SPACING_S
        lessons.note(tally(failures(), ok, latency_ms), CLOSED, policy, healthy=True, now=at)
    return lessons


def normal_of(lessons: Lessons) -> Normal:
    assert lessons.normal is not None
    return lessons.normal


def threshold(lessons: Lessons, now: Tally, seen: Seen = CLOSED) -> int:
    return bound(lessons.normal, now, seen, LEARNS, now=0.0).threshold


# --- before and after enough is known --------------------------------------------------------


def test_a_cold_start_has_the_static_threshold_and_says_so() -> None:
    lessons = learned(lambda: 6, samples=NEEDED - 1)
    assert lessons.normal is None
    most = bound(lessons.normal, tally(6), CLOSED, LEARNS, now=0.0)
    assert (most.threshold, most.evidence["normal"]) == (20, None)
    judgement = judge(tally(20), CLOSED, LEARNS, normal=None)
    assert judgement.verdict is Verdict.UNHEALTHY
    assert "threshold 20 (initial: no normal is known yet)" in judgement.detail


def test_it_explains_itself() -> None:
    lessons = learned(lambda: 6, latency_ms=12.0)
    judgement = judge(tally(40, 460, 12.5), CLOSED, LEARNS, normal=lessons.normal, now=90.0)
    assert judgement.verdict is Verdict.UNHEALTHY
    evidence = judgement.evidence
    assert evidence["failures"] == 40
    assert evidence["normal"] == pytest.approx(500 * 6 / 506, abs=0.01)
    assert evidence["normal_samples"] == SAMPLES
    assert evidence["normal_age"] == 90
    assert evidence["normal_over"] == 119 * SPACING_S
    assert (evidence["floor"], evidence["cap"]) == (10, 1000)
    assert (evidence["latency"], evidence["normal_latency"]) == (0.0125, 0.012)
    expected = math.ceil((math.sqrt(500 * 6 / 506) + 3) ** 2)
    assert evidence["threshold"] == expected
    assert f"threshold {expected} (normal are 5.9 of 500 messages)" in judgement.detail


def test_without_auto_nothing_is_learned_and_nothing_new_is_said() -> None:
    lessons = learned(lambda: 6, policy=POLICY)
    assert lessons.normal is None
    assert lessons.kept(now=0.0, wall_at=WALL_AT) is None
    assert judge(tally(6), CLOSED, POLICY).evidence == {
        "failures": 6,
        "threshold": 20,
        "reporters": 1,
    }


# --- the bound -------------------------------------------------------------------------------


def test_a_flow_without_failures_has_the_floor() -> None:
    assert threshold(learned(lambda: 0), tally(0)) == AUTO.floor


def test_never_over_the_cap_whatever_was_learned() -> None:
    policy = replace(LEARNS, failure_threshold=10**6)
    lessons = learned(lambda: 5000, ok=50_000, policy=policy)
    assert threshold(lessons, tally(5000, 50_000)) == AUTO.cap


def test_it_goes_with_the_throughput() -> None:
    """A fleet that has doubled may fail twice as often; what is left of it at night may not."""
    lessons = learned(lambda: 12, ok=1000)
    thresholds = [threshold(lessons, tally(0, ok)) for ok in (10, 1000, 2000, 10_000)]
    assert thresholds == sorted(set(thresholds))
    assert thresholds[0] < thresholds[1] / 2
    assert thresholds[3] < 10 * thresholds[1]


def test_throughput_that_collapses_into_failures_is_no_excuse() -> None:
    lessons = learned(lambda: 6)
    assert threshold(lessons, tally(60, 0)) < 60
    # A loop that fails at once has many times the messages.
    assert threshold(lessons, tally(900, 0)) < 900


def test_slower_than_ever_halves_the_allowance() -> None:
    draw = Random(5)
    lessons = Lessons()
    for i in range(SAMPLES):
        at = (i - SAMPLES) * SPACING_S
        now = tally(12, 500, 20 * draw.uniform(0.7, 1.3))
        lessons.note(now, CLOSED, LEARNS, healthy=True, now=at)
    usual, noisy, slow = (
        bound(lessons.normal, tally(12, 500, ms), CLOSED, LEARNS, now=0.0) for ms in (20, 26, 200)
    )
    assert usual.threshold == noisy.threshold > slow.threshold
    assert "longer than ever" in slow.why


def test_half_open_is_measured_by_a_usual_interval() -> None:
    """The rule scales by the share itself; the few messages of now must not do it once more."""
    lessons = learned(lambda: 12, ok=1000)
    trickle = seen_in(State.HALF_OPEN, ratio=0.05)
    assert threshold(lessons, tally(0, 50), trickle) == threshold(lessons, tally(12, 1000))


@pytest.mark.parametrize("mean", [12.0, 30.0, 200.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_noise_does_not_trip_it_and_five_times_the_failures_do(mean: float, noise: float) -> None:
    draw = Random(f"{mean} {noise}")

    def failed(times: float = 1.0) -> int:
        return poisson(draw, times * mean * draw.uniform(1 - noise, 1 + noise))

    policy = replace(LEARNS, failure_threshold=10 * int(mean), auto=replace(AUTO, cap=10_000))
    lessons = learned(failed, ok=100 * mean, policy=policy)

    def trips(count: float) -> bool:
        now = tally(count, 100 * mean - count)
        return count >= bound(lessons.normal, now, CLOSED, policy, now=0).threshold

    assert not any(trips(failed()) for _ in range(2000))
    assert all(any(trips(failed(5.0)) for _ in range(3)) for _ in range(20))


# --- what is learned from --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "seen", "healthy"),
    [
        (tally(6), CLOSED, False),
        (tally(6), seen_in(State.OPEN), True),
        (tally(6), seen_in(State.HALF_OPEN), True),
        (tally(0, 0), CLOSED, True),
        (tally(20), CLOSED, True),
    ],
    ids=["unhealthy", "open", "half-open", "idle", "over the threshold, without a quorum"],
)
def test_trouble_is_no_lesson(now: Tally, seen: Seen, healthy: bool) -> None:
    assert not Lessons().note(now, seen, LEARNS, healthy=healthy, now=0.0)


def test_samples_are_spread_over_the_history() -> None:
    lessons = Lessons()
    took = sum(
        lessons.note(tally(6), CLOSED, LEARNS, healthy=True, now=5.0 * i) for i in range(1440)
    )
    assert took == 7200 / gap(AUTO, LEARNS) == 2 * SAMPLES
    assert normal_of(lessons).samples == SAMPLES


def test_a_bad_quarter_of_an_hour_does_not_move_it() -> None:
    """Thirty samples with twenty times the failures, each below the threshold of its time."""
    lessons = Lessons()
    policy = replace(LEARNS, failure_threshold=1000)
    counts = [2.0] * 90 + [40.0] * 30
    for i, failures in enumerate(counts):
        lessons.note(tally(failures), CLOSED, policy, healthy=True, now=i * SPACING_S)
    kept = lessons.kept(now=0.0, wall_at=WALL_AT)
    assert kept is not None
    mixed = summed_up([Sample(0, 500, f) for f in counts])
    assert mixed is not None
    assert mixed.share == pytest.approx(2 / 500)


def test_many_intervals_without_failures_do_not_hide_those_that_have_some() -> None:
    draw = Random(3)
    lessons = learned(lambda: poisson(draw, 0.3))
    assert normal_of(lessons).share * 500 == pytest.approx(0.3, rel=0.4)


def test_another_report_interval_begins_anew() -> None:
    lessons = learned(lambda: 6)
    slower = replace(LEARNS, report_interval_s=10.0)
    lessons.note(tally(6), CLOSED, slower, healthy=True, now=60.0)
    assert lessons.normal is None


# --- what outlives the evaluator -------------------------------------------------------------


def test_another_evaluator_goes_on_with_it() -> None:
    """Its clocks are others, and it is two minutes later."""
    before = learned(lambda: 6)
    kept = before.kept(now=0.0, wall_at=WALL_AT)
    assert kept is not None
    after = Lessons()
    after.recall(kept, LEARNS, now=5000.0, wall_at=WALL_AT + 120)
    normal = normal_of(after)
    assert normal.share == normal_of(before).share
    assert 5000.0 - normal.last == pytest.approx(120.0)
    assert bound(normal, tally(0), CLOSED, LEARNS, now=5000.0).evidence["normal_age"] == 120


def test_a_wall_clock_that_went_back_makes_it_no_younger_than_new() -> None:
    kept = learned(lambda: 6).kept(now=0.0, wall_at=WALL_AT)
    assert kept is not None
    lessons = Lessons()
    lessons.recall(kept, LEARNS, now=10.0, wall_at=WALL_AT - 3600)
    assert normal_of(lessons).last == 10.0


@pytest.mark.parametrize("later", [FORGOTTEN_S + 1, 10 * FORGOTTEN_S])
def test_what_is_too_old_is_forgotten(later: float) -> None:
    kept = learned(lambda: 6).kept(now=0.0, wall_at=WALL_AT)
    assert kept is not None
    lessons = Lessons()
    lessons.recall(kept, LEARNS, now=0.0, wall_at=WALL_AT + later)
    assert lessons.normal is None


def test_what_cannot_be_reckoned_with_is_left_out() -> None:
    odd = [Sample(0, 0, 0), Sample(0, 5, 6), Sample(0, 1e15, 1), Sample(-1, 5, 2)]
    assert usable(odd) == (Sample(-1, 5, 2),)
    assert len(usable([Sample(0, 5, 2)] * 500)) == SAMPLES
    lessons = Lessons()
    lessons.recall(Kept(WALL_AT, 5.0, usable(odd)), LEARNS, now=0.0, wall_at=WALL_AT)
    assert lessons.normal is None
