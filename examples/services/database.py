"""A database to play with: it takes tasks by HTTP, and can be slow or down when told so.

    python -m examples.services.database -c database.yaml
    curl -X PUT localhost:8090/mode/down     # or slow, healthy

It has a pool of connections and takes its time, so its throughput has a limit, as a real one's has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

import msgspec
from aiohttp import web

from examples.services.settings import host_port, load, log_to_stderr

log = logging.getLogger("database")

Mode = Literal["healthy", "slow", "down"]
MODES: tuple[Mode, ...] = ("healthy", "slow", "down")


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The file's keys, with their defaults: so many writes at a time, and how long each takes."""

    listen: str = "127.0.0.1:8090"
    pool: int = 10
    write_s: float = 0.02
    slow_s: float = 2.0


class Row(msgspec.Struct):
    """What is written."""

    key: str
    version: int
    at: float


class Database:
    """Rows by id, in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = asyncio.Semaphore(settings.pool)
        self._decoder = msgspec.json.Decoder(Row)
        self.mode: Mode = "healthy"
        self.rows: dict[str, Row] = {}
        self.waited_s: dict[str, float] = {}
        """Of each row: from the task's acceptance to its first write."""
        self.repeated = 0

    async def write(self, request: web.Request) -> web.Response:
        """Write a row; the same id once more changes nothing."""
        try:
            row = self._decoder.decode(await request.read())
        except msgspec.MsgspecError as fault:
            return web.Response(status=400, text=str(fault))
        if self._is("down"):
            return web.Response(status=503, text="down")
        async with self._pool:
            slow = self._is("slow")
            await asyncio.sleep(self._settings.slow_s if slow else self._settings.write_s)
        if self._is("down"):  # meanwhile
            return web.Response(status=503, text="down")
        name = request.match_info["id"]
        if name in self.rows:
            self.repeated += 1
            return web.Response(status=200)
        self.rows[name] = row
        self.waited_s[name] = time.time() - row.at
        return web.Response(status=201)

    def _is(self, mode: Mode) -> bool:
        return self.mode == mode

    async def steer(self, request: web.Request) -> web.Response:
        """Be healthy, slow or down from now on."""
        wanted = request.match_info["mode"]
        for mode in MODES:
            if mode == wanted:
                self.mode = mode
                log.info("mode: %s", mode)
                return web.Response(text=f"{mode}\n")
        return web.Response(status=404, text=f"modes: {', '.join(MODES)}\n")

    async def ids(self, _: web.Request) -> web.Response:
        """All ids, one a line, each with how long it waited."""
        lines = (f"{name} {waited_s:.3f}\n" for name, waited_s in self.waited_s.items())
        return web.Response(text="".join(lines))

    async def stats(self, _: web.Request) -> web.Response:
        """How it is doing."""
        return web.json_response(
            {"mode": self.mode, "rows": len(self.rows), "repeated": self.repeated}
        )

    async def clear(self, _: web.Request) -> web.Response:
        """Forget everything."""
        self.rows.clear()
        self.waited_s.clear()
        self.repeated = 0
        return web.Response(status=204)


async def alive(_: web.Request) -> web.Response:
    """The process is there, whatever the mode."""
    return web.Response(text="ok\n")


def build(settings: Settings) -> web.Application:
    """The whole application."""
    database = Database(settings)
    app = web.Application()
    app.router.add_put("/tasks/{id}", database.write)
    app.router.add_get("/tasks", database.ids)
    app.router.add_delete("/tasks", database.clear)
    app.router.add_put("/mode/{mode}", database.steer)
    app.router.add_get("/stats", database.stats)
    app.router.add_get("/livez", alive)
    return app


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load(Settings, __doc__.partition("\n")[0], argv)
    log_to_stderr()
    host, port = host_port(settings.listen)
    log.info("listening on %s", settings.listen)
    web.run_app(build(settings), host=host, port=port, print=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main()
