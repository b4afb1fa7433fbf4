"""A daemon of paper behind the HTTP layer: a real board, and a backend that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.core.board import Board, Cell
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.errors import SpoolFault
from sidecar.core.intake import Post
from sidecar.core.override import Override
from sidecar.core.publishing import Described, Draft, Outcome, PublishPolicy, Spooled
from sidecar.core.types import Policy, Record, Scalar, State, Transition

WALL_AT = 1_795_000_000.0


@dataclass
class Clock:
    """Monotonic seconds, moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Alarm:
    """Something that is called once its time has come."""

    at: float
    callback: Callable[[], None]
    alarms: list[Alarm]

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        if self in self.alarms:
            self.alarms.remove(self)


@dataclass
class Alarms:
    """What `fastlane.Lane` calls `later`, by a clock that is moved by hand."""

    clock: Clock
    waiting: list[Alarm] = field(default_factory=list)

    def __call__(self, after_s: float, callback: Callable[[], None]) -> Alarm:
        alarm = Alarm(self.clock.now + after_s, callback, self.waiting)
        self.waiting.append(alarm)
        return alarm

    def move(self, by_s: float) -> None:
        """Time passes, and with it what waits for it."""
        self.clock.now += by_s
        for alarm in [alarm for alarm in self.waiting if alarm.at <= self.clock.now]:
            alarm.cancel()
            alarm.callback()


@dataclass
class Paper:
    """A backend that answers from memory and fails on demand."""

    board: Board
    fault: Exception | None = None
    at_once: bool = False
    """Whether reports are taken in without waiting, as where the store is elsewhere."""
    posts: list[tuple[str, Post]] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    orders: list[tuple[object, ...]] = field(default_factory=list)

    def take(self, cell: Cell, post: Post) -> bool:
        if not self.at_once:
            return False
        if self.fault is not None:
            raise self.fault
        self.posts.append((cell.policy.name, post))
        return True

    async def report(self, cell: Cell, post: Post) -> None:
        if self.fault is not None:
            raise self.fault
        self.posts.append((cell.policy.name, post))

    async def withdraw(self, cell: Cell, instance: str) -> bool:
        if self.fault is not None:
            raise self.fault
        before = len(self.posts)
        self.posts = [
            p for p in self.posts if (p[0], p[1].instance) != (cell.policy.name, instance)
        ]
        return len(self.posts) < before

    async def force(self, cell: Cell, override: Override, *, replace: bool) -> None:
        if self.fault is not None:
            raise self.fault
        self.orders.append((cell.policy.name, override, replace))

    async def release(self, cell: Cell) -> None:
        if self.fault is not None:
            raise self.fault
        self.orders.append((cell.policy.name, "release"))

    async def forget(self, cell: Cell) -> None:
        if self.fault is not None:
            raise self.fault
        self.orders.append((cell.policy.name, "forget"))

    async def history(self, cell: Cell) -> Sequence[Transition]:
        if self.fault is not None:
            raise self.fault
        return [t for t in self.transitions if t.detail.startswith(cell.policy.name)]

    def describe(self) -> Mapping[str, object]:
        return {"role": "auto", "store": "memory", "uptime": 1.5}


class Desk:
    """The port `Publishing`: remembers, and answers when it is told to."""

    def __init__(self, policy: PublishPolicy) -> None:
        self.policy = policy
        self.at_once = True
        """Whether records can have their place without waiting."""
        self.outcome: Outcome | None = Spooled(2, 7)
        """What is answered soon; None: nothing, until a test does."""
        self.fault: SpoolFault | None = None
        """Of orders."""
        self.topics: Iterable[Mapping[str, object]] = ()
        """What there is to be told of each."""
        self.drafts: list[tuple[str, Draft]] = []
        self.keys: list[tuple[str, bytes] | None] = []
        """The idempotency keys of requests, each with its digest."""
        self.open: list[Callable[[Outcome], None]] = []

    def hand_over(self, topic: str, draft: Draft, answered: Callable[[Outcome], None]) -> bool:
        if not self.at_once:
            return False
        self.drafts.append((topic, draft))
        if self.outcome is None:
            self.open.append(answered)
        else:
            asyncio.get_running_loop().call_soon(answered, self.outcome)
        return True

    async def publish(
        self,
        topic: str,
        drafts: Sequence[Draft],
        *,
        delivered: bool,
        idempotency: tuple[str, bytes] | None,
    ) -> list[Outcome]:
        self.drafts += [(topic, draft) for draft in drafts]
        self.keys.append(idempotency)
        outcome = self.outcome
        if outcome is None:
            told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            self.open.append(told.set_result)
            outcome = await told
        return [outcome] * len(drafts)

    async def describe(self) -> Described:
        return Described({"usable": True}, iter(self.topics))

    async def pause(self, topic: str, paused: bool) -> None:
        if self.fault is not None:
            raise self.fault


class Log:
    """Telemetry that is only written down."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        raise AssertionError((metric, amount, labels))

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        raise AssertionError((metric, value, labels))

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        self.events.append((name, {"level": level, **fields}))


def make_board(clock: Clock, *policies: Policy, on_loss: OnLoss = OnLoss.KEEP) -> Board:
    """A board as the daemon makes it: `default` is the default, or the only breaker is."""
    chosen = policies or (Policy(name="default", fingerprint="f1"),)
    names = [p.name for p in chosen]
    default = "default" if "default" in names else names[0] if len(names) == 1 else None
    contact = Contact(synced=clock.now, stale_after_s=15.0, max_stale_s=30.0, on_loss=on_loss)
    return Board("alloc-1", chosen, default, contact, now=clock.now)


def make_record(state: State, seq: int, *, ratio: float | None = None, **more: object) -> Record:
    """A record whose state is in force."""
    nominal = {State.CLOSED: 1.0, State.OPEN: 0.0, State.HALF_OPEN: 0.05}[state]
    share = nominal if ratio is None else ratio
    fields: dict[str, object] = {
        "current_state": state,
        "last_changed_at": WALL_AT,
        "seq": seq,
        "epoch": 7,
        "automaton": state,
        "reason": "failures",
        "detail": "25 failures in the last interval, threshold 20",
        "evidence": {"failures": 25, "threshold": 20, "reporters": 3},
        "open_count": 1,
        "open_for_s": 30.0 if state is State.OPEN else 0.0,
        "retry_at": WALL_AT + 30 if state is State.OPEN else None,
        "admit_ratio": share,
        "automaton_ratio": share,
        "policy": "f1",
        "evaluator": "alloc-1",
        **more,
    }
    return Record(**fields)  # type: ignore[arg-type]


def enter(board: Board, clock: Clock, name: str, record: Record) -> Cell:
    """Let the board see a record in the store, held by an evaluator."""
    cell = board.cells[name]
    index = cell.as_of + 1
    board.lock(name, "session-1", cell.holder, index, now=clock.now)
    board.observe(name, record, index, index, now=clock.now, wall_at=WALL_AT)
    board.refresh(clock.now)
    return cell


def metrics_text() -> tuple[Iterable[bytes], str]:
    """Stands in for the exposition."""
    return iter((b"breaker_state", b" 1\n")), "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Raw:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


async def raw(port: int, request: bytes) -> Raw:
    """Send exactly these bytes to 127.0.0.1 and read one answer; no client tidies anything up."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = b""
            if not request.startswith(b"HEAD "):
                body = await reader.readexactly(int(headers.get("content-length", 0)))
            return Raw(int(head[0].split()[1]), headers, body)
        finally:
            writer.close()
            await writer.wait_closed()
