"""`/livez`, `/readyz`, `/version`, `/metrics`, and the listener that has nothing else."""

from __future__ import annotations

import pytest
from pytest_aiohttp.plugin import AiohttpClient

from sidecar.core.board import Board
from sidecar.core.decision import OnLoss
from sidecar.core.types import Policy, State
from sidecar.http.server import HttpSettings, build_diagnostics
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import (
    Clock,
    Log,
    Paper,
    enter,
    make_board,
    make_record,
    metrics_text,
)


async def test_ready_from_the_start_by_the_loss_policy(client: Client, clock: Clock) -> None:
    clock.now += 3
    answer = await client.get("/readyz")
    assert answer.status == 200
    body = await answer.json()
    assert body["ready"] is True
    assert body["stale"] is True
    assert body["sync"]["age"] == 3.0
    assert body["breakers"] == {"default": {"state": "CLOSED", "reason": "no_state", "stale": True}}


async def test_strict_fails_while_any_is_stale(serve: Serve, clock: Clock) -> None:
    board = make_board(clock, Policy(name="a"), Policy(name="b"))
    client = await serve(backend=Paper(board))
    enter(board, clock, "a", make_record(State.CLOSED, 1))
    for path, status in (("/readyz?strict=1", 503), ("/readyz?strict=0", 200), ("/readyz", 200)):
        answer = await client.get(path)
        assert answer.status == status, path
        assert answer.content_type == "application/json"
        assert (await answer.json())["ready"] is (status == 200)
    enter(board, clock, "b", make_record(State.CLOSED, 1))
    assert (await client.get("/readyz?strict=1")).status == 200
    clock.now += 16
    board.refresh(clock.now)
    assert (await client.head("/readyz?strict=1")).status == 503


async def test_an_open_breaker_fails_neither(client: Client, board: Board, clock: Clock) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 1))
    for path in ("/livez", "/readyz", "/readyz?strict=1"):
        assert (await client.get(path)).status == 200


async def test_a_store_that_never_answered(serve: Serve, clock: Clock) -> None:
    board = make_board(clock, on_loss=OnLoss.DENY)
    board.contact = type(board.contact)(
        synced=None, stale_after_s=15.0, max_stale_s=30.0, on_loss=OnLoss.DENY
    )
    client = await serve(backend=Paper(board))
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert (await answer.json())["sync"]["age"] is None


async def test_version_and_metrics(client: Client) -> None:
    body = await (await client.get("/version")).json()
    assert body["version"] == "1.2.3"
    assert body["commit"] == "abc"
    answer = await client.get("/metrics")
    assert await answer.read() == b"breaker_state 1\n"
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    for path in ("/livez", "/version", "/metrics", "/readyz"):
        head = await client.head(path)
        assert head.status == 200
        assert head.headers["Cache-Control"] == "no-store"
        assert await head.read() == b""


@pytest.fixture
async def diagnostics(
    aiohttp_client: AiohttpClient, paper: Paper, clock: Clock, log: Log
) -> Client:
    app = build_diagnostics(paper, HttpSettings(), metrics=metrics_text, now=clock, telemetry=log)
    return await aiohttp_client(app)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/version", 200),
        ("/", 404),
        ("/allowed", 404),
        ("/v1/breakers", 404),
        ("/v1/report", 404),
        ("/openapi.json", 404),
    ],
)
async def test_diagnostics_serve_probes_to_anyone_and_nothing_else(
    diagnostics: Client, path: str, status: int
) -> None:
    answer = await diagnostics.get(path, headers={"Host": "node-7.example:9101"})
    assert answer.status == status
    if status == 404:
        assert answer.content_type == "application/problem+json"
