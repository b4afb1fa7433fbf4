"""A breaker's surroundings in miniature: a store with one clock, machines with clocks of their own.

The store does what the rules rely on and nothing more: every change takes the next index, an
identical put is no change, a report prefix answers with an index of its own, and a write goes
through only behind the lock and the index that was read.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sidecar.core.board import Board, Cell
from sidecar.core.breaker import new_epoch, step
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.observe import Seen
from sidecar.core.override import Override, completed
from sidecar.core.reports import Item, Reports
from sidecar.core.signals import Judgement, judge
from sidecar.core.types import (
    BadReport,
    Foreign,
    LockHolder,
    Policy,
    Record,
    Report,
    State,
    Stored,
    Transition,
    Verdict,
)
from sidecar.core.wire import parse_rfc3339, rfc3339
from sidecar.core.writing import Author, Move

POLICY = Policy(name="default", fingerprint="p-1")
WALL_AT = 1_763_668_800.0
"""What the wall clocks say when the monotonic time of the story is 0."""
CONTACT = Contact(synced=0.0, stale_after_s=10.0, max_stale_s=30.0, on_loss=OnLoss.KEEP)


def parse(value: bytes) -> Report | BadReport:
    """The least of a parser: the core doesn't care how a report is written."""
    try:
        raw = json.loads(value)
        return Report(
            timestamp_at=raw["at"],
            rate_ok=raw["ok"] / 5,
            count_fail=raw["fail"],
            interval_s=5.0,
            lag=raw.get("lag"),
        )
    except (ValueError, KeyError, TypeError) as fault:
        return BadReport(str(fault))


def body(at: float, *, fail: float = 0, ok: float = 0, lag: float | None = None) -> bytes:
    """A report of one interval of 5 s."""
    behind = {} if lag is None else {"lag": lag}
    return json.dumps({"at": at, "ok": ok, "fail": fail, **behind}).encode()


def says(verdict: Verdict, *, known: int = 3, index: int = 0) -> Judgement:
    """A verdict without the trouble of evidence."""
    return Judgement(
        verdict=verdict,
        reason="failures",
        detail=str(verdict),
        evidence={"failures": 25},
        known=known,
        index=index,
    )


def as_read(stored: Stored) -> Stored:
    """What comes back from a store: times have microseconds there."""
    if not isinstance(stored, Record):
        return stored
    return replace(
        stored,
        last_changed_at=parse_rfc3339(rfc3339(stored.last_changed_at)),
        retry_at=None if stored.retry_at is None else parse_rfc3339(rfc3339(stored.retry_at)),
        forced_at=None if stored.forced_at is None else parse_rfc3339(rfc3339(stored.forced_at)),
        evidence=dict(stored.evidence),
    )


@dataclass
class Time:
    """The one real time, in seconds since the story began."""

    t: float = 1000.0


@dataclass
class Store:
    """One breaker's keys, and its reports."""

    index: int = 100
    state: Stored | None = None
    state_index: int = 0
    reports: dict[str, Item] = field(default_factory=dict)
    reports_index: int = 1
    holder: str | None = None
    lock_index: int = 0
    history: list[Transition] = field(default_factory=list)
    override: Override | None = None
    override_index: int = 0

    def put_override(self, override: Override | None) -> None:
        """Write the override's key, or delete it."""
        self.index += 1
        self.override = override
        self.override_index = 0 if override is None else self.index

    def put_state(self, stored: Stored | None) -> None:
        """Write the state key, or delete it, without asking anybody."""
        self.index += 1
        self.state = None if stored is None else as_read(stored)
        self.state_index = 0 if stored is None else self.index

    def put_report(self, instance: str, value: bytes) -> None:
        """Consul doesn't even note an identical put."""
        now_there = self.reports.get(instance)
        if now_there is None or now_there.value != value:
            self.index += 1
            self.reports[instance] = Item(instance, value, self.index)
            self.reports_index = self.index

    def touch_report(self, instance: str) -> None:
        """A session that held the key dies: its index moves, its value doesn't."""
        self.index += 1
        self.reports[instance] = replace(self.reports[instance], index=self.index)
        self.reports_index = self.index

    def delete_report(self, instance: str) -> None:
        """The key goes; the prefix's index remembers that something did."""
        self.index += 1
        self.reports.pop(instance, None)
        self.reports_index = self.index

    def commit(self, who: str, move: Move, cas: int) -> bool:
        """One fenced transaction: the lock is held and the state has the index that was read."""
        if self.holder != who or cas != self.state_index:
            return False
        self.put_state(move.record)
        if move.transition is not None:
            self.history = [*self.history, move.transition][-64:]
        return True

    def saved(self) -> Store:
        """A snapshot."""
        return copy.deepcopy(self)

    def restore(self, snapshot: Store) -> None:
        """Everything as it was, the index included."""
        for name, value in vars(snapshot.saved()).items():
            setattr(self, name, value)


