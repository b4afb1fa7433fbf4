"""Each signal's rule over reports that say what it looks for, and hold and quorum over all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sidecar.core.reports import Item, Reports
from sidecar.core.signal_settings import (
    Delivery,
    FailureRatio,
    Hold,
    Missing,
    SignalSettings,
    Slow,
    Stalled,
)
from sidecar.core.signals import Judgement, Memory, Signal, judge
from sidecar.core.types import BadReport, Policy, Report, State, Verdict
from tests.unit.core.kit import WALL_AT, Story

HEALTHY, UNHEALTHY, UNKNOWN = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN


class Fleet:
    """Reporters of one breaker, judged at any time. Reports are of 5 s each."""

    def __init__(self, **signals: Hold) -> None:
        self.policy = Policy(
            name="default",
            fingerprint="p",
            signals=SignalSettings(**signals),  # type: ignore[arg-type]
        )
        self.now = 1000.0
        self.index = 10
        self.story = Story(self.policy)
        self.memory = Memory()
        self._said: dict[bytes, Report] = {}
        self._items: dict[str, Item] = {}
        self._reports = Reports(self._parse)
        self.watches()

    def watches(self, since_s: float = 60.0) -> None:
        """An evaluator that has been reading the reports for so long."""
        self._reports = Reports(self._parse)
        began = self.now - since_s
        self._reports.update((), 0, self.policy, now=began, wall_at=WALL_AT)

    def _parse(self, value: bytes) -> Report | BadReport:
        return self._said[value]

    def says(self, who: str, *, ok: float = 0, fail: float = 0, **more: object) -> None:
        """A report whose value is new."""
        self.index += 1
        value = f"{who} {self.index}".encode()
        said = {"timestamp_at": WALL_AT, "rate_ok": ok / 5, "count_fail": fail, "interval_s": 5.0}
        self._said[value] = Report(**{**said, **more})  # type: ignore[arg-type]
        self._items[who] = Item(who, value, self.index)
        self._list()

    def leaves(self, who: str) -> None:
        """A goodbye: the key is gone."""
        self.index += 1
        del self._items[who]
        self._list()

    def _list(self) -> None:
        self._reports.update(
            self._items.values(), self.index, self.policy, now=self.now, wall_at=WALL_AT
        )

    def judged(self, state: State = State.CLOSED, ratio: float = 1.0) -> Judgement:
        """The verdict now, in a state whose record rests on nothing."""
        seen = self.story.a.seen
        assert seen.own is not None
        own = replace(seen.own, automaton=state, automaton_ratio=ratio, evidence={"known": 0})
        seen = replace(seen, own=own, since=0.0, floor_index=0)
        tally = self._reports.tally(0, self.policy, now=self.now)
        judgement = judge(tally, seen, self.policy, self.memory, now=self.now)
        self.memory = judgement.memory
        return judgement

    def signal(self, name: str, state: State = State.CLOSED, ratio: float = 1.0) -> Signal:
        """One signal's word now."""
        (word,) = [s for s in self.judged(state, ratio).signals if s.name == name]
        return word


# --- failure_ratio ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ok", "fail", "verdict"),
    [
        (19, 0, UNKNOWN),
        (20, 0, HEALTHY),
        (51, 49, HEALTHY),
        (50, 50, UNHEALTHY),
        (0, 20, UNHEALTHY),
    ],
)
def test_a_ratio_is_reached_not_passed_and_needs_enough(
    ok: int, fail: int, verdict: Verdict
) -> None:
    fleet = Fleet(failure_ratio=FailureRatio())
    fleet.says("c-1", ok=ok, fail=fail)
    assert fleet.signal("failure_ratio").verdict is verdict


def test_the_window_adds_intervals_up_and_forgets_them() -> None:
    fleet = Fleet(failure_ratio=FailureRatio(window_s=30.0))
    for _ in range(6):
        fleet.says("c-1", ok=5, fail=5)
        fleet.now += 5
    word = fleet.signal("failure_ratio")
    assert word.verdict is UNHEALTHY
    assert (word.evidence["failed"], word.evidence["messages"]) == (25, 50)
    for _ in range(6):
        fleet.says("c-1", ok=100)
        fleet.now += 5
    assert fleet.signal("failure_ratio").evidence["failed"] == 0


