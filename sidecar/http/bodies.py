"""Reading a request's JSON body: plain, whole, and not too large."""

from __future__ import annotations

import asyncio

from aiohttp import web

from sidecar.core.reports import MAX_VALUE_BYTES
from sidecar.http.problems import Problem, shown

MAX_BODY = MAX_VALUE_BYTES
"""Bytes: what the store takes for one value."""


async def json_body(request: web.Request) -> bytes:
    """The body, when it is plain JSON and not too large.

    Raises:
        Problem: 415 for anything but `application/json` without a content coding.
        HTTPRequestEntityTooLarge: past `MAX_BODY`.
    """
    if request.content_type != "application/json":
        raise Problem(
            415, None, f"Content-Type is {shown(request.content_type)}; send application/json"
        )
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise Problem(415, None, f"Content-Encoding is {shown(coding)}; send the body as it is")
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=request.content_length)
    try:
        return await request.read()
    except (web.RequestPayloadError, asyncio.IncompleteReadError) as error:
        raise Problem(400, None, "the body is not well-formed") from error
