"""Sidecars without a network: their loops as the daemon wires them, on one store in memory."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from sidecar.core.board import Board, Cell
from sidecar.core.decision import Contact, OnLoss, poll_wait, stale_after
from sidecar.core.errors import StoreUnreachable
from sidecar.core.ports import Committed, Entry, Fence, Page, Put, Refused, Session
from sidecar.core.types import Policy, Record, Report, Transition
from sidecar.loops.around import Around, Clock
from sidecar.loops.elect import Candidate, Elector
from sidecar.loops.evaluate import Evaluator
from sidecar.loops.guard import Tasks
from sidecar.loops.terms import Terms
from sidecar.loops.watch import Watch
from sidecar.store.codec import JsonWire
from sidecar.store.memory import MemoryStore
from tests.telemetry import RecordedTelemetry
from tests.unit.loops import virtual

T = TypeVar("T")

WALL_AT = 1_800_000_000.0
POLICY = Policy(name="default", fingerprint="one")
WIRE = JsonWire("breaker")
MAX_STALE_S = 30.0


@dataclass(frozen=True, slots=True)
class MachineClock(Clock):
    """The story's time as one machine has it. `jump` moves its wall clock alone."""

    boot_s: float = 0.0
    jump: list[float] = field(default_factory=lambda: [0.0])

    def now(self) -> float:
        """Monotonic seconds."""
        return virtual.now() + self.boot_s

    def wall_at(self) -> float:
        """Epoch seconds."""
        return WALL_AT + virtual.now() + self.jump[0]


@dataclass(frozen=True, slots=True)
class Before:
    """The call fails and nothing happens."""

    error: Exception


@dataclass(frozen=True, slots=True)
class After:
    """The call does its work, and its answer gets lost."""

    error: Exception


