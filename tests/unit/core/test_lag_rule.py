"""The signal `lag`: what a trip rests on, and that what is left of an outage makes no second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.backlog import LagBook, Reading
from sidecar.core.lag import ABSENT, NO_ANSWER
from sidecar.core.observe import Seen, observe
from sidecar.core.reports import Tally
from sidecar.core.signal_settings import Lag, SignalSettings
from sidecar.core.signals import Judgement, Memory, Signal, judge
from sidecar.core.types import Policy, Record, State, Verdict

LAG = Lag(window_s=60, floor=10)
QUIET = Tally(index=5, fresh=0, stale=0, reporters=0, failures=0.0, successes=0.0)


def policy(settings: Lag = LAG) -> Policy:
    return Policy(name="orders", topic="orders", group="g", signals=SignalSettings(lag=settings))


def seen(state: State = State.CLOSED, *, since: float = 0.0, ratio: float = 1.0) -> Seen:
    record = Record(
        current_state=state,
        last_changed_at=0.0,
        seq=3,
        epoch=1,
        automaton=state,
        reason="created",
        detail="",
        admit_ratio=ratio,
        automaton_ratio=ratio,
        policy="",
        evaluator="x",
    )
    return observe(None, record, 10, policy(), now=since, wall_at=0.0)


class Watched:
    """A flow that is read every five seconds and judged after each round."""

    def __init__(self, settings: Lag = LAG, *, partitions: int = 1) -> None:
        self.policy = policy(settings)
        self.book = LagBook(settings.window_s)
        self.seen = seen()
        self.memory = Memory()
        self.now = 0.0
        self.committed = [0] * partitions
        self.ends = [0] * partitions
        self.members = True

    def round(self, *, produced: int = 0, handled: int = 0, fault: str | None = None) -> Signal:
        """Five seconds: so much is written to each partition, so much of it handled."""
        self.now += 5.0
        for p, committed in enumerate(self.committed):
            self.ends[p] += produced
            self.committed[p] = min(committed + handled, self.ends[p])
        return self.look(fault)

    def look(self, fault: str | None = None) -> Signal:
        self.book.take(
            Reading(
                at=self.now,
                committed=list(self.committed),
                ends=list(self.ends),
                members=self.members,
                fault=fault,
            ),
            20,
        )
        return self.judged().signals[-1]

    def judged(self) -> Judgement:
        found = judge(QUIET, self.seen, self.policy, self.memory, lag=self.book, now=self.now)
        self.memory = found.memory
        return found

    def turned(self, state: State, ratio: float) -> None:
        """The breaker goes to another state."""
        self.seen = seen(state, since=self.now + 0.1, ratio=ratio)


def test_keeping_pace_is_healthy_and_says_how_far_behind() -> None:
    flow = Watched(partitions=2)
    said = [flow.round(produced=100, handled=100) for _ in range(15)][-1]
    assert (said.verdict, said.detail) == (Verdict.HEALTHY, "0 messages behind")
    assert said.evidence == {
        "lag": 0,
        "lag_s": 0.0,
        "max_messages": None,
        "max_seconds": None,
        "partitions": 2,
        "partition": "orders-0",
        "partition_lag": 0,
        "status": "ok",
        "ok": 2,
    }


def test_members_that_dont_move_are_stalled_after_a_window() -> None:
    flow = Watched()
    flow.round(produced=100, handled=100)
    verdicts = [flow.round(produced=100).verdict for _ in range(12)]
    assert verdicts[:8] == [Verdict.HEALTHY] * 8  # it had caught up in the window
    said = flow.round(produced=100)
    assert said.verdict is Verdict.UNHEALTHY
    assert said.detail == (
        "orders-0 (1300 messages) is stalled: the group has members and its offset doesn't move"
    )
    assert (said.evidence["lag"], said.evidence["status"]) == (1300, "stalled")


def test_a_group_without_members_is_stopped_and_heals() -> None:
    flow = Watched()
    flow.members = False
    flow.round(produced=100, handled=100)
    said = [flow.round(produced=100) for _ in range(14)][-1]
    assert (said.verdict, said.evidence["status"]) == (Verdict.UNHEALTHY, "stopped")
    assert flow.round(handled=5000).verdict is Verdict.HEALTHY


def test_a_rewind_counts_at_once_and_heals_when_it_is_made_good() -> None:
    flow = Watched()
    flow.round(produced=1000, handled=1000)
    flow.committed[0] = 200
    said = flow.round()
    assert (said.verdict, said.evidence["status"]) == (Verdict.UNHEALTHY, "rewound")
    assert said.evidence["partition_lag"] == 800
    assert flow.round(handled=795).verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (replace(LAG, max_messages=500), "500 messages behind, limit 500"),
        (replace(LAG, max_seconds=20.0), "the oldest message waits for 20 s, limit 20 s"),
    ],
)
def test_a_limit_counts_at_once(settings: Lag, said: str) -> None:
    flow = Watched(settings)
    flow.round(produced=100, handled=100)
    words = [flow.round(produced=200, handled=100) for _ in range(15)]
    first = next(word for word in words if word.verdict is Verdict.UNHEALTHY)
    assert first.detail == said


def test_what_is_left_of_an_outage_doesnt_trip_while_it_falls() -> None:
    flow = Watched(replace(LAG, max_messages=500))
    for _ in range(4):
        flow.round(produced=100, handled=100)
    said = [flow.round(produced=100) for _ in range(30)][-1]
    assert said.verdict is Verdict.UNHEALTHY
    flow.turned(State.HALF_OPEN, 0.05)
    assert flow.judged().signals[-1].verdict is Verdict.UNKNOWN  # nothing read since
    assert flow.round(handled=100).verdict is Verdict.UNKNOWN
    falling = [flow.round(produced=5, handled=100) for _ in range(20)]
    assert {word.verdict for word in falling} == {Verdict.HEALTHY}
    assert falling[3].detail == "2520 messages behind, limit 500, but falling"
    flow.turned(State.CLOSED, 1.0)
    flow.round(produced=50, handled=100)
    closed = [flow.round(produced=50, handled=100) for _ in range(10)]
    assert {word.verdict for word in closed} == {Verdict.HEALTHY}


def test_left_over_lag_that_doesnt_fall_trips_again() -> None:
    flow = Watched(replace(LAG, max_messages=500))
    for _ in range(40):
        flow.round(produced=100)
    flow.turned(State.HALF_OPEN, 0.05)
    words = [flow.round(produced=100, handled=100) for _ in range(4)]
    assert [word.verdict for word in words[:3]] == [Verdict.UNKNOWN] * 3
    assert (words[3].verdict, words[3].detail) == (
        Verdict.UNHEALTHY,
        "4000 messages behind, limit 500, and not falling",
    )


def test_once_below_the_limit_nothing_is_left_over() -> None:
    flow = Watched(replace(LAG, max_messages=500))
    for _ in range(10):
        flow.round(produced=100)
    flow.turned(State.CLOSED, 1.0)
    flow.round(handled=600)
    assert flow.round(handled=200).detail == "200 messages behind"
    assert flow.round(produced=400).verdict is Verdict.UNHEALTHY


def test_a_group_that_still_stands_while_half_open_is_seen_within_half_the_ramp() -> None:
    flow = Watched()
    for _ in range(20):
        flow.round(produced=100)
    flow.turned(State.HALF_OPEN, 0.05)
    words = [flow.round(produced=5) for _ in range(4)]
    assert [word.verdict for word in words] == [Verdict.UNKNOWN] * 3 + [Verdict.UNHEALTHY]


def test_a_new_evaluator_finds_old_lag_left_over() -> None:
    flow = Watched(replace(LAG, max_messages=500))
    flow.ends = [9000]
    assert flow.look().verdict is Verdict.UNKNOWN
    assert flow.round(produced=50, handled=100).verdict is Verdict.HEALTHY


def test_no_answer_is_unknown_with_its_reason() -> None:
    flow = Watched()
    flow.round(produced=100, handled=100)
    said = flow.round(fault="no answer within 5 s")
    assert (said.verdict, said.detail, said.evidence) == (
        Verdict.UNKNOWN,
        "no answer within 5 s",
        {},
    )


def test_a_reader_that_says_nothing_more_is_unknown() -> None:
    flow = Watched()
    flow.round(produced=100, handled=100)
    flow.now += 60
    word = flow.judged().signals[-1]
    assert (word.verdict, word.detail) == (Verdict.UNKNOWN, "Kafka has not answered for too long")


def test_before_the_first_round_it_is_unknown() -> None:
    found = judge(QUIET, seen(), policy(), now=1.0)
    assert found.signals[-1].detail == "Kafka has not been asked yet"
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("committed", "detail"),
    [
        ([ABSENT, ABSENT], "the group has no commits"),
        ([NO_ANSWER, 100], "orders-0 has no answer from Kafka"),
        ([100, 500], "orders-1 has an offset past its end: the topic was made anew"),
    ],
)
def test_what_isnt_known_is_no_health(committed: list[int], detail: str) -> None:
    flow = Watched(partitions=2)
    flow.committed, flow.ends = committed, [100, 100]
    said = flow.look()
    assert (said.verdict, said.detail) == (Verdict.UNKNOWN, detail)


def test_a_quorum_counts_partitions() -> None:
    flow = Watched(replace(LAG, quorum=2), partitions=3)
    for i in range(20):
        flow.now += 5
        flow.ends = [100 * i] * 3
        flow.committed = [0, 100 * i, 100 * i]
        flow.look()
    said = flow.look()
    assert said.verdict is Verdict.HEALTHY
    assert said.detail.endswith("; 1 of the 2 partitions needed show it")


def test_it_must_last() -> None:
    flow = Watched(replace(LAG, for_s=12.0, max_messages=500))
    flow.round(produced=100, handled=100)
    words = [flow.round(produced=1000) for _ in range(4)]
    assert [word.verdict for word in words] == [Verdict.UNKNOWN] * 3 + [Verdict.UNHEALTHY]