def test_running_sums_are_counted_once() -> None:
    """A store in this process is told of every post, as the sum of its writer's window so far."""
    fleet = Fleet(failure_ratio=FailureRatio(window_s=30.0))
    for window in (1.0, 2.0):
        for fail in (3, 6, 9):
            fleet.says("c-1", ok=fail, fail=fail, window=window)
            fleet.says("c-2", ok=5)
            fleet.now += 1
    word = fleet.signal("failure_ratio")
    assert (word.evidence["failed"], word.evidence["messages"]) == (18, 66)


def test_ten_thousand_running_sums_take_no_longer_than_as_many_reports() -> None:
    """Measured 0.1 s; looking for each one's predecessor among all took 8 s."""
    fleet = Fleet(failure_ratio=FailureRatio())
    for turn in range(2):
        for who in range(10_000):
            value = f"{who} {turn}".encode()
            fleet._said[value] = Report(
                timestamp_at=WALL_AT, rate_ok=1.0, count_fail=turn, interval_s=5.0, window=1.0
            )
            fleet._items[f"c-{who}"] = Item(f"c-{who}", value, fleet.index + turn)
        began = time.process_time()
        fleet._list()
        assert time.process_time() - began < 4
    assert fleet.signal("failure_ratio").evidence["failed"] == 10_000


def test_while_half_open_the_minimum_is_scaled() -> None:
    """A twentieth of the traffic can't bring as many messages as all of it."""
    fleet = Fleet(failure_ratio=FailureRatio(minimum=100))
    fleet.says("c-1", ok=5)
    assert fleet.signal("failure_ratio").verdict is UNKNOWN
    assert fleet.signal("failure_ratio", State.HALF_OPEN, 0.05).verdict is HEALTHY


def test_what_came_before_the_last_transition_is_spent() -> None:
    fleet = Fleet(failure_ratio=FailureRatio())
    fleet.says("c-1", fail=50)
    tally = fleet._reports.tally(fleet.index, fleet.policy, now=fleet.now)
    seen = replace(fleet.story.a.seen, floor_index=fleet.index)
    judgement = judge(tally, seen, fleet.policy, now=fleet.now)
    assert {s.name: s.verdict for s in judgement.signals}["failure_ratio"] is UNKNOWN


# --- slow ------------------------------------------------------------------------------------


def test_latency_is_weighted_by_what_was_handled() -> None:
    fleet = Fleet(slow=Slow(max_latency_s=0.5))
    fleet.says("c-1", ok=90, latency_ms=100.0)
    fleet.says("c-2", ok=10, latency_ms=4000.0)
    word = fleet.signal("slow")
    assert word.verdict is HEALTHY
    assert word.evidence["latency"] == pytest.approx(0.49)
    fleet.says("c-2", ok=10, latency_ms=4100.0)
    assert fleet.signal("slow").verdict is UNHEALTHY


def test_nobody_who_says_how_long_is_unknown() -> None:
    fleet = Fleet(slow=Slow(max_latency_s=0.5))
    fleet.says("c-1", ok=90)
    assert fleet.signal("slow").verdict is UNKNOWN
    fleet.says("p-1", ok=90, latency_ms=900.0, role="producer")
    assert fleet.signal("slow").verdict is UNKNOWN


# --- stalled ---------------------------------------------------------------------------------

WORK: list[Mapping[str, object]] = [{"lag": 5.0}, {"in_flight": 1.0}]


@pytest.mark.parametrize("work", WORK)
def test_nothing_handled_though_there_is_work(work: Mapping[str, object]) -> None:
    fleet = Fleet(stalled=Stalled(after_s=12.0))
    verdicts = []
    for _ in range(4):
        fleet.says("c-1", **work)  # type: ignore[arg-type]
        verdicts.append(fleet.signal("stalled").verdict)
        fleet.now += 5
    assert verdicts == [UNKNOWN, UNKNOWN, UNKNOWN, UNHEALTHY]
    fleet.says("c-1", ok=1, **work)  # type: ignore[arg-type]
    assert fleet.signal("stalled").verdict is HEALTHY
    fleet.says("c-1", **work)  # type: ignore[arg-type]
    assert fleet.signal("stalled").verdict is UNKNOWN, "it counts from here again"


def test_without_work_no_throughput_is_no_trouble() -> None:
    fleet = Fleet(stalled=Stalled(after_s=1.0))
    for _ in range(5):
        fleet.says("c-1", lag=0.0, in_flight=0.0)
        assert fleet.signal("stalled").verdict is UNKNOWN
        fleet.now += 5


def test_one_who_works_is_enough() -> None:
    fleet = Fleet(stalled=Stalled(after_s=1.0))
    for _ in range(3):
        fleet.says("c-1", lag=1000.0)
        fleet.says("c-2", ok=1)
        assert fleet.signal("stalled").verdict is HEALTHY
        fleet.now += 5


