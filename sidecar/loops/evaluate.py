"""One breaker's evaluation while its lock is ours: driven by change, paced, fenced.

A report that crosses the threshold trips the breaker in the round that its arrival starts; the
tick is only for what time alone changes. Every write is one transaction behind the lock and the
index that was read; one that is refused is dropped and evaluated anew, and one whose answer was
lost is unknown until the key has been read again.
"""

from __future__ import annotations

import asyncio

import stamina

from sidecar.core.board import Cell
from sidecar.core.breaker import due_at, new_epoch, step
from sidecar.core.errors import StoreDenied, StoreError
from sidecar.core.observe import Kind
from sidecar.core.override import rejects_all
from sidecar.core.ports import Committed, Fence, Put
from sidecar.core.signals import Memory, judge
from sidecar.core.types import Reason, Record, Transition
from sidecar.core.writing import Author, Move
from sidecar.loops.around import Around
from sidecar.loops.elect import Elector
from sidecar.loops.guard import Signal
from sidecar.loops.learning import NormalKey
from sidecar.loops.listing import GAP_FACTOR, Listing
from sidecar.loops.pace import MIN_GAP_S
from sidecar.loops.tending import OverrideKey
from sidecar.telemetry import names

REASSERT_GAP_S = 1.0
"""Between two corrections of a foreign write."""
DENIED_PAUSE_S = 30.0
"""How long not to stand again after the token turned out to lack a right."""
STOOD_STILL_S = 1.0
"""A wait that ends later than this after its time: the process was suspended, or got no CPU."""
MAX_COLLECTED = 32
"""Dead reporters' keys deleted in one tick."""


_EVENTS: dict[str, str] = {
    Reason.CREATED: names.CREATED,
    Reason.FOREIGN: names.FOREIGN_WRITE,
    Reason.REASSERTED: names.FOREIGN_WRITE,
    Reason.REPAIRED: names.BAD_STATE,
}
"""What to say of a write that is no transition, by its reason; any other is a ratio step."""


