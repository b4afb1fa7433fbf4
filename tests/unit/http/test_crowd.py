"""How many connections there may be, and what one may take."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from sidecar.http import connection, crowd, listeners
from sidecar.http.crowd import Crowd, share
from sidecar.http.server import Endpoint, HttpSettings, Listeners, build_app
from tests.unit.http.support import Clock, Log, Paper, metrics_text

DEADLINE_S = 20.0
REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Guest:
    def __init__(self, crowd_: Crowd, since: float | None) -> None:
        self.crowd, self.since, self.closed = crowd_, since, False

    def idle_since(self) -> float | None:
        return self.since

    def let_go(self) -> None:
        self.closed = True
        self.crowd.leave(self)


def test_in_a_full_house_the_longest_idle_go_first() -> None:
    house = Crowd(32, "listen.address")
    guests = [Guest(house, float(number) if number else None) for number in range(32)]
    assert all(house.enter(guest) for guest in guests)
    assert house.enter(Guest(house, 100.0))
    assert [number for number, guest in enumerate(guests) if guest.closed] == [1, 2]
    assert len(house) == 31
    house.leave(guests[5])
    house.leave(guests[5])
    assert len(house) == 30


def test_where_all_are_busy_nobody_is_thrown_out_and_it_is_told_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    house = Crowd(2, "listen.address", clock)
    busy = [Guest(house, None), Guest(house, None)]
    assert all(house.enter(guest) for guest in busy)
    with caplog.at_level(logging.WARNING, crowd.__name__):
        assert not any(house.enter(Guest(house, 1.0)) for _ in range(50))
        clock.now += 61.0
        assert not house.enter(Guest(house, 1.0))
    assert not any(guest.closed for guest in busy)
    assert len(caplog.records) == 2
    assert "listen.address: 2 connections are all there may be" in caplog.text


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """Makes the limits on open files other ones; the list has what was asked for."""

    def make(soft: int, hard: int) -> list[tuple[int, int]]:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
        monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
        return asked

    return make


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "each"),
    [
        (1024, 1 << 20, [(2 * crowd.MOST + crowd.KEPT_BACK, 1 << 20)], crowd.MOST),
        (1024, resource.RLIM_INFINITY, [(2 * crowd.MOST + crowd.KEPT_BACK, -1)], crowd.MOST),
        (1024, 4096, [(4096, 4096)], (4096 - crowd.KEPT_BACK) // 2),
        (64, 64, [(64, 64)], crowd.LEAST),
        (1 << 20, 1 << 20, [], crowd.MOST),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, [], crowd.MOST),
    ],
)
def test_the_share_follows_what_the_process_may_open(
    limits: Callable[[int, int], list[tuple[int, int]]],
    soft: int,
    hard: int,
    asked: list[tuple[int, int]],
    each: int,
) -> None:
    done = limits(soft, hard)
    assert share(2) == each
    assert done == asked


# --- real connections ------------------------------------------------------------------------


class Small:
    """A listener for few, on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))


@pytest.fixture
async def small(
    tmp_path: Path, paper: Paper, clock: Clock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Small]:
    monkeypatch.setattr(listeners, "share", lambda _: 4)
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    monkeypatch.setattr(connection, "UNREAD_S", 0.2)
    app = build_app(
        paper,
        HttpSettings(),
        transport="unix",
        metrics=metrics_text,
        now=clock,
        telemetry=log,
    )
    path = tmp_path / "s"
    served = Listeners([Endpoint(app=app, setting="listen.socket", path=str(path))])
    await served.start()
    yield Small(path)
    await served.stop(1.0)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = REQUEST
) -> bytes:
    writer.write(request)
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readuntil(b"}")


async def test_an_idle_connection_makes_room_for_a_new_one(small: Small) -> None:
    places = [await small.connect() for _ in range(4)]
    for reader, writer in places:
        assert b"200 OK" in await _ask(reader, writer)
    newcomer = await small.connect()
    assert b"200 OK" in await _ask(*newcomer)
    async with asyncio.timeout(DEADLINE_S):
        assert await places[0][0].read() == b"", "the one that was answered longest ago is closed"
    for reader, writer in places[1:]:
        assert b"200 OK" in await _ask(reader, writer)
    for _, writer in [*places, newcomer]:
        writer.close()