def test_a_fleet_that_hangs_reports_nothing() -> None:
    """Only `always_busy` can tell that from a quiet night; never before anybody has reported."""
    busy, quiet = (Fleet(stalled=Stalled(after_s=10.0, always_busy=b)) for b in (True, False))
    assert busy.signal("stalled").verdict is UNKNOWN
    for fleet in (busy, quiet):
        fleet.says("c-1", ok=50)
        assert fleet.signal("stalled").verdict is HEALTHY
        fleet.now += 16
        assert fleet.signal("stalled").verdict is UNKNOWN
        fleet.now += 11
    assert busy.signal("stalled").verdict is UNHEALTHY
    assert quiet.signal("stalled").verdict is UNKNOWN


def test_while_open_the_clock_does_not_run_on() -> None:
    """That nothing was handled while everything was rejected is no news."""
    fleet = Fleet(stalled=Stalled(after_s=10.0))
    fleet.says("c-1", lag=5.0)
    fleet.signal("stalled")
    fleet.now += 60
    fleet.says("c-1", lag=5.0)
    seen = replace(fleet.story.a.seen, since=fleet.now - 3)
    tally = fleet._reports.tally(0, fleet.policy, now=fleet.now)
    judgement = judge(tally, seen, fleet.policy, fleet.memory, now=fleet.now)
    (word,) = [s for s in judgement.signals if s.name == "stalled"]
    assert word.evidence["stalled_for"] == 3.0


def test_a_stall_is_seen_before_the_ramp_is_walked() -> None:
    """Reports without failures look healthy to `failures`: nothing handled must not close it."""
    fleet = Fleet(stalled=Stalled(after_s=600.0))
    fleet.says("c-1", lag=5.0)
    assert fleet.judged(State.HALF_OPEN, 0.05).due == fleet.now + fleet.policy.ramp_s / 2
    fleet.now += fleet.policy.ramp_s / 2 - 1
    fleet.says("c-1", lag=5.0)
    assert fleet.signal("stalled", State.HALF_OPEN, 0.3).verdict is UNKNOWN
    fleet.now += 1
    assert fleet.judged(State.HALF_OPEN, 0.3).verdict is UNHEALTHY
    assert fleet.signal("stalled").verdict is UNKNOWN, "closed, it takes as long as is configured"


def test_without_a_ramp_a_stall_takes_a_report_at_least() -> None:
    fleet = Fleet(stalled=Stalled())
    fleet.policy = replace(fleet.policy, ramp_s=0.0)
    fleet.says("c-1", lag=5.0)
    assert fleet.signal("stalled", State.HALF_OPEN, 0.05).verdict is UNKNOWN


def test_while_it_is_forced_open_nothing_is_expected_to_be_handled() -> None:
    """Or it would open underneath, and stay open after its release."""
    fleet = Fleet(stalled=Stalled(after_s=10.0, always_busy=True))
    for sealed, verdict in ((True, UNKNOWN), (True, UNKNOWN), (False, UNKNOWN), (False, UNHEALTHY)):
        fleet.says("c-1")
        tally = fleet._reports.tally(0, fleet.policy, now=fleet.now)
        judgement = judge(
            tally, fleet.story.a.seen, fleet.policy, fleet.memory, now=fleet.now, sealed=sealed
        )
        fleet.memory = judgement.memory
        assert {s.name: s.verdict for s in judgement.signals}["stalled"] is verdict
        fleet.now += 10


def test_one_consumer_that_hangs_alone_can_be_too_few() -> None:
    fleet = Fleet(stalled=Stalled(after_s=10.0, quorum=2))
    verdicts = []
    for others_lag in (0.0, 0.0, 7.0):
        fleet.says("c-1", lag=5.0)
        fleet.says("c-2", lag=others_lag)
        word = fleet.signal("stalled")
        verdicts.append(word.verdict)
        fleet.now += 12
    assert verdicts == [UNKNOWN, UNKNOWN, UNHEALTHY]


# --- missing ---------------------------------------------------------------------------------


