"""Middleware for aiohttp's own server.

setup(app, "orders", on_no_answer=True)
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.client.aio import AsyncBreaker
from sidecar.client.guard import Gate, Guard, unsafe_methods

BREAKER = web.AppKey("breaker", AsyncBreaker)
"""Where `setup` leaves the client, for handlers that want to look."""


def setup(
    app: web.Application,
    breaker: str | None = None,
    *,
    on_no_answer: bool,
    guard: Guard = unsafe_methods,
    status: int = 503,
    address: str | None = None,
) -> None:
    """Put the middleware outermost, and follow the sidecar from the app's start to its cleanup.

    Args:
        app: not yet started.
        breaker: a breaker's name; None for the sidecar's default one.
        on_no_answer: what to decide while no sidecar answers.
        guard: which requests are guarded; by default all but GET, HEAD, OPTIONS and TRACE.
        status: of a rejection.
        address: where the sidecar is; found as `Breaker` finds it by default.
    """
    client = AsyncBreaker(breaker, on_no_answer=on_no_answer, address=address)
    app[BREAKER] = client

    async def following(_: web.Application) -> AsyncIterator[None]:
        async with client:
            yield

    app.middlewares.insert(0, middleware(client, guard=guard, status=status))
    app.cleanup_ctx.append(following)


def middleware(
    breaker: AsyncBreaker, *, guard: Guard = unsafe_methods, status: int = 503
) -> Middleware:
    """The middleware alone, around a client that somebody else starts and closes."""
    gate = Gate(breaker, guard, status)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if gate.guards(request.method, request.path) and (rejection := gate.reject()) is not None:
            return web.Response(
                status=rejection.status.value, headers=rejection.headers, body=rejection.body
            )
        return await handler(request)

    return guarded
