"""`GET /v1/watch`: every change of a decision, as server-sent events (WHATWG HTML, 9.2).

Nobody waits for anybody here. An event is rendered once and handed to each connection as bytes, a
few connections in each turn of the event loop, so that a thousand watchers don't hold up a call to
`/allowed`. A client that doesn't read what it is sent is dropped; it comes back with the id of the
last event it saw and is sent what it missed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from time import time

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion11

from sidecar.core.board import Board, Cell
from sidecar.core.decision import Decision
from sidecar.core.wire import decision_to_dict, rfc3339
from sidecar.http.connection import lasts
from sidecar.http.problems import Problem

MAX_WATCHERS = 2048
"""For all listeners together. A watcher holds a connection and little else."""
MAX_BEHIND = 64 * 1024
"""Bytes that a client may leave unread before it is dropped, beside what the kernel holds."""
KEPT = 512
"""Events for those who come back."""
COMMENT_S = 15.0
"""So that both ends notice a dead connection, and gateways don't take it for an idle one."""
BATCH = 16
"""Connections that are written to in one turn of the event loop."""
_COMMENT = b": still here\n\n"


class _Watcher:
    """One connection."""

    __slots__ = ("_chunked", "_transport", "gone", "sent")

    def __init__(self, transport: asyncio.Transport, *, chunked: bool, sent: int) -> None:
        self._transport = transport
        self._chunked = chunked
        self.sent = sent
        """The id of the last event that was handed to it."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolved when it is to be let go."""

    def write(self, data: bytes) -> None:
        """Hand it over, or drop a client that has left too much unread."""
        if self.gone.done() or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_BEHIND:
            self._transport.abort()
            self.let_go()
            return
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def let_go(self) -> None:
        """Have its handler end."""
        if not self.gone.done():
            self.gone.set_result(None)


class Feed:
    """The events and those who watch them; one for all listeners, so that ids mean the same.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, board: Board, now: Callable[[], float], limit: int = MAX_WATCHERS) -> None:
        self._board = board
        self._now = now
        self._limit = limit
        # Ids go on growing through a restart, so that one from before it is never taken for ours.
        self._last = int(time() * 1000)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._known = {name: cell.decision for name, cell in board.cells.items()}
        self._watchers: dict[_Watcher, None] = {}
        self._walk: Iterator[_Watcher] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._comment = False
        self._closed = False
        board.listen(self._changed)

    @property
    def count(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def check_room(self) -> None:
        """Raises Problem: 503 when too many watch already, or the daemon is ending."""
        if self._closed or len(self._watchers) >= self._limit:
            raise Problem(
                503,
                "too-many-watchers",
                f"{self._limit} clients watch here already; ask /v1/breakers, or later",
                headers={"Retry-After": "5"},
            )

    async def attend(
        self, transport: asyncio.Transport, *, chunked: bool, last_id: int | None
    ) -> None:
        """Send what was missed or a snapshot, then every event, until the client is let go."""
        watcher = _Watcher(transport, chunked=chunked, sent=self._last)
        missed = self._since(last_id) if last_id is not None else None
        watcher.write(self._snapshot() if missed is None else missed + _COMMENT)
        self._watchers[watcher] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMENT_S, self._tick)
        try:
            await watcher.gone
        finally:
            del self._watchers[watcher]

    def reconfigured(self) -> None:
        """After a reload there may be other breakers: everybody gets a new snapshot."""
        if self._known.keys() != self._board.cells.keys():
            self._known = {name: cell.decision for name, cell in self._board.cells.items()}
            self._last += 1
            self._keep(self._snapshot())

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self._walk = None
        if self._timer is not None:
            self._timer.cancel()
        for watcher in self._watchers:
            watcher.let_go()

    def _changed(self, name: str) -> None:
        cell, before = self._board.cells[name], self._known.get(name)
        decision = self._known[name] = cell.decision
        self._last += 1
        body = {**self._shown(cell), "from": before.state if before is not None else None}
        self._keep(_event(self._last, _kind(before, decision), {**body, "at": rfc3339(time())}))

    def _keep(self, event: bytes) -> None:
        self._kept.append((self._last, event))
        self._go()

    def _since(self, known: int) -> bytes | None:
        """The events after this one; None when it isn't among those that are kept."""
        if known == self._last:
            return b""
        if not self._kept or not self._kept[0][0] - 1 <= known < self._last:
            return None
        return b"".join(event for number, event in self._kept if number > known)

    def _snapshot(self) -> bytes:
        cells = self._board.cells
        body = {
            "instance": self._board.instance,
            "default": self._board.default,
            "breakers": [self._shown(cells[name]) for name in sorted(cells)],
            "at": rfc3339(time()),
        }
        return _event(self._last, "snapshot", body)

    def _shown(self, cell: Cell) -> dict[str, object]:
        decision = cell.decision
        admits = decision.admit_ratio >= 1.0
        return {
            "breaker": cell.policy.name,
            **decision_to_dict(decision),
            "retry_after": None if admits else decision.retry_after(self._now()),
        }

    # --- handing out -------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        if self._watchers and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(COMMENT_S, self._tick)
            self._comment = True
            self._go()

    def _go(self) -> None:
        if self._walk is None and self._watchers:
            self._walk = iter(list(self._watchers))
            asyncio.get_running_loop().call_soon(self._step, self._last, self._comment)
            self._comment = False

    def _step(self, until: int, comment: bool) -> None:
        """Bring the next few up to date, and leave the others to the next turn of the loop."""
        if self._walk is None:
            return
        ready: dict[int, bytes] = {}
        for _ in range(BATCH):
            watcher = next(self._walk, None)
            if watcher is None:
                self._walk = None
                if self._comment or self._last > until:
                    self._go()
                return
            if watcher.sent not in ready:
                ready[watcher.sent] = self._news(watcher.sent)
            news = ready[watcher.sent] + (_COMMENT if comment else b"")
            watcher.sent = self._last
            if news:
                watcher.write(news)
        asyncio.get_running_loop().call_soon(self._step, until, comment)

    def _news(self, sent: int) -> bytes:
        news = self._since(sent)
        return self._snapshot() if news is None else news


def _kind(before: Decision | None, after: Decision) -> str:
    """A transition is another record or another state; anything else only looks different."""
    if before is not None and (before.state, before.seq) == (after.state, after.seq):
        return "change"
    return "transition"


def _event(number: int, kind: str, body: Mapping[str, object]) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (number, kind.encode(), msgspec.json.encode(body))


class Watching:
    """The handler of `/v1/watch`."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handler is to be found."""
        return [web.get("/v1/watch", self.watch)]

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/watch`, with `Last-Event-ID` from where it broke off."""
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        self._feed.check_room()
        lasts(request)
        chunked = request.version >= HttpVersion11
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        await self._feed.attend(transport, chunked=chunked, last_id=_last_id(request))
        return response


def _last_id(request: web.Request) -> int | None:
    """None where there is none, and for what can't have been ours."""
    given = request.headers.get("Last-Event-ID", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else None
