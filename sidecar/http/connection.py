"""One connection: the fast lane first, aiohttp behind it, and bounds on what a client may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from sidecar.core.admission import UNIT
from sidecar.http import problems
from sidecar.http.crowd import Crowd
from sidecar.http.fastlane import MAX_REMEMBERED_BYTES, Lane
from sidecar.http.framing import owed, whole
from sidecar.http.route import Route
from sidecar.http.turns import Later

MAX_HEADS = 256 * 1024
"""Bytes of a request line and all its headers together."""
HEAD_S = 10.0
"""How long the head of a request may take, from its first byte to its end."""
HELD_S = 1.0
"""How long a head is kept for the lane; then aiohttp has it, and waits for the body."""
UNREAD_S = 20.0
"""How long a client may leave an answer unread once the buffers are full."""
_HELD = -1
_TAKEN = -2


class Protocol(RequestHandler):
    """aiohttp's connection with the fast lane before it, and bounds on what a client may take.

    What aiohttp's parser refuses becomes a problem too, and no log line.

    Args:
        crowd: the connections that it is one of.
        lane: answers plain requests; None: aiohttp does it all.
        rest: aiohttp's own arguments.
    """

    __slots__ = (
        "_asked",
        "_crowd",
        "_ended",
        "_head_bytes",
        "_held",
        "_lane",
        "_lasting",
        "_owed",
        "_partial",
        "_route",
        "_told",
        "_unread",
        "_write",
    )

    _route: Route
    """What answers `_asked`."""
    _write: Callable[[bytes], object]
    """The transport's."""

    def __init__(self, server: web.Server, lane: Lane | None, crowd: Crowd, **rest: Any) -> None:
        super().__init__(server, **rest)
        self._lane = lane
        self._crowd = crowd
        self._head_bytes = 0
        """What has come of a head that isn't whole yet."""
        self._unread: asyncio.TimerHandle | None = None
        """Ends the connection unless the client reads on; there while it doesn't."""
        self._held: list[bytes] = []
        """What has come of a request that the lane may take when its turn comes, or behind one that
        it has taken."""
        self._ended = False
        """The client sends nothing more, and waits for the answers to what it has asked."""
        self._lasting = False
        """What is asked now waits for something to happen."""
        self._partial: StreamReader | None = None
        """The body of a request of aiohttp's that wasn't whole when its head was."""
        self._told: asyncio.Future[None] | None = None
        """There while we end and wait for the answer to what the lane has taken."""
        self._owed: int | None = 0 if lane is not None else None
        """Bytes that aiohttp's parser still waits for; `_HELD` while there is something held,
        `_TAKEN` while the lane owes an answer; None: not known, and never again."""
        self._asked: bytes | None = None
        """The request that was answered last, which may be answered again from `_route`. Only
        while nothing else has come and the connection is idle: whatever changes that clears it."""

    def data_received(self, data: bytes) -> None:
        """Answer the same request as before, as long as the answer is the same."""
        if data == self._asked:
            route = self._route
            cell = route.cell
            if cell.decision is route.decision:
                # What follows is `admit`, written out: calls would cost as much as all the rest.
                # The answer goes first; nobody else has a turn before it is counted.
                spread = route.spread
                if spread is None:
                    self._write(route.admission)
                    cell.admitted += 1
                elif not (millionths := route.millionths):
                    self._write(route.rejection)
                    cell.rejected += 1
                elif (ahead := spread.ahead + millionths) < UNIT:
                    self._write(route.rejection)
                    spread.ahead = ahead
                    cell.rejected += 1
                else:
                    self._write(route.admission)
                    spread.ahead = ahead - UNIT
                    cell.admitted += 1
                self._next_keepalive_close_time = route.idle_until
                return
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Answer here, or let aiohttp read on.

        The lane is for idle connections alone. While a request is in the works, a part of one is
        in the parser, or the client doesn't take what it is sent, aiohttp keeps the order and the
        bounds.
        """
        self._asked = None
        if self._owed == 0 and data:
            if self._ready():
                lane = self._lane
                route = lane.route(data)  # type: ignore[union-attr]  # owed is None then
                if route is not None:
                    if len(data) > MAX_REMEMBERED_BYTES or route.watched:
                        self._answer(route.answer())
                    else:
                        self._asked, self._route = data, route
                        Protocol.data_received(self, data)  # the route holds: there it is answered
                    return
                if lane.queue(data, self):  # type: ignore[union-attr]  # as above
                    self._held, self._owed = [data], _HELD
                    return
            self._owed = owed(data)
        elif self._owed == _HELD and data:
            self._held.append(data)
            if len(self._held) == 2:  # many a client sends a head and its body apart
                self._lane.queue(self._held[0], self)  # type: ignore[union-attr]  # as above
            else:
                self._hand_over()
            return
        elif self._owed == _TAKEN and data:
            self._held.append(data)
            self.transport.pause_reading()  # type: ignore[union-attr]  # it is connected
            return
        elif self._owed is not None:
            # What remains of a body; past its end something else has begun.
            self._owed = self._owed - len(data) if self._owed >= len(data) else None
        self._read(data)

    def resume(self, take: Callable[[bytes], bytes | Later | None]) -> None:
        """It is this connection's turn: answer what is held, wait for the rest, or leave it."""
        if self._owed != _HELD:
            return
        reply = take(b"".join(self._held)) if self._ready() else None
        if isinstance(reply, Later):
            self._held, self._owed, self._head_bytes = [], _TAKEN, 0
        elif reply:
            self._held, self._owed, self._head_bytes = [], 0, 0
            self._answer(reply)
        elif reply is None or len(self._held) > 1:
            self._hand_over()
        else:
            self._expect_rest(len(self._held[0]), HELD_S)

    def answer(self, reply: bytes) -> None:
        """What the lane has taken has its answer; then comes what was sent behind it."""
        if self._owed != _TAKEN or self.transport is None:
            return
        self._owed = 0
        self._answer(reply)
        if self._ended:
            self.transport.close()
        elif self._told is not None:
            self._told.set_result(None)
            self._told = None
        elif self._held:
            held, self._held = self._held, []
            self.transport.resume_reading()
            self.data_received(b"".join(held))

    def _hand_over(self) -> None:
        """Let aiohttp have what was held: piece by piece, since one may spoil those before it."""
        held, self._held = self._held, []
        self._owed = owed(b"".join(held))
        for data in held:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Give it to aiohttp's parser, and watch a head that grows without an end."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_bytes = 0
            if self._partial is None or self._partial.is_eof():  # else it was no body that came
                bodies = [body for _, body in self._messages if not body.is_eof()]
                self._partial = bodies[0] if bodies else None
        elif not self._idle():
            self._expect_next(len(data))
        elif self._head_bytes or data.strip(b"\r\n"):  # some end a body with one blank line more
            self._expect_rest(len(data))

    def _expect_next(self, more: int) -> None:
        """Behind requests that are whole comes the next head, while they wait for their answers."""
        newest = self._current_request.content if self._current_request is not None else None
        if self._messages:
            newest = self._messages[-1][1]
        if newest is None or not newest.is_eof():
            return  # these are a body's, whose reader has bounds
        self._head_bytes += more
        if self._head_bytes > MAX_HEADS:
            self._abort()

    def _expect_rest(self, more: int, within_s: float | None = None) -> None:
        """A part of a head has come: the rest must come soon, and not be too long."""
        begun, self._head_bytes = self._head_bytes, self._head_bytes + more
        if self._head_bytes > MAX_HEADS:
            if self.transport is not None:
                problem = problems.too_large_a_head(MAX_HEADS)
                self.transport.write(whole(problem.response(), ("Connection", "close")))
            self.force_close()
        elif not begun:
            if self._keepalive_handle is not None:
                self._keepalive_handle.cancel()
            self._next_keepalive_close_time = self._loop.time() + (within_s or HEAD_S)
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def _answer(self, reply: bytes) -> None:
        # aiohttp's timer looks at this when it fires.
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._write(reply)

    def _process_keepalive(self) -> None:
        """A connection with half a request isn't idle: aiohttp gets to know of it."""
        if self._owed == _HELD:
            self._hand_over()
        elif self._owed == _TAKEN:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part, unless the house is full of others who are busy."""
        if self._crowd.enter(self):
            super().connection_made(transport)
            self._write = self.transport.write  # type: ignore[union-attr]  # it is connected
            return
        self._force_close = True  # nothing that still comes is read
        cast("asyncio.Transport", transport).abort()  # uvloop's are of no such class

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's says so
        """The client sends nothing more, or has hung up, which looks the same.

        What it has asked whole is answered all the same; then the connection ends. True: it stays
        until then, which is as long as the answer may take.
        """
        if self._owed == _HELD:
            self._hand_over()
        if self._owed == _TAKEN:
            self._ended = True
        elif not self._idle() and not self._lasting:
            self._ended = self._partial is None or self._partial.is_eof()
            if self._ended and not self._messages:
                self._close = True  # behind this one
        return self._ended

    def lasts(self) -> None:
        """What is asked waits for something to happen: for nobody who sends nothing more."""
        self._lasting = True
        if self._ended and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._crowd.leave(self)
        if self._unread is not None:
            self._unread.cancel()
        if self._told is not None:
            self._told.set_result(None)
            self._told = None
        super().connection_lost(exc)
        self._partial = None
        self._write = _nowhere  # the transport must not be kept by it

    def close(self) -> None:
        """See aiohttp. What the lane has taken is answered first, for which `shutdown` waits."""
        self._asked = None
        if self._owed != _TAKEN:
            super().close()

    def force_close(self) -> None:
        """See aiohttp."""
        self._asked = None
        super().force_close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """See aiohttp."""
        self._asked = None
        if self._owed == _TAKEN:
            self._told = self._loop.create_future()
            await asyncio.wait({self._told}, timeout=timeout)
            self._told = None
        super().close()
        await super().shutdown(timeout)

    def _idle(self) -> bool:
        """Nothing is asked: aiohttp waits for a request, or has yet to begin to."""
        if self._owed == _TAKEN:
            return False
        if self._waiter is None:
            return self._request_count == 0
        return not self._waiter.done()

    def _ready(self) -> bool:
        """Whether the lane may answer: a client's first request often comes before aiohttp has
        begun with the connection."""
        return self._idle() and not (self._paused or self._close or self._force_close)

    def idle_since(self) -> float | None:
        """See `crowd.Guest`: the time at which aiohttp would close it keeps the order, too."""
        return self._next_keepalive_close_time if self._idle() else None

    def let_go(self) -> None:
        """See `crowd.Guest`."""
        self.force_close()

    def pause_writing(self) -> None:
        """The client reads too slowly; one that has stopped must not keep an answer for ever."""
        super().pause_writing()
        self._asked = None
        self._unread = self._loop.call_later(UNREAD_S, self._abort)

    def resume_writing(self) -> None:
        """It reads on."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the application; the connection ends with it."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if status >= 500:
            self.log_exception("A request failed outside of the application", exc_info=exc)
            response = problems.unexpected().response()
        else:
            response = problems.malformed(status).response()
        response.force_close()
        return response

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer. An expectation is refused before the middlewares: a problem, too."""
        self._lasting = False
        if self._ended and not self._messages:
            self._close = True  # it is the last one
        if isinstance(resp, web.HTTPException):
            resp = problems.of_aiohttp(resp).response()
        return await super().finish_response(request, resp, start_time)


def lasts(request: web.Request) -> None:
    """Let a request end with its client, for it waits for something to happen.

    Others are answered though the client sends nothing more: whether it still reads is not known.
    """
    if isinstance(request.protocol, Protocol):
        request.protocol.lasts()


def _nowhere(_data: bytes) -> None:
    """Take what is written to a connection that is gone."""