class Link:
    """One machine's way to the shared store, on which calls can fail.

    Attributes:
        faults: for each operation what its next calls meet; `always` once these are used up.
        hooks: called right before an operation, with its arguments.
        ttl_s: what a new session gets, whatever was asked for.
    """

    exclusive = False

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, deque[Before | After]] = defaultdict(deque)
        self.always: dict[str, Before | After] = {}
        self.hooks: dict[str, Callable[..., Awaitable[None]]] = {}
        self.ttl_s: float | None = None

    def fail(self, op: str, *faults: Before | After) -> None:
        """The next calls of an operation fail so."""
        self.faults[op].extend(faults)

    def cut(self, *ops: str) -> None:
        """From now on these fail."""
        self.always.update({op: Before(StoreUnreachable("cut off")) for op in ops})

    def mend(self) -> None:
        """Nothing fails any more."""
        self.always.clear()
        self.faults.clear()

    async def _do(self, op: str, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        self.calls[op] += 1
        await asyncio.sleep(0.001)
        if (hook := self.hooks.get(op)) is not None:
            await hook(*args)
        fault = self.faults[op].popleft() if self.faults[op] else self.always.get(op)
        if isinstance(fault, Before):
            raise fault.error
        result = await call(*args)
        if isinstance(fault, After):
            raise fault.error
        return result

    async def read(self, key: str) -> Entry | None:
        return await self._do("read", self._store.read, key)

    async def watch(self, prefix: str, index: int, wait_s: float) -> Page:
        op = "watch" if prefix == WIRE.watched else "list"
        return await self._do(op, self._store.watch, prefix, index, wait_s)

    async def put(self, key: str, value: bytes) -> None:
        await self._do("put", self._store.put, key, value)

    async def swap(self, key: str, value: bytes, cas: int) -> bool:
        return await self._do("swap", self._store.swap, key, value, cas)

    async def delete(self, key: str, cas: int | None = None) -> bool:
        return await self._do("delete", self._store.delete, key, cas)

    async def commit(self, fence: Fence, writes: Sequence[Put]) -> Committed | Refused:
        return await self._do("commit", self._store.commit, fence, writes)

    async def create_session(
        self, name: str, ttl_s: float, lock_delay_s: float, check: str | None = None
    ) -> Session:
        ttl_s = self.ttl_s or ttl_s
        create = self._store.create_session
        return await self._do("create", create, name, ttl_s, lock_delay_s, check)

    async def register_check(self, check: str, ttl_s: float) -> None:
        await self._do("check_register", self._store.register_check, check, ttl_s)

    async def pass_check(self, check: str) -> None:
        await self._do("check_pass", self._store.pass_check, check)

    async def deregister_check(self, check: str) -> None:
        await self._do("check_deregister", self._store.deregister_check, check)

    async def renew_session(self, session: str) -> Session:
        return await self._do("renew", self._store.renew_session, session)

    async def destroy_session(self, session: str) -> None:
        await self._do("destroy", self._store.destroy_session, session)

    async def acquire(self, key: str, value: bytes, session: str) -> Entry | None:
        return await self._do("acquire", self._store.acquire, key, value, session)

    async def release(self, key: str, value: bytes, session: str) -> bool:
        return await self._do("release", self._store.release, key, value, session)

    async def close(self) -> None:
        await self._store.close()


class Machine:
    """One sidecar: its clocks, its link and its loops, wired as the daemon does it."""

    def __init__(
        self,
        world: World,
        name: str,
        policy: Policy,
        *,
        boot_s: float = 0.0,
        follower: bool = False,
        ttl_s: float = 10.0,
        fast_s: float | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.clock = MachineClock(boot_s)
        self.link = Link(world.store)
        self.telemetry = RecordedTelemetry()
        contact = Contact(
            synced=None,
            stale_after_s=stale_after(poll_wait(MAX_STALE_S)),
            max_stale_s=MAX_STALE_S,
            on_loss=OnLoss.KEEP,
        )
        self.board = Board(name, [policy], policy.name, contact, now=self.clock.now())
        self.around = Around(
            instance=name,
            store=self.link,
            wire=WIRE,
            board=self.board,
            telemetry=self.telemetry,
            clock=self.clock,
            draw=world.random.random,
            changed=self._changed,
        )
        candidate = Candidate(
            name, f"{name}:9100", ttl_s, 1.0, follower, eager=False, fast_s=fast_s
        )
        self.tasks = Tasks(self.telemetry)
        self.watch = Watch(self.around)
        self.terms = Terms(self.tasks, self._made)
        self.elector = Elector(self.around, candidate, self.terms.gained, self.terms.lost)

    def start(self) -> Machine:
        """Start its loops."""
        self.tasks.start("watch", self.watch.run)
        self.tasks.start("elect", self.elector.run)
        self.tasks.start("pulse", self.elector.pulse.run)
        return self

    async def reload(self, *names: str) -> None:
        """Know these breakers from now on, each with reports of its own but the first."""
        policies = [
            replace(self.policy, name=name, consul_key_prefix=f"reports-of-{name}")
            for name in names
            if name != self.policy.name
        ]
        contact = self.board.contact
        known = [self.policy, *policies]
        self.board.reconfigure(known, self.policy.name, contact, now=self.clock.now())
        await self.tasks.stop("watch")
        self.watch.look_again()
        self.tasks.start("watch", self.watch.run)
        self._changed()

    def evaluates(self, name: str) -> bool:
        """Whether it has the lock, and judges what the board has of the breaker."""
        return self.terms.of(name) is not None and self.board.cells[name].evaluating

    async def die(self) -> None:
        """A kill -9: nothing is handed over."""
        await self.tasks.stop_all()
        self.terms.lost(self.policy.name)

    async def stop(self) -> None:
        """A graceful end."""
        await self.tasks.stop_all()
        await self.elector.hand_over()

    @property
    def cell(self) -> Cell:
        return self.board.cells[self.policy.name]

    @property
    def evaluator(self) -> Evaluator | None:
        """While it holds the lock."""
        return self.terms.of(self.policy.name)

    @property
    def state(self) -> str:
        """What it answers by."""
        return str(self.cell.decision.state)

    @property
    def leads(self) -> bool:
        return self.evaluator is not None and self.cell.evaluating

    def said(self, event: str) -> list[dict[str, Any]]:
        """The fields of what it has logged under a name."""
        return [dict(fields) for name, _, fields in self.telemetry.events if name == event]

    def _changed(self) -> None:
        self.board.refresh(self.clock.now())
        self.elector.wake.set()
        self.terms.wake_all()

    def _made(self, name: str, lock_index: int) -> Evaluator:
        return Evaluator(self.around, self.elector, self.board.cells[name], lock_index)


class World:
    """The store, and whoever is on it."""

    def __init__(self, policy: Policy = POLICY, *, seed: int = 1) -> None:
        self.policy = policy
        self.random = random.Random(seed)
        self.store = MemoryStore(virtual.now)
        self.machines: list[Machine] = []

    def add(self, **options: Any) -> Machine:
        """One more machine, with a monotonic clock of its own; not started."""
        name = f"m-{len(self.machines)}"
        machine = Machine(self, name, self.policy, boot_s=1e4 * len(self.machines), **options)
        self.machines.append(machine)
        return machine

    async def led(self, size: int = 1, **options: Any) -> list[Machine]:
        """So many machines, one of which evaluates; it comes first."""
        started = [self.add(**options).start() for _ in range(size)]
        await virtual.until(lambda: any(m.leads for m in started), 30, "somebody evaluates")
        await self.settled("CLOSED")
        return sorted(started, key=lambda m: not m.leads)

    async def entry(self, key: str) -> Entry | None:
        return await self.store.read(key)

    async def record(self) -> Record | None:
        """The record, if it is one of ours."""
        entry = await self.store.read(WIRE.state("default"))
        stored = WIRE.decode_state(entry.value) if entry is not None else None
        return stored if isinstance(stored, Record) else None

    async def settled(self, state: str, within_s: float = 30.0) -> Record:
        """The record, once it is in this state."""
        began = virtual.now()
        while True:
            record = await self.record()
            if record is not None and record.current_state == state:
                return record
            waited_s = virtual.now() - began
            assert waited_s < within_s, f"no {state} but {record}"
            await asyncio.sleep(virtual.pause_s(waited_s))

    async def history(self) -> list[Transition]:
        entry = await self.store.read(WIRE.history("default"))
        entries, junk = WIRE.decode_history(entry.value if entry is not None else None)
        assert not junk
        return entries

    async def edges(self) -> list[tuple[str, str]]:
        return [(str(t.from_state), str(t.to_state)) for t in await self.history()]

    async def report(self, instance: str = "c-1", *, fail: float = 0, ok: float = 0) -> None:
        """A report that is always another value than the last."""
        report = Report(
            timestamp_at=WALL_AT + virtual.now() + self.random.random() / 100,
            rate_ok=ok,
            count_fail=fail,
        )
        await self.store.put(self.report_key(instance), WIRE.encode_report(report))

    def report_key(self, instance: str = "c-1") -> str:
        return f"{self.policy.reports_prefix}/{instance}"

    async def foreign(self, state: str, **fields: object) -> None:
        """As the source system writes."""
        await self.store.put(
            WIRE.state("default"), msgspec.json.encode({"current_state": state, **fields})
        )

    async def pass_time(self, seconds: float) -> None:
        """The story goes on for so long."""
        await asyncio.sleep(seconds)

    async def reporting(self, for_s: float, *, ok: float = 50, fail: float = 0) -> None:
        """A consumer reports once a second for so long."""
        end = virtual.now() + for_s
        while virtual.now() < end:
            await self.report(ok=ok, fail=fail)
            await asyncio.sleep(1.0)
