"""The signal `failures`, the quorum, and the verdict over all signals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.observe import Seen, observe
from sidecar.core.reports import Tally
from sidecar.core.signals import count, judge, quorum
from sidecar.core.types import Policy, Record, Scalar, State, Verdict
from tests.unit.core.kit import POLICY, WALL_AT


def seen_in(state: State, *, ratio: float = 0.05, known: Scalar = 4) -> Seen:
    record = Record(
        current_state=state,
        last_changed_at=WALL_AT,
        seq=3,
        epoch=1,
        automaton=state,
        reason="open_elapsed",
        detail="",
        evidence={"known": known, "index": 0},
        admit_ratio=ratio,
        automaton_ratio=ratio,
        policy="",
        evaluator="x",
    )
    return observe(None, record, 10, POLICY, now=0.0, wall_at=WALL_AT)


def tally(failures: float = 0, *, reporters: int = 4, successes: float = 100) -> Tally:
    return Tally(
        index=50,
        fresh=reporters,
        stale=0,
        reporters=reporters,
        failures=float(failures),
        successes=successes,
    )


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [(0, Verdict.HEALTHY), (19, Verdict.HEALTHY), (20, Verdict.UNHEALTHY), (25, Verdict.UNHEALTHY)],
)
def test_the_threshold_is_reached_not_passed(failures: int, verdict: Verdict) -> None:
    assert judge(tally(failures), seen_in(State.CLOSED), POLICY).verdict is verdict


def test_its_numbers_are_told() -> None:
    judgement = judge(tally(25), seen_in(State.CLOSED), POLICY)
    assert judgement.detail == "25 failures in the last interval, threshold 20"
    assert judgement.evidence == {"failures": 25, "threshold": 20, "reporters": 4}
    assert (judgement.reason, judgement.known, judgement.index) == ("failures", 4, 50)


def test_no_fresh_report_is_unknown() -> None:
    none = tally(reporters=0, successes=0)
    assert judge(none, seen_in(State.CLOSED), POLICY).verdict is Verdict.UNKNOWN


def test_reports_that_cannot_be_read_are_unknown() -> None:
    assert judge(None, seen_in(State.CLOSED), POLICY).verdict is Verdict.UNKNOWN


def test_a_judgement_says_who_is_known_and_how_far_was_read() -> None:
    judgement = judge(tally(99), seen_in(State.CLOSED), POLICY)
    assert (judgement.known, judgement.index) == (4, 50)


@pytest.mark.parametrize(
    ("failures", "successes", "ratio", "verdict"),
    [
        (1, 0, 0.05, Verdict.UNHEALTHY),  # max(1, 20 x 0.05) = 1, and it fails whole
        (1, 1, 0.05, Verdict.HEALTHY),  # it doesn't outnumber the successes
        (5, 4, 0.5, Verdict.HEALTHY),  # below 20 x 0.5
        (10, 9, 0.5, Verdict.UNHEALTHY),
        (10, 10, 0.5, Verdict.HEALTHY),
        (20, 10_000, 0.05, Verdict.UNHEALTHY),  # the plain threshold holds as well
    ],
)
def test_a_trickle_that_fails_whole_is_unhealthy(
    failures: int, successes: int, ratio: float, verdict: Verdict
) -> None:
    seen = seen_in(State.HALF_OPEN, ratio=ratio)
    assert judge(tally(failures, successes=successes), seen, POLICY).verdict is verdict


def test_a_trickle_says_nothing_while_closed() -> None:
    assert judge(tally(1, successes=0), seen_in(State.CLOSED), POLICY).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("known", "needed"),
    [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (100, 50), ("x", 1), (None, 1), (-8, 1)],
)
def test_half_of_the_reporters_known_at_the_trip(known: Scalar, needed: int) -> None:
    assert quorum(seen_in(State.HALF_OPEN, known=known)) == needed


def test_fewer_than_the_quorum_is_unknown_but_failures_still_count() -> None:
    seen = seen_in(State.HALF_OPEN, known=9)
    assert judge(tally(reporters=4), seen, POLICY).verdict is Verdict.UNKNOWN
    assert judge(tally(reporters=5), seen, POLICY).verdict is Verdict.HEALTHY
    assert judge(tally(25, reporters=1), seen, POLICY).verdict is Verdict.UNHEALTHY


def test_fractions_are_told_as_they_are() -> None:
    assert [count(n) for n in (3, 3.0, 2.5)] == ["3", "3", "2.50"]
    policy: Policy = replace(POLICY, failure_threshold=1)
    judgement = judge(tally(2.5), seen_in(State.CLOSED), policy)
    assert judgement.evidence["failures"] == 2.5
