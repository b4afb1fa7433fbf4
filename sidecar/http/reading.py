"""The reading half of `/v1`: breakers, their history, status, and the long poll."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from sidecar.core.errors import StoreError
from sidecar.core.ports import Backend
from sidecar.core.wire import transition_to_dict
from sidecar.http import parameters, views
from sidecar.http.connection import lasts
from sidecar.http.overview import Overview
from sidecar.http.problems import find, store_unavailable
from sidecar.http.replies import json
from sidecar.http.waiting import Waiters


class Reading:
    """The handlers that only read."""

    def __init__(
        self,
        backend: Backend,
        waiters: Waiters,
        overview: Overview,
        now: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._overview = overview
        self._waiters = waiters
        self._now = now

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.get("/v1/breakers", self.breakers),
            web.get("/v1/breakers/{name}", self.breaker),
            web.get("/v1/breakers/{name}/history", self.history),
            web.get("/v1/status", self.status),
        ]

    async def breakers(self, _request: web.Request) -> web.Response:
        """`GET /v1/breakers`."""
        now = self._now()
        return json({"breakers": [views.breaker(cell, now) for cell in self._overview.cells()]})

    async def breaker(self, request: web.Request) -> web.Response:
        """`GET /v1/breakers/{name}[?index=SEQ&wait=30s]`."""
        cell = find(self._backend.board, request.match_info["name"])
        known, left_s = parameters.index(request), parameters.wait(request)
        deadline = self._now() + left_s
        if known is not None and left_s > 0:
            lasts(request)
        while known is not None and cell.decision.seq == known and left_s > 0:
            if not await self._waiters.change(cell.policy.name, left_s):
                break
            # A reload may have put another cell in its place, or none.
            cell = find(self._backend.board, cell.policy.name)
            left_s = deadline - self._now()
        return json(views.breaker(cell, self._now()))

    async def history(self, request: web.Request) -> web.Response:
        """`GET /v1/breakers/{name}/history`: the last transitions, newest last."""
        cell = find(self._backend.board, request.match_info["name"])
        try:
            transitions = await self._backend.history(cell)
        except StoreError as error:
            raise store_unavailable(error, "the history can't be read") from error
        return json(
            {
                "breaker": cell.policy.name,
                "transitions": [transition_to_dict(t) for t in transitions],
            }
        )

    async def status(self, _request: web.Request) -> web.Response:
        """`GET /v1/status`: the daemon, its store, and every breaker with its shadow report."""
        return json(await self._overview.status())
