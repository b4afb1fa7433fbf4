"""An HTTP server that answers, breaks and hangs as a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.servers import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Misbehaving:
    """A local HTTP server that answers everything by `handler`, and remembers what it was asked."""

    port: int
    handler: Handler | None = None
    requests: list[web.BaseRequest] = field(default_factory=list)
    dropped: int = 0
    """Requests whose client went away before an answer."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        assert isinstance(request, web.Request)
        assert self.handler is not None
        try:
            return await self.handler(request)
        except asyncio.CancelledError:
            self.dropped += 1
            raise


@asynccontextmanager
async def serving(handler: Handler | None = None) -> AsyncIterator[Misbehaving]:
    app = web.Application()
    server = Misbehaving(free_port(), handler)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", server.port).start()
    try:
        yield server
    finally:
        await runner.cleanup()


def saying(status: int, body: str = "", headers: dict[str, str] | None = None) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers=headers)

    return handler


async def hang(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def reset_mid_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "X-Consul-Index": "5"})
    await response.prepare(request)
    await response.write(b'[{"Key": "a/b"')
    assert request.transport is not None
    request.transport.abort()
    return response


async def break_at_once(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
