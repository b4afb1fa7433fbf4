"""Standing for evaluator: one session, one lock a breaker, and knowing when to stand down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sidecar.core.board import Cell
from sidecar.core.election import ROUND_S, starts_after
from sidecar.core.errors import CheckLost, SessionLost, StoreDenied, StoreError
from sidecar.core.lease import Lease
from sidecar.core.ports import Entry
from sidecar.core.types import LockHolder
from sidecar.loops.abreast import together, wider
from sidecar.loops.around import Around
from sidecar.loops.contest import RETRY_S, Contest
from sidecar.loops.guard import Signal
from sidecar.loops.leftover import Leftovers
from sidecar.loops.pulse import Pulse
from sidecar.telemetry import names

CHECK_KNOWN_S = 1.0
"""How long a new check may take from the local agent to the servers."""
REFRESH_GAP_S = 1.0
"""Between two corrections of a lock's value that somebody else keeps overwriting."""
_SESSION_LATE = "the session could not be renewed in time"
_CHECK_LATE = "the local agent could not be told in time that this sidecar lives"


@dataclass(frozen=True, slots=True)
class Candidate:
    """How this sidecar stands for election.

    Args:
        address: where its HTTP listener is, for the lock's value.
        eager: nobody else can stand (a store of our own), so there is no contest to hold.
        fast_s: bind sessions to a check at the local agent that lives so long without a pass, so
            that a dead evaluator is replaced that much sooner; None: their own ttl is enough.
    """

    instance: str
    address: str
    ttl_s: float
    lock_delay_s: float
    follower: bool
    eager: bool
    fast_s: float | None = None


@dataclass(slots=True)
class Term:
    """A lock that is ours."""

    lock_index: int
    since_at: float
    cell: Cell
    """What it is evaluated into: another one where a reload took the breaker away and back."""
    refreshed: float = float("-inf")
    broken: bool = False
    """True while the key doesn't say that it is ours."""


