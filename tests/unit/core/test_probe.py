"""What canaries say of Kafka: failures in a row, lateness, and when they say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.observe import Seen, observe
from sidecar.core.probe import Canary, ProbeBook, Round, probe
from sidecar.core.reports import Tally
from sidecar.core.rules import Signal
from sidecar.core.signal_settings import Probe, SignalSettings
from sidecar.core.signals import judge
from sidecar.core.types import State, Verdict
from tests.unit.core.kit import POLICY, WALL_AT
from tests.unit.core.test_decision import record

SETTINGS = Probe(failures=3, interval_s=10.0)
ALL = (1, 2, 3)


def seen(state: State = State.CLOSED, now: float = 0.0) -> Seen:
    """As seen at 0."""
    return observe(None, record(state), 9, POLICY, now=now, wall_at=WALL_AT)


def back(*brokers: int, latency_s: float = 0.01) -> list[Canary]:
    return [Canary(broker=broker, latency_s=latency_s) for broker in brokers]


def lost(broker: int, fault: str = "no answer within 5 s", *, denied: bool = False) -> Canary:
    return Canary(broker=broker, fault=fault, denied=denied)


class Story:
    """Rounds, ten seconds apart."""

    def __init__(self, settings: Probe = SETTINGS) -> None:
        self.settings = settings
        self.book = ProbeBook()
        self.now = 0.0

    def round(self, *canaries: Canary, fault: str | None = None) -> Story:
        self.now += 10.0
        done = Round(at=self.now, canaries=canaries, fault=fault)
        self.book.take(done, self.settings.interval_s)
        return self

    def word(self, state: State = State.CLOSED, *, since: float = 0.0) -> Signal:
        return probe(self.book, seen(state, since), self.settings, now=self.now)


def test_all_back_is_healthy_with_the_slowest() -> None:
    word = Story().round(*back(1, 2), Canary(broker=3, latency_s=0.03)).word()
    assert word.verdict is Verdict.HEALTHY
    assert word.detail == "canaries came back through 3 brokers, the slowest in 30.0 ms"
    assert (word.evidence["brokers"], word.evidence["latency"]) == (3, 0.03)


def test_failures_in_a_row_through_one_broker_are_unhealthy_and_name_it() -> None:
    story = Story().round(*back(*ALL))
    for times in (1, 2):
        word = story.round(*back(1, 3), lost(2)).word()
        assert word.verdict is Verdict.UNKNOWN
        assert word.evidence["failed_in_row"] == times
    word = story.round(*back(1, 3), lost(2)).word()
    assert word.verdict is Verdict.UNHEALTHY
    assert word.detail == (
        "broker 2 failed 3 times in a row (no answer within 5 s); 3 brokers are probed"
    )
    assert word.evidence["failing_brokers"] == "2"
    assert (word.showing, word.fine) == (1, 2)
    assert story.round(*back(*ALL)).word().verdict is Verdict.HEALTHY


def test_one_back_begins_the_row_anew() -> None:
    story = Story()
    for _ in range(4):
        story.round(*back(1, 3), lost(2)).round(*back(1, 3), lost(2)).round(*back(*ALL))
        assert story.word().verdict is Verdict.HEALTHY


def test_rows_of_different_brokers_are_not_added_up() -> None:
    story = Story().round(*back(*ALL)).round(*back(1, 2), lost(3)).round(*back(2, 3), lost(1))
    assert story.word().evidence["failed_in_row"] == 1
    assert story.round(*back(1, 3), lost(2)).word().verdict is Verdict.UNKNOWN


def test_late_is_unhealthy_at_once() -> None:
    story = Story(replace(SETTINGS, max_latency_s=0.5))
    assert story.round(*back(*ALL, latency_s=0.5)).word().verdict is Verdict.HEALTHY
    word = story.round(*back(1, 2), Canary(broker=3, latency_s=0.8)).word()
    assert word.verdict is Verdict.UNHEALTHY
    assert word.detail == "a canary is read back late, at most 500.0 ms: broker 3: 800.0 ms"
    assert word.evidence["slow_brokers"] == "3"


def test_until_one_has_come_back_nothing_is_known() -> None:
    """A probe that isn't set up looks like a Kafka that is down."""
    assert probe(None, seen(), SETTINGS, now=0.0).verdict is Verdict.UNKNOWN
    story = Story()
    assert story.word().detail == "no canary has been sent yet"
    for _ in range(5):
        story.round(*(lost(broker) for broker in ALL))
    word = story.word()
    assert word.verdict is Verdict.UNKNOWN
    assert word.detail == "no canary has ever come back: no answer within 5 s"
    # One that comes back shows that it is set up: what has failed so far is the broker's fault.
    assert story.round(*back(1, 3), lost(2)).word().verdict is Verdict.UNHEALTHY


