"""The example services without servers: bounds, settings, discovery, and the database's modes."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.errors import RequestTimedOutError

from examples.services import api, database, publisher, worker
from examples.services.discovery import Discovery, NotFound
from examples.services.publisher import Full, Publisher, Unknown
from examples.services.settings import load
from sidecar.config.lint import warnings
from sidecar.config.load import load as sidecar_config
from tests.servers import ROOT, free_port, poll_until


class Silent:
    """A Kafka that takes connections and never says a word."""

    def __init__(self) -> None:
        self.address = ""
        self.reached = asyncio.Event()

    async def swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.set()
        await reader.read()
        writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    made = Silent()
    server = await asyncio.start_server(made.swallow, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


async def test_a_silent_kafka_holds_nobody_for_long_and_not_many(silent: Silent) -> None:
    sending = Publisher(silent.address, "tasks", most=2, timeout_s=1.0)
    began = time.monotonic()
    sends = [asyncio.create_task(sending.publish(b"k", b"v", [])) for _ in range(2)]
    await poll_until(lambda: sending.outstanding == 2, 5.0, "both are on their way")
    with pytest.raises(Full):
        await sending.publish(b"k", b"v", [])
    for outcome in await asyncio.gather(*sends, return_exceptions=True):
        assert isinstance(outcome, Unknown)
    assert time.monotonic() - began < 5.0
    assert sending.outstanding == 0
    await sending.close()


@pytest.fixture
async def client(silent: Silent) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    settings = api.Settings(
        kafka=silent.address, breaker=None, max_outstanding=1, send_timeout_s=1.0
    )
    async with TestClient(TestServer(api.build(settings))) as made:
        yield made


async def test_the_api_says_what_it_does_not_know(
    client: TestClient[web.Request, web.Application], silent: Silent
) -> None:
    first = asyncio.create_task(
        client.post(api.PATH, json={"key": "a"}, headers={"Idempotency-Key": "mine"})
    )
    await asyncio.wait_for(silent.reached.wait(), 5.0)
    busy = await client.post(api.PATH, json={"key": "b"})
    assert (busy.status, busy.headers["Retry-After"]) == (503, "1")
    unknown = await first
    assert unknown.status == 504
    assert "Idempotency-Key mine" in (await unknown.json())["detail"]
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"key": 1}', b'{"key": ""}', b'{"data": {}}'])
async def test_the_api_refuses_what_is_no_task(
    client: TestClient[web.Request, web.Application], body: bytes
) -> None:
    assert (await client.post(api.PATH, data=body)).status == 400


async def test_a_name_for_an_event_is_not_a_book(
    client: TestClient[web.Request, web.Application],
) -> None:
    long = {"Idempotency-Key": "x" * 201}
    assert (await client.post(api.PATH, json={"key": "a"}, headers=long)).status == 400


class LateProducer:
    """One that says what became of an event when nobody waits for it any more."""

    def __init__(self, **_: object) -> None:
        self.sent: list[asyncio.Future[None]] = []

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for sent in self.sent:
            sent.set_exception(RequestTimedOutError())
        self.sent.clear()

    async def send(self, *_: object, **__: object) -> asyncio.Future[None]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


async def test_an_answer_that_comes_too_late_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(publisher, "AIOKafkaProducer", LateProducer)
    sending = Publisher("localhost:1", "tasks", most=2, timeout_s=0.05)
    with pytest.raises(Unknown):
        await sending.publish(b"k", b"v", [])
    await sending.close()
    gc.collect()
    await asyncio.sleep(0)
    assert told == []


def test_versions_grow() -> None:
    versions = api.Versions()
    found = [versions.next() for _ in range(1000)]
    assert found == sorted(set(found))


def test_settings_are_checked_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(api.Settings, "x", []) == api.Settings()
    file = tmp_path / "api.yaml"
    file.write_text("max_outstanding: 7\nbreaker: null\n")
    assert load(api.Settings, "x", ["-c", str(file)]) == api.Settings(
        max_outstanding=7, breaker=None
    )
    for bad in ("max_outstandin: 7", "max_outstanding: many", "- a", "a: ["):
        file.write_text(bad)
        with pytest.raises(SystemExit) as ended:
            load(api.Settings, "x", ["-c", str(file)])
        assert ended.value.code == 2
        assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("program", [api, worker, database])
def test_the_settings_beside_it_are_good(program: ModuleType) -> None:
    name = program.__name__.rpartition(".")[2]
    file = ROOT / "examples" / "services" / f"{name}.yaml"
    load(program.Settings, "x", ["-c", str(file)])


def test_so_are_the_sidecars() -> None:
    text = (ROOT / "examples" / "services" / "sidecar.yaml").read_text("utf-8")
    assert warnings(sidecar_config(text, environ={})) == []


async def test_the_database_does_as_it_is_told() -> None:
    settings = database.Settings(write_s=0.0, slow_s=0.2)
    row = {"key": "a", "version": 1, "at": time.time()}
    async with TestClient(TestServer(database.build(settings))) as client:
        assert (await client.put("/tasks/1", json=row)).status == 201
        assert (await client.put("/tasks/1", json=row)).status == 200
        assert (await client.put("/tasks/2", json={})).status == 400
        assert (await client.put("/mode/down")).status == 200
        assert (await client.put("/tasks/2", json=row)).status == 503
        assert (await client.put("/mode/asleep")).status == 404
        assert (await client.put("/mode/slow")).status == 200
        began = time.monotonic()
        slow = asyncio.create_task(client.put("/tasks/2", json=row))
        assert (await slow).status == 201
        assert time.monotonic() - began >= 0.2
        stats = await (await client.get("/stats")).json()
        assert stats == {"mode": "slow", "rows": 2, "repeated": 1}
        ids = [line.split()[0] for line in (await (await client.get("/tasks")).text()).splitlines()]
        assert ids == ["1", "2"]
        assert (await client.delete("/tasks")).status == 204
        assert not await (await client.get("/tasks")).text()


class Consul:
    """What its agent answers about services."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        app = web.Application()
        app.router.add_get("/v1/health/service/{name}", self.health)
        self.server = TestServer(app)

    async def health(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert "passing" in request.query
        return web.json_response(self.listed, status=self.status)


def entry(address: str, port: int) -> dict[str, Any]:
    return {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": address, "Port": port}}


async def test_discovery_remembers_while_consul_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    consul = Consul()
    await consul.server.start_server()
    place = f"{consul.server.host}:{consul.server.port}"
    async with aiohttp.ClientSession() as session:
        discovery = Discovery(place, session)
        with pytest.raises(NotFound):
            await discovery.find("tasks-db")
        consul.listed = [entry("", 80)]
        assert await discovery.find("tasks-db") == "http://10.0.0.9:80"
        asked = consul.asked
        assert await discovery.find("tasks-db") == "http://10.0.0.9:80"
        assert consul.asked == asked, "not asked each time"
        monkeypatch.setattr("examples.services.discovery.KEEP_S", 0.0)
        consul.listed = [entry("127.0.0.1", 81)]
        assert await discovery.find("tasks-db") == "http://127.0.0.1:81"
        consul.listed = []
        assert await discovery.find("tasks-db") == "http://127.0.0.1:81", "better than nobody"
        consul.status = 500
        assert await discovery.find("tasks-db") == "http://127.0.0.1:81"
        await consul.server.close()
        assert await discovery.find("tasks-db") == "http://127.0.0.1:81"
        nobody = Discovery(f"127.0.0.1:{free_port()}", session)
        with pytest.raises(NotFound):
            await nobody.find("tasks-db")