class Elector:
    """Takes free locks, keeps the session alive, and says whether it may be acted on.

    Args:
        gained: called with (breaker, lock index) when a lock becomes ours.
        lost: called with the breaker when it is ours no more.
    """

    def __init__(
        self,
        around: Around,
        candidate: Candidate,
        gained: Callable[[str, int], None],
        lost: Callable[[str], None],
    ) -> None:
        self.candidate = candidate
        self._store = around.store
        self._wire = around.wire
        self._board = around.board
        self._telemetry = around.telemetry
        self._clock = around.clock
        self._draw = around.draw
        self._gained = gained
        self._lost = lost
        self._session: str | None = None
        self._making = asyncio.Lock()
        self._width = 1
        self._lease = Lease(0.0, 0.0)
        self._renew_at = 0.0
        self._renew_failures = 0
        self._terms: dict[str, Term] = {}
        self._contests: dict[str, Contest] = {}
        self._not_before: dict[str, float] = {}
        self._leftovers = Leftovers(around, self._free)
        self.wake = Signal()
        self.pulse = Pulse(around, self.wake)

    def may_write(self, name: str) -> str | None:
        """The session to fence a write of this breaker with; None once it can't be trusted."""
        if name in self._terms and self._clock.now() < self._trusted_until:
            return self._session
        return None

    @property
    def _trusted_until(self) -> float:
        """When the session may have ended in the store: the shorter of its two lives."""
        return min(self._lease.ends, self.pulse.ends)

    async def give_up(self, name: str, pause_s: float, why: str) -> None:
        """Release a lock and don't stand for it for a while."""
        self._not_before[name] = self._clock.now() + pause_s
        await self._release(name, why, level="warning")

    async def run(self) -> None:
        """Stand for election for ever."""
        while True:
            now = self._clock.now()
            if self._session is not None and now >= self._trusted_until:
                renewed = self._lease.valid(now)
                self._stand_down(_CHECK_LATE if renewed else _SESSION_LATE)
            elif self._session is not None and now >= self._renew_at:
                await self._renew()
            await self._look_at_locks()
            self._end_idle_session()
            await self._leftovers.settle()
            if self._session is None and not self._contests:
                await self.pulse.end()
            await self.wake.wait(max(0.0, self._next() - self._clock.now()))

    def _next(self) -> float:
        times = [self._clock.now() + 60.0, self._leftovers.next]
        times += [contest.next for contest in self._contests.values()]
        if self._session is not None:
            times += [self._renew_at, self._trusted_until]
        now = self._clock.now()
        times += [at for at in self._not_before.values() if at > now]
        times += [t.refreshed + REFRESH_GAP_S for t in self._terms.values() if t.broken]
        return min(times)

    async def _look_at_locks(self) -> None:
        """Each breaker's in turn; those that are to be tried for, a few at a time.

        One after the other, sixty locks of a dead evaluator take as many round trips.
        """
        names = iter([*self._board.cells, *(set(self._terms) - self._board.cells.keys())])
        while due := await self._due(names, self._width):
            self._width = wider(self._width, await together(self._try, due, "stand for"))

    async def _due(self, names: Iterator[str], most: int) -> list[str]:
        """The next of these to try for; none where the session has to be renewed before."""
        due: list[str] = []
        while len(due) < most:
            if self._session is not None and self._clock.now() >= self._renew_at:
                break  # the others have their turn behind the renewal
            name = next(names, None)
            if name is None:
                break
            if await self._consider(name):
                due.append(name)
        return due

    async def _consider(self, name: str) -> bool:
        """See to a lock that is ours; True: it is to be tried for."""
        cell = self._board.cells.get(name)
        if name in self._terms:
            await self._check_term(name, cell)
        if name in self._terms:
            return False
        if cell is not None and self._stands_for(cell):
            return self._contend(name, cell)
        self._contests.pop(name, None)
        return False

    def _stands_for(self, cell: Cell) -> bool:
        now = self._clock.now()
        return (
            not self.candidate.follower
            and not cell.forgotten
            and cell.session in (None, self._session)
            and cell.seen is not None
            and not cell.seen.followed_only
            and now >= self._not_before.get(cell.policy.name, now)
        )

    async def _check_term(self, name: str, cell: Cell | None) -> None:
        term = self._terms[name]
        if cell is None:
            await self._release(name, "the breaker is no longer configured")
        elif cell.seen is not None and cell.seen.followed_only:
            await self._release(name, "the record has a newer schema than this version writes")
        elif self.candidate.follower:
            await self._release(name, "its role is follower now")
        elif cell is not term.cell:
            self._end_term(name, "the breaker was configured anew")
        elif cell.session != self._session:
            self._end_term(name, "somebody else took or deleted the lock")
        else:
            holder = cell.holder
            term.broken = holder is None or holder.instance != self.candidate.instance
            if term.broken:
                await self._refresh_value(name, term)

    def _contend(self, name: str, cell: Cell) -> bool:
        """Whether to try now for a lock that is free, or that our session has without a term.

        That is where its acquisition was not confirmed, or its breaker was configured anew.
        """
        now = self._clock.now()
        ours = cell.session is not None
        contest = self._contests.get(name)
        if contest is None:
            delay_s = starts_after(
                released=ours or (cell.holder is not None and cell.holder.released),
                lock_delay_s=self.candidate.lock_delay_s,
                first_ever=cell.holder is None,
            )
            jitter_s = 0.0 if self.candidate.eager or ours else ROUND_S * self._draw()
            contest = self._contests[name] = Contest(now + delay_s + jitter_s)
        return contest.turn(now, self._draw, alone=self.candidate.eager or ours)

    async def _try(self, name: str) -> bool:
        """Try for a lock; True: it is ours. Others may be tried for meanwhile."""
        cell, contest = self._board.cells.get(name), self._contests.get(name)
        if cell is None or contest is None:  # taken out while another lock was seen to
            return False
        since_at = self._clock.wall_at()
        session: str | None = None
        try:
            session = await self._ensure_session()
            if cell.session not in (None, session):  # taken while the session was being made
                return False
            entry = await self._store.acquire(
                self._wire.leader(name), self._holder(since_at), session
            )
        except SessionLost:
            if self._session == session:  # nobody beside us has noticed yet
                self._stand_down("the session is gone")
            contest.next = self._clock.now() + RETRY_S * (1 + self._draw())
            return False
        except StoreError as fault:
            contest.failed(self._clock.now(), self._draw)
            if isinstance(fault, StoreDenied) and contest.failures == 1:
                self._telemetry.event(
                    names.STORE_DENIED, level="warning", breaker=name, error=str(fault)
                )
            return False
        if entry is None or self._session != session:
            # Or it was set aside meanwhile, and this lock comes free with it.
            contest.refused(self._clock.now(), self._draw)
            return False
        self._won(name, cell, entry, since_at, session)
        return True

    def _won(self, name: str, cell: Cell, entry: Entry, since_at: float, session: str) -> None:
        self._contests.pop(name, None)
        self._terms[name] = Term(entry.lock_index, since_at, cell)
        self._leftovers.reclaimed(session, name)
        self._board.lock(
            name,
            session,
            LockHolder(
                instance=self.candidate.instance, address=self.candidate.address, since_at=since_at
            ),
            entry.modify_index,
            now=self._clock.now(),
        )
        self._telemetry.event(names.ELECTED, breaker=name, lock_index=entry.lock_index)
        self._gained(name, entry.lock_index)

    async def _ensure_session(self) -> str:
        async with self._making:  # one for all locks that are tried for at once
            if self._session is not None:
                return self._session
            check = await self.pulse.begin(self.candidate.fast_s)
            bound = await self._bind(check) if check is not None else None
            return bound or await self._create(None)

    async def _bind(self, check: str) -> str | None:
        """A session bound to this check; None where there can't be one, and it was said."""
        deadline = self._clock.now() + CHECK_KNOWN_S
        while True:
            try:
                return await self._create(check)
            except CheckLost as fault:
                if self._clock.now() >= deadline:
                    await self.pulse.forgo(fault)
                    return None
                await asyncio.sleep(CHECK_KNOWN_S / 20)

    async def _create(self, check: str | None) -> str:
        sent = self._clock.now()
        session = await self._store.create_session(
            f"breaker-sidecar {self.candidate.instance}",
            self.candidate.ttl_s,
            self.candidate.lock_delay_s,
            check,
        )
        self._session = session.id
        self._hold(sent, session.ttl_s)
        return session.id

    def _hold(self, sent: float, ttl_s: float) -> None:
        self._lease = Lease(sent, ttl_s)
        self._renew_at = self._lease.renew_at
        self._renew_failures = 0

    async def _renew(self) -> None:
        if self._session is None:
            return
        sent = self._clock.now()
        try:
            async with asyncio.timeout(max(0.05, self._lease.ends - sent)):
                session = await self._store.renew_session(self._session)
        except SessionLost:
            self._stand_down("the session is gone")
        except (StoreError, TimeoutError):
            self._renew_failures += 1
            pause_s = min(1.0, 0.1 * 2.0 ** min(self._renew_failures, 8))
            self._renew_at = self._clock.now() + pause_s * (0.5 + self._draw())
        else:
            self._hold(sent, session.ttl_s)

    def _holder(self, since_at: float, *, released: bool = False) -> bytes:
        return self._wire.encode_holder(
            LockHolder(
                instance=self.candidate.instance,
                address=self.candidate.address,
                since_at=since_at,
                released=released,
            )
        )

    async def _refresh_value(self, name: str, term: Term) -> None:
        """Somebody put something else onto our lock key: the lock is still ours, say so again."""
        now = self._clock.now()
        if self._session is None or now < term.refreshed + REFRESH_GAP_S:
            return
        term.refreshed = now
        self._telemetry.event(names.LOCK_BROKEN, level="warning", breaker=name)
        try:
            await self._store.acquire(
                self._wire.leader(name), self._holder(term.since_at), self._session
            )
        except SessionLost:
            self._stand_down("the session is gone")
        except StoreError:
            return  # tried again at the next look

    def _stand_down(self, why: str) -> None:
        """The session can't be trusted any more: no lock is ours."""
        self._set_aside({name: term.since_at for name, term in self._terms.items()})
        for name in list(self._terms):
            self._end_term(name, why)

    def _set_aside(self, locks: Mapping[str, float]) -> None:
        """Act on the session no more, and end it in the store as soon as that answers."""
        session, self._session, self._width = self._session, None, 1
        if session is not None:
            ends = max(self._clock.now(), self._lease.ends) + self._lease.ttl_s
            self._leftovers.add(session, locks, ends=ends)

    def _end_term(self, name: str, why: str) -> None:
        if self._terms.pop(name, None) is not None:
            self._telemetry.event(names.STOOD_DOWN, level="warning", breaker=name, why=why)
            self._lost(name)

    async def _release(self, name: str, why: str, level: str = "info") -> None:
        term = self._terms.pop(name, None)
        if term is None or self._session is None:
            return
        self._telemetry.event(names.STOOD_DOWN, level=level, breaker=name, why=why)
        self._lost(name)
        try:
            await self._free(name, term.since_at, self._session)
        except StoreError:
            self._leftovers.add(self._session, {name: term.since_at}, ends=None, wait_s=RETRY_S)
            self.wake.set()

    async def _free(self, name: str, since_at: float, session: str) -> None:
        await self._store.release(
            self._wire.leader(name), self._holder(since_at, released=True), session
        )

    def _end_idle_session(self) -> None:
        """A session exists only while holding or trying."""
        if not self._terms and not self._contests:
            self._set_aside({})

    async def hand_over(self) -> None:
        """Give everything back, in the order that needs no lock-delay: release, then destroy.

        All locks at once: one after the other, those of many breakers outlast a stop's patience.
        """
        await asyncio.gather(*(self._release(name, "stopping") for name in self._terms))
        self._contests.clear()
        self._end_idle_session()
        await self._leftovers.settle()
        await self.pulse.end()