async def test_who_waits_keeps_the_place(small: Small) -> None:
    watch = b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"
    places = [await small.connect() for _ in range(4)]
    for place in places:
        assert b"200 OK" in await _ask(*place, watch)
    reader, writer = await small.connect()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await _ask(reader, writer)
    writer.close()
    for _, kept in places:
        assert not kept.is_closing()
        kept.close()


@pytest.mark.parametrize(
    "part",
    [b"G", b"GET /allowed HTTP/1.1\r\nHost: x", b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n"],
)
async def test_half_a_head_must_be_whole_soon(small: Small, part: bytes) -> None:
    reader, writer = await small.connect()
    assert b"200 OK" in await _ask(reader, writer)
    writer.write(part)
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


async def test_half_a_report_must_be_whole_soon(small: Small) -> None:
    reader, writer = await small.connect()
    writer.write(
        b"POST /v1/report HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 31\r\n"
    )
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


async def test_a_blank_line_between_requests_begins_nothing(small: Small) -> None:
    reader, writer = await small.connect()
    writer.write(b"\r\n")
    await asyncio.sleep(0.4)  # twice as long as a head may take
    assert b"200 OK" in await _ask(reader, writer)
    writer.close()


async def test_a_head_has_a_size(small: Small) -> None:
    reader, writer = await small.connect()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    for number in range(5):
        writer.write(b"X-%d: %b\r\n" % (number, b"x" * 60_000))
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"application/problem+json" in answer
    assert answer.count(b"Content-Length: ") == 1
    writer.close()


async def test_a_head_has_a_size_behind_a_request_that_waits_too(small: Small) -> None:
    reader, writer = await small.connect()
    writer.write(b"GET /v1/breakers/default?index=0&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
    writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionError):
            for number in range(100):
                writer.write(b"X-%d: %b\r\n" % (number, b"x" * 60_000))
                await writer.drain()
        with suppress(ConnectionError):
            assert await reader.read() == b"", "neither request is answered"
    writer.close()


async def test_a_body_is_no_head(small: Small) -> None:
    """Whatever is sent with a decision is passed over, however large."""
    reader, writer = await small.connect()
    writer.write(
        b"PUT /ext_authz/default/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    )
    for _ in range(10):
        writer.write(b"x" * 100_000)
        await writer.drain()
    assert b"200 OK" in await _ask(reader, writer)
    assert b"200 OK" in await _ask(reader, writer)
    writer.close()


async def test_an_answer_that_nobody_reads_is_given_up(small: Small) -> None:
    reader, writer = await small.connect()
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with asyncio.timeout(DEADLINE_S):
        # Until neither side takes any more, and then until it is over.
        while not writer.is_closing():
            writer.write(request * 100)
            try:
                await asyncio.wait_for(writer.drain(), 0.05)
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert reader.exception() is not None or reader.at_eof() or writer.is_closing()
    writer.close()


def test_it_holds_on_uvloop_too(
    tmp_path: Path, paper: Paper, clock: Clock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "share", lambda _: 4)
    monkeypatch.setattr(connection, "HEAD_S", 0.2)

    async def main() -> None:
        app = build_app(
            paper,
            HttpSettings(),
            transport="unix",
            metrics=metrics_text,
            now=clock,
            telemetry=log,
        )
        path = tmp_path / "s"
        served = Listeners([Endpoint(app=app, setting="listen.socket", path=str(path))])
        await served.start()
        await test_an_idle_connection_makes_room_for_a_new_one(Small(path))
        await test_half_a_head_must_be_whole_soon(Small(path), b"GET /allowed HTT")
        await test_who_waits_keeps_the_place(Small(path))
        await served.stop(1.0)

    uvloop.run(main())