def test_one_consumer_that_is_gone_alone_can_be_too_few() -> None:
    short = Fleet(missing=Missing(min_consumers=3, quorum=2))
    silent = Fleet(missing=Missing(ratio=0.1, quorum=2))
    for fleet in (short, silent):
        for who in ("c-1", "c-2", "c-3"):
            fleet.says(who)
        assert fleet.signal("missing").verdict is HEALTHY
        fleet.now += 16
        fleet.says("c-1")
        fleet.says("c-2")
        word = fleet.signal("missing")
        assert word.verdict is HEALTHY, "those that are there have the word"
        assert "1 of the 2 absent consumers needed" in word.detail
        fleet.now += 16
        fleet.says("c-1")
        assert fleet.signal("missing").verdict is UNHEALTHY


def test_fewer_than_there_must_be() -> None:
    fleet = Fleet(missing=Missing(min_consumers=2))
    assert fleet.signal("missing").verdict is UNKNOWN, "none was ever seen"
    fleet.says("c-1")
    assert fleet.signal("missing").verdict is UNHEALTHY
    fleet.says("c-2")
    assert fleet.signal("missing").verdict is HEALTHY
    fleet.says("p-1", role="producer")
    fleet.leaves("c-2")
    assert fleet.signal("missing").verdict is UNHEALTHY, "a producer is no consumer"


def test_nobody_is_missed_before_all_had_their_time_to_report() -> None:
    """Those with a clock that is behind look stale to a new evaluator, until they report again."""
    fleet = Fleet(missing=Missing(min_consumers=2))
    fleet.watches(0.0)
    fleet.says("c-1")
    fleet.now += 14
    fleet.says("c-1")
    word = fleet.signal("missing")
    assert word.verdict is UNKNOWN
    assert "watched for 14 s only" in word.detail
    fleet.now += 1
    assert fleet.signal("missing").verdict is UNHEALTHY


def test_who_went_silent_without_a_goodbye() -> None:
    fleet = Fleet(missing=Missing(ratio=0.5, window_s=60.0))
    for who in ("c-1", "c-2", "c-3", "c-4"):
        fleet.says(who)
    fleet.leaves("c-4")
    assert fleet.signal("missing").verdict is HEALTHY, "a goodbye is none"
    fleet.now += 10
    fleet.says("c-1")
    fleet.now += 5
    word = fleet.signal("missing")
    assert word.verdict is UNHEALTHY
    assert (word.evidence["fresh"], word.evidence["silent"]) == (1, 2)
    for _ in range(6):
        fleet.now += 10
        fleet.says("c-1")
    assert fleet.signal("missing").verdict is HEALTHY, "they aren't missed any more"


@pytest.mark.parametrize(("ago_s", "silent"), [(0.0, 0), (20.0, 2), (70.0, 2), (80.0, 0)])
def test_a_new_evaluator_does_not_miss_the_long_dead(ago_s: float, silent: int) -> None:
    """Their keys stay for an hour. How long they are gone by then, only they themselves say."""
    fleet = Fleet(missing=Missing(ratio=0.5, window_s=60.0))
    for who in ("c-1", "c-2"):
        fleet.says(who, timestamp_at=WALL_AT - ago_s)
    fleet.says("c-3")
    word = fleet.signal("missing")
    assert (word.evidence["silent"], word.evidence["fresh"]) == (silent, 1 if ago_s else 3)
    assert word.verdict is (UNHEALTHY if silent else HEALTHY)


# --- delivery --------------------------------------------------------------------------------


def test_producers_deliveries() -> None:
    fleet = Fleet(delivery=Delivery(ratio=0.2, minimum=50, max_outstanding=500))
    fleet.says("c-1", fail=19)
    assert fleet.signal("delivery").verdict is UNKNOWN
    fleet.says("p-1", ok=45, fail=5, role="producer")
    assert fleet.signal("delivery").verdict is HEALTHY
    fleet.says("p-2", ok=30, fail=20, role="producer")
    word = fleet.signal("delivery")
    assert word.verdict is UNHEALTHY
    assert (word.evidence["errored"], word.evidence["messages"]) == (25, 100)
    assert fleet.signal("failures").evidence["failures"] == 19, "a producer is no consumer"


def test_too_much_outstanding_needs_no_delivery() -> None:
    fleet = Fleet(delivery=Delivery(max_outstanding=500))
    fleet.says("p-1", in_flight=300.0, role="producer")
    assert fleet.signal("delivery").verdict is UNKNOWN
    fleet.says("p-2", in_flight=200.0, role="producer")
    assert fleet.signal("delivery").verdict is UNHEALTHY


