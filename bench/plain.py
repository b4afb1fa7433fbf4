"""A plain aiohttp server, to compare with: as much as it takes to answer GET with a short text.

python -m bench.plain PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import uvloop
from aiohttp import web


async def _answer(_request: web.Request) -> web.Response:
    return web.Response(text="allowed")


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_get("/allowed", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


def main(argv: Sequence[str]) -> None:
    """Serve until killed."""
    (port,) = argv
    uvloop.run(_serve(int(port)))


if __name__ == "__main__":
    main(sys.argv[1:])
