"""Errors as `application/problem+json` (RFC 9457), whoever raised them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Never

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.typedefs import Handler, Middleware

from sidecar.core.board import Board, Cell
from sidecar.core.errors import StoreError
from sidecar.core.ports import Telemetry
from sidecar.telemetry.names import REQUEST_FAILED

MEDIA_TYPE = "application/problem+json"
_SHOWN = 64
"""Characters of a client's own text that an error repeats."""


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: the HTTP status.
        kind: the last part of the problem's type, `urn:breaker-sidecar:<kind>`; None: the status
            says all (`about:blank`).
        detail: one sentence for the client; what would be right is part of it.
        headers: sent along (`Allow`, `Retry-After`).
        extra: further members of the body.
    """

    def __init__(
        self,
        status: int,
        kind: str | None,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self) -> web.Response:
        """The answer to send."""
        named = self.kind is not None
        body = {
            "type": f"urn:breaker-sidecar:{self.kind}" if named else "about:blank",
            "title": (self.kind or "").replace("-", " ").capitalize() or _phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(body),
            headers={
                **self.headers,
                "Content-Type": MEDIA_TYPE,
                "Cache-Control": "no-store",
            },
        )


def shown(value: object) -> str:
    """What a client sent, safe to repeat: as ASCII JSON, and not too much of it."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def find(board: Board, name: str | None) -> Cell:
    """The breaker a client means; None and the literal `default` mean the default one.

    Raises:
        Problem: 404 with the names there are.
    """
    cell = board.find(name) if name is not None else None
    if cell is None and name in {None, "default"}:
        cell = board.find(None)
    if cell is None:
        _unknown(board, name)
    return cell


def _unknown(board: Board, name: str | None) -> Never:
    names = sorted(board.cells)
    there_are = f"there are: {', '.join(names)}" if names else "none is configured"
    if name in {None, "default"}:
        said = f"no breaker is the default, name one; {there_are}"
    else:
        said = f"no breaker is called {shown(name)}; {there_are}"
    raise Problem(404, "unknown-breaker", said, extra={"breakers": names})


def store_unavailable(error: StoreError, what: str) -> Problem:
    """A 503 for what only the store could have answered. The fault's own words stay inside."""
    kind = type(error).__name__
    return Problem(
        503,
        "store-unavailable",
        f"{what} now: the store gave no usable answer ({kind})",
        headers={"Retry-After": "1"},
    )


_WORDS = {
    404: "nothing is served at this path; /openapi.json lists what is",
    405: "the method is not allowed here; the Allow header lists those that are",
    417: "only `Expect: 100-continue` is understood",
}


def middleware(telemetry: Telemetry) -> Middleware:
    """Turn every error that leaves a handler into a problem."""

    @web.middleware
    async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request._message.version not in {HttpVersion10, HttpVersion11}:
            return _other_version(request)
        try:
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPRequestEntityTooLarge:
            limit = request.client_max_size
            return Problem(413, None, f"the body is larger than {limit} bytes").response()
        except web.HTTPException as error:
            return of_aiohttp(error).response()
        except ConnectionError:
            raise  # the client has gone; nobody is left to answer
        except Exception as error:  # noqa: BLE001 - whatever fails, a client gets a problem
            telemetry.event(
                REQUEST_FAILED,
                level="error",
                method=request.method,
                route=_route(request),
                error=repr(error),
            )
            return unexpected().response()

    return problems


def _other_version(request: web.Request) -> web.Response:
    """The parser lets 0.9 and 2.0 through, and would have them answered in their own names."""
    request._version = HttpVersion10
    response = Problem(505, None, "only HTTP/1.0 and HTTP/1.1 are spoken here").response()
    response.force_close()
    return response


def of_aiohttp(error: web.HTTPException) -> Problem:
    """The problem that an error of aiohttp's own stands for."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    detail = _WORDS.get(error.status, _phrase(error.status))
    return Problem(error.status, None, detail, headers=headers)


def unexpected() -> Problem:
    """A defect of ours; the log has it, the client learns nothing of the inside."""
    return Problem(500, None, "a defect in the sidecar; its log says more")


def too_large_a_head(limit: int) -> Problem:
    """The line and the headers of a request together are more than is read."""
    return Problem(431, None, f"the head of the request is larger than {limit} bytes")


def malformed(status: int) -> Problem:
    """What the HTTP parser itself refused, before there was a request."""
    return Problem(status, None, "the request is not well-formed HTTP")


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unrouted"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
