"""A fleet under everything that can happen to it, with the rules checked after every write.

Three machines share one breaker: their monotonic clocks are far apart, their wall clocks jump,
they restart, pause and take over from each other; reporters post, repeat themselves and go silent;
others write the state, delete it, fill it with junk, or bring the store back from a snapshot.

The checks keep books of their own, from what really happened; they share no code with the rules:
* only edges of the table are walked, each write has a cause, and seq has no gap;
* the epoch never falls;
* nothing but healthy evidence, of a quorum and newer than HALF_OPEN, moves its ratio or closes;
* in CLOSED the ratio moves with `shed` alone: towards the backlog that the fresh reports tell of,
  by a factor of two at most, no sooner than a report interval after the last step; and it is 1 in
  any CLOSED that an order or shadow puts in force;
* the same report never trips the breaker twice;
* OPEN lasts its time on the evaluator's clock, then ends; ratio steps keep their gap;
* of all calls exactly the ratios' sum is admitted;
* what is in force is the override's word while it holds by the machine's own clock, then again
  the automaton's, which went on underneath.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sidecar.core.admission import UNIT
from sidecar.core.override import Mode, placed
from sidecar.core.reports import Item
from sidecar.core.signal_settings import Shed
from sidecar.core.table import TABLE
from sidecar.core.types import (
    Foreign,
    Policy,
    Reason,
    Record,
    State,
    Stored,
    Unreadable,
)
from sidecar.core.writing import Move
from tests.unit.core.kit import WALL_AT, Sidecar, Store, Time, body

settings.register_profile(
    "breaker",
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("breaker-ci", parent=settings.get_profile("breaker"), derandomize=True)

CARS = st.integers(0, 2)
REPORTERS = st.sampled_from(["c-1", "c-2", "c-3", "c-4"])
JUMPS = st.sampled_from([-3600.0, 0.0, 3600.0])
STATES = st.sampled_from(list(State))
PAUSES = st.sampled_from([0.02, 0.5, 1.0, 3.75, 5.0, 15.0, 31.0, 61.0, 125.0])
LAGS = st.sampled_from([None, None, 0, 90, 700, 2500, 20_000])
SHED = Shed(start_s=10.0, full_s=60.0, least=0.05, minimum=100)
A_WRITE_S = 0.005
"""No two records are of the same instant: that is how stays in a state are told apart."""
SLACK_S = 0.002
"""Records carry microseconds, and a repair within a millisecond is the same stay."""


@dataclass
class Books:
    """What one process has really seen, by its own clock. Kept by the test, not by the rules."""

    known_seq: int = 0
    known_epoch: int = 0
    stay: int = 0
    first: dict[int, float] = field(default_factory=dict)
    """When each stay in a state was first seen."""
    guessed: set[int] = field(default_factory=set)
    """Stays whose begin it did not see."""
    ratios: dict[tuple[int, float], float] = field(default_factory=dict)
    values: dict[bytes, float] = field(default_factory=dict)
    """When each report was first seen."""
    listed: dict[str, Item] = field(default_factory=dict)
    looked: bool = False
    synced: float | None = None
    index: int = 0
    order: tuple[str, float | None] | None = None
    """The override last seen, by its reason, and when it ends if it was seen to appear."""
    set_at: float | None = None
    """When it was set; None: its times are not filled in."""
    admitted: int = 0
    due: float = 0.0
    """The sum of the ratios over all calls."""


@dataclass
class Backup:
    """A snapshot, and what the books said of the store then."""

    store: Store
    stay: int
    spent: set[bytes]
    taken: float


class Fleet(RuleBasedStateMachine):
    """The story that hypothesis writes."""

    @initialize(
        shadow=st.booleans(),
        reassert=st.booleans(),
        open_duration=st.sampled_from([1.0, 5.0, 30.0]),
        ramp=st.sampled_from([0.0, 8.0, 30.0]),
        shed=st.sampled_from([None, SHED]),
    )
    def begin(
        self, shadow: bool, reassert: bool, open_duration: float, ramp: float, shed: Shed | None
    ) -> None:
        self.time = Time()
        self.store = Store()
        self.policy = Policy(
            name="default",
            fingerprint="p-1",
            shadow=shadow,
            reassert=reassert,
            open_duration_s=open_duration,
            max_open_duration_s=60.0,
            ramp_s=ramp,
            half_open_max_s=60.0,
            shed=shed,
        )
        self.cars = [
            Sidecar(name, self.store, self.time, self.policy, boot=boot)
            for name, boot in (("a", 0.0), ("b", 5000.0), ("c", 123_456.7))
        ]
        self.books = [Books() for _ in self.cars]
        self.reporter_jump: dict[str, float] = {}
        self.nonce = 0
        self.orders = 0
        self.stays = 0
        self.stay = 0
        self.begun: dict[int, int] = {}
        """The store's index at which each stay began."""
        self.spent: set[bytes] = set()
        self.backup: Backup | None = None
        self.restored = False
        self.undisturbed = True
        """True while nobody but sidecars has written the state."""
        self.unanswered: tuple[int, set[bytes]] | None = None
        """Who doesn't know of its own last write, and what was used before it."""
        self.take_over(0)

    # --- what happens ------------------------------------------------------------------------

    @rule(pause=PAUSES)
    def time_passes(self, pause: float) -> None:
        self.time.t += pause

    @rule(
        who=REPORTERS,
        fail=st.sampled_from([0, 0, 1, 7, 13, 25]),
        ok=st.sampled_from([0, 3, 80]),
        lag=LAGS,
    )
    def post(self, who: str, fail: int, ok: int, lag: int | None = None) -> None:
        self.nonce += 1
        at = WALL_AT + self.time.t + self.reporter_jump.get(who, 0.0) + self.nonce / 1e4
        self.store.put_report(who, body(at, fail=fail, ok=ok, lag=lag))

    @rule(who=REPORTERS)
    def repeat(self, who: str) -> None:
        if (item := self.store.reports.get(who)) is not None:
            self.store.put_report(who, item.value)

    @rule(who=REPORTERS)
    def lose_the_session_of(self, who: str) -> None:
        if (item := self.store.reports.get(who)) is not None:
            self.store.touch_report(who)
            # A process that never saw it before can't tell this from a report.
            self.spent.discard(item.value)
            for books in self.books:
                books.values.pop(item.value, None)

    @rule(who=REPORTERS)
    def say_goodbye(self, who: str) -> None:
        self.store.delete_report(who)

    @rule(who=REPORTERS, junk=st.sampled_from([b"", b"{", b"[]", b'{"at": null}']))
    def post_junk(self, who: str, junk: bytes) -> None:
        self.store.put_report(who, junk)

    @rule(who=REPORTERS, jump=JUMPS)
    def reporter_clock_jumps(self, who: str, jump: float) -> None:
        self.reporter_jump[who] = jump

    @rule(state=STATES, ago=st.sampled_from([None, -3600.0, 0.0, 2.0, 3600.0]))
    def write_as_the_source_does(self, state: State, ago: float | None) -> None:
        self.time.t += A_WRITE_S
        at = None if ago is None else WALL_AT + self.time.t - ago
        self.store.put_state(Foreign(state, at))
        self.disturb()

    @rule()
    def write_junk(self) -> None:
        self.store.put_state(Unreadable("no JSON"))
        self.disturb()

    @rule()
    def delete_the_state(self) -> None:
        self.store.put_state(None)
        self.disturb()

    @rule(
        mode=st.sampled_from(list(Mode)),
        ttl=st.sampled_from([2.0, 30.0, 300.0, math.inf]),
        by_hand=st.booleans(),
    )
    def force(self, mode: Mode, ttl: float, by_hand: bool) -> None:
        self.orders += 1
        reason, at = f"order {self.orders}", WALL_AT + self.time.t
        override = placed(mode, ttl_s=ttl, reason=reason, author="ann", wall_at=at)
        if by_hand:
            override = replace(override, set_at=None, expires_at=None)
        self.store.put_override(override)

    @rule()
    def release(self) -> None:
        self.store.put_override(None)

    @rule()
    def tend_the_override(self) -> None:
        i = self.holder()
        self.sync_state(i)
        before = self.store.override
        self.cars[i].tend()
        if before is not None and self.store.override is None:
            assert self.mode(i) is None, "only one that is over is deleted"
        for j in range(3):
            self.sync_state(j)

    @rule()
    def take_a_snapshot(self) -> None:
        self.backup = Backup(self.store.saved(), self.stay, set(self.spent), self.time.t)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore_the_snapshot(self) -> None:
        backup = self.backup
        assert backup is not None
        # What is fresh by its own word and was used after the snapshot looks unused again.
        self.time.t = max(self.time.t, backup.taken + 4000.0)
        self.store.restore(backup.store)
        self.store.holder = None
        self.spent = set(backup.spent)
        self.stays += 1
        self.begun[self.stays] = self.begun.get(backup.stay, 0)
        self.stay = self.stays
        for books in self.books:
            books.guessed.add(self.stay)
        self.restored = True
        self.disturb()

    @rule(i=CARS)
    def take_over(self, i: int) -> None:
        self.cars[i].stand()
        self.note_state(i)
        self.note_override(i)
        for entry in self.store.history:
            self.books[i].known_seq = max(self.books[i].known_seq, entry.seq)
            self.books[i].known_epoch = max(self.books[i].known_epoch, entry.epoch)

    @rule()
    def put_on_the_lock_key(self) -> None:
        self.store.holder = None
        self.store.lock_index = 0

    @rule(i=CARS)
    def restart(self, i: int) -> None:
        self.cars[i].restart()
        self.books[i] = Books()
        if self.store.holder == self.cars[i].name:
            self.store.holder = None

    @rule(i=CARS)
    def follow(self, i: int) -> None:
        self.sync(i)

    @rule(i=CARS, look=st.booleans(), read=st.booleans(), lost=st.booleans())
    def evaluate(self, i: int, look: bool, read: bool, lost: bool) -> None:
        """A round that may have missed the news, and whose answer may get lost."""
        if self.cars[i].cell.seen is None:
            self.sync(i)
        if look:
            self.sync_state(i)
        if read:
            self.sync_reports(i)
        self.round(i, lost=lost)

    @rule()
    def evaluate_to_rest(self) -> None:
        self.settle(self.holder())

    @rule()
    def wait_for_the_end_of_open(self) -> None:
        i = self.holder()
        self.settle(i)
        car = self.cars[i]
        if car.seen.own is not None and car.seen.own.automaton is State.OPEN:
            self.time.t += max(0.0, car.seen.open_until - car.now)
            self.settle(i)

    @rule(rounds=st.integers(1, 9), lag=LAGS)
    def all_is_well(self, rounds: int, lag: int | None) -> None:
        i = self.holder()
        for _ in range(rounds):
            self.time.t += max(self.policy.ramp_s / 8, 0.1)
            for who in ("c-1", "c-2", "c-3", "c-4"):
                self.post(who, 0, 80, lag)
            self.settle(i)

    @rule(i=CARS, jump=JUMPS)
    def wall_clock_jumps(self, i: int, jump: float) -> None:
        """And causes nothing, whoever holds the lock."""
        holder = self.holder()
        self.settle(holder)
        self.cars[i].wall_jump = jump
        self.sync(holder)
        assert self.cars[holder].propose() is None

    @rule(shadow=st.booleans())
    def reload(self, shadow: bool) -> None:
        self.policy = replace(self.policy, shadow=shadow)
        for car in self.cars:
            car.policy = self.policy
            contact = replace(car.board.contact)
            car.board.reconfigure([self.policy], "default", contact, now=car.now)

    @rule(i=CARS, calls=st.integers(1, 300))
    def calls_come_in(self, i: int, calls: int) -> None:
        car, books = self.cars[i], self.books[i]
        car.board.refresh(car.now)
        ratio = round(car.cell.decision.admit_ratio * UNIT)
        books.admitted += sum(car.cell.spread.spend(ratio) for _ in range(calls))
        books.due += ratio * calls / UNIT

    def disturb(self) -> None:
        """The key is overwritten: a write whose answer was lost may now never be known of."""
        self.undisturbed = False
        if self.unanswered is not None:
            self.spent &= self.unanswered[1]
            self.unanswered = None

    # --- the books ---------------------------------------------------------------------------

    def holder(self) -> int:
        """Who holds the lock; somebody takes it when nobody does."""
        for i, car in enumerate(self.cars):
            if car.name == self.store.holder:
                return i
        self.take_over(0)
        return 0

    def sync(self, i: int) -> None:
        self.sync_state(i)
        self.sync_reports(i)

    def sync_state(self, i: int) -> None:
        self.cars[i].sync_state()
        self.note_state(i)
        self.note_override(i)

    def note_override(self, i: int) -> None:
        books, override, now = self.books[i], self.store.override, self.cars[i].now
        live = books.synced is not None and now < books.synced + 10.0
        live = live and self.store.index >= books.index
        books.synced, books.index = now, self.store.index
        set_at = override.set_at if override is not None else None
        # Times are filled in once; others, or none again, come with a restored snapshot.
        again = books.set_at is not None and set_at != books.set_at
        books.set_at = set_at
        if override is None:
            books.order = None
        elif books.order is None or books.order[0] != override.reason or again:
            assert override.ttl_s is not None
            books.order = (override.reason, now + override.ttl_s if live else None)
            standing = self.cars[i].cell.standing
            assert standing is not None
            assert standing.ends <= now + override.ttl_s

    def mode(self, i: int) -> Mode | None:
        """The override in force for one machine."""
        car, order = self.cars[i], self.books[i].order
        standing = car.cell.standing
        if order is None or standing is None:
            assert standing is None
            return None
        ends = order[1] if order[1] is not None else standing.ends
        assert standing.holds(car.now) == (car.now < ends)
        return standing.override.mode if car.now < ends else None

    def in_force(self, i: int, automaton: State) -> State:
        mode = self.mode(i)
        if mode is Mode.OPEN:
            return State.OPEN
        return State.CLOSED if mode is not None or self.policy.shadow else automaton

    def note_state(self, i: int) -> None:
        books, state, now = self.books[i], self.store.state, self.cars[i].now
        cold, books.looked = not books.looked, True
        if isinstance(state, Foreign) and state.state is State.OPEN:
            books.guessed.add(books.stay)  # it may shorten what is left of ours
        if not isinstance(state, Record):
            return
        if self.unanswered is not None and self.unanswered[0] == i:
            self.unanswered = None
        books.known_seq = max(books.known_seq, state.seq)
        books.known_epoch = max(books.known_epoch, state.epoch)
        books.stay = self.stay
        books.first.setdefault(self.stay, now)
        books.ratios.setdefault((self.stay, state.automaton_ratio), now)
        if cold:
            books.guessed.add(self.stay)

    def sync_reports(self, i: int) -> None:
        self.cars[i].sync_reports()
        books, now = self.books[i], self.cars[i].now
        books.listed = dict(self.store.reports)
        for item in books.listed.values():
            books.values.setdefault(item.value, now)

    def settle(self, i: int) -> None:
        for _ in range(10):
            self.sync(i)
            if not self.round(i):
                return
        raise AssertionError("it never comes to rest")

    def round(self, i: int, *, lost: bool = False) -> bool:
        """Propose, check, commit; True when something was written."""
        car, before = self.cars[i], self.store.state
        move = car.propose()
        may = self.store.holder == car.name and car.seen.index == self.store.state_index
        if move is None:
            if may:
                self.check_nothing_due(i, before)
            return False
        spent = set(self.spent)
        if may:
            self.check(i, before, move)
        own = car.seen.own
        assert car.write(move, answer_lost=lost) == may
        if may:
            self.enter(i, before, own, move)
            if lost:
                self.unanswered = (i, spent)
            else:
                self.note_state(i)
                self.note_override(i)
            self.time.t += A_WRITE_S
        return may

    def enter(self, i: int, before: Stored | None, own: Record | None, move: Move) -> None:
        """Is what was written another stay?"""
        record = move.record
        taken = record.reason in (Reason.FOREIGN, Reason.CREATED) and not isinstance(before, Record)
        if (
            own is None
            or taken
            or move.transition is not None
            or record.open_for_s != own.open_for_s
        ):
            self.stays += 1
            self.stay = self.stays
            self.begun[self.stay] = self.store.state_index
        else:
            self.stay = self.books[i].stay
            # Rewritten into a store that went back: its clock is the one that counts.
            self.begun[self.stay] = min(self.begun[self.stay], self.store.state_index)

    # --- the rules ---------------------------------------------------------------------------

    def check(self, i: int, before: Stored | None, move: Move) -> None:
        """Everything that must hold for a write that will go through."""
        car, books, record = self.cars[i], self.books[i], move.record
        own = car.seen.own
        assert record.seq == books.known_seq + 1
        if self.undisturbed:
            assert record.seq == (before.seq if isinstance(before, Record) else 0) + 1
        assert record.epoch >= books.known_epoch
        assert record.evaluator == car.name
        assert record.current_state is self.in_force(i, record.automaton)
        assert record.override == self.mode(i)
        history = self.store.history
        left = own.automaton if own is not None else history[-1].to_state if history else None
        changed = left not in (None, record.automaton)
        assert (move.transition is not None) == changed
        if left is not None and changed:
            assert record.reason in TABLE[left, record.automaton]
        if changed and own is not None:
            self.check_edge(i, own, record)
        elif isinstance(before, Record):
            assert own is not None
            self.check_rewrite(i, own, record)
        else:
            assert record.reason in (
                Reason.CREATED,
                Reason.REPAIRED,
                Reason.FOREIGN,
                Reason.REASSERTED,
            )

    def check_edge(self, i: int, own: Record, record: Record) -> None:
        car, books = self.cars[i], self.books[i]
        match record.reason:
            case Reason.FAILURES:
                again = own.automaton is State.HALF_OPEN
                assert record.open_count == (own.open_count + 1 if again else 1)
                doubled = self.policy.open_duration_s * 2 ** (record.open_count - 1)
                assert record.open_for_s == min(doubled, self.policy.max_open_duration_s)
                self.check_trip(i, own)
            case Reason.OPEN_ELAPSED:
                assert record.evidence["known"] == own.evidence["known"]
                assert record.open_count == own.open_count
                if books.stay not in books.guessed:
                    waited = car.now - books.first[books.stay]
                    assert waited >= own.open_for_s - SLACK_S
            case Reason.RECOVERED:
                over = car.now - books.first[books.stay] >= self.policy.half_open_max_s - SLACK_S
                self.check_growth(i, own, record, gap=not over)

    def check_rewrite(self, i: int, own: Record, record: Record) -> None:
        """The same state, over a good record: a ratio step, or another mode, or order."""
        assert record.last_changed_at == own.last_changed_at
        if own.automaton is State.CLOSED and record.automaton_ratio != own.automaton_ratio:
            self.check_shed(i, own, record)
        elif record.automaton_ratio != own.automaton_ratio:
            assert own.automaton is State.HALF_OPEN
            assert record.automaton_ratio > own.automaton_ratio
            self.check_growth(i, own, record, gap=True)
        else:
            before = own.current_state, own.override, own.forced_at, own.admit_ratio
            after = record.current_state, record.override, record.forced_at, record.admit_ratio
            assert after != before or record.override == "open", "a new order to be open"

    def fresh(self, i: int, *, after: int) -> list[Item]:
        """Reports that may count: good, first seen here lately, changed after an index."""
        car, books = self.cars[i], self.books[i]
        return [
            item
            for item in books.listed.values()
            if item.value.startswith(b'{"at": 1')
            and item.index > after
            and car.now - books.values[item.value] < self.policy.fresh_for_s
        ]

    def check_trip(self, i: int, own: Record) -> None:
        half_open = own.automaton is State.HALF_OPEN
        after = self.begun[self.books[i].stay] if half_open else 0
        unused = [x for x in self.fresh(i, after=after) if x.value not in self.spent]
        failed = sum(json.loads(item.value)["fail"] for item in unused)
        threshold = self.policy.failure_threshold
        needed = max(1.0, threshold * own.automaton_ratio) if half_open else threshold
        assert failed >= needed
        self.spent |= {item.value for item in self.books[i].listed.values()}

    def check_growth(self, i: int, own: Record, record: Record, *, gap: bool) -> None:
        car, books = self.cars[i], self.books[i]
        new = self.fresh(i, after=self.begun[books.stay])
        known = own.evidence["known"]
        assert isinstance(known, int)
        assert len(new) >= max(1, (known + 1) // 2)
        restored = self.restored and books.stay in books.guessed
        if gap and not restored:
            waited = car.now - books.ratios[books.stay, own.automaton_ratio]
            assert waited >= self.policy.ramp_s / 8 - SLACK_S
        assert record.open_count == (own.open_count if record.automaton is State.HALF_OPEN else 0)

    def check_shed(self, i: int, own: Record, record: Record) -> None:
        """A step in CLOSED: its reports say so, by their own lag and throughput."""
        car, books = self.cars[i], self.books[i]
        before, after = own.automaton_ratio, record.automaton_ratio
        assert self.policy.shed is not None
        assert before / 2 - 1e-6 <= after <= before * 2 + 1e-6
        assert SHED.least <= after <= 1.0
        floor = own.evidence["index"]
        assert isinstance(floor, int)
        bodies = [json.loads(item.value) for item in self.fresh(i, after=floor)]
        lags = [said["lag"] for said in bodies if "lag" in said]
        assert lags, "an unknown backlog moves nothing"
        rate = sum(said["ok"] / 5 for said in bodies)
        wait = sum(lags) / rate if rate else math.inf
        wait = wait if sum(lags) >= SHED.minimum else 0.0
        low, high = SHED.start_s, SHED.full_s
        aimed = SHED.least ** min(1.0, max(0.0, (wait - low) / (high - low)))
        assert (after < before) == (aimed < before), "towards what the backlog asks for"
        assert min(before, aimed) - 1e-6 <= after <= max(before, aimed) + 1e-6
        if not (self.restored and books.stay in books.guessed):
            waited = car.now - books.ratios[books.stay, before]
            assert waited >= self.policy.report_interval_s - SLACK_S

    def check_nothing_due(self, i: int, before: Stored | None) -> None:
        """Whoever may write and doesn't has no reason to."""
        car, books = self.cars[i], self.books[i]
        assert isinstance(before, Record)
        known = books.stay == self.stay and books.stay not in books.guessed
        if before.automaton is State.OPEN and known:
            assert car.now < books.first[self.stay] + before.open_for_s + SLACK_S
        assert before.current_state is self.in_force(i, before.automaton)
        assert before.override == self.mode(i)
        if before.current_state is State.CLOSED and (before.override or self.policy.shadow):
            assert before.admit_ratio == 1.0
        elif before.current_state is before.automaton is State.CLOSED:
            assert before.admit_ratio == before.automaton_ratio

    @invariant()
    def the_decision_obeys_the_override(self) -> None:
        for i, car in enumerate(getattr(self, "cars", ())):
            car.board.refresh(car.now)
            decision, mode = car.cell.decision, self.mode(i)
            assert (decision.override is not None) == (mode is not None)
            if mode is not None:
                assert decision.admit_ratio == (0.0 if mode is Mode.OPEN else 1.0)

    @invariant()
    def the_history_is_a_chain_of_edges(self) -> None:
        if not hasattr(self, "store"):
            return
        assert len(self.store.history) <= 64
        for entry in self.store.history[-3:]:
            assert entry.from_state is not None
            assert entry.reason in TABLE[entry.from_state, entry.to_state]

    @invariant()
    def admission_is_exact(self) -> None:
        for books in getattr(self, "books", ()):
            assert abs(books.admitted - books.due) <= 1.000001


TestFleet = Fleet.TestCase
TestFleet.settings = settings.get_profile("breaker-ci" if os.environ.get("CI") else "breaker")
