"""ASGI middleware (Starlette, FastAPI, Quart, Django …).

app = BreakerASGI(app, "orders", on_no_answer=True)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sidecar.client.aio import AsyncBreaker
from sidecar.client.guard import Gate, Guard, unsafe_methods

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_STOPPED = {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}


class BreakerASGI:
    """Answers guarded HTTP requests with 503 and `Retry-After` while the breaker rejects.

    Follows the sidecar from the server's lifespan start to its shutdown; where a server has no
    lifespan, from the first guarded request on.

    Args:
        app: the application behind it.
        breaker: a breaker's name, None for the sidecar's default one, or a client, which then
            its maker closes.
        on_no_answer: what to decide while no sidecar answers; a client has its own.
        guard: which requests are guarded; by default all but GET, HEAD, OPTIONS and TRACE.
        status: of a rejection.
        address: where the sidecar is; found as `Breaker` finds it by default.
    """

    def __init__(
        self,
        app: App,
        breaker: str | AsyncBreaker | None = None,
        *,
        on_no_answer: bool,
        guard: Guard = unsafe_methods,
        status: int = 503,
        address: str | None = None,
    ) -> None:
        self._app = app
        self._owns = not isinstance(breaker, AsyncBreaker)
        if not isinstance(breaker, AsyncBreaker):
            breaker = AsyncBreaker(breaker, on_no_answer=on_no_answer, address=address)
        self.breaker = breaker
        self._gate = Gate(breaker, guard, status)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection of the server's."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] == "http" and self._gate.guards(scope["method"], scope["path"]):
            if not self.breaker.running:
                await self.breaker.start()
            if (rejection := self._gate.reject()) is not None:
                headers = [(k.lower().encode(), v.encode()) for k, v in rejection.headers]
                status = rejection.status.value
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": rejection.body})
                return
        await self._app(scope, receive, send)

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.breaker.start()

        async def closing(message: Message) -> None:
            if self._owns and message["type"] in _STOPPED:
                await self.breaker.close()
            await send(message)

        await self._app(scope, receive, closing)
