"""Reading a request's JSON body: plain, whole, and not too large."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from sidecar.core.reports import MAX_VALUE_BYTES
from sidecar.http.problems import Problem, shown

MAX_BODY = MAX_VALUE_BYTES
"""Bytes: what the store takes for one value."""
BODY_S = 10.0
"""How long a body may take, from the end of its head."""


async def json_body(request: web.Request) -> bytes:
    """The body, when it is plain JSON and not too large.

    Raises:
        Problem: 415 for anything but `application/json` without a content coding, 501 for a
            transfer coding beside `chunked`, 408 where it doesn't come to its end in time.
        HTTPRequestEntityTooLarge: past `MAX_BODY` without a length (413 with one).
    """
    if request.content_type != "application/json":
        raise Problem(
            415, None, f"Content-Type is {shown(request.content_type)}; send application/json"
        )
    check_framing(request, MAX_BODY)
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError as error:
        raise _late() from error
    except (web.RequestPayloadError, asyncio.IncompleteReadError) as error:
        raise Problem(400, None, "the body is not well-formed") from error


async def any_body(
    request: web.Request, limit: int, arrived: Callable[[int], None] = lambda _: None
) -> bytes:
    """A body of any type, of at most `limit` bytes.

    Args:
        arrived: told how much of it is there by now, with each piece; what it raises goes through.

    Raises:
        Problem: 413 past the limit; 415, 501, 408 and 400 as for `json_body`.
    """
    check_framing(request, limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                arrived(size)
                parts.append(part)
    except TimeoutError as error:
        raise _late() from error
    except (web.RequestPayloadError, asyncio.IncompleteReadError) as error:
        raise Problem(400, None, "the body is not well-formed") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_framing(request: web.Request, limit: int) -> None:
    """What the head says of the body: whether it can be read here at all.

    Raises:
        Problem: 413 past `limit` bytes, 415 with a content coding, 501 with a transfer coding
            beside `chunked`.
    """
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise Problem(415, None, f"Content-Encoding is {shown(coding)}; send the body as it is")
    framing = request.headers.get("Transfer-Encoding", "chunked")
    if framing.strip().lower() != "chunked":
        raise Problem(501, None, f"Transfer-Encoding is {shown(framing)}; only chunked is known")
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    return Problem(413, None, f"the body is larger than {limit} bytes")


def _late() -> Problem:
    return Problem(408, None, f"the body was not there within {BODY_S:g} s")
