"""The sockets that applications answer on, from binding to an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from sidecar.http.connection import Protocol
from sidecar.http.crowd import Crowd, share
from sidecar.http.fastlane import LANE
from sidecar.http.route import IDLE_S
from sidecar.http.sockets import BACKLOG, Target, bind_tcp, bind_unix, close, identity

MAX_LINE = 64 * 1024
"""Bytes of a request line or a header: a gateway passes on what its clients sent."""
MAX_HEADERS = 128


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
        bound.sockets += bind_tcp(endpoint.tcp, endpoint.setting)


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
