"""The middleware: who is guarded, how a rejection looks, and that nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pytest_aiohttp.plugin import AiohttpClient

from sidecar.client import AsyncBreaker, Breaker, Source, guarding
from sidecar.client.asgi import BreakerASGI, Message, Receive, Send
from sidecar.client.guard import Gate, unsafe_methods
from sidecar.client.web import BREAKER, middleware, setup
from sidecar.client.wsgi import BreakerWSGI
from tests.servers import free_port, poll_until
from tests.unit.client.fake import FakeSidecar, breaker

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

SOON_S = 5.0


@pytest.fixture
def address(server: TestServer) -> str:
    return f"127.0.0.1:{server.port}"


def check(status: int, headers: dict[str, str], body: bytes, expected: int = 503) -> None:
    """A rejection as it must look."""
    problem = json.loads(body)
    assert (status, problem["status"]) == (expected, expected)
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) == len(body)
    seconds = int(headers["retry-after"])
    assert 25 <= seconds <= 31
    assert f"try again in {seconds} seconds" in problem["detail"]
    assert set(problem) == {"type", "title", "status", "detail"}


# Guards


def test_by_default_whatever_may_change_something_is_guarded() -> None:
    guarded = [
        m
        for m in ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "X")
        if unsafe_methods(m, "/")
    ]
    assert guarded == ["POST", "PUT", "PATCH", "DELETE", "X"]


@pytest.mark.parametrize(
    ("path", "guarded"),
    [("/orders", True), ("/orders/7", True), ("/orders-old", False), ("/", False), ("/v2", True)],
)
def test_a_guard_for_parts_of_an_api(path: str, guarded: bool) -> None:
    guard = guarding(["/orders/", "/v2"], ["post"])
    assert guard("POST", path) is guarded
    assert not guard("PUT", path)
    assert guarding()("PUT", path)
    assert not guarding()("GET", path)


def test_guards_and_statuses_that_cannot_work_are_refused() -> None:
    with pytest.raises(TypeError):
        guarding("/orders")
    client = Breaker(on_no_answer=True, address="127.0.0.1:1")
    for status in (200, 302, 600):
        with pytest.raises(ValueError, match="400 to 599"):
            Gate(client, unsafe_methods, status)


# ASGI


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answers 204, and takes part in the lifespan."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def call(app: BreakerASGI, method: str = "POST", path: str = "/") -> tuple[int, Any, bytes]:
    """One request as a server hands it over."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, body["body"]


async def test_asgi_rejects_what_is_guarded(sidecar: FakeSidecar, address: str) -> None:
    sidecar.breakers = [breaker(state="OPEN", retry_after=30)]
    app = BreakerASGI(application, on_no_answer=True, address=address)
    check(*await call(app))
    assert (await call(app, "GET"))[0] == 204
    await sidecar.change(breaker(seq=2))
    await poll_until(app.breaker.allowed, SOON_S, "it closes")
    assert (await call(app))[0] == 204
    await app.breaker.close()


async def test_asgi_follows_for_the_servers_lifespan(sidecar: FakeSidecar, address: str) -> None:
    app = BreakerASGI(application, "default", on_no_answer=True, address=address)
    received: asyncio.Queue[Message] = asyncio.Queue()
    sent: asyncio.Queue[Message] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    async with asyncio.timeout(SOON_S):
        assert (await sent.get())["type"] == "lifespan.startup.complete"
    assert app.breaker.source is Source.WATCH
    await received.put({"type": "lifespan.shutdown"})
    async with asyncio.timeout(SOON_S):
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await lifespan
    assert app.breaker.fault == "closed"


