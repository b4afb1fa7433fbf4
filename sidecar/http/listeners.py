"""The sockets that applications answer on, from binding to an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from sidecar.http import problems
from sidecar.http.crowd import Crowd, share
from sidecar.http.fastlane import LANE, Lane
from sidecar.http.framing import owed, whole
from sidecar.http.sockets import BACKLOG, Target, bind_tcp, bind_unix, close, identity
from sidecar.http.turns import Later

IDLE_S = 75.0
"""How long a kept connection may be idle: a little longer than gateways keep theirs."""
MAX_LINE = 64 * 1024
"""Bytes of a request line or a header: a gateway passes on what its clients sent."""
MAX_HEADERS = 128
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

    __slots__ = ("_crowd", "_head_bytes", "_held", "_lane", "_owed", "_told", "_unread")

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
        self._told: asyncio.Future[None] | None = None
        """There while we end and wait for the answer to what the lane has taken."""
        self._owed: int | None = 0 if lane is not None else None
        """Bytes that aiohttp's parser still waits for; `_HELD` while there is something held,
        `_TAKEN` while the lane owes an answer; None: not known, and never again."""

    def data_received(self, data: bytes) -> None:
        """Answer here, or let aiohttp read on.

        The lane is for idle connections alone. While a request is in the works, a part of one is
        in the parser, or the client doesn't take what it is sent, aiohttp keeps the order and the
        bounds.
        """
        if self._owed == 0 and data:
            waiter = self._waiter
            if waiter is not None and not self._paused and not waiter.done():
                reply = self._lane.reply(data, self)  # type: ignore[union-attr]  # owed is None then
                if reply:  # what `_answer` does, without a call
                    self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                    self.transport.write(reply)  # type: ignore[union-attr]  # it is connected
                    return
                if reply is not None:
                    self._held, self._owed = [data], _HELD
                    return
            self._owed = owed(data)
        elif self._owed == _HELD and data:
            self._held.append(data)
            if len(self._held) == 2:  # many a client sends a head and its body apart
                self._lane.again(self._held[0], self)  # type: ignore[union-attr]  # as above
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
        waiter, reply = self._waiter, None
        if waiter is not None and not self._paused and not waiter.done():
            reply = take(b"".join(self._held))
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
        if self._told is not None:
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
        self.transport.write(reply)  # type: ignore[union-attr]  # it is connected

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
            return
        self._force_close = True  # nothing that still comes is read
        cast("asyncio.Transport", transport).abort()  # uvloop's are of no such class

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._crowd.leave(self)
        if self._unread is not None:
            self._unread.cancel()
        if self._told is not None:
            self._told.set_result(None)
            self._told = None
        super().connection_lost(exc)

    def close(self) -> None:
        """See aiohttp. What the lane has taken is answered first, for which `shutdown` waits."""
        if self._owed != _TAKEN:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """See aiohttp."""
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

    def idle_since(self) -> float | None:
        """See `crowd.Guest`: the time at which aiohttp would close it keeps the order, too."""
        return self._next_keepalive_close_time if self._idle() else None

    def let_go(self) -> None:
        """See `crowd.Guest`."""
        self.force_close()

    def pause_writing(self) -> None:
        """The client reads too slowly; one that has stopped must not keep an answer for ever."""
        super().pause_writing()
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
        if isinstance(resp, web.HTTPException):
            resp = problems.of_aiohttp(resp).response()
        return await super().finish_response(request, resp, start_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One application and where it answers: TCP targets, or a unix socket's path."""

    app: web.Application
    setting: str
    """The configuration key that an error names, such as `listen.address`."""
    tcp: Sequence[Target] = ()
    path: str | None = None
    mode: int = 0o600


@dataclass(slots=True)
class _Bound:
    endpoint: Endpoint
    sockets: list[socket.socket]
    identity: tuple[int, int] | None = None
    runner: web.AppRunner | None = None
    servers: list[asyncio.AbstractServer] | None = None


class Listeners:
    """Every listener of the daemon: all of them start, or none does."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = list(endpoints)
        self._bound: list[_Bound] = []

    @property
    def addresses(self) -> list[str]:
        """Where it answers: `127.0.0.1:9100`, `[::1]:9100`, `unix:/run/breaker.sock`."""
        return [_address(sock) for bound in self._bound for sock in bound.sockets]

    async def start(self) -> None:
        """Bind everything, then answer everywhere.

        Raises:
            PortTaken: somebody else listens there.
            ListenFailed: an address can't be bound for another reason.
        """
        try:
            for endpoint in self._endpoints:
                self._bind(endpoint)
            most = share(len(self._bound))
            for bound in self._bound:
                await _serve(bound, most)
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, deadline_s: float) -> None:
        """Stop listening, let requests end until the deadline, then close what is left."""
        bound, self._bound = self._bound, []
        await asyncio.gather(*(_stop(one, deadline_s) for one in bound))

    def _bind(self, endpoint: Endpoint) -> None:
        bound = _Bound(endpoint, [])
        self._bound.append(bound)
        if endpoint.path is not None:
            bound.sockets.append(bind_unix(endpoint.path, endpoint.mode, endpoint.setting))
            bound.identity = identity(endpoint.path)
        for target in endpoint.tcp:
            bound.sockets += bind_tcp(target, endpoint.setting)


async def _serve(bound: _Bound, most: int) -> None:
    # A client that hangs up ends its handler; what must be finished shields itself.
    runner = bound.runner = web.AppRunner(
        bound.endpoint.app, handler_cancellation=True, access_log=None
    )
    await runner.setup()
    bound.servers = []
    loop = asyncio.get_running_loop()
    crowd = Crowd(most, bound.endpoint.setting)
    for sock in bound.sockets:
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(
                _factory(bound, runner, crowd, loop), sock=sock, backlog=BACKLOG
            )
        else:
            server = await loop.create_server(
                _factory(bound, runner, crowd, loop), sock=sock, backlog=BACKLOG
            )
        bound.servers.append(server)


def _factory(
    bound: _Bound, runner: web.AppRunner, crowd: Crowd, loop: asyncio.AbstractEventLoop
) -> Callable[[], RequestHandler]:
    server, lane = runner.server, bound.endpoint.app.get(LANE)
    if server is None:
        raise RuntimeError("the runner has not been set up")

    def protocol() -> RequestHandler:
        return Protocol(
            server,
            lane,
            crowd,
            loop=loop,
            keepalive_timeout=IDLE_S,
            access_log=None,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            # Nothing compressed is taken, and a gateway's clients may send what they like.
            auto_decompress=False,
        )

    return protocol


async def _stop(bound: _Bound, deadline_s: float) -> None:
    for server in bound.servers or ():
        server.close()
    close(bound.sockets)
    _unlink(bound)
    runner = bound.runner
    if runner is None:
        return
    if runner.server is not None:
        # Requests that came before the sockets closed begin now and count as running.
        await asyncio.sleep(0)
        runner.server.pre_shutdown()
        await runner.shutdown()
        # aiohttp waits twice as long as it is told, for the handlers and then for their tasks,
        # and takes 0 for no limit at all.
        await runner.server.shutdown(max(deadline_s / 2, 0.001))
    await runner.cleanup()


def _unlink(bound: _Bound) -> None:
    """Take the socket file away, unless a successor's lies there by now."""
    path = bound.endpoint.path
    if path is not None and bound.identity is not None and identity(path) == bound.identity:
        Path(path).unlink(missing_ok=True)


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
