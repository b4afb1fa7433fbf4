"""A plain aiohttp server, to compare with: as much as it takes to answer GET with a short text, and
POST of a record with as much as a spooled one is answered with.

python -m bench.plain PORT
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

import uvloop
from aiohttp import web

from bench.host import wait_until
from bench.wire import Connection
from tests.servers import ROOT, free_port


async def _answer(_request: web.Request) -> web.Response:
    return web.Response(text="allowed")


async def _take(request: web.Request) -> web.Response:
    body = await request.read()
    told = {"topic": "bench", "status": "spooled", "partition": 0, "sequence": len(body)}
    return web.json_response(told, status=202)


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_get("/allowed", _answer)
    app.router.add_post("/publish", _take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


@contextlib.contextmanager
def serving() -> Iterator[tuple[int, int]]:
    """Such a server as a process of its own: its id and its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.plain", str(port)], cwd=ROOT)

    def answers() -> bool:
        with contextlib.suppress(OSError), Connection(port) as connection:
            return connection.request("GET", "/allowed")[0] == 200
        return False

    try:
        wait_until(answers, 15, "plain aiohttp answers", 0.05)
        yield process.pid, port
    finally:
        process.kill()
        process.wait(10)


def main(argv: Sequence[str]) -> None:
    """Serve until killed."""
    (port,) = argv
    uvloop.run(_serve(int(port)))


if __name__ == "__main__":
    main(sys.argv[1:])
