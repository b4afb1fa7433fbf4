"""Ordinary JSON answers."""

from __future__ import annotations

import msgspec
from aiohttp import web


def json(body: object, status: int = 200) -> web.Response:
    """A JSON answer that nothing on the way may keep."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
    )
