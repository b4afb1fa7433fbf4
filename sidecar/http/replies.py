"""Ordinary JSON answers."""

from __future__ import annotations

import msgspec
from aiohttp import web

JSON_HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
"""Of a JSON answer that nothing on the way may keep."""


def json(body: object, status: int = 200) -> web.Response:
    """Such an answer; bytes are JSON already."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return web.Response(status=status, body=content, headers=JSON_HEADERS)
