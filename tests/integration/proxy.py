"""A proxy in front of Consul that can lose an answer: the request goes through, nothing returns."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

import aiohttp
from aiohttp import web

from tests.servers import free_port

START_DEADLINE_S = 10.0


class LossyProxy:
    """Forwards to Consul from a thread of its own. A context manager.

    Attributes:
        losing: how many of the next transactions that write lose their answer.
        lost: how many have; their writes were applied.
    """

    def __init__(self, target: str) -> None:
        self._target = f"http://{target}"
        self._port = free_port()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy")
        self.losing = 0
        self.lost = 0

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self._port}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Kept apart by connections, so that a lost one takes no other request along.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def forward(request: web.Request) -> web.StreamResponse:
                return await self._forward(session, request)

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", forward)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            self._ready.set()
            await self._end.wait()
            await runner.cleanup()

    async def _forward(
        self, session: aiohttp.ClientSession, request: web.Request
    ) -> web.StreamResponse:
        body = await request.read()
        async with session.request(
            request.method,
            self._target + request.raw_path,
            data=body,
            headers={k: v for k, v in request.headers.items() if k.startswith("X-")},
        ) as answer:
            content = await answer.read()
            if self.losing and request.path == "/v1/txn" and b'"cas"' in body:
                self.losing -= 1
                self.lost += answer.status == 200
                if request.transport is not None:
                    request.transport.abort()
            kept = {k: v for k, v in answer.headers.items() if k.startswith(("X-", "Content-Type"))}
            return web.Response(status=answer.status, body=content, headers=kept)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_DEADLINE_S), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_DEADLINE_S)
