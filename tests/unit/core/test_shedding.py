"""`shed`: the wait it is steered by, the law, its steps, and who goes on with them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from sidecar.core.backlog import LagBook, Reading
from sidecar.core.lag import Backlog
from sidecar.core.override import Mode, placed
from sidecar.core.reports import Tally
from sidecar.core.shedding import DEADBAND, STEP, Wait, aim, gap, next_share, waiting
from sidecar.core.signal_settings import Lag, Shed, SignalSettings
from sidecar.core.signals import judge
from sidecar.core.types import Report, State
from tests.unit.core.kit import POLICY, WALL_AT, Story

SHED = Shed(start_s=10.0, full_s=60.0, least=0.05, minimum=100)
SHEDS = replace(POLICY, shed=SHED)


def tally(*reports: Report) -> Tally:
    counting = tuple((f"c-{i}", report) for i, report in enumerate(reports))
    return Tally(
        index=1,
        fresh=len(reports),
        stale=0,
        reporters=len(reports),
        failures=0,
        successes=0,
        counting=counting,
    )


def says(rate: float, lag: float | None = None, role: str | None = None) -> Report:
    return Report(timestamp_at=WALL_AT, rate_ok=rate, count_fail=0, lag=lag, role=role)


# --- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backlog", "reports", "seconds"),
    [
        (None, [says(50, 1000), says(50, 500)], 15.0),
        (None, [says(50, 1000), says(50)], 10.0),
        (None, [says(50), says(50)], None),
        (None, [], None),
        (None, [says(0, 1000)], math.inf),
        (None, [says(0, 99)], 0.0),
        (None, [says(10, 99)], 0.0),
        (None, [says(50, 1000), says(900, 5000, "producer")], 20.0),
        (Backlog(3000.0, 99.0), [says(50, 10), says(50, 10)], 30.0),
        (Backlog(3000.0, 99.0), [], 99.0),
        (Backlog(3000.0, None), [], None),
        (Backlog(3000.0, 42.0), [says(0)], 42.0),
        (Backlog(99.0, 42.0), [], 0.0),
    ],
)
def test_the_wait_is_what_is_behind_by_what_is_handled(
    backlog: Backlog | None, reports: list[Report], seconds: float | None
) -> None:
    """Kafka's word for what is behind where it is known; else the consumers' own."""
    wait = waiting(backlog, tally(*reports), SHED)
    assert (wait.seconds if wait is not None else None) == seconds


def test_kafka_is_asked_where_the_flow_is_named() -> None:
    flow = replace(SHEDS, topic="orders", group="workers")
    assert flow.lag_read == Lag()
    assert SHEDS.lag_read is None
    assert replace(flow, shed=None).lag_read is None
    signal = SignalSettings(lag=Lag(window_s=120.0))
    assert replace(flow, signals=signal).lag_read == Lag(window_s=120.0)


def test_a_judgement_tells_the_wait_of_kafkas_backlog() -> None:
    book = LagBook(60.0)
    book.take(Reading(at=0.0, committed=(1000,), ends=(4000,), begins={}, members=True), 10.0)
    seen = Story(SHEDS).a.seen
    judged = judge(tally(says(100, 10)), seen, SHEDS, lag=book, now=1.0)
    assert judged.wait == Wait(30.0, 3000.0, 100.0)
    assert judge(tally(says(100, 10)), seen, POLICY, lag=book, now=1.0).wait is None
    own = judge(tally(says(100, 500)), seen, SHEDS, lag=LagBook(60.0), now=1.0)
    assert own.wait == Wait(5.0, 500.0, 100.0)


def test_without_a_read_of_the_reports_nothing_is_known() -> None:
    assert waiting(None, None, SHED) is None


# --- the law -------------------------------------------------------------------------------------


def wait(seconds: float) -> Wait:
    return Wait(seconds, 1000.0, 100.0)


@pytest.mark.parametrize(
    ("seconds", "share"),
    [(0, 1.0), (10, 1.0), (35, math.sqrt(0.05)), (60, 0.05), (600, 0.05), (math.inf, 0.05)],
)
def test_the_share_goes_with_the_wait(seconds: float, share: float) -> None:
    assert aim(wait(seconds), SHED) == pytest.approx(share)


def test_each_second_takes_the_same_factor_off() -> None:
    """So that the loop's gain doesn't depend on the overload."""
    shares = [aim(wait(s), SHED) for s in range(10, 61)]
    factors = {round(b / a, 9) for a, b in itertools.pairwise(shares)}
    assert len(factors) == 1


def test_a_step_halves_or_doubles_at_most() -> None:
    assert next_share(1.0, wait(math.inf), SHED) == 1.0 / STEP
    assert next_share(0.2, wait(0), SHED) == 0.2 * STEP
    ratio, steps = 1.0, 0
    while (stepped := next_share(ratio, wait(math.inf), SHED)) is not None:
        ratio, steps = stepped, steps + 1
    assert (ratio, steps) == (SHED.least, 5)
    while (stepped := next_share(ratio, wait(0), SHED)) is not None:
        ratio, steps = stepped, steps + 1
    assert (ratio, steps) == (1.0, 10)


def test_what_would_hardly_change_stays() -> None:
    share = aim(wait(30), SHED)
    assert next_share(round(share, 6), wait(30), SHED) is None
    assert next_share(share * (1 + DEADBAND / 2), wait(30), SHED) is None
    assert next_share(share * (1 + 2 * DEADBAND), wait(30), SHED) == pytest.approx(share, abs=1e-6)
    assert next_share(0.95, wait(0), SHED) == 1.0, "but the ends are reached"


def test_an_unknown_wait_holds_and_no_shedding_lets_go() -> None:
    assert next_share(0.3, None, SHED) is None
    assert next_share(0.3, None, None) == 0.6
    assert next_share(0.6, wait(math.inf), None) == 1.0
    assert next_share(1.0, None, None) is None


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.001])
def test_there_is_a_way_back_from_any_share(ratio: float) -> None:
    for _ in range(12):
        ratio = next_share(ratio, wait(0), SHED) or ratio
    assert ratio == 1.0


# --- in the state machine ------------------------------------------------------------------------


@pytest.fixture
def story() -> Story:
    return Story(SHEDS)


def behind(story: Story, lag: float, *, rounds: int = 1) -> None:
    """So many intervals in which the consumers handle 100 a second and say how far behind."""
    for _ in range(rounds):
        story.after(5.0)
        story.post(ok=500, lag=lag)
        story.a.settle()


def test_a_step_is_no_transition(story: Story) -> None:
    before = story.a.record
    behind(story, 3500)
    record = story.a.record
    assert (record.current_state, record.automaton) == (State.CLOSED, State.CLOSED)
    assert record.admit_ratio == record.automaton_ratio == 0.5
    assert record.seq == before.seq + 1
    assert record.last_changed_at == before.last_changed_at
    assert record.reason == "shed"
    assert (
        record.detail == "3500 messages are behind, a wait of 35 s at 100 a second: 50% is admitted"
    )
    assert (record.evidence["wait"], record.evidence["backlog"]) == (35.0, 3500)
    assert story.store.history == []


def test_it_comes_to_rest_and_writes_no_more(story: Story) -> None:
    behind(story, 3500, rounds=4)
    record = story.a.record
    assert record.admit_ratio == pytest.approx(math.sqrt(0.05), abs=1e-6)
    behind(story, 3600, rounds=10)
    assert story.a.record == record


def test_no_two_steps_within_a_report_interval(story: Story) -> None:
    seqs = []
    for _ in range(20):
        story.after(1.0)
        story.post(ok=500, lag=20_000)
        story.a.settle()
        seqs.append(story.a.record.seq)
    assert seqs[-1] - seqs[0] <= 20 / gap(SHEDS)


def test_it_is_let_go_again(story: Story) -> None:
    behind(story, 20_000, rounds=8)
    assert story.a.record.admit_ratio == SHED.least
    behind(story, 0, rounds=8)
    record = story.a.record
    assert (record.admit_ratio, record.reason) == (1.0, "recovered")
    assert "all is admitted" in record.detail


def test_silence_holds_the_share(story: Story) -> None:
    behind(story, 3500, rounds=4)
    record = story.a.record
    story.after(300.0)
    story.a.settle()
    assert story.a.record == record


def test_the_next_evaluator_goes_on_where_it_stands(story: Story) -> None:
    behind(story, 3500, rounds=4)
    before = story.a.record
    b = story.another()
    b.stand()
    b.settle()
    assert b.record == before
    story.after(5.0)
    story.post(ok=500, lag=0)
    b.settle()
    assert b.record.admit_ratio == pytest.approx(2 * before.admit_ratio, abs=1e-5)
    assert b.record.seq == before.seq + 1


def test_failures_trip_it_all_the_same_and_it_closes_at_the_share_of_its_backlog(
    story: Story,
) -> None:
    behind(story, 3500, rounds=4)
    story.trip()
    assert story.a.record.admit_ratio == 0.0
    story.half_open()
    for _ in range(30):
        behind(story, 3500)
        if story.a.record.automaton is State.CLOSED:
            break
    assert story.a.record.reason == "recovered"
    assert story.a.record.admit_ratio == pytest.approx(math.sqrt(0.05), abs=1e-6)
    assert story.store.history[-1].to_state is State.CLOSED


@pytest.mark.parametrize("mode", [Mode.CLOSED, Mode.SHADOW, Mode.OPEN])
def test_an_order_beats_it_and_the_share_moves_underneath(story: Story, mode: Mode) -> None:
    behind(story, 3500, rounds=4)
    order = placed(mode, ttl_s=60.0, reason="r", author="ann", wall_at=story.a.wall_at)
    story.store.put_override(order)
    story.a.settle()
    forced = 0.0 if mode is Mode.OPEN else 1.0
    assert story.a.record.admit_ratio == story.a.cell.decision.admit_ratio == forced
    behind(story, 20_000, rounds=4)
    assert (story.a.record.admit_ratio, story.a.record.automaton_ratio) == (forced, SHED.least)
    story.store.put_override(None)
    story.a.settle()
    assert story.a.record.admit_ratio == story.a.cell.decision.admit_ratio == SHED.least


def test_shadow_leaves_all_in_force_and_a_reload_to_enforce_does_not(story: Story) -> None:
    behind(story, 3500, rounds=4)
    share = story.a.record.admit_ratio
    for shadow, in_force in ((True, 1.0), (False, share)):
        story.a.policy = replace(SHEDS, shadow=shadow)
        contact = story.a.board.contact
        story.a.board.reconfigure([story.a.policy], "default", contact, now=story.a.now)
        story.a.settle()
        assert story.a.record.admit_ratio == story.a.cell.decision.admit_ratio == in_force
        assert story.a.record.automaton_ratio == share


def test_a_reload_without_shed_lets_go(story: Story) -> None:
    behind(story, 3500, rounds=4)
    story.a.policy = POLICY
    story.a.board.reconfigure([POLICY], "default", story.a.board.contact, now=story.a.now)
    behind(story, 3500, rounds=4)
    assert story.a.record.admit_ratio == 1.0
    assert "nothing is shed any more" in story.a.record.detail


def test_a_foreign_closed_begins_with_all(story: Story) -> None:
    behind(story, 3500, rounds=4)
    story.foreign(State.CLOSED)
    story.a.settle()
    assert story.a.record.admit_ratio == 1.0
    behind(story, 3500)
    assert story.a.record.admit_ratio == 0.5