async def test_asgi_leaves_websockets_alone(address: str) -> None:
    seen: list[str] = []

    async def inner(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Any:
        return None

    await BreakerASGI(inner, on_no_answer=False, address=address)(
        {"type": "websocket", "path": "/"}, nothing, nothing
    )
    assert seen == ["websocket"]


# WSGI


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers 200."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


def ask(
    app: BreakerWSGI, method: str = "POST", path: str = "/"
) -> tuple[int, dict[str, str], bytes]:
    """One request as a server hands it over, watched by the standard library's validator."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path}
    environ |= {"SCRIPT_NAME": "", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
        said.extend([status, headers])
        return lambda _: None

    answer = validator(app)(environ, start_response)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]  # the validator's own iterator has it
    return int(said[0].split()[0]), {k.lower(): v for k, v in said[1]}, body


async def test_wsgi_rejects_what_is_guarded(sidecar: FakeSidecar, address: str) -> None:
    sidecar.breakers = [breaker(state="OPEN", retry_after=30)]
    app = BreakerWSGI(
        plain, on_no_answer=True, address=address, guard=guarding(["/orders", "/größe"])
    )
    check(*await asyncio.to_thread(ask, app, "POST", "/orders"))
    assert (await asyncio.to_thread(ask, app, "POST", "/other"))[0] == 200
    assert (await asyncio.to_thread(ask, app, "GET", "/orders"))[0] == 200
    check(*await asyncio.to_thread(ask, app, "POST", "/größe".encode().decode("latin-1")))
    await sidecar.change(breaker(seq=2))
    await poll_until(app.breaker.allowed, SOON_S, "it closes")
    assert ask(app, "POST", "/orders")[2] == b"fine"
    await asyncio.to_thread(app.breaker.close)


async def test_wsgi_answers_head_without_a_body(sidecar: FakeSidecar, address: str) -> None:
    sidecar.breakers = [breaker(state="OPEN", retry_after=30)]
    with_head = guarding(methods=["HEAD"])
    app = BreakerWSGI(plain, on_no_answer=True, address=address, guard=with_head, status=429)
    status, headers, body = await asyncio.to_thread(ask, app, "HEAD")
    assert (status, body) == (429, b"")
    assert "retry-after" in headers
    await asyncio.to_thread(app.breaker.close)


@pytest.mark.parametrize(("default", "status"), [(True, 200), (False, 503)])
def test_wsgi_without_a_sidecar_does_as_it_was_told(default: bool, status: int) -> None:
    app = BreakerWSGI(plain, on_no_answer=default, address=f"127.0.0.1:{free_port()}")
    got, headers, _ = ask(app)
    assert got == status
    assert headers.get("retry-after") == (None if default else "1")
    app.breaker.close()


# aiohttp


async def test_aiohttp_rejects_what_is_guarded(
    sidecar: FakeSidecar, address: str, aiohttp_client: AiohttpClient
) -> None:
    sidecar.breakers = [breaker("orders", "OPEN", retry_after=30)]

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="fine")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    setup(app, "orders", on_no_answer=True, address=address, status=429)
    client = await aiohttp_client(app)
    assert app[BREAKER].source is Source.WATCH
    answer = await client.post("/x")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    check(answer.status, headers, await answer.read(), 429)
    assert (await client.get("/x")).status == 200
    await sidecar.change(breaker("orders", seq=2))
    await poll_until(app[BREAKER].allowed, SOON_S, "it closes")
    assert (await client.post("/x")).status == 200
    await client.close()
    assert app[BREAKER].fault == "closed"


async def test_a_client_made_elsewhere_serves_several(
    sidecar: FakeSidecar, address: str, aiohttp_client: AiohttpClient
) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    async with AsyncBreaker(on_no_answer=True, address=address) as shared:
        app = web.Application(middlewares=[middleware(shared)])
        client = await aiohttp_client(app)
        assert (await client.post("/")).status == 503
        behind = BreakerASGI(application, shared, on_no_answer=True)
        assert behind.breaker is shared
        assert (await call(behind))[0] == 503
    assert sidecar.watched == 1


async def test_requests_that_come_before_the_first_word_wait_for_it(
    sidecar: FakeSidecar, address: str
) -> None:
    sidecar.breakers = [breaker(state="OPEN", retry_after=30)]
    app = BreakerASGI(application, on_no_answer=True, address=address)
    answers = await asyncio.gather(*(call(app) for _ in range(5)))
    assert [answer[0] for answer in answers] == [503] * 5
    assert sidecar.watched == 1
    await app.breaker.close()
