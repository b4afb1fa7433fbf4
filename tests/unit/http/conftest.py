"""One breaker, one clock, and the whole application on a real port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from sidecar.core.board import Board
from sidecar.http.server import HttpSettings, build_app
from sidecar.http.settings import Transport
from tests.unit.http.support import Clock, Log, Paper, make_board, metrics_text

Client = TestClient[web.Request, web.Application]
Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return make_board(clock)


@pytest.fixture
def paper(board: Board) -> Paper:
    return Paper(board)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def serve(aiohttp_client: AiohttpClient, clock: Clock, paper: Paper, log: Log) -> Serve:
    """Serves the application with other settings or another transport."""

    async def start(
        settings: HttpSettings | None = None,
        *,
        backend: Paper | None = None,
        transport: Transport = "tcp",
    ) -> Client:
        app = build_app(
            backend or paper,
            settings or HttpSettings(version="1.2.3", commit="abc"),
            transport=transport,
            metrics=metrics_text,
            now=clock,
            telemetry=log,
        )
        return await aiohttp_client(app)

    return start


@pytest.fixture
async def client(serve: Serve) -> Client:
    return await serve()
