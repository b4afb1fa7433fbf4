"""Reading a request's JSON body: plain, whole, and not too large."""

from __future__ import annotations

import asyncio

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
        HTTPRequestEntityTooLarge: past `MAX_BODY`.
    """
    if request.content_type != "application/json":
        raise Problem(
            415, None, f"Content-Type is {shown(request.content_type)}; send application/json"
        )
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise Problem(415, None, f"Content-Encoding is {shown(coding)}; send the body as it is")
    framing = request.headers.get("Transfer-Encoding", "chunked")
    if framing.strip().lower() != "chunked":
        raise Problem(501, None, f"Transfer-Encoding is {shown(framing)}; only chunked is known")
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=request.content_length)
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError as error:
        raise Problem(408, None, f"the body was not there within {BODY_S:g} s") from error
    except (web.RequestPayloadError, asyncio.IncompleteReadError) as error:
        raise Problem(400, None, "the body is not well-formed") from error
