"""`sidecar.client` on a real daemon: it follows, shares, falls back, and costs next to nothing."""

from __future__ import annotations

import asyncio
import sys
import time
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from sidecar.client import AsyncBreaker, Breaker, Source
from sidecar.client.web import BREAKER, setup
from tests.daemon import Daemon
from tests.servers import poll_until

SOON_S = 10.0
CONFIG = {
    "store": "memory",
    "breakers": {
        "orders": {
            "failure_threshold": 5,
            "evaluation_interval": "500ms",
            "report_interval": "1s",
            "open_duration": "2s",
            # Long enough to be counted in: without reports nothing but time goes on.
            "half_open": {"initial": 0.05, "ramp": "60s", "max": "120s"},
        },
        "other": {},
    },
}
Client = AsyncBreaker | Breaker
Follow = Callable[..., Awaitable[Client]]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(CONFIG) as running:
        yield running


@pytest.fixture(params=[AsyncBreaker, Breaker], ids=["asyncio", "threads"])
async def follow(request: pytest.FixtureRequest) -> AsyncIterator[Follow]:
    """Starts a client of a daemon; all are closed in the end."""
    started: list[Client] = []

    async def make(daemon: Daemon, name: str = "orders", **settings: Any) -> Client:
        address = f"{daemon.host}:{daemon.port}"
        client: Client = request.param(
            name, **{"address": address, "on_no_answer": True} | settings
        )
        started.append(client)
        await _either(client.start)
        return client

    yield make
    for client in started:
        await _either(client.close)


async def _either(work: Callable[[], Any]) -> None:
    """A coroutine function, or one that blocks."""
    if asyncio.iscoroutinefunction(work):
        await work()
    else:
        await asyncio.to_thread(work)


async def trip(daemon: Daemon) -> float:
    """Report so many failures that it opens. Returns when they were taken in (monotonic)."""
    report = {"instance": "c-1", "count_fail": 50}
    answer = await asyncio.to_thread(daemon.post, "/v1/report/orders", report)
    assert answer.status == 202
    return time.monotonic()


async def test_it_follows_a_breaker_through_its_states(daemon: Daemon, follow: Follow) -> None:
    client = await follow(daemon)
    assert (client.allowed(), client.source, client.state) == (True, Source.WATCH, "CLOSED")
    tripped = await trip(daemon)
    await poll_until(lambda: not client.allowed(), SOON_S, "it opens")
    assert time.monotonic() - tripped < 1.0
    assert (client.state, client.stale) == ("OPEN", False)
    asked = await asyncio.to_thread(daemon.allowed, "orders", peek=True)
    assert abs(int(asked.headers["retry-after"]) - client.retry_after()) <= 1
    await poll_until(lambda: client.state == "HALF_OPEN", SOON_S, "its time is over")
    assert client.known is not None
    ratio = client.known.admit_ratio
    assert ratio == pytest.approx(0.05)
    assert abs(sum(client.allowed() for _ in range(1000)) - 1000 * ratio) <= 1
    # Not one question was asked: the daemon has counted no decision but this test's peeks.
    shown = await asyncio.to_thread(daemon.get, "/v1/breakers/orders")
    assert (shown.body["decisions"]["admitted"], shown.body["decisions"]["rejected"]) == (0, 0)


async def test_threads_at_once_get_the_share_exactly(daemon: Daemon) -> None:
    address = f"{daemon.host}:{daemon.port}"
    client = Breaker("orders", on_no_answer=True, address=address)
    try:
        await asyncio.to_thread(client.start)
        await trip(daemon)
        await poll_until(lambda: client.state == "HALF_OPEN", SOON_S, "half open")

        def calls() -> int:
            return sum(client.allowed() for _ in range(12_500))

        admitted = await asyncio.gather(*(asyncio.to_thread(calls) for _ in range(8)))
        assert client.state == "HALF_OPEN"
        assert abs(sum(admitted) - 5000) <= 1
    finally:
        await asyncio.to_thread(client.close)


@pytest.mark.parametrize("default", [True, False])
async def test_a_daemon_that_dies_and_comes_back(
    default: bool, daemon: Daemon, follow: Follow
) -> None:
    client = await follow(daemon, on_no_answer=default, keep_s=0.5)
    assert client.source is Source.WATCH
    await asyncio.to_thread(daemon.kill)
    await poll_until(lambda: str(client.source) == "default", SOON_S, "nobody answers")
    assert client.allowed() is default
    daemon.start()
    await asyncio.to_thread(daemon.wait_ready)
    await poll_until(lambda: str(client.source) == "watch", SOON_S, "it follows again")
    assert client.allowed()
    await trip(daemon)
    await poll_until(lambda: client.state == "OPEN", SOON_S, "the new one's transition")
    assert not client.allowed()


async def test_a_restart_decides_nothing(daemon: Daemon, follow: Follow) -> None:
    client = await follow(daemon, keep_s=SOON_S)
    await trip(daemon)
    await poll_until(lambda: not client.allowed(), SOON_S, "it opens")
    await asyncio.to_thread(daemon.stop)
    await poll_until(lambda: str(client.source) == "kept", SOON_S, "it is lost")
    assert not client.allowed()


async def test_a_daemon_that_is_frozen_is_noticed(daemon: Daemon, follow: Follow) -> None:
    client = await follow(daemon, silence_s=1.0, timeout_s=0.3, keep_s=0.5, on_no_answer=False)
    assert client.allowed()
    daemon.pause()
    await poll_until(lambda: client.source is Source.DEFAULT, SOON_S, "nobody answers")
    assert not client.allowed()
    daemon.resume()
    await poll_until(client.allowed, SOON_S, "it answers again")


async def test_a_breaker_that_is_not_there(daemon: Daemon, follow: Follow) -> None:
    client = await follow(daemon, "oders", on_no_answer=False)
    await poll_until(lambda: "NoSuchBreaker" in (client.fault or ""), SOON_S, "it is said")
    assert "orders" in (client.fault or "")
    assert not client.allowed()


async def test_a_web_api_behind_it(daemon: Daemon, aiohttp_client: AiohttpClient) -> None:
    async def order(request: web.Request) -> web.Response:
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/orders", order)
    setup(app, "orders", on_no_answer=True, address=f"{daemon.host}:{daemon.port}")
    client = await aiohttp_client(app)
    assert (await client.post("/orders")).status == 202
    await trip(daemon)
    await poll_until(lambda: app[BREAKER].state == "OPEN", SOON_S, "it opens")
    answer = await client.post("/orders")
    assert answer.status == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 3


async def test_what_a_decision_costs(daemon: Daemon, follow: Follow) -> None:
    client = await follow(daemon)
    shelf, key = {"orders": True}, "orders"
    costs = {"a dict lookup": _ns(lambda: shelf[key]), "CLOSED": _ns(client.allowed)}
    await trip(daemon)
    await poll_until(lambda: client.state == "OPEN", SOON_S, "it opens")
    costs["OPEN"] = _ns(client.allowed)
    await poll_until(lambda: client.state == "HALF_OPEN", SOON_S, "half open")
    costs["HALF_OPEN"] = _ns(client.allowed)
    shown = ", ".join(f"{what} {cost:.0f} ns" for what, cost in costs.items())
    sys.stdout.write(f"a decision of {type(client).__name__}: {shown}\n")
    # A ratio: how fast this machine is, and what else it does, is no matter of the client's.
    assert max(costs.values()) < 30 * costs["a dict lookup"], shown


def _ns(call: Callable[[], object], number: int = 50_000) -> float:
    """What a call costs at best: nanoseconds."""
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e9
