"""For machines that watch the sidecar: alive, ready, which version, metrics."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable

from aiohttp import web

from sidecar.core.ports import Backend
from sidecar.http import views
from sidecar.http.replies import json
from sidecar.http.settings import LiveSettings

Metrics = Callable[[], tuple[Iterable[bytes], str]]
"""Renders the metrics now: (the text, made piece by piece as it is taken; content type)."""


class Probes:
    """The handlers of `/livez`, `/readyz`, `/version` and `/metrics`. No store is asked."""

    def __init__(
        self,
        backend: Backend,
        settings: LiveSettings,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._metrics = metrics
        self._now = now

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/version", self.version),
            web.get("/metrics", self.metrics),
        ]

    async def livez(self, _request: web.Request) -> web.Response:
        """That this answers at all says that the event loop turns."""
        return json({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready from the first moment: by state or by loss policy there is always a decision.

        An open breaker doesn't fail it, nor does a stale one, unless `?strict=1` asks for that.
        """
        body = views.readiness(self._backend.board, self._now())
        failing = body["stale"] is True and request.query.get("strict") == "1"
        if failing:
            body["ready"] = False
        return json(body, 503 if failing else 200)

    async def version(self, _request: web.Request) -> web.Response:
        """What runs."""
        settings = self._settings.current
        return json(
            {
                "version": settings.version,
                "commit": settings.commit,
                "python": platform.python_version(),
            }
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        """The metrics in the text format that their renderer chose."""
        pieces, content_type = self._metrics()
        text = bytearray()
        for piece in pieces:
            text += piece
            await asyncio.sleep(0)  # of many breakers it takes long: others have their turn
        return web.Response(
            body=bytes(text), headers={"Content-Type": content_type, "Cache-Control": "no-store"}
        )
