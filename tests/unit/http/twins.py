"""Two listeners that know the same and answer alike: one with the fast lane, one without it.

Everything runs in one event loop without real waiting, so that "nothing more will come" is known
after a number of turns of the loop instead of a time-out.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from sidecar.core.admission import Spread
from sidecar.core.board import Board
from sidecar.core.intake import Post
from sidecar.core.publishing import Publishing
from sidecar.core.types import Policy, State
from sidecar.http import listeners
from sidecar.http.connection import Protocol
from sidecar.http.fastlane import LANE
from sidecar.http.server import Endpoint, HttpSettings, Listeners, build_app
from tests.unit.http.support import (
    WALL_AT,
    Alarms,
    Clock,
    Log,
    Paper,
    enter,
    make_board,
    make_record,
    metrics_text,
)

TURNS = 30
"""Turns of the event loop in which one request is answered, whatever it is; they take under 8."""
MOST_TURNS = 300
"""Turns after which a connection that still isn't idle waits for more to be sent."""
Happening = float | Literal["opens", "closes", "halves", "goes", "comes", "answers 403"]
"""What is other from then on: so many seconds have passed, or the default breaker is in another
state, or a reload has taken one away, brought all back, or made the default reject by 403."""
_DATE = re.compile(rb"\r\nDate: [^\r]*GMT\r\n")
_DEADLINE_S = 60.0
"""A loaded machine may not run a process for seconds."""


class Seen(Protocol):
    """A connection that a test can look into."""

    made: list[Seen]
    received = 0
    in_lane = 0
    again = 0
    """Of these, how many were the request before once more."""
    left_to_aiohttp = False

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.made.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.left_to_aiohttp, before = False, self.in_lane
        self.again += 1
        super().data_received(data)
        if not self.left_to_aiohttp and not self._held:
            self.in_lane = before + 1

    def _take(self, data: bytes) -> None:
        self.again -= 1
        super()._take(data)

    def _read(self, data: bytes) -> None:
        super()._read(data)
        self.left_to_aiohttp = True

    def _answer(self, reply: bytes) -> None:
        super()._answer(reply)
        self.in_lane += 1