def test_no_right_is_not_ill_health() -> None:
    story = Story().round(*back(*ALL))
    for _ in range(5):
        story.round(*back(1, 2), lost(3, "TopicAuthorizationFailed", denied=True))
    word = story.word()
    assert word.verdict is Verdict.UNKNOWN
    assert "broker 3: TopicAuthorizationFailed" in word.detail
    assert word.evidence["failed_in_row"] == 0


def test_a_round_that_could_not_be_sent_says_why_and_old_ones_say_nothing() -> None:
    story = Story().round(*back(*ALL)).round(fault="the topic x does not exist")
    assert (story.word().verdict, story.word().detail) == (
        Verdict.UNKNOWN,
        "the topic x does not exist",
    )
    story.round(*back(*ALL))
    story.now += 30.1
    assert story.word().detail == "the last canary was 30 s ago"


def test_a_broker_that_is_not_probed_any_more_is_forgotten() -> None:
    story = Story().round(*back(*ALL))
    for _ in range(3):
        story.round(*back(1, 2), lost(3))
    assert story.word().verdict is Verdict.UNHEALTHY
    word = story.round(*back(1, 2)).word()
    assert (word.verdict, word.evidence["brokers"]) == (Verdict.HEALTHY, 2)


def test_half_open_asks_for_a_canary_from_after_its_beginning() -> None:
    story = Story().round(*back(*ALL))
    assert story.word(State.HALF_OPEN, since=10.0).verdict is Verdict.UNKNOWN
    assert story.round(*back(*ALL)).word(State.HALF_OPEN, since=10.0).verdict is Verdict.HEALTHY
    for _ in range(3):
        story.round(*back(1, 2), lost(3))
    assert story.word(State.HALF_OPEN, since=story.now).verdict is Verdict.UNKNOWN
    word = story.round(*back(1, 2), lost(3)).word(State.HALF_OPEN, since=story.now - 10.0)
    assert word.verdict is Verdict.UNHEALTHY


@pytest.mark.parametrize(
    ("quorum", "failing", "verdict"),
    [
        (1, (2,), Verdict.UNHEALTHY),
        (2, (2,), Verdict.HEALTHY),
        (2, (2, 3), Verdict.UNHEALTHY),
    ],
)
def test_its_quorum_counts_brokers(quorum: int, failing: tuple[int, ...], verdict: Verdict) -> None:
    settings = replace(SETTINGS, failures=1, quorum=quorum)
    story = Story(settings).round(*back(*ALL))
    story.round(*back(*(set(ALL) - set(failing))), *(lost(broker) for broker in failing))
    policy = replace(POLICY, signals=SignalSettings(probe=settings))
    nobody = Tally(index=1, fresh=0, stale=0, reporters=0, failures=0, successes=0)
    judgement = judge(nobody, seen(), policy, probe=story.book, now=story.now)
    assert judgement.verdict is verdict
    assert judgement.reason == "probe"
    if verdict is Verdict.HEALTHY:
        assert "of the 2 brokers needed show it" in judgement.detail