def test_a_message_on_its_way_is_no_fault_of_its_producer() -> None:
    """All producers have some; one that fails alone stays alone, and can't stop the fleet."""
    fleet = Fleet(delivery=Delivery(minimum=10, ratio=0.2, max_outstanding=100, quorum=2))
    for who in ("p-1", "p-2", "p-3"):
        fleet.says(who, ok=30, in_flight=5.0, role="producer")
    fleet.says("p-4", fail=60, in_flight=5.0, role="producer")
    word = fleet.signal("delivery")
    assert (word.verdict, word.evidence["showing"]) == (HEALTHY, 1)


# --- hold and quorum -------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[..., Hold], Callable[[Fleet, str], None]]] = {
    "failures": (Hold, lambda fleet, who: fleet.says(who, fail=25)),
    "failure_ratio": (FailureRatio, lambda fleet, who: fleet.says(who, fail=25)),
    "slow": (
        lambda **hold: Slow(max_latency_s=0.1, **hold),
        lambda fleet, who: fleet.says(who, ok=1, latency_ms=200.0),
    ),
    "delivery": (Delivery, lambda fleet, who: fleet.says(who, fail=25, role="producer")),
}


@pytest.mark.parametrize("name", BAD)
def test_one_instance_alone_cannot_stop_a_fleet(name: str) -> None:
    kind, bad = BAD[name]
    fleet = Fleet(**{name: kind(quorum=2)})
    bad(fleet, "c-1")
    word = fleet.signal(name)
    assert word.verdict is UNKNOWN
    assert (word.evidence["showing"], word.evidence["quorum"]) == (1, 2)
    bad(fleet, "c-2")
    assert fleet.signal(name).verdict is UNHEALTHY


GOOD: dict[str, Callable[[Fleet, str], None]] = {
    "failures": lambda fleet, who: fleet.says(who, ok=50),
    "failure_ratio": lambda fleet, who: fleet.says(who, ok=10),
    "slow": lambda fleet, who: fleet.says(who, ok=1, latency_ms=10.0),
    "delivery": lambda fleet, who: fleet.says(who, ok=10, role="producer"),
}


@pytest.mark.parametrize("name", BAD)
def test_where_too_few_show_it_the_others_have_the_word(name: str) -> None:
    """Or one bad instance would keep a breaker half open for ever."""
    kind, bad = BAD[name]
    fleet = Fleet(**{name: kind(quorum=2)})
    bad(fleet, "c-1")
    assert fleet.signal(name, State.HALF_OPEN, 1.0).verdict is UNKNOWN, "there are no others"
    GOOD[name](fleet, "c-2")
    word = fleet.signal(name, State.HALF_OPEN, 1.0)
    assert word.verdict is HEALTHY
    assert "1 of the 2 reporters" in word.detail


@pytest.mark.parametrize("name", BAD)
def test_it_must_have_lasted(name: str) -> None:
    kind, bad = BAD[name]
    fleet = Fleet(**{name: kind(for_s=10.0)})
    verdicts = []
    for _ in range(4):
        bad(fleet, "c-1")
        judgement = fleet.judged()
        verdicts.append({s.name: s.verdict for s in judgement.signals}[name])
        if verdicts[-1] is UNKNOWN:
            assert judgement.due == 1010.0
        fleet.now += 5
    assert verdicts == [UNKNOWN, UNKNOWN, UNHEALTHY, UNHEALTHY]


def test_a_break_begins_anew() -> None:
    fleet = Fleet(failures=Hold(for_s=10.0))
    for fail in (25, 25, 0, 25):
        fleet.says("c-1", fail=fail)
        assert fleet.signal("failures").verdict is not UNHEALTHY
        fleet.now += 5
    fleet.says("c-1", fail=25)
    assert fleet.signal("failures").verdict is UNKNOWN


def test_while_half_open_it_counts_at_once() -> None:
    fleet = Fleet(failures=Hold(for_s=10.0))
    fleet.says("c-1", fail=25)
    assert fleet.signal("failures", State.HALF_OPEN, 0.05).verdict is UNHEALTHY


def test_any_unhealthy_signal_decides_then_any_healthy_one() -> None:
    fleet = Fleet(slow=Slow(max_latency_s=0.1), missing=Missing(min_consumers=2))
    assert fleet.judged().verdict is UNKNOWN
    fleet.says("c-1", ok=50)
    fleet.says("c-2", ok=50)
    judgement = fleet.judged()
    assert (judgement.verdict, judgement.reason) == (HEALTHY, "failures")
    fleet.says("c-2", ok=50, latency_ms=5000.0)
    judgement = fleet.judged()
    assert (judgement.verdict, judgement.reason) == (UNHEALTHY, "slow")
    assert "ms" in judgement.detail