@dataclass
class Side:
    """One of the two: a listener, what it knows, and a client's connection to it."""

    path: Path
    board: Board
    lane: bool
    clock: Clock
    made: list[Seen] = field(default_factory=list)
    log: Log = field(default_factory=Log)
    listeners: Listeners | None = None
    in_lane: int = 0
    again: int = 0
    publishing: Publishing | None = None
    paper: Paper = field(init=False)
    alarms: Alarms = field(init=False)
    disturbed: bool = False
    """Something has happened to the breakers."""

    def __post_init__(self) -> None:
        self.paper = Paper(self.board, at_once=True)
        self.alarms = Alarms(self.clock)

    async def start(self) -> None:
        app = build_app(
            self.paper,
            HttpSettings(open_orders=True),
            transport="tcp",
            metrics=metrics_text,
            now=self.clock,
            telemetry=self.log,
            publishing=self.publishing,
        )
        app[LANE]._later = self.alarms
        if not self.lane:
            del app[LANE]
        kind = type("SeenHere", (Seen,), {"made": self.made})
        self.listeners = Listeners([Endpoint(app=app, setting="x", path=str(self.path))])
        with patch.object(listeners, "Protocol", kind):
            await self.listeners.start()
            # The factories look the class up when somebody connects.
        self._kind = kind

    @contextmanager
    def connect(self) -> Iterator[socket.socket]:
        with (
            patch.object(listeners, "Protocol", self._kind),
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.setblocking(False)
            client.connect(str(self.path))
            yield client

    def happen(self, what: Happening) -> None:
        """Let it be so from now on."""
        if isinstance(what, float):
            self.alarms.move(what)
            return
        self.disturbed = True
        self.board.synced(self.clock.now)
        seq = self.board.cells["default"].seq + 1
        match what:
            case "opens":
                record = make_record(State.OPEN, seq, retry_at=WALL_AT + 30)
                enter(self.board, self.clock, "default", record)
            case "closes":
                enter(self.board, self.clock, "default", make_record(State.CLOSED, seq))
            case "halves":
                enter(self.board, self.clock, "default", make_record(State.HALF_OPEN, seq))
            case "goes":
                self._reload([policy for policy in POLICIES if policy.name != "open"])
            case "comes":
                self._reload(POLICIES)
            case "answers 403":
                self._reload([replace(POLICIES[0], deny_status=403), *POLICIES[1:]])

    def _reload(self, policies: Sequence[Policy]) -> None:
        self.board.reconfigure(policies, "default", self.board.contact, now=self.clock.now)

    def reset(self) -> None:
        """Forget what was counted and spent, and what has happened."""
        if self.disturbed:
            self._reload(POLICIES)
            enter_all(self.board, self.clock)
            self.disturbed = False
        self.log.events.clear()
        for name, cell in self.board.cells.items():
            cell.admitted = cell.rejected = cell.shadow_rejected = 0
            cell.spread.ahead = Spread(self.board.instance, name).ahead
        self.paper.posts.clear()

    def counters(self) -> list[tuple[int, int, int, int]]:
        return [
            (cell.admitted, cell.rejected, cell.shadow_rejected, cell.spread.ahead)
            for _, cell in sorted(self.board.cells.items())
        ]


@dataclass(frozen=True)
class Fate:
    """What came of a conversation."""

    said: bytes
    open: bool
    idle: bool
    counted: list[tuple[int, int, int, int]]
    posts: list[tuple[str, Post]]


POLICIES = (
    Policy(name="default", fingerprint="f1"),
    Policy(name="open", fingerprint="f1", deny_status=429),
    Policy(name="half.open_1", fingerprint="f1"),
    Policy(name="shadow", fingerprint="f1", shadow=True),
    Policy(name="sheds", fingerprint="f1"),
)


def known(clock: Clock) -> Board:
    """Closed, open, half open, in shadow where it would be half open, and closed but shedding."""
    board = make_board(clock, *POLICIES)
    enter_all(board, clock)
    return board


def enter_all(board: Board, clock: Clock) -> None:
    """Bring every breaker into its state."""
    half = make_record(State.HALF_OPEN, 5, ratio=0.3)
    enter(board, clock, "default", make_record(State.CLOSED, 3))
    enter(board, clock, "open", make_record(State.OPEN, 4, retry_at=WALL_AT + 30))
    enter(board, clock, "half.open_1", half)
    enter(board, clock, "shadow", half)
    enter(board, clock, "sheds", make_record(State.CLOSED, 6, ratio=0.4, reason="shed"))


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _quiet(protocol: Seen) -> bool:
    """Wait until nothing more will come; True when the connection waits for its next request."""
    for _ in range(MOST_TURNS // TURNS):
        await turns()
        waiter = protocol._waiter
        if protocol.transport is None or (waiter is not None and not waiter.done()):
            break
    await turns(4)
    waiter = protocol._waiter
    return waiter is not None and not waiter.done() and not protocol._held


def _drain(client: socket.socket) -> tuple[bytes, bool]:
    """(everything that has come, whether the server has closed)."""
    said = bytearray()
    try:
        while part := client.recv(1 << 16):
            said += part
    except BlockingIOError:
        return bytes(said), False
    except ConnectionResetError:  # it closed without reading all that was sent
        return bytes(said), True
    return bytes(said), True


async def converse(side: Side, chunks: Sequence[bytes | Happening], *, settle: bool) -> Fate:
    """Send the chunks, each alone in a read of the server's, and hear what comes.

    What happens in between happens once everything before it has been answered.
    """
    async with asyncio.timeout(_DEADLINE_S):
        before = len(side.made)
        with side.connect() as client:
            while len(side.made) == before:  # noqa: ASYNC110 - it has no event of its own
                await asyncio.sleep(0)
            await turns(4)
            protocol, sent = side.made.pop(), 0
            for chunk in chunks:
                if not isinstance(chunk, bytes):
                    await turns()
                    side.happen(chunk)
                    continue
                with suppress(BrokenPipeError, ConnectionResetError):
                    sent += client.send(chunk)
                while protocol.received < sent and protocol.transport is not None:
                    if protocol._buffer_paused or protocol._reading_paused:
                        break
                    await asyncio.sleep(0)
                if settle:
                    await turns()
            idle = await _quiet(protocol)
            said, closed = _drain(client)
            side.in_lane += protocol.in_lane
            side.again += protocol.again
        while protocol.transport is not None:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
    said = _DATE.sub(b"\r\nDate: D\r\n", said)
    return Fate(said, not closed, idle, side.counters(), list(side.paper.posts))
