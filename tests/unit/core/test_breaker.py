"""The state machine, edge by edge."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from sidecar.core.breaker import MAX_STEPS, due_at, new_epoch, next_ratio, step_gap
from sidecar.core.observe import Kind
from sidecar.core.signals import Judgement
from sidecar.core.table import TABLE
from sidecar.core.types import Policy, Reason, Record, State, Unreadable, Verdict
from sidecar.core.writing import open_time
from tests.unit.core.kit import POLICY, WALL_AT, Story, says

UNKNOWN, HEALTHY, UNHEALTHY = (
    says(verdict) for verdict in (Verdict.UNKNOWN, Verdict.HEALTHY, Verdict.UNHEALTHY)
)


@pytest.fixture
def story() -> Story:
    return Story()


def stored(story: Story) -> Record:
    assert isinstance(story.store.state, Record)
    return story.store.state


# --- the plain way round ---------------------------------------------------------------------


def test_the_first_record_is_closed_with_seq_one_and_no_history(story: Story) -> None:
    record = stored(story)
    assert (record.seq, record.epoch, record.automaton) == (1, 1, State.CLOSED)
    assert (record.reason, record.admit_ratio, record.open_count) == (Reason.CREATED, 1.0, 0)
    assert story.store.history == []


def test_a_trip_writes_all_that_a_reader_needs(story: Story) -> None:
    story.post("c-2")
    move = story.trip(c_1=25)
    record = stored(story)
    assert (record.seq, record.current_state, record.open_count) == (2, State.OPEN, 1)
    assert record.open_for_s == 30.0
    assert record.last_changed_at == pytest.approx(WALL_AT + story.time.t, abs=1e-5)
    assert record.retry_at == pytest.approx(record.last_changed_at + 30, abs=1e-5)
    assert (record.evidence["failures"], record.evidence["known"]) == (25, 2)
    assert (record.policy, record.evaluator) == ("p-1", "a")
    entry = move.transition
    assert entry is not None
    assert (entry.from_state, entry.to_state, entry.seq) == (State.CLOSED, State.OPEN, 2)
    assert (entry.reason, entry.epoch, entry.evaluator) == (Reason.FAILURES, 1, "a")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("judgement", [UNKNOWN, HEALTHY, UNHEALTHY])
def test_nothing_is_written_without_a_cause(
    state: State, judgement: Judgement, story: Story
) -> None:
    if state is not State.CLOSED:
        story.trip()
    if state is State.HALF_OPEN:
        story.half_open()
    moves_on = judgement is UNHEALTHY and state is not State.OPEN
    assert (story.a.round(judgement) is not None) == moves_on


@pytest.mark.parametrize("judgement", [UNKNOWN, HEALTHY, UNHEALTHY])
def test_open_ends_when_its_time_is_over_whatever_the_evidence(
    judgement: Judgement, story: Story
) -> None:
    story.trip()
    story.after(29.99)
    assert story.a.round(judgement) is None
    story.after(0.01)
    move = story.a.round(judgement)
    assert move is not None
    assert (move.record.automaton, move.record.admit_ratio) == (State.HALF_OPEN, 0.05)
    assert (move.record.open_count, move.record.retry_at) == (1, None)
    assert move.record.evidence["known"] == 1
    assert move.transition is not None
    assert move.transition.reason == Reason.OPEN_ELAPSED


def test_the_ramp_is_walked_in_eight_equal_parts_on_healthy_evidence(story: Story) -> None:
    story.trip()
    begun = story.half_open().record
    start, history = story.time.t, len(story.store.history)
    moves = story.until(lambda: stored(story).automaton is State.CLOSED, every=0.25)
    steps, end = moves[:-1], moves[-1]
    assert len(steps) == MAX_STEPS - 1
    assert story.time.t - start == pytest.approx(30.0, abs=0.5)
    ratios = [begun.admit_ratio, *(m.record.admit_ratio for m in steps)]
    assert all(1.44 < b / a < 1.47 for a, b in itertools.pairwise(ratios))
    for i, step in enumerate(steps, start=1):
        assert step.transition is None
        assert step.record.seq == begun.seq + i
        assert step.record.last_changed_at == pytest.approx(begun.last_changed_at, abs=1e-5)
    assert (end.record.automaton, end.record.reason) == (State.CLOSED, Reason.RECOVERED)
    assert (end.record.open_count, end.record.seq) == (0, begun.seq + 8)
    assert len(story.store.history) == history + 1


def test_an_unknown_verdict_holds_the_ratio_for_ever(story: Story) -> None:
    story.trip()
    story.half_open()
    story.after(4)
    assert story.a.round(HEALTHY) is not None
    for _ in range(50):
        story.after(10)
        assert story.a.round(UNKNOWN) is None
    closed = story.a.round(HEALTHY)  # half_open.max is long over
    assert closed is not None
    assert closed.record.automaton is State.CLOSED


def test_a_slow_ramp_is_closed_at_half_open_max(story: Story) -> None:
    story.trip()
    story.half_open()
    story.after(119.9)
    stepped = story.a.round(HEALTHY)
    assert stepped is not None
    assert stepped.record.automaton is State.HALF_OPEN
    story.after(0.1)
    closed = story.a.round(HEALTHY)
    assert closed is not None
    assert closed.record.automaton is State.CLOSED


def test_on_unknown_healthy_is_the_operators_word() -> None:
    story = Story(replace(POLICY, unknown_is_healthy=True))
    story.trip()
    story.half_open()
    for _ in range(8):
        story.after(3.75)
        assert story.a.round(UNKNOWN) is not None
    assert stored(story).automaton is State.CLOSED


def test_a_bad_report_reopens_at_once_for_twice_as_long_up_to_the_cap(story: Story) -> None:
    story.trip()
    waits = []
    for _ in range(6):
        story.half_open()
        story.after(0.1)
        story.post(fail=1)
        move = story.a.round()
        assert move is not None
        waits.append((move.record.open_count, move.record.open_for_s))
    assert waits == [(2, 60.0), (3, 120.0), (4, 240.0), (5, 300.0), (6, 300.0), (7, 300.0)]


def test_a_trip_out_of_closed_begins_at_one_again(story: Story) -> None:
    story.trip()
    story.half_open()
    story.post(fail=1)
    story.a.settle()
    story.half_open()
    story.until(lambda: stored(story).automaton is State.CLOSED)
    assert story.trip().record.open_count == 1


def test_a_large_open_count_neither_overflows_nor_passes_the_cap() -> None:
    assert open_time(10**6, POLICY) == 300.0
    assert open_time(0, POLICY) == open_time(1, POLICY) == 30.0


@pytest.mark.parametrize("initial", [1e-6, 2e-6, 1e-4, 0.0123, 0.05, 0.5, 0.999])
def test_every_ramp_has_at_most_eight_steps(initial: float) -> None:
    policy = replace(POLICY, initial_ratio=initial)
    ratio, steps = initial, 0
    while ratio < 1.0:
        grown = next_ratio(ratio, policy)
        assert grown > ratio
        ratio, steps = grown, steps + 1
    assert steps <= MAX_STEPS


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.051, 0.2, 0.9, 0.9999])
def test_a_ratio_off_the_grid_still_grows(ratio: float) -> None:
    assert ratio < next_ratio(ratio, POLICY) <= 1.0


@pytest.mark.parametrize(
    "policy", [replace(POLICY, ramp_s=0.0), replace(POLICY, initial_ratio=1.0)]
)
def test_without_a_ramp_the_first_healthy_verdict_closes(policy: Policy) -> None:
    story = Story(policy)
    story.trip()
    story.half_open()
    story.after(policy.ramp_s / 8)
    move = story.a.round(HEALTHY)
    assert move is not None
    assert move.record.automaton is State.CLOSED


def test_a_gap_is_an_eighth_of_the_ramp() -> None:
    assert step_gap(POLICY) == 3.75


# --- evidence is used once -------------------------------------------------------------------


def test_reports_that_tripped_it_do_not_trip_it_again_when_open_is_short() -> None:
    story = Story(replace(POLICY, open_duration_s=1.0))
    story.trip(c_1=12, c_2=13)
    story.half_open()
    assert story.a.judgement().verdict is Verdict.UNKNOWN
    for _ in range(14):
        story.after(1)
        assert story.a.round() is None


def test_reports_that_tripped_it_do_not_trip_it_again_once_it_has_closed() -> None:
    story = Story(replace(POLICY, open_duration_s=1.0, ramp_s=0.0))
    story.trip(c_1=25)
    story.half_open()
    story.post("c-2", ok=10)
    assert [m.record.automaton for m in story.a.settle()] == [State.CLOSED]
    b = story.another()
    b.stand()
    assert b.settle() == []


def test_half_open_needs_half_of_the_reporters_known_at_the_trip(story: Story) -> None:
    for i in range(5):
        story.post(f"c-{i}")
    story.trip(c_0=25)
    story.half_open()
    story.after(4)
    story.post("c-1", ok=10)
    story.post("c-2", ok=10)
    assert story.a.round() is None
    b = story.another()
    b.stand()
    b.sync()
    assert b.judgement().verdict is Verdict.UNKNOWN
    story.post("c-3", ok=10)
    assert story.a.round() is None  # it lost the lock
    story.after(4)
    move = b.round()
    assert move is not None
    assert move.record.admit_ratio > 0.05


def test_a_successor_that_saw_nothing_does_not_trip_on_old_evidence() -> None:
    story = Story(replace(POLICY, open_duration_s=1.0))
    story.trip()
    story.half_open()
    b = story.another()
    b.stand()
    assert b.settle() == []
    assert b.judgement().verdict is Verdict.UNKNOWN
    story.post(fail=1)
    moves = b.settle()
    assert [m.record.automaton for m in moves] == [State.OPEN]
    assert moves[0].record.open_count == 2


def test_a_successor_goes_on_with_ratio_open_count_and_a_new_epoch(story: Story) -> None:
    story.trip()
    story.half_open()
    story.until(lambda: stored(story).admit_ratio > 0.3)
    before = stored(story)
    b = story.another()
    b.stand()
    story.after(1)
    story.post(ok=100)
    assert b.settle() == []  # a gap by its own clock comes first
    story.after(3)
    story.post(ok=100)
    (move,) = b.settle()
    assert move.record.seq == before.seq + 1
    assert move.record.epoch == before.epoch + 1
    assert 1.4 < move.record.admit_ratio / before.admit_ratio < 1.5
    assert move.record.open_count == before.open_count == 1


def test_a_successor_with_a_wrong_clock_closes_nothing_early(story: Story) -> None:
    story.trip()
    story.half_open()
    b = story.another()
    b.wall_jump = 3600.0
    b.stand()
    story.after(1)
    story.post(ok=100)
    assert b.settle(HEALTHY) == []


def test_evidence_survives_a_store_that_goes_back(story: Story) -> None:
    snapshot = story.store.saved()
    story.trip()
    assert story.a.settle() == []
    story.store.restore(snapshot)
    story.store.holder = "a"
    story.store.put_report("c-1", story.a.reports._known["c-1"].value)
    assert story.a.settle() == []
    assert stored(story).automaton is State.CLOSED
    story.post(fail=25)
    (move,) = story.a.settle()
    assert move.record.seq == 3  # the one before was seen, though the store has forgotten it


def test_a_floor_from_before_the_store_went_back_blinds_nobody(story: Story) -> None:
    story.trip()
    ahead = replace(stored(story), automaton=State.CLOSED, evidence={"index": 10**9})
    story.store.put_state(ahead)
    story.post(fail=25)
    assert [m.record.automaton for m in story.a.settle()] == [State.OPEN]


# --- odd contents of the key -----------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_junk_is_replaced_and_changes_nothing(state: State, story: Story) -> None:
    if state is not State.CLOSED:
        story.trip()
    if state is State.HALF_OPEN:
        story.half_open()
    before = stored(story)
    story.after(10)
    story.store.put_state(Unreadable("no JSON"))
    story.a.sync()
    assert story.a.cell.decision.state is state
    (move,) = story.a.settle(UNKNOWN)
    assert move.transition is None
    assert (move.record.automaton, move.record.reason) == (state, Reason.REPAIRED)
    assert (move.record.seq, move.record.open_count) == (before.seq + 1, before.open_count)
    if state is State.OPEN:
        assert move.record.open_for_s == pytest.approx(20.0)
        story.after(20)
        assert [m.record.automaton for m in story.a.settle(UNKNOWN)] == [State.HALF_OPEN]


def test_junk_that_nobody_knows_better_becomes_closed(story: Story) -> None:
    story.store.put_state(Unreadable("no JSON"))
    b = story.another()
    b.stand()
    (move,) = b.settle()
    assert (move.record.automaton, move.record.reason) == (State.CLOSED, Reason.CREATED)


def test_a_deleted_key_is_created_closed_and_goes_on_counting(story: Story) -> None:
    story.trip()
    story.store.put_state(None)
    story.a.sync()
    assert story.a.cell.decision.state is State.OPEN  # until the evaluator says otherwise
    (move,) = story.a.settle()
    assert (move.record.automaton, move.record.seq) == (State.CLOSED, 3)
    assert move.transition is not None
    assert (move.transition.from_state, move.transition.reason) == (State.OPEN, Reason.CREATED)
    story.post(fail=25)
    assert [m.record.automaton for m in story.a.settle()] == [State.OPEN]


def test_who_comes_after_a_deletion_goes_on_from_the_history(story: Story) -> None:
    story.trip()
    story.store.put_state(None)
    b = story.another()
    b.stand()
    (move,) = b.settle()  # and what tripped it before doesn't trip it again
    assert (move.record.automaton, move.record.seq) == (State.CLOSED, 3)
    assert move.record.epoch == 2


def test_fresh_evidence_trips_a_created_breaker_at_once(story: Story) -> None:
    story.store.put_state(None)
    story.post(fail=25)
    states = [m.record.automaton for m in story.a.settle()]
    assert states == [State.CLOSED, State.OPEN]


@pytest.mark.parametrize("kind", [Kind.RECORD, Kind.FOREIGN, Kind.UNREADABLE])
def test_a_newer_schema_is_never_overwritten(kind: Kind, story: Story) -> None:
    story.store.put_state(replace(stored(story), schema=2, seq=9))
    story.a.sync()
    if kind is Kind.FOREIGN:
        story.foreign(State.OPEN)
    if kind is Kind.UNREADABLE:
        story.store.put_state(Unreadable(""))
    assert story.a.settle(UNHEALTHY) == []


def test_coming_back_from_a_newer_version_is_deleting_its_record(story: Story) -> None:
    story.store.put_state(replace(stored(story), schema=2, seq=9))
    story.a.sync()
    story.store.put_state(None)
    (move,) = story.a.settle()
    assert (move.record.schema, move.record.seq) == (1, 10)


# --- foreign writes: adopt -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ago", "left"), [(0.0, 30.0), (12.0, 18.0), (900.0, 0.0), (-900.0, 30.0), (None, 30.0)]
)
def test_a_foreign_open_is_adopted_with_what_is_left_of_it(
    ago: float | None, left: float, story: Story
) -> None:
    story.foreign(State.OPEN, ago=ago)
    story.a.sync()
    assert story.a.cell.decision.state is State.OPEN  # at once
    move = story.a.round(UNKNOWN)
    assert move is not None
    record = move.record
    assert (record.automaton, record.reason, record.seq) == (State.OPEN, Reason.FOREIGN, 2)
    assert record.open_count == 1
    assert record.open_for_s == pytest.approx(left, abs=1e-5)
    said = WALL_AT + story.time.t - (ago or 0.0)
    assert record.last_changed_at == pytest.approx(said, abs=1e-5)
    # To the microsecond what its writer's own timer makes of it; a future one is clamped.
    assert record.retry_at == min(record.last_changed_at, WALL_AT + story.time.t) + 30.0
    story.after(left)
    follow = story.a.round(UNKNOWN)
    assert follow is not None
    assert follow.record.automaton is State.HALF_OPEN


def test_a_foreign_closed_keeps_the_count_and_forgets_old_evidence(story: Story) -> None:
    story.trip()
    story.half_open()
    story.post(fail=1)
    story.a.settle()
    assert stored(story).open_count == 2
    story.foreign(State.CLOSED)
    (move,) = story.a.settle()
    assert (move.record.automaton, move.record.open_count) == (State.CLOSED, 2)
    assert move.transition is not None
    assert move.transition.reason == Reason.FOREIGN
    assert story.trip().record.open_count == 1


def test_a_foreign_closed_right_after_the_trip_is_not_tripped_by_the_same_reports(
    story: Story,
) -> None:
    story.trip()
    story.foreign(State.CLOSED)
    assert [m.record.automaton for m in story.a.settle()] == [State.CLOSED]
    b = story.another()
    b.stand()
    assert b.settle() == []
    story.foreign(State.CLOSED)
    story.store.holder = "a"
    c = story.another("c")
    c.stand()  # saw nothing but a foreign record, and the history
    assert [m.record.automaton for m in c.settle()] == [State.CLOSED]
    story.post("c-2", fail=25)
    assert [m.record.automaton for m in c.settle()] == [State.OPEN]


@pytest.mark.parametrize("written", [State.OPEN, State.HALF_OPEN])
def test_a_foreign_change_is_in_the_history_though_its_evaluator_knows_no_record(
    story: Story, written: State
) -> None:
    story.trip()
    story.foreign(State.CLOSED)
    story.a.settle()
    story.foreign(written)
    b = story.another()
    b.stand()
    b.settle()
    edges = [(entry.from_state, entry.to_state) for entry in story.store.history]
    assert edges[:3] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.CLOSED),
        (State.CLOSED, written),
    ]


def test_a_foreign_half_open_counts_only_what_comes_after_it(story: Story) -> None:
    story.post(fail=3)
    story.foreign(State.HALF_OPEN)
    (move,) = story.a.settle()
    assert (move.record.automaton, move.record.open_count) == (State.HALF_OPEN, 1)
    assert move.record.admit_ratio == 0.05
    story.post(fail=1)
    assert [m.record.open_count for m in story.a.settle()] == [2]


def test_a_foreign_record_of_the_same_state_is_rewritten_without_a_transition(
    story: Story,
) -> None:
    story.foreign(State.CLOSED)
    (move,) = story.a.settle()
    assert move.transition is None
    assert (move.record.seq, move.record.reason) == (2, Reason.FOREIGN)


# --- foreign writes: reassert ----------------------------------------------------------------


@pytest.fixture
def firm() -> Story:
    return Story(replace(POLICY, reassert=True))


@pytest.mark.parametrize("looser", [State.CLOSED, State.HALF_OPEN])
def test_a_looser_state_is_overwritten_by_open_with_a_time_the_source_agrees_with(
    looser: State, firm: Story
) -> None:
    firm.trip()
    firm.after(10)
    firm.foreign(looser)
    (move,) = firm.a.settle()
    record = move.record
    assert move.transition is None
    assert (record.current_state, record.reason, record.seq) == (
        State.OPEN,
        Reason.REASSERTED,
        3,
    )
    assert record.open_for_s == pytest.approx(20.0)
    source_timer = record.last_changed_at + firm.policy.open_duration_s
    assert source_timer == pytest.approx(WALL_AT + firm.time.t + 20.0, abs=1e-5)
    firm.after(20)
    assert [m.record.automaton for m in firm.a.settle(UNKNOWN)] == [State.HALF_OPEN]


def test_a_long_open_is_dated_ahead_so_that_the_source_waits_with_us(firm: Story) -> None:
    firm.trip()
    firm.half_open()
    firm.post(fail=1)
    firm.a.settle()
    firm.foreign(State.HALF_OPEN)
    (move,) = firm.a.settle()
    assert move.record.last_changed_at == pytest.approx(WALL_AT + firm.time.t + 30, abs=1e-4)
    assert move.record.open_count == 2


def test_an_open_that_is_over_is_not_asserted_once_more(firm: Story) -> None:
    firm.trip()
    firm.after(30)
    firm.foreign(State.HALF_OPEN)
    (move,) = firm.a.settle(UNKNOWN)
    assert (move.record.automaton, move.record.reason) == (State.HALF_OPEN, Reason.OPEN_ELAPSED)


def test_the_ramp_goes_on_under_a_source_that_keeps_closing(firm: Story) -> None:
    firm.trip()
    firm.half_open()
    start = firm.time.t
    while stored(firm).automaton is not State.CLOSED:
        firm.after(1)
        firm.post(ok=100)
        if firm.time.t % 2 == 0:
            firm.foreign(State.CLOSED)
        firm.a.settle()
    assert firm.time.t - start == pytest.approx(8 * 4, abs=2)


def test_a_tighter_state_is_adopted_even_then(firm: Story) -> None:
    firm.foreign(State.OPEN)
    (move,) = firm.a.settle(UNKNOWN)
    assert (move.record.automaton, move.record.reason) == (State.OPEN, Reason.FOREIGN)


# --- shadow ----------------------------------------------------------------------------------


def test_shadow_moves_underneath_and_leaves_closed_in_force() -> None:
    story = Story(replace(POLICY, shadow=True))
    tripped = story.trip().record
    assert (tripped.current_state, tripped.admit_ratio) == (State.CLOSED, 1.0)
    assert (tripped.automaton_ratio, tripped.open_for_s) == (0.0, 30.0)
    opened = story.half_open().record
    assert (opened.current_state, opened.admit_ratio, opened.automaton_ratio) == (
        State.CLOSED,
        1.0,
        0.05,
    )
    story.until(lambda: stored(story).automaton is State.CLOSED)
    assert [t.to_state for t in story.store.history] == [
        State.OPEN,
        State.HALF_OPEN,
        State.CLOSED,
    ]


@pytest.mark.parametrize("half_open", [False, True])
def test_a_reload_to_enforce_puts_the_state_underneath_in_force_and_back(half_open: bool) -> None:
    story = Story(replace(POLICY, shadow=True))
    story.trip()
    if half_open:
        story.half_open()
    before = stored(story)
    for shadow in (False, True):
        story.a.policy = replace(POLICY, shadow=shadow, fingerprint="p-2")
        (move,) = story.a.settle(UNKNOWN)
        assert move.transition is None
        assert move.record.current_state is (State.CLOSED if shadow else before.automaton)
        assert move.record.admit_ratio == (1.0 if shadow else before.automaton_ratio)
        assert (move.record.last_changed_at, move.record.policy) == (before.last_changed_at, "p-2")
    assert stored(story).seq == before.seq + 2


# --- when to look, and in which term ---------------------------------------------------------


def test_when_time_alone_may_ask_for_a_write(story: Story) -> None:
    a = story.a
    assert due_at(a.seen, POLICY) is None
    story.trip()
    assert due_at(a.seen, POLICY) == a.now + 30
    story.half_open()
    assert due_at(a.seen, POLICY) == a.now + 3.75
    story.store.put_state(None)
    a.sync()
    assert due_at(a.seen, POLICY) is None


@pytest.mark.parametrize(("locks", "highest", "epoch"), [(5, 3, 5), (1, 7, 8), (0, 0, 1)])
def test_an_epoch_is_above_every_one_before(locks: int, highest: int, epoch: int) -> None:
    assert new_epoch(locks, highest) == epoch


def test_a_lock_count_that_was_reset_does_not_lower_the_epoch(story: Story) -> None:
    story.a.epoch = 0
    assert story.trip().record.epoch == 1


def test_a_wall_clock_that_jumps_moves_nothing(story: Story) -> None:
    for jump in (3600.0, -3600.0, 0.0):
        story.a.wall_jump = jump
        assert story.a.settle() == []
    story.trip()
    for jump in (3600.0, -3600.0):
        story.a.wall_jump = jump
        assert story.a.settle() == []
    assert story.half_open().record.open_for_s == 0.0


def test_the_table_has_no_edge_into_itself_and_only_health_closes() -> None:
    assert all(before is not after for before, after in TABLE)
    closing = {r for (_, after), reasons in TABLE.items() if after is State.CLOSED for r in reasons}
    assert closing == {Reason.RECOVERED, Reason.FOREIGN, Reason.CREATED}
    assert Reason.FAILURES not in TABLE[State.OPEN, State.HALF_OPEN]