class Evaluator:
    """Evaluates one breaker for one term, which the acquisition at `lock_index` began."""

    def __init__(self, around: Around, elector: Elector, cell: Cell, lock_index: int) -> None:
        self._around = around
        self._elector = elector
        self._cell = cell
        self._name = cell.policy.name
        self._lock_index = lock_index
        self._author = Author(around.instance, 0)
        self._history: list[Transition] = []
        self._listing = Listing(around, cell, self.round)
        self._override = OverrideKey(around, cell)
        self._normal = NormalKey(around, cell)
        self._busy = asyncio.Lock()
        self._last_round = 0.0
        self._gap_s = MIN_GAP_S
        self._corrected = float("-inf")
        self._memory = Memory()
        self._foreign_index = 0
        self._uncertain: Move | None = None
        self._read_again = False
        self._failing = False
        self._denied = False
        self.wake = Signal()
        self.ready = asyncio.Event()
        """Set after the first round."""

    async def run(self) -> None:
        """Evaluate until cancelled."""
        await self._begin()
        self._cell.evaluating = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listing.run(), name=f"reports of {self._name}")
                group.create_task(self._tick(), name=f"tick of {self._name}")
        finally:
            self._cell.evaluating = False
            self._cell.judgement = self._cell.tally = None

    async def settle(self) -> None:
        """Read the reports and evaluate right now, for a report that shall count at once."""
        await self._listing.read_now()
        await self.round()

    async def _begin(self) -> None:
        """Learn from the history how far seq and epoch have come: this term goes on from there."""
        async for attempt in stamina.retry_context(
            on=StoreError, attempts=None, timeout=None, wait_initial=0.1, wait_max=2.0
        ):
            with attempt:
                try:
                    await self._learn()
                    await self._normal.recall()
                except StoreDenied as fault:
                    await self._elector.give_up(self._name, DENIED_PAUSE_S, str(fault))
                    raise
        highest = self._cell.seen.high_epoch if self._cell.seen is not None else 0
        self._author = Author(self._around.instance, new_epoch(self._lock_index, highest))

    async def _learn(self) -> None:
        """Read the history, which knows of every transition that was really written."""
        around = self._around
        entry = await around.store.read(around.wire.history(self._name))
        value = entry.value if entry is not None else None
        self._history, junk = around.wire.decode_history(value)
        if junk:
            around.telemetry.count(names.BAD_RECORDS, kind="history")
            around.telemetry.event(names.BAD_HISTORY, level="warning", breaker=self._name)
        around.board.at_least(
            self._name,
            max((t.seq for t in self._history), default=0),
            max((t.epoch for t in self._history), default=0),
            self._floor(),
        )

    def _floor(self) -> int:
        """How far the reports were read at the last transition: what came before is spent.

        Never past where the store stands, which a restored snapshot may have set back.
        """
        index = self._history[-1].evidence.get("index", 0) if self._history else 0
        return min(index, self._cell.as_of) if isinstance(index, int) else 0

    async def _tick(self) -> None:
        while True:
            await self.round()
            self.ready.set()
            now = self._around.clock.now()
            if self._denied:
                await self._elector.give_up(self._name, DENIED_PAUSE_S, "the token lacks a right")
            elif self._listing.given_up(now):
                pause_s = self._listing.limit_s()
                await self._elector.give_up(self._name, pause_s, "the reports can't be read")
            session = self._elector.may_write(self._name)
            if session is not None:
                await self._override.tend(session)
                await self._normal.tend(session)
            await self._collect()
            await self._rest()

    async def _rest(self) -> None:
        """Wait for news or until something is due, and keep the gap to the last round."""
        clock = self._around.clock
        due = clock.now() + self._until_due()
        woken = await self.wake.wait(due - clock.now())
        late = clock.now() - due
        if woken:
            due = max(clock.now(), self._last_round + self._gap_s)
            await asyncio.sleep(due - clock.now())
            late = max(late, clock.now() - due)
        if late > STOOD_STILL_S:
            self._listing.resumed(clock.now())

    def _until_due(self) -> float:
        """Seconds until time alone may change something, at most the evaluation interval."""
        policy, seen, now = self._cell.policy, self._cell.seen, self._around.clock.now()
        times = [now + policy.evaluation_interval_s]
        due = due_at(seen, policy) if seen is not None else None
        ends = self._cell.standing.ends if self._cell.standing is not None else None
        judged = self._cell.judgement.due if self._cell.judgement is not None else None
        times += [at for at in (due, ends, judged) if at is not None and at > now]
        if self._corrected + REASSERT_GAP_S > now:
            times.append(self._corrected + REASSERT_GAP_S)
        return max(MIN_GAP_S / 2, min(times) - now)

    async def round(self) -> float:
        """Judge what is known now, and write what follows from it.

        Returns the seconds that judging took: what the next round's gap is measured by. Waiting
        for the store to commit is no work, and must not put off the next report.
        """
        async with self._busy:
            started = self._around.clock.now()
            judged_s = 0.0
            try:
                if self._read_again:
                    await self._reread()
                began = self._around.clock.now()
                move = self._judge()
                judged_s = self._around.clock.now() - began
                self._gap_s = max(MIN_GAP_S, GAP_FACTOR * judged_s)
                result = await self._write(move) if move is not None else "unchanged"
                self._count(result)
                self._failing = self._denied = False
            except StoreError as fault:
                self._failed(fault)
            self._last_round = self._around.clock.now()
            self._around.telemetry.observe(names.EVALUATION_DURATION, self._last_round - started)
            return judged_s

    def _failed(self, fault: StoreError) -> None:
        self._count("failed")
        self._denied = isinstance(fault, StoreDenied)
        if not self._failing:
            self._failing = True
            self._around.telemetry.event(
                names.EVALUATION_FAILED,
                level="warning",
                breaker=self._name,
                error=f"{type(fault).__name__}: {fault}",
            )

    def _count(self, result: str) -> None:
        self._around.telemetry.count(names.EVALUATIONS, breaker=self._name, result=result)

    def _judge(self) -> Move | None:
        cell, clock = self._cell, self._around.clock
        seen, policy, now = cell.seen, cell.policy, clock.now()
        if seen is None:
            return None
        readable = self._listing.readable(now)
        tally = self._listing.reports.tally(seen.floor_index, policy, now=now) if readable else None
        sealed = rejects_all(cell.standing, now)
        judgement = judge(
            tally,
            seen,
            policy,
            self._memory,
            lag=cell.lag,
            probe=cell.probe,
            now=now,
            sealed=sealed,
            normal=self._normal.normal,
        )
        self._memory = judgement.memory
        self._normal.note(tally, judgement.verdict, now=now)
        cell.tally, cell.judgement = tally, judgement
        if seen.kind is Kind.FOREIGN and seen.index != self._foreign_index:
            self._foreign_index = seen.index
            self._around.telemetry.count(names.FOREIGN_WRITES, breaker=self._name)
        move = step(
            seen,
            judgement,
            policy,
            self._author,
            now=now,
            wall_at=clock.wall_at(),
            last_known=self._history[-1].to_state if self._history else None,
            standing=cell.standing,
        )
        if move is None or move.record.reason != Reason.REASSERTED:
            return move
        too_soon = seen.kind is Kind.FOREIGN and now < self._corrected + REASSERT_GAP_S
        return None if too_soon else move  # a round is due when the gap is over

    async def _write(self, move: Move) -> str:
        """Commit a move behind the fence; returns what came of it, for the metric."""
        around, seen = self._around, self._cell.seen
        session = self._elector.may_write(self._name)
        if session is None or seen is None:
            return "refused"
        value = around.wire.encode_state(move.record)
        writes = [Put(around.wire.state(self._name), value, seen.index)]
        if move.transition is not None:
            history = around.wire.append_history(self._history, move.transition)
            writes.append(Put(around.wire.history(self._name), history))
        if seen.kind is Kind.FOREIGN and move.record.reason == Reason.REASSERTED:
            self._corrected = around.clock.now()
        self._uncertain, self._read_again = move, True
        outcome = await around.store.commit(Fence(around.wire.leader(self._name), session), writes)
        if isinstance(outcome, Committed):
            self._read_again = False
            index = outcome.indexes[around.wire.state(self._name)]
            self._observe(value, index)
            self._applied(move)
            return "written"
        self._uncertain = None
        around.telemetry.count(names.CAS_CONFLICTS)
        around.telemetry.event(
            names.WRITE_REFUSED, breaker=self._name, conflicts=list(outcome.conflicts)
        )
        self.wake.set()
        return "refused"

    def _observe(self, value: bytes | None, index: int) -> None:
        """Put what the key holds onto the board: as it reads back, so that times compare equal."""
        around = self._around
        around.board.observe(
            self._name,
            around.wire.decode_state(value) if value is not None else None,
            index,
            max(self._cell.as_of, index),
            now=around.clock.now(),
            wall_at=around.clock.wall_at(),
        )
        around.changed()

    async def _reread(self) -> None:
        """After a refused write, or one whose answer was lost: only the key itself knows."""
        entry = await self._around.store.read(self._around.wire.state(self._name))
        seen = self._cell.seen
        if entry is None:
            self._observe(None, 0)
        elif seen is None or entry.modify_index > seen.index:
            self._observe(entry.value, entry.modify_index)
        if self._uncertain is not None and await self._was_written(self._uncertain):
            self._applied(self._uncertain)
        self._uncertain, self._read_again = None, False

    async def _was_written(self, move: Move) -> bool:
        own = self._cell.seen.own if self._cell.seen is not None else None
        if own is not None and _signature(own) == _signature(move.record):
            return True
        if move.transition is None:
            return False
        await self._learn()  # it may have been written, and written over since
        return any(_signature(entry) == _signature(move.record) for entry in self._history)

    def _applied(self, move: Move) -> None:
        """The write is in the store: remember it and say so."""
        self._uncertain = None
        transition = move.transition
        if transition is None:
            self._tell(move)
            return
        if all(_signature(entry) != _signature(transition) for entry in self._history):
            self._history = [*self._history, transition][-64:]
        self._around.telemetry.count(
            names.TRANSITIONS,
            breaker=self._name,
            **{
                "from": str(transition.from_state),
                "to": str(transition.to_state),
                "reason": transition.reason,
            },
        )
        self._around.telemetry.event(
            names.TRANSITION,
            level="warning",
            breaker=self._name,
            from_state=str(transition.from_state),
            to_state=str(transition.to_state),
            reason=transition.reason,
            detail=transition.detail,
            seq=transition.seq,
            epoch=transition.epoch,
            **{f"evidence_{key}": value for key, value in transition.evidence.items()},
        )

    def _tell(self, move: Move) -> None:
        """One line for a write that is no transition."""
        record = move.record
        event = names.REFRESHED if move.refreshed else _EVENTS.get(record.reason, names.STEP)
        self._around.telemetry.event(
            event,
            breaker=self._name,
            state=str(record.current_state),
            automaton=str(record.automaton),
            reason=record.reason,
            admit_ratio=record.admit_ratio,
            seq=record.seq,
        )

    async def _collect(self) -> None:
        """Delete what dead reporters left behind, if nobody has touched it since."""
        around, policy = self._around, self._cell.policy
        expired = self._listing.reports.expired(policy, now=around.clock.now())[:MAX_COLLECTED]
        for instance, index in expired:
            if self._elector.may_write(self._name) is None:
                return
            try:
                gone = await around.store.delete(f"{policy.reports_prefix}/{instance}", index)
            except StoreError:
                return  # the next tick tries again
            if gone:
                around.telemetry.event(
                    names.REPORTER_DROPPED, breaker=self._name, reporter=instance
                )


def _signature(written: Record | Transition) -> tuple[int, int, str]:
    """What no two writes share."""
    return written.seq, written.epoch, written.evaluator
