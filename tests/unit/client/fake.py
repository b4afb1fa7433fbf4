"""A sidecar that says what a test wants, on a real port, and how both clients are driven alike."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sidecar.client import AsyncBreaker, Breaker

Described = dict[str, Any]


def breaker(name: str = "default", state: str = "CLOSED", **more: object) -> Described:
    """A breaker as the sidecar describes it."""
    ratio = {"CLOSED": 1.0, "OPEN": 0.0, "HALF_OPEN": 0.05}[state]
    return {
        "breaker": name,
        "state": state,
        "reason": "failures",
        "seq": 1,
        "admit_ratio": ratio,
        "stale": False,
        **more,
    }


@dataclass
class FakeSidecar:
    """Serves what `breakers` holds; every watcher hears what is sent."""

    breakers: list[Described] = field(default_factory=lambda: [breaker()])
    watch_status: int = 200
    ask_status: int | None = None
    silent: bool = False
    mute: bool = False
    asked: int = 0
    watched: int = 0
    _watchers: set[web.StreamResponse] = field(default_factory=set)
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        """The application, for a test server."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/watch", self._watch),
                web.get("/allowed", self._allowed),
                web.get("/allowed/{name}", self._allowed),
            ]
        )
        app.on_shutdown.append(self._shut)
        return app

    async def say(self, kind: str, data: object) -> None:
        """Send an event to all watchers; text goes out as it is."""
        text = data if isinstance(data, str) else json.dumps(data)
        for response in list(self._watchers):
            await response.write(f"event: {kind}\ndata: {text}\n\n".encode())

    async def change(self, described: Described, kind: str = "transition") -> None:
        """A breaker is another one from now on, and watchers hear of it."""
        others = [one for one in self.breakers if one["breaker"] != described["breaker"]]
        self.breakers = [*others, described]
        await self.say(kind, described)

    def hang_up(self) -> None:
        """End every stream."""
        self._ended.set()
        self._ended = asyncio.Event()

    async def _shut(self, _: web.Application) -> None:
        self.silent = self.mute = False
        self.hang_up()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watched += 1
        ended = self._ended
        if self.silent:
            await ended.wait()
        if self.watch_status != 200:
            return web.Response(status=self.watch_status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while self.mute and not ended.is_set():
            await response.write(b": patience\n\n")
            await asyncio.sleep(0.02)
        data = json.dumps({"breakers": self.breakers})
        await response.write(f": hello\n\nevent: snapshot\nid: 1\ndata: {data}\n\n".encode())
        self._watchers.add(response)
        try:
            await ended.wait()
        finally:
            self._watchers.discard(response)
        return response

    async def _allowed(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert request.query["peek"] == "1"
        if self.silent:
            await self._ended.wait()
        if self.ask_status is not None:
            return web.Response(status=self.ask_status, text="<html>")
        wanted = request.match_info.get("name", "default")
        found = [one for one in self.breakers if one["breaker"] == wanted]
        if not found:
            problem = {"type": "urn:breaker-sidecar:unknown-breaker", "detail": "there are: …"}
            return web.json_response(problem, status=404)
        body = {**found[0], "allowed": found[0]["admit_ratio"] > 0}
        return web.json_response(body, status=200 if body["allowed"] else 503)


class Driven:
    """Either client; what may block is kept off the event loop."""

    def __init__(self, client: AsyncBreaker | Breaker) -> None:
        self.client = client

    async def start(self) -> None:
        if isinstance(self.client, AsyncBreaker):
            await self.client.start()
        else:
            await asyncio.to_thread(self.client.start)

    async def close(self) -> None:
        if isinstance(self.client, AsyncBreaker):
            await self.client.close()
        else:
            await asyncio.to_thread(self.client.close)
