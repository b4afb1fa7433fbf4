"""A fake sidecar, and each client in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from pytest_aiohttp.plugin import AiohttpServer

from sidecar.client import AsyncBreaker, Breaker
from tests.unit.client.fake import Driven, FakeSidecar

Follow = Callable[..., Awaitable[Driven]]


@pytest.fixture
def sidecar() -> FakeSidecar:
    return FakeSidecar()


@pytest.fixture
async def server(sidecar: FakeSidecar, aiohttp_server: AiohttpServer) -> TestServer:
    return await aiohttp_server(sidecar.app())


@pytest.fixture(params=[AsyncBreaker, Breaker], ids=["asyncio", "threads"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def follow(kind: Any, server: TestServer) -> AsyncIterator[Follow]:
    """Starts a client of the fake sidecar; all are closed in the end."""
    started: list[Driven] = []

    async def make(name: str | None = None, **settings: Any) -> Driven:
        settings.setdefault("on_no_answer", True)
        settings.setdefault("address", f"127.0.0.1:{server.port}")
        driven = Driven(kind(name, **settings))
        started.append(driven)
        await driven.start()
        return driven

    yield make
    for driven in started:
        await driven.close()
