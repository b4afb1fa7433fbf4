"""`/v1/report`: local consumers and producers say how they are doing, without knowing a store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from sidecar.core.board import Cell
from sidecar.core.errors import StoreError
from sidecar.core.intake import IntakeFull, Post
from sidecar.core.ports import Backend
from sidecar.core.reports import INSTANCE
from sidecar.http.bodies import json_body
from sidecar.http.posts import bad_instance, parse
from sidecar.http.problems import Problem, find, shown, store_unavailable
from sidecar.http.replies import json
from sidecar.http.settings import HttpSettings, LiveSettings, Transport

T = TypeVar("T")


class Reporting:
    """The handlers of `/v1/report`."""

    def __init__(self, backend: Backend, settings: LiveSettings, transport: Transport) -> None:
        self._backend = backend
        self._settings = settings
        self._transport = transport
        self._running: set[asyncio.Task[Any]] = set()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.post("/v1/report", self.report),
            web.post("/v1/report/{name}", self.report),
            web.delete("/v1/report/{name}/{instance}", self.withdraw),
        ]

    async def report(self, request: web.Request) -> web.Response:
        """`POST /v1/report[/{name}]`: 202 once it is taken in."""
        self._check_taken()
        cell = find(self._backend.board, request.match_info.get("name"))
        post = parse(await json_body(request))
        await self._whole(self._take(cell, post), f"report {cell.policy.name}")
        return json(accepted(cell, post), 202)

    async def _take(self, cell: Cell, post: Post) -> None:
        try:
            await self._backend.report(cell, post)
        except IntakeFull as error:
            raise Problem(
                429, "too-many-instances", str(error), headers={"Retry-After": "60"}
            ) from error
        except StoreError as error:
            raise store_unavailable(error, "the report can't be stored") from error

    async def withdraw(self, request: web.Request) -> web.Response:
        """`DELETE /v1/report/{name}/{instance}`: a reporter says goodbye."""
        self._check_taken()
        cell = find(self._backend.board, request.match_info["name"])
        instance = request.match_info["instance"]
        if not INSTANCE.fullmatch(instance):
            raise Problem(400, "bad-parameter", bad_instance(instance))
        if not await self._whole(self._leave(cell, instance), f"withdraw {cell.policy.name}"):
            raise Problem(
                404, "unknown-instance", f"no instance {shown(instance)} has reported through here"
            )
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def _leave(self, cell: Cell, instance: str) -> bool:
        try:
            return await self._backend.withdraw(cell, instance)
        except StoreError as error:
            raise store_unavailable(error, "the report can't be deleted") from error

    async def _whole(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Do the work to its end, also when the client hangs up meanwhile.

        A client that leaves cancels its handler; a report half taken in would be worse than one
        whose answer nobody reads. The backend bounds how long the work may last.
        """
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it; if nobody does, nobody is to be told

    async def drain(self, _app: web.Application) -> None:
        """On clean-up: whose client has left is cancelled with the application."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _check_taken(self) -> None:
        problem = refusal(self._settings.current, self._transport)
        if problem is not None:
            raise problem


def refusal(settings: HttpSettings, transport: Transport) -> Problem | None:
    """Why no report is taken that comes this way; None where it is."""
    if settings.reports == "off":
        return Problem(
            403,
            "reports-off",
            "reports are switched off; set `reports: tcp` or `reports: socket` to take them",
        )
    if settings.reports == "socket" and transport == "tcp":
        return Problem(
            403,
            "reports-on-socket-only",
            "reports are taken on the unix socket only; report through `listen.socket`, "
            "or set `reports: tcp`",
        )
    return None


def accepted(cell: Cell, post: Post) -> bytes:
    """What the sender of a report that was taken in is told."""
    return msgspec.json.encode(
        {"accepted": True, "breaker": cell.policy.name, "instance": post.instance}
    )
