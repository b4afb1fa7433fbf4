"""Orders of people: `…/override`, and the deletion of a breaker that is no longer used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from sidecar.core.board import Cell
from sidecar.core.errors import Contradicted, StillEvaluated, StoreDenied, StoreError
from sidecar.core.override import ENDLESS, MAX_TEXT, MAX_TTL_S, Mode, Override, placed
from sidecar.core.ports import Backend
from sidecar.core.wire import override_to_dict
from sidecar.http import admin
from sidecar.http.bodies import json_body
from sidecar.http.parameters import duration
from sidecar.http.problems import Problem, find, shown, store_unavailable
from sidecar.http.replies import json
from sidecar.http.settings import LiveSettings, Transport

_FIELDS = ("mode", "ttl", "ttl_s", "reason", "author", "replace")
_OF_THE_KEY = ("set_at", "expires_at")
"""Fields of the override as the store holds it: taken, and worked out here instead."""


class Orders:
    """The handlers."""

    def __init__(self, backend: Backend, settings: LiveSettings, transport: Transport) -> None:
        self._backend = backend
        self._settings = settings
        self._transport: Transport = transport

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.put("/v1/breakers/{name}/override", self.force),
            web.delete("/v1/breakers/{name}/override", self.release),
            web.delete("/v1/breakers/{name}", self.forget),
        ]

    async def force(self, request: web.Request) -> web.Response:
        """`PUT …/override`: 200 with the override, which is in force here by then."""
        cell = await self._cell(request)
        override, replace = parse(await json_body(request), wall_at=time.time())
        try:
            await self._backend.force(cell, override, replace=replace)
        except Contradicted as fault:
            raise Problem(
                409, "forced-open", f"{fault}; say `replace` (--replace) if you mean to lift that"
            ) from fault
        except StoreError as fault:
            raise _failed(fault, "the override can't be written") from fault
        return json(override_to_dict(override))

    async def release(self, request: web.Request) -> web.Response:
        """`DELETE …/override`: 204, whether one was there or not."""
        cell = await self._cell(request)
        try:
            await self._backend.release(cell)
        except StoreError as fault:
            raise _failed(fault, "the override can't be deleted") from fault
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def forget(self, request: web.Request) -> web.Response:
        """`DELETE /v1/breakers/{name}`: 204 once its keys are gone and stay gone."""
        cell = await self._cell(request)
        try:
            await self._backend.forget(cell)
        except StillEvaluated as fault:
            raise Problem(409, "still-evaluated", str(fault)) from fault
        except StoreError as fault:
            raise _failed(fault, "the breaker can't be deleted") from fault
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def _cell(self, request: web.Request) -> Cell:
        await admin.check(request, self._settings.current, self._transport)
        return find(self._backend.board, request.match_info["name"])


def _failed(fault: StoreError, what: str) -> Problem:
    if isinstance(fault, StoreDenied):
        return Problem(
            403,
            "store-denied",
            f"{what}: the sidecar's own Consul token lacks the right; use yours "
            "(breaker-sidecar force --consul)",
        )
    return store_unavailable(fault, what)


def parse(body: bytes, *, wall_at: float) -> tuple[Override, bool]:
    """Read an order: (the override, whether it may lift a live `open`).

    Raises:
        Problem: 400 with every fault, in words and under `errors`.
    """
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "bad-override", "the body is not JSON") from error
    if not isinstance(given, dict):
        raise Problem(400, "bad-override", "the body must be a JSON object")
    faults: list[tuple[str, str]] = []
    mode = _mode(given, faults)
    ttl_s = _ttl(given, faults)
    reason = _text(given, "reason", faults)
    author = _text(given, "author", faults) if given.get("author") is not None else ""
    if not isinstance(given.get("replace", False), bool):
        faults.append(("replace", f"replace is {shown(given['replace'])}; it must be a boolean"))
    known = ", ".join(_FIELDS)
    faults += [
        (shown(field), f"{shown(field)} is not a field; there are {known}")
        for field in sorted(given.keys() - {*_FIELDS, *_OF_THE_KEY})[:10]
    ]
    if faults or mode is None:
        raise Problem(
            400,
            "bad-override",
            "; ".join(said for _, said in faults),
            extra={"errors": [{"field": field, "detail": said} for field, said in faults]},
        )
    override = placed(mode, ttl_s=ttl_s, reason=reason, author=author, wall_at=wall_at)
    return override, given.get("replace", False)


Faults = list[tuple[str, str]]


def _mode(given: Mapping[str, Any], faults: Faults) -> Mode | None:
    value = given.get("mode")
    try:
        return Mode(str(value))
    except ValueError:
        modes = ", ".join(Mode)
        said = "mode is missing" if value is None else f"mode is {shown(value)}"
        faults.append(("mode", f"{said}; it must be one of {modes}"))
        return None


def _ttl(given: Mapping[str, Any], faults: Faults) -> float:
    """`ttl_s` in seconds or `ttl` as a duration; without end only where that is typed out."""
    if ("ttl" in given) == ("ttl_s" in given):
        said = "both ttl and ttl_s are there" if "ttl" in given else "the ttl is missing"
        faults.append(("ttl_s", f'{said}; send ttl_s in seconds, or "none" for no end'))
        return 0.0
    field = "ttl" if "ttl" in given else "ttl_s"
    value = given[field]
    if value == ENDLESS:
        return float("inf")
    seconds = value
    if field == "ttl":
        seconds = duration(value) if isinstance(value, str) else None
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not 0 < seconds <= MAX_TTL_S
    ):
        right = "a duration such as 15m" if field == "ttl" else "a positive number of seconds"
        faults.append((field, f'{field} is {shown(value)}; it must be {right}, or "none"'))
        return 0.0
    return float(seconds)


def _text(given: Mapping[str, Any], field: str, faults: Faults) -> str:
    value = given.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        said = f"{field} is missing" if value is None else f"{field} is {shown(value)}"
        faults.append((field, f"{said}; it must be a text of 1 to {MAX_TEXT} characters"))
        return ""
    return value.strip()
