"""`/allowed` and `/ext_authz` over HTTP: names, statuses, methods, whatever a gateway sends."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from sidecar.core.board import Board
from sidecar.core.types import Policy, State
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import Clock, Paper, enter, make_board, make_record, raw

GATEWAY = {
    "Host": "shop.example",
    "Origin": "https://evil.example",
    "Sec-Fetch-Site": "cross-site",
    "X-Junk": "j" * 4000,
}


@pytest.mark.parametrize("path", ["/allowed", "/allowed/default"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_admits_and_rejects(
    client: Client, board: Board, clock: Clock, path: str, method: str
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 1))
    admitted = await client.request(method, path)
    assert admitted.status == 200
    assert admitted.headers["X-Breaker-State"] == "CLOSED"
    enter(board, clock, "default", make_record(State.OPEN, 2))
    rejected = await client.request(method, path)
    assert rejected.status == 503
    assert int(rejected.headers["Retry-After"]) >= 30
    body = await rejected.read()
    assert bool(body) == (method == "GET")
    assert int(rejected.headers["Content-Length"]) > 100


async def test_closed_that_sheds_says_so_and_when_to_come_back(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 2, ratio=0.5, reason="shed"))
    answers = [await client.get("/allowed") for _ in range(4)]
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
    for answer in answers:
        assert answer.headers["X-Breaker-State"] == "CLOSED"
        assert answer.headers["X-Breaker-Reason"] == "shed"
        assert (await answer.json())["admit_ratio"] == 0.5
    (rejected, _) = [answer for answer in answers if answer.status == 503]
    assert rejected.headers["Retry-After"] == "5"  # to the next step
    clock.now += 60
    looked = await client.get("/allowed?explain=1")
    assert (await looked.json())["explain"]["spread"]["ratio"] == 0.5


@pytest.mark.parametrize("state", [State.HALF_OPEN, State.CLOSED])
async def test_of_a_thousand_concurrent_calls_exactly_the_share_is_admitted(
    client: Client, board: Board, clock: Clock, state: State
) -> None:
    enter(board, clock, "default", make_record(state, 2, ratio=0.05))

    async def call(number: int) -> int:
        async with client.request("HEAD" if number % 2 else "GET", "/allowed") as answer:
            await answer.read()
            return answer.status

    statuses = await asyncio.gather(*(call(n) for n in range(1000)))
    assert abs(statuses.count(200) - 50) <= 1
    assert statuses.count(200) + statuses.count(503) == 1000
    cell = board.cells["default"]
    assert cell.admitted + cell.rejected == 1000  # HEAD spends as GET does


async def test_peek_spends_nothing(client: Client, board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 2, ratio=0.5))
    statuses = {(await client.get("/allowed?peek=1")).status for _ in range(10)}
    assert len(statuses) == 1
    assert (cell.admitted, cell.rejected) == (0, 0)
    await client.get("/allowed?peek=0")
    assert cell.admitted + cell.rejected == 1


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_deny_status(client: Client, board: Board, clock: Clock, status: int) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 2))
    answer = await client.get(f"/allowed?deny_status={status}&other=1")
    assert answer.status == status
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("value", ["200", "500", "", "0503", "503.0", "%F0", "٤٠٣"])
async def test_another_deny_status_is_a_400_and_not_counted(
    client: Client, board: Board, value: str
) -> None:
    answer = await client.get(f"/allowed?deny_status={value}")
    assert answer.status == 400
    assert answer.content_type == "application/problem+json"
    body = await answer.json()
    assert "401, 403, 429, 503" in body["detail"]
    cell = board.cells["default"]
    assert (cell.admitted, cell.rejected) == (0, 0)


async def test_whatever_a_gateway_passes_on(client: Client) -> None:
    for method in ("GET", "HEAD"):
        answer = await client.request(
            method, "/allowed", headers=GATEWAY, data=b"x" * 300_000, expect100=True
        )
        assert answer.status == 200
    answer = await client.get("/allowed", headers={"Expect": "the-unexpected"})
    assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/allowed", "/allowed/default"])
async def test_other_methods_are_405_with_allow(client: Client, method: str, path: str) -> None:
    answer = await client.request(method, path, headers=GATEWAY)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET,HEAD"
    assert answer.content_type == "application/problem+json"


async def test_an_unknown_name_is_a_404_with_the_names(serve: Serve, clock: Clock) -> None:
    client = await serve(
        backend=Paper(make_board(clock, Policy(name="orders"), Policy(name="mail")))
    )
    for path in ("/allowed", "/allowed/default", "/allowed/x", "/ext_authz/x/y"):
        answer = await client.get(path)
        assert answer.status == 404, path
        body = await answer.json()
        assert body["breakers"] == ["mail", "orders"]
        assert "mail, orders" in body["detail"]
    assert (await client.get("/allowed/orders")).headers["X-Breaker"] == "orders"


async def test_the_only_breaker_is_the_default(serve: Serve, clock: Clock) -> None:
    client = await serve(backend=Paper(make_board(clock, Policy(name="orders"))))
    for path in ("/allowed", "/allowed/default", "/ext_authz/default/", "/v1/breakers/default"):
        answer = await client.get(path)
        assert answer.status == 200, path
    assert (await client.get("/allowed")).headers["X-Breaker"] == "orders"


@pytest.mark.parametrize(
    "path",
    [
        "/allowed/",
        "//allowed",
        "/allowed//default",
        "/allowed/default/",
        "/allowed/..",
        "/allowed/../v1/breakers",
        "/allowed/%2E%2E/v1/breakers",
        "/allowed/default%2Fx",
        "/allowed%2Fdefault",
        "/allowed/%00",
        "/allowed/%FF%FE",
        "/allowed/%zz",
        "/allowed/" + "n" * 3000,
        "/ALLOWED",
    ],
)
async def test_odd_paths_are_clean_404s(client: Client, path: str) -> None:
    answer = await raw(client.port or 0, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body)["status"] == 404


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
)
async def test_envoy_may_ask_with_any_method(
    client: Client, board: Board, clock: Clock, method: str
) -> None:
    for path in ("/ext_authz/default", "/ext_authz/default/", "/ext_authz/default/a//b/../c%2F?d"):
        assert (await client.request(method, URL(path, encoded=True))).status == 200
    enter(board, clock, "default", make_record(State.OPEN, 2))
    answer = await client.request(method, "/ext_authz/default/a?deny_status=503", headers=GATEWAY)
    assert answer.status == 429
    assert "Retry-After" in answer.headers
    assert board.cells["default"].rejected == 1


async def test_envoy_may_send_any_body(client: Client, board: Board, clock: Clock) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 16_384

    enter(board, clock, "default", make_record(State.OPEN, 2))
    for data in (io.BytesIO(b"x" * 2_000_000), chunks(), b"{"):
        answer = await client.post("/ext_authz/default/upload", data=data)
        assert answer.status == 429


async def test_a_body_that_never_comes_keeps_nobody_waiting(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 2))
    head = b"Host: x\r\nContent-Length: 999999999\r\n\r\n"
    envoy = await raw(client.port or 0, b"POST /ext_authz/default/x HTTP/1.1\r\n" + head)
    assert envoy.status == 429
    plain = await raw(client.port or 0, b"GET /allowed HTTP/1.1\r\n" + head)
    assert plain.status == 503
    bare = await raw(client.port or 0, b"GET /allowed HTTP/1.0\r\n\r\n")
    assert bare.status == 503
