"""Binding: all or nothing, both loopbacks, socket files, and an end within its deadline."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientSession, UnixConnector, web

from sidecar.config.addresses import bind_targets
from sidecar.http.server import (
    WAITERS,
    Endpoint,
    HttpSettings,
    Listeners,
    ListenFailed,
    PortTaken,
    build_app,
)
from sidecar.http.settings import Transport
from tests.unit.http.support import Clock, Log, Paper, metrics_text, raw

Build = Callable[[Transport], web.Application]
Keep = Callable[[Listeners], Listeners]


@pytest.fixture
def build(paper: Paper, clock: Clock, log: Log) -> Build:
    def make(transport: Transport) -> web.Application:
        return build_app(
            paper,
            HttpSettings(),
            transport=transport,
            metrics=metrics_text,
            now=clock,
            telemetry=log,
        )

    return make


@pytest.fixture
async def keep() -> AsyncIterator[Keep]:
    """Stops what a test starts."""
    kept: list[Listeners] = []

    def remember(listeners: Listeners) -> Listeners:
        kept.append(listeners)
        return listeners

    yield remember
    for listeners in kept:
        await listeners.stop(1.0)


def tcp(build: Build, *targets: tuple[str, int]) -> Endpoint:
    return Endpoint(app=build("tcp"), setting="listen.address", tcp=targets)


def unix(build: Build, path: Path, mode: int = 0o600) -> Endpoint:
    return Endpoint(app=build("unix"), setting="listen.socket", path=str(path), mode=mode)


def port_of(listeners: Listeners) -> int:
    return int(listeners.addresses[0].rpartition(":")[2])


async def ask(path: Path) -> int:
    async with (
        ClientSession(connector=UnixConnector(str(path))) as session,
        session.get("http://anything/v1/breakers") as answer,
    ):
        return answer.status


async def test_localhost_is_both_loopbacks_on_one_port(build: Build, keep: Keep) -> None:
    listeners = keep(Listeners([tcp(build, *bind_targets("localhost:0"))]))
    await listeners.start()
    port = port_of(listeners)
    assert f"127.0.0.1:{port}" in listeners.addresses
    async with ClientSession() as session:
        for address in listeners.addresses:
            async with session.get(f"http://{address}/allowed") as answer:
                assert answer.status == 200


async def test_a_machine_without_ipv6_is_fine(
    build: Build, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old(socket.socket):
        def bind(self, address: object, /) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(99, "Cannot assign requested address")
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Old)
    listeners = keep(Listeners([tcp(build, *bind_targets("localhost:0"))]))
    await listeners.start()
    assert listeners.addresses == [f"127.0.0.1:{port_of(listeners)}"]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_a_taken_port_on_either_loopback_is_said_with_its_mend(
    build: Build, tmp_path: Path, family: socket.AddressFamily, host: str
) -> None:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as other:
        other.bind((host, 0))
        other.listen()
        port = other.getsockname()[1]
        path = tmp_path / "s"
        listeners = Listeners([unix(build, path), tcp(build, *bind_targets(f"localhost:{port}"))])
        with pytest.raises(PortTaken) as caught:
            await listeners.start()
        said = str(caught.value)
        assert f"port {port} on {host}" in said
        assert "node_exporter usually sits on 9100" in said
        assert "`listen.address`" in said
        assert "BREAKER_SIDECAR__LISTEN__ADDRESS" in said
        assert not path.exists()  # nothing half-started stays behind
        assert listeners.addresses == []


async def test_a_second_daemon_is_refused_and_the_first_goes_on(build: Build, keep: Keep) -> None:
    first = keep(Listeners([tcp(build, ("127.0.0.1", 0))]))
    await first.start()
    port = port_of(first)
    with pytest.raises(PortTaken):
        await Listeners([tcp(build, ("127.0.0.1", port))]).start()
    answer = await raw(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_another_machine(build: Build, host: str) -> None:
    with pytest.raises(ListenFailed) as caught:
        await Listeners([tcp(build, (host, 0))]).start()
    assert host in str(caught.value)


async def test_the_socket_has_its_mode_and_goes_with_its_daemon(
    build: Build, tmp_path: Path
) -> None:
    path = tmp_path / "breaker.sock"
    listeners = Listeners([unix(build, path, 0o660)])
    before = os.umask(0o077)
    try:
        await listeners.start()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert listeners.addresses == [f"unix:{path}"]
    assert await ask(path) == 200
    await listeners.stop(1.0)
    assert not path.exists()


async def test_a_dead_ones_socket_is_replaced_and_a_live_one_is_not(
    build: Build, tmp_path: Path, keep: Keep
) -> None:
    path = tmp_path / "breaker.sock"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as dead:
        dead.bind(str(path))
    first = keep(Listeners([unix(build, path)]))
    await first.start()
    assert await ask(path) == 200
    with pytest.raises(ListenFailed, match="another process listens"):
        await Listeners([unix(build, path)]).start()
    assert await ask(path) == 200


async def test_a_successors_socket_file_is_left_alone(
    build: Build, tmp_path: Path, keep: Keep
) -> None:
    path = tmp_path / "breaker.sock"
    first, second = Listeners([unix(build, path)]), keep(Listeners([unix(build, path)]))
    await first.start()
    path.unlink()
    await second.start()
    await first.stop(1.0)
    assert await ask(path) == 200


@pytest.mark.parametrize("what", ["symlink", "dangling", "file", "folder"])
async def test_what_is_no_socket_is_not_touched(build: Build, tmp_path: Path, what: str) -> None:
    path, target = tmp_path / "breaker.sock", tmp_path / "target"
    if what == "symlink":
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as dead:
            dead.bind(str(target))
        path.symlink_to(target)
    elif what == "dangling":
        path.symlink_to(target)
    elif what == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    before = path.lstat()
    with pytest.raises(ListenFailed, match=r"listen\.socket"):
        await Listeners([unix(build, path)]).start()
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize("path", ["missing/breaker.sock", "n" * 200])
async def test_a_path_that_takes_no_socket(build: Build, tmp_path: Path, path: str) -> None:
    with pytest.raises(ListenFailed, match=r"listen\.socket"):
        await Listeners([unix(build, tmp_path / path)]).start()


@pytest.mark.parametrize(
    "request_",
    [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /livez HTTP/1.1\r\nA b\r\n\r\n"],
)
async def test_what_is_no_http_is_a_problem_too(build: Build, keep: Keep, request_: bytes) -> None:
    listeners = keep(Listeners([tcp(build, ("127.0.0.1", 0))]))
    await listeners.start()
    answer = await raw(port_of(listeners), request_)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"GARBAGE" not in answer.body


@pytest.mark.parametrize("path", ["/livez", "/v1/breakers", "/nothing"])
async def test_what_cant_be_expected_is_a_problem_too(build: Build, keep: Keep, path: str) -> None:
    """It is refused before a handler, or a middleware, sees it."""
    listeners = keep(Listeners([tcp(build, ("127.0.0.1", 0))]))
    await listeners.start()
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n"
    answer = await raw(port_of(listeners), request.encode())
    assert answer.status == 417
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_gateway_may_pass_on_large_headers(build: Build, keep: Keep) -> None:
    listeners = keep(Listeners([tcp(build, ("127.0.0.1", 0))]))
    await listeners.start()
    head = b"GET /ext_authz/default/" + b"p" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n"
    cookie = (
        b"Cookie: " + b"c" * 40_000 + b"\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    )
    answer = await raw(port_of(listeners), head + cookie + b"junk")
    assert answer.status == 200


async def test_stopping_lets_waiters_go_and_idle_connections_end_at_once(
    build: Build, keep: Keep
) -> None:
    app = build("tcp")
    endpoint = Endpoint(app=app, setting="listen.address", tcp=(("127.0.0.1", 0),))
    listeners = keep(Listeners([endpoint]))
    await listeners.start()
    port = port_of(listeners)
    idle = await asyncio.open_connection("127.0.0.1", port)
    async with ClientSession() as session:
        url = f"http://127.0.0.1:{port}/v1/breakers/default?index=0&wait=5m"
        asked = asyncio.create_task(session.get(url), name="asked")
        async with asyncio.timeout(5):
            while app[WAITERS].count == 0:  # noqa: ASYNC110 - it has no event of its own
                await asyncio.sleep(0.005)
        began = time.monotonic()
        await listeners.stop(5.0)
        assert time.monotonic() - began < 2.0
        assert (await asyncio.wait_for(asked, 5)).status == 200
    assert await asyncio.wait_for(idle[0].read(), 5) == b""
    idle[1].close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await listeners.stop(5.0)  # again is nothing


async def test_a_client_that_hangs_up_frees_its_place(build: Build, keep: Keep) -> None:
    app = build("tcp")
    endpoint = Endpoint(app=app, setting="listen.address", tcp=(("127.0.0.1", 0),))
    listeners = keep(Listeners([endpoint]))
    await listeners.start()
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(listeners))
    writer.write(b"GET /v1/breakers/default?index=0&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        while app[WAITERS].count == 0:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.005)
        writer.close()
        while app[WAITERS].count > 0:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.005)


async def test_a_handler_that_never_ends_is_cut_off_at_the_deadline(keep: Keep) -> None:
    entered = asyncio.Event()

    async def never(_request: web.Request) -> web.Response:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    app = web.Application()
    app.add_routes([web.get("/", never)])
    listeners = keep(Listeners([Endpoint(app=app, setting="x", tcp=(("127.0.0.1", 0),))]))
    await listeners.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listeners))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(entered.wait(), 5)
    began = time.monotonic()
    await asyncio.wait_for(listeners.stop(0.2), 5)
    assert time.monotonic() - began < 2.0
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


def test_it_runs_on_uvloop_too(build: Build, tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "breaker.sock"
        listeners = Listeners([tcp(build, *bind_targets("localhost:0")), unix(build, path)])
        await listeners.start()
        assert len(listeners.addresses) >= 2
        port = port_of(listeners)
        answer = await raw(port, b"GET /allowed HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.status == 200
        assert await ask(path) == 200
        await listeners.stop(2.0)
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