class Sidecar:
    """One machine: its clocks, and what it has seen.

    Args:
        boot: what its monotonic clock says more than the story's time.
    """

    def __init__(
        self, name: str, store: Store, time: Time, policy: Policy = POLICY, *, boot: float = 0.0
    ) -> None:
        self.name = name
        self.store = store
        self.time = time
        self.policy = policy
        self.boot = boot
        self.wall_jump = 0.0
        self.restart()

    def restart(self) -> None:
        """A new process on the same machine: it has seen nothing."""
        contact = replace(CONTACT, synced=self.now)
        self.board = Board(self.name, [self.policy], "default", contact, now=self.now)
        self.reports = Reports(parse)
        self.epoch = 0
        self._last_index = 0

    @property
    def now(self) -> float:
        return self.time.t + self.boot

    @property
    def wall_at(self) -> float:
        return WALL_AT + self.time.t + self.wall_jump

    @property
    def cell(self) -> Cell:
        return self.board.cells["default"]

    @property
    def seen(self) -> Seen:
        seen = self.cell.seen
        assert seen is not None
        return seen

    @property
    def record(self) -> Record:
        record = self.seen.record
        assert record is not None
        return record

    def sync_state(self) -> None:
        """The long poll answers."""
        store, contact = self.store, self.board.contact
        live = contact.synced is not None and self.now < contact.synced + contact.stale_after_s
        if store.index < self._last_index:
            self.board.rewind()
            live = False
        self._last_index = store.index
        self.board.observe(
            "default",
            store.state,
            store.state_index,
            store.index,
            now=self.now,
            wall_at=self.wall_at,
        )
        holder = LockHolder(instance=store.holder, address="", since_at=0) if store.holder else None
        self.board.lock("default", store.holder, holder, store.index, now=self.now)
        self.board.override(
            "default",
            store.override,
            store.override_index,
            store.index,
            live=live,
            now=self.now,
            wall_at=self.wall_at,
        )
        self.board.synced(self.now)
        self.board.refresh(self.now)

    def sync_reports(self) -> list[tuple[str, str, bool]]:
        """The reports are listed."""
        return self.reports.update(
            list(self.store.reports.values()),
            self.store.reports_index,
            self.policy,
            now=self.now,
            wall_at=self.wall_at,
        )

    def sync(self) -> None:
        self.sync_state()
        self.sync_reports()

    def stand(self) -> None:
        """Take the lock; the term begins with what state and history know."""
        self.store.holder = self.name
        self.store.lock_index += 1
        self.store.index += 1
        self.sync_state()
        history = self.store.history
        floor = history[-1].evidence.get("index", 0) if history else 0
        self.board.at_least(
            "default",
            max((t.seq for t in history), default=0),
            max((t.epoch for t in history), default=0),
            floor if isinstance(floor, int) else 0,
        )
        self.epoch = new_epoch(self.store.lock_index, self.seen.high_epoch)

    def judgement(self) -> Judgement:
        tally = self.reports.tally(self.seen.floor_index, self.policy, now=self.now)
        return judge(tally, self.seen, self.policy)

    def propose(self, judgement: Judgement | None = None) -> Move | None:
        return step(
            self.seen,
            self.judgement() if judgement is None else judgement,
            self.policy,
            Author(self.name, self.epoch),
            now=self.now,
            wall_at=self.wall_at,
            last_known=self.store.history[-1].to_state if self.store.history else None,
            standing=self.cell.standing,
        )

    def tend(self) -> None:
        """What an evaluator does to the override's key."""
        standing = self.cell.standing
        if standing is None or standing.index != self.store.override_index:
            return
        if not standing.holds(self.now):
            self.store.put_override(None)
            return
        whole = completed(standing, now=self.now, wall_at=self.wall_at)
        if whole is not None:
            self.store.put_override(whole)

    def write(self, move: Move, *, answer_lost: bool = False) -> bool:
        """Commit, and take in what was written unless the answer gets lost."""
        done = self.store.commit(self.name, move, self.seen.index)
        if done and not answer_lost:
            self.sync_state()
        return done

    def round(self, judgement: Judgement | None = None) -> Move | None:
        """Look, judge, write: what was written."""
        self.sync()
        move = self.propose(judgement)
        return move if move is not None and self.write(move) else None

    def settle(self, judgement: Judgement | None = None) -> list[Move]:
        """Rounds until nothing is left to write, at this very moment."""
        moves: list[Move] = []
        while (move := self.round(judgement)) is not None:
            moves.append(move)
            assert len(moves) < 10, "it never comes to rest"
        return moves


class Story:
    """One store, a first evaluator, and time that passes when told."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.time = Time()
        self.store = Store()
        self.policy = policy
        self.a = Sidecar("a", self.store, self.time, policy)
        self.a.stand()
        self.a.settle()

    def another(self, name: str = "b", *, boot: float = 5000.0) -> Sidecar:
        return Sidecar(name, self.store, self.time, self.policy, boot=boot)

    def post(
        self,
        instance: str = "c-1",
        *,
        fail: float = 0,
        ok: float = 0,
        lag: float | None = None,
    ) -> None:
        at = WALL_AT + self.time.t + self.store.index / 1e6
        self.store.put_report(instance, body(at, fail=fail, ok=ok, lag=lag))

    def after(self, seconds: float) -> None:
        self.time.t += seconds

    def foreign(self, state: State, *, ago: float | None = 0.0) -> None:
        """The source system writes; `ago` in seconds by the right time, None for no time."""
        at = None if ago is None else WALL_AT + self.time.t - ago
        self.store.put_state(Foreign(state, at))

    def trip(self, **fail: int) -> Move:
        """Reports that fail, and the round that sees them."""
        for instance, count in (fail or {"c-1": 25}).items():
            self.post(instance.replace("_", "-"), fail=count)
        move = self.a.round()
        assert move is not None
        assert move.record.automaton is State.OPEN
        return move

    def half_open(self) -> Move:
        """Until the open time is over."""
        self.after(max(0.0, self.a.seen.open_until - self.a.now))
        move = self.a.round()
        assert move is not None
        assert move.record.automaton is State.HALF_OPEN
        return move

    def until(
        self, done: Callable[[], bool], *, every: float = 1.0, limit: float = 600.0
    ) -> list[Move]:
        """Healthy reports and rounds until it is so: what was written meanwhile."""
        moves: list[Move] = []
        end = self.time.t + limit
        while not done():
            assert self.time.t < end, "it never came"
            self.after(every)
            self.post(ok=100)
            moves += self.a.settle()
        return moves
