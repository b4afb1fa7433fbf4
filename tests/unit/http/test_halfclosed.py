"""Clients that shut their sending side down behind a request, as `nc -N` does: they are answered.

On both event loops, whose transports differ in when they tell of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from sidecar.core.publishing import PublishPolicy, Spooled, TopicPolicy
from sidecar.http import listeners
from sidecar.http.connection import Protocol
from sidecar.http.server import FEED, WAITERS, Endpoint, HttpSettings, Listeners, build_app
from tests.servers import poll_until
from tests.unit.http.support import Clock, Desk, Log, Paper, make_board, metrics_text

Play = Callable[[Callable[[], Awaitable[None]]], None]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
HOST = b"Host: localhost\r\n"
ALLOWED = b"GET /allowed HTTP/1.1\r\n" + HOST + b"\r\n"
OLD = b"GET /v1/status HTTP/1.0\r\n\r\n"
WAITS = b"GET /v1/breakers/default?index=0&wait=5m HTTP/1.1\r\n" + HOST + b"\r\n"
WATCHES = b"GET /v1/watch HTTP/1.1\r\n" + HOST + b"\r\n"


def post(path: bytes, kind: bytes, body: bytes, version: bytes = b"1.1") -> bytes:
    return (
        b"POST %b HTTP/%b\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (path, version, kind, len(body), body)
    )


RECORD = post(b"/v1/publish/orders", b"application/octet-stream", b"r")
OLD_RECORD = post(b"/v1/publish/orders", b"application/octet-stream", b"r", b"1.0")
BATCH = post(
    b"/v1/publish/orders", b"application/json", b'{"records":[{"value":{"type":"JSON","data":1}}]}'
)
REPORT = post(b"/v1/report", b"application/json", b'{"instance":"c-1","count_ok":1}')


class House:
    """A listener on a unix socket, and what it knows."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.paper = Paper(make_board(self.clock), at_once=True)
        self.desk = Desk(PublishPolicy(topics={"orders": TopicPolicy()}))
        self.path = folder / "s"
        self.app = build_app(
            self.paper,
            HttpSettings(open_orders=True),
            transport="unix",
            metrics=metrics_text,
            now=self.clock,
            telemetry=Log(),
            publishing=self.desk,
        )

    @property
    def lasting(self) -> int:
        """How many wait for something to happen."""
        return self.app[WAITERS].count + len(self.app[FEED]._watchers)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        served = Listeners([Endpoint(app=self.app, setting="x", path=str(self.path))])
        await served.start()
        try:
            async with asyncio.timeout(20):
                yield
        finally:
            await served.stop(1.0)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def ask(self, request: bytes) -> bytes:
        """All that is said to who sends this and then nothing more; it ends with that."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)  # before the server has had a turn
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        said = await reader.read()
        writer.close()
        return said


@pytest.fixture(params=list(LOOPS))
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a story on one of the loops."""

    def run(story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await story()

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(whole())

    return run


def statuses(said: bytes) -> list[int]:
    return [int(part[:3]) for part in said.split(b"HTTP/1.")[1:] for part in [part[2:]]]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ALLOWED, [200]),
        (OLD, [200]),
        (RECORD, [202]),
        (OLD_RECORD, [202]),
        (BATCH, [202]),
        (REPORT, [202]),
        (ALLOWED * 3 + RECORD + OLD, [200, 200, 200, 202, 200]),
        (b"no http\r\n\r\n", [400]),
        (RECORD[:-1], []),
        (ALLOWED[:-2], []),
        (BATCH[:-1], []),
        (b"", []),
    ],
)
def test_what_was_asked_whole_is_answered(
    play: Play, tmp_path: Path, request_: bytes, expected: list[int]
) -> None:
    async def story() -> None:
        house = House(tmp_path)
        async with house.open():
            assert statuses(await house.ask(request_)) == expected
            taken = len(house.desk.drafts) + len(house.paper.posts)
            assert taken == expected.count(202)

    play(story)


def test_an_answer_that_takes_its_time_is_waited_for_and_ends_the_connection(
    play: Play, tmp_path: Path
) -> None:
    async def story() -> None:
        house = House(tmp_path)
        house.desk.outcome = None
        async with house.open():
            asked = asyncio.create_task(house.ask(RECORD), name="asked")
            reader, writer = await house.connect()
            writer.write(RECORD)
            await poll_until(lambda: len(house.desk.open) == 2, 5.0, "both are on their way")
            writer.write_eof()
            assert statuses(await house.ask(ALLOWED)) == [200]  # both have been heard
            assert not asked.done()
            for answered in house.desk.open:
                answered(Spooled(2, 7))
            for said in (await asked, await reader.read()):
                assert statuses(said) == [202]
                assert said.endswith(b'"sequence":7}')
            writer.close()

    play(story)


def test_an_end_that_comes_at_any_moment_leaves_nothing_open(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each turn of the loop between a request and its answer, and behind that."""
    made: list[Protocol] = []

    class Seen(Protocol):
        def __init__(self, *args: object, **rest: object) -> None:
            super().__init__(*args, **rest)  # type: ignore[arg-type]  # as they come
            made.append(self)

    monkeypatch.setattr(listeners, "Protocol", Seen)

    async def story() -> None:
        house = House(tmp_path)
        async with house.open():
            for request in (RECORD, BATCH, OLD, REPORT, ALLOWED):
                for turns in range(20):
                    reader, writer = await house.connect()
                    writer.write(request)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    writer.write_eof()
                    assert len(statuses(await reader.read())) == 1
                    writer.close()
            await poll_until(lambda: all(one.transport is None for one in made), 5.0, "all end")

    play(story)


def test_who_hangs_up_is_not_waited_for(play: Play, tmp_path: Path) -> None:
    """What has no end of its own, or a late one, ends with its client, whenever that goes."""

    async def story() -> None:
        house = House(tmp_path)
        async with house.open():
            assert await house.ask(WAITS) == b""
            await house.ask(WATCHES)
            for request in (WAITS, WATCHES):
                reader, writer = await house.connect()
                writer.write(request)
                await poll_until(lambda: house.lasting == 1, 5.0, "it waits")
                writer.write_eof()
                await reader.read()
                writer.close()
                await poll_until(lambda: house.lasting == 0, 5.0, "its place is free")

    play(story)


def test_one_that_is_gone_altogether_does_no_harm(play: Play, tmp_path: Path) -> None:
    async def story() -> None:
        house = House(tmp_path)
        house.desk.outcome = None
        async with house.open():
            _, writer = await house.connect()
            writer.write(RECORD)
            await poll_until(lambda: len(house.desk.open) == 1, 5.0, "it is on its way")
            writer.close()
            assert statuses(await house.ask(ALLOWED)) == [200]
            house.desk.open[0](Spooled(2, 7))
            assert statuses(await house.ask(ALLOWED)) == [200]

    play(story)
