"""An API that takes tasks and publishes them, and says no while nobody could work on them.

    python -m examples.services.api -c api.yaml

POST /api/v1/task {"key": "customer-17", "data": {…}} answers 202 with id and version once Kafka has
the event; 503 with Retry-After while the breaker is open, or while too much is on its way; and 504
where nobody knows whether Kafka has it: send it again with the same Idempotency-Key.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from examples.services.publisher import Full, Publisher, Unknown
from examples.services.settings import host_port, load, log_to_stderr
from sidecar.client import guarding
from sidecar.client.web import setup

log = logging.getLogger("api")

PATH = "/api/v1/task"
MOST_BODY = 64 * 1024
MOST_NAME = 200
BUSY_S = 1


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The file's keys, with their defaults.

    Args:
        breaker: the breaker to ask; null: none.
        sidecar: where the sidecar is; null: as all clients look for it.
        admit_without_sidecar: what to do while no sidecar answers.
    """

    listen: str = "127.0.0.1:8080"
    kafka: str = "localhost:9092"
    topic: str = "tasks"
    breaker: str | None = "tasks"
    sidecar: str | None = None
    admit_without_sidecar: bool = True
    max_outstanding: int = 500
    send_timeout_s: float = 2.0


class Task(msgspec.Struct):
    """What a client sends. Of one key, a higher version is the newer truth."""

    key: str
    data: dict[str, Any] = {}
    version: int | None = None


class Versions:
    """Versions for clients that have none: they grow, also over a restart."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Microseconds since 1970, and never the same twice."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last


class Tasks:
    """The handler of the one path that writes."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._versions = Versions()
        self._decoder = msgspec.json.Decoder(Task)

    async def post(self, request: web.Request) -> web.Response:
        """Publish one task."""
        try:
            task = self._decoder.decode(await request.read())
        except msgspec.MsgspecError as fault:
            return _problem(400, str(fault))
        if not 0 < len(task.key) <= 200:
            return _problem(400, "key: 1 to 200 characters")
        name = request.headers.get("Idempotency-Key") or uuid.uuid4().hex
        if len(name) > MOST_NAME or not name.isprintable():
            return _problem(400, f"Idempotency-Key: up to {MOST_NAME} printable characters")
        version = task.version if task.version is not None else self._versions.next()
        event = {"id": name, "version": version, "key": task.key, "at": time.time()}
        value = msgspec.json.encode({**event, "data": task.data})
        headers = [("id", name.encode()), ("version", str(version).encode())]
        try:
            await self._publisher.publish(task.key.encode(), value, headers)
        except Full:
            return _problem(503, "too much is on its way", {"Retry-After": str(BUSY_S)})
        except Unknown as fault:
            log.warning("%s: %s", name, fault)
            return _problem(
                504, f"it may be sent or not; send it again with Idempotency-Key {name}"
            )
        return web.json_response({"id": name, "version": version}, status=202)


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(
        {"status": status, "detail": detail},
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )


def build(settings: Settings) -> web.Application:
    """The whole application."""
    app = web.Application(client_max_size=MOST_BODY)

    async def publishing(app: web.Application) -> AsyncIterator[None]:
        publisher = Publisher(
            settings.kafka,
            settings.topic,
            most=settings.max_outstanding,
            timeout_s=settings.send_timeout_s,
        )
        app[TASKS] = Tasks(publisher)
        yield
        await publisher.close()

    async def post(request: web.Request) -> web.Response:
        return await request.app[TASKS].post(request)

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app.cleanup_ctx.append(publishing)
    app.router.add_post(PATH, post)
    app.router.add_get("/livez", alive)
    if settings.breaker is not None:
        setup(
            app,
            settings.breaker,
            on_no_answer=settings.admit_without_sidecar,
            guard=guarding([PATH], ["POST"]),
            address=settings.sidecar,
        )
    return app


TASKS = web.AppKey("tasks", Tasks)


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun are answered first."""
    settings = load(Settings, __doc__.partition("\n")[0], argv)
    log_to_stderr()
    host, port = host_port(settings.listen)
    log.info("listening on %s, breaker %s", settings.listen, settings.breaker)
    web.run_app(build(settings), host=host, port=port, print=None, shutdown_timeout=5.0)
    log.info("stopped")


if __name__ == "__main__":
    main()
