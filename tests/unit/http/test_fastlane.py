"""The fast lane: what it takes, that it really does, and the connection around it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.board import Board
from sidecar.core.decision import Contact, Decision, OnLoss
from sidecar.core.types import Policy, State
from sidecar.http import fastlane, framing, listeners
from sidecar.http import route as routes
from sidecar.http.allowed import Answers
from sidecar.http.fastlane import LANE, Lane
from sidecar.http.framing import owed
from sidecar.http.server import Endpoint, HttpSettings, Listeners, build_app
from tests.unit.http.support import (
    Alarms,
    Clock,
    Log,
    Paper,
    enter,
    make_record,
    metrics_text,
)
from tests.unit.http.twins import Side, converse, known, turns

PLAIN = b"GET /allowed HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /allowed?peek=0 HTTP/1.1\r\nHost: x\r\n\r\n"
"""The same question in a spelling that the lane leaves alone."""


@pytest.fixture
def alarms(clock: Clock) -> Alarms:
    return Alarms(clock)


@pytest.fixture
def lane(board: Board, clock: Clock, alarms: Alarms) -> Lane:
    return Lane(board, Answers(), clock, later=alarms)


@pytest.fixture
async def side(tmp_path: Path, clock: Clock) -> AsyncIterator[Side]:
    made = Side(tmp_path / "s", known(clock), True, clock)
    await made.start()
    yield made
    assert made.listeners is not None
    await made.listeners.stop(1.0)


def reply_to(lane: Lane, request_: bytes) -> bytes | None:
    """The lane's answer; None: it leaves this alone."""
    route = lane.route(request_)
    return route.answer() if route is not None else None


def plain(target: str = "/allowed", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    "request_",
    [
        plain(),
        plain(method="HEAD"),
        plain("/allowed/default"),
        plain("/allowed?deny_status=403"),
        plain("/allowed", "Connection: keep-alive"),
        plain("/allowed", "connection:Keep-Alive", "Cookie: a=b", "Origin: https://evil.example"),
        plain("/allowed", "X-Original-URI: /pay?x=1", "X-Forwarded-For: 1.2.3.4", "Range: x"),
    ],
)
def test_what_it_takes(lane: Lane, board: Board, request_: bytes) -> None:
    first, second = reply_to(lane, request_), reply_to(lane, request_)
    assert first is not None
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second is not None
    assert board.cells["default"].admitted == 2


@pytest.mark.parametrize(
    "request_",
    [
        plain(method="POST"),
        plain("/allowed/"),
        plain("/allowed/nobody"),
        plain("/allowed?peek=1"),
        plain("/allowed?deny_status=500"),
        plain("/allowed/%64efault"),
        plain("http://x/allowed"),
        plain("/allowed", "Content-Length: 0"),
        plain("/allowed", "Transfer-Encoding: chunked"),
        plain("/allowed", "Expect: 100-continue"),
        plain("/allowed", "Upgrade: websocket"),
        plain("/allowed", "Connection: close"),
        plain("/allowed", "Connection: keep-alive, upgrade"),
        plain("/allowed", "Host: y"),
        plain("/allowed", "X: 1", "x: 2"),
        plain("/allowed", "X : 1"),
        plain("/allowed", "X: 1\r\n folded"),
        plain("/allowed", "X: \xe9"),
        plain("/allowed", *(f"X-{n}: 1" for n in range(70))),
        plain("/allowed", "X: " + "x" * 9000),
        plain().replace(b"HTTP/1.1", b"HTTP/1.0"),
        plain().replace(b"Host: x\r\n", b""),
        plain().replace(b"\r\n", b"\n"),
        plain()[:-1],
        plain() + b"G",
        plain() * 2,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ],
)
def test_what_it_leaves_alone(lane: Lane, board: Board, request_: bytes) -> None:
    assert reply_to(lane, request_) is None
    assert board.cells["default"].admitted == 0


def test_what_it_remembers_is_bounded(lane: Lane, board: Board) -> None:
    for number in range(3 * fastlane.MAX_REMEMBERED):
        assert reply_to(lane, plain("/allowed", f"X-Request-Id: {number}")) is not None
        assert len(lane._remembered) <= fastlane.MAX_REMEMBERED
        assert reply_to(lane, plain(f"/allowed/made-up-{number}")) is None
    assert len(lane._routes) == 1
    assert (
        reply_to(lane, plain("/allowed", "X: " + "x" * fastlane.MAX_REMEMBERED_BYTES)) is not None
    )
    assert all(len(data) <= fastlane.MAX_REMEMBERED_BYTES for data in lane._remembered)
    assert board.cells["default"].admitted == 3 * fastlane.MAX_REMEMBERED + 1


def test_a_new_decision_and_a_new_second_show_at_once(
    lane: Lane, board: Board, clock: Clock, alarms: Alarms
) -> None:
    first = reply_to(lane, PLAIN)
    enter(board, clock, "default", make_record(State.OPEN, 7))
    second = reply_to(lane, PLAIN)
    assert first is not None
    assert second is not None
    assert b"X-Breaker-Seq: 7\r\n" in second
    seen = []
    for _ in range(40):
        reply = reply_to(lane, PLAIN)
        assert reply is not None
        head, _, _ = reply.partition(b"\r\n\r\n")
        seen.append(int(head.partition(b"Retry-After: ")[2].partition(b"\r\n")[0]))
        alarms.move(1.0)
    assert seen[:30] == list(range(seen[0], seen[0] - 30, -1))


@pytest.mark.parametrize("name", ["default", "open", "half.open_1", "shadow"])
def test_the_date_is_the_second_of_the_answer(
    name: str, clock: Clock, alarms: Alarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane(known(clock), Answers(), clock, later=alarms)
    began_at, began, said = 1_795_000_000.25, clock.now, []
    for later in (0.0, 0.5, 0.74, 0.76, 1.74, 1.76):
        alarms.move(began + later - clock.now)
        monkeypatch.setattr(routes, "time", lambda later=later: began_at + later)
        monkeypatch.setattr(
            framing, "rfc822_formatted_time", lambda later=later: f"{int(began_at + later)}"
        )
        reply = reply_to(lane, plain(f"/allowed/{name}"))
        assert reply is not None
        said.append(int(reply.partition(b"Date: ")[2].partition(b"\r\n")[0]) - int(began_at))
    assert said == [0, 0, 0, 1, 1, 2]


def test_a_reload_is_seen(lane: Lane, board: Board, clock: Clock) -> None:
    assert reply_to(lane, PLAIN) is not None
    contact = Contact(synced=None, stale_after_s=15.0, max_stale_s=30.0, on_loss=OnLoss.DENY)
    again = Policy(name="default", fingerprint="f1", deny_status=429)
    board.reconfigure([again], "default", contact, now=clock.now)
    enter(board, clock, "default", make_record(State.OPEN, 2))
    reply = reply_to(lane, PLAIN)
    assert reply is not None
    assert reply.startswith(b"HTTP/1.1 429 ")
    board.reconfigure([Policy(name="other", fingerprint="f2")], None, contact, now=clock.now)
    assert reply_to(lane, PLAIN) is None
    board.reconfigure([again], "default", contact, now=clock.now)
    assert reply_to(lane, PLAIN) is not None


@given(
    left_s=st.floats(0.0, 700.0),
    spread_s=st.floats(0.0, 60.0),
    since=st.floats(0.0, 1e7),
    steps=st.lists(st.floats(0.0, 1.5), max_size=30),
)
def test_retry_after_is_the_same_until_it_says_otherwise(
    left_s: float, spread_s: float, since: float, steps: list[float]
) -> None:
    decision = Decision(
        breaker="x",
        state=State.OPEN,
        admit_ratio=0.0,
        reason="failures",
        detail="",
        seq=1,
        stale=False,
        lost=False,
        retry_from=since + left_s,
        spread_s=spread_s,
        shadow_ratio=1.0,
        changes_at=0.0,
    )
    now, known_s, until = since, decision.retry_after(since), decision.retry_until(since)
    for step in steps:
        now += step
        if now >= until:
            known_s, until = decision.retry_after(now), decision.retry_until(now)
        assert decision.retry_after(now) == known_s


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (PLAIN, 0),
        (plain("/v1/report", "Content-Length: 5", method="POST"), 5),
        (plain("/v1/report", "Content-Length: 5", method="POST") + b"hel", 2),
        (plain("/v1/report", "Content-Length: 5", method="POST") + b"hello", 0),
        (plain("/v1/report", "Content-Length: 5", method="POST") + b"helloG", None),
        (plain("/v1/report", "Content-Length: 12345", method="POST"), None),
        (plain("/v1/report", "Content-Length: +5", method="POST"), None),
        (plain("/v1/report", "Transfer-Encoding: chunked", method="POST"), None),
        (plain("/v1/report", "Connection: close"), None),
        (plain("x:1", method="CONNECT"), None),
        (PLAIN[:-1], None),
        (PLAIN + PLAIN, None),
        (b"\r\n" + PLAIN, None),
    ],
)
def test_where_a_message_ends(data: bytes, left: int | None) -> None:
    assert owed(data) == left


async def test_a_connection_comes_back_to_the_lane(side: Side) -> None:
    side.paper.at_once = False  # so that the report goes to aiohttp
    report = b'{"instance":"c-1","count_ok":1}'
    head = plain(
        "/v1/report",
        "Content-Type: application/json",
        f"Content-Length: {len(report)}",
        method="POST",
    ).replace(b"Host: x", b"Host: localhost")
    fate = await converse(side, [PLAIN, head, report, PLAIN, SLOW, PLAIN], settle=True)
    assert side.in_lane == 3
    assert fate.said.count(b"HTTP/1.1 200 OK") == 4
    assert fate.said.count(b"HTTP/1.1 202 Accepted") == 1
    assert side.board.cells["default"].admitted == 4


async def test_the_same_request_is_answered_by_the_connection(side: Side) -> None:
    half, shadow = plain("/allowed/half.open_1"), plain("/allowed/shadow")
    fate = await converse(side, [PLAIN] * 3 + [half] * 21 + [PLAIN] * 2, settle=False)
    assert (side.in_lane, side.again) == (26, 2 + 20 + 1)
    assert fate.said.count(b"HTTP/1.1 ") == 26
    assert side.board.cells["default"].admitted == 5
    cell = side.board.cells["half.open_1"]
    assert cell.admitted + cell.rejected == 21
    assert abs(cell.admitted - 0.3 * 21) < 1.0
    # What shadow mode would have done is counted by the lane.
    await converse(side, [shadow] * 5, settle=False)
    assert side.again == 2 + 20 + 1


async def test_what_changes_shows_in_the_next_answer_of_a_connection(side: Side) -> None:
    fate = await converse(
        side,
        [PLAIN, PLAIN, "opens", PLAIN, PLAIN, 1.0, PLAIN, PLAIN, "answers 403", PLAIN, PLAIN],
        settle=False,
    )
    answers = fate.said.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 2 + [b"503"] * 4 + [b"403"] * 2
    retry_after = [
        int(answer.partition(b"Retry-After: ")[2].partition(b"\r\n")[0]) for answer in answers[2:]
    ]
    first = retry_after[0]
    assert retry_after == [first, first, *[first - 1] * 4]
    assert side.again == 4


async def test_a_breaker_that_a_reload_took_is_gone_for_a_connection_too(side: Side) -> None:
    one = plain("/allowed/open")
    fate = await converse(side, [one, one, "goes", one, "comes", one], settle=True)
    statuses = [part[:3] for part in fate.said.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"429", b"429", b"404", b"200"]


async def test_a_report_that_is_held_is_not_overtaken(side: Side) -> None:
    report = b'{"instance":"c-1","count_ok":1}'
    head = plain(
        "/v1/report",
        "Content-Type: application/json",
        f"Content-Length: {len(report) + len(PLAIN)}",
        method="POST",
    ).replace(b"Host: x", b"Host: localhost")
    # The body is faulty: what is in it must not be taken for a request.
    fate = await converse(side, [PLAIN, PLAIN, head + report, PLAIN, PLAIN], settle=False)
    statuses = [part[:3] for part in fate.said.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"400", b"200"]
    assert side.board.cells["default"].admitted == 3


async def test_the_lane_waits_for_the_answer_before_it(side: Side) -> None:
    # Both come in one turn of the loop; the second must not overtake the first.
    fate = await converse(side, [SLOW, PLAIN], settle=False)
    assert fate.said.count(b"HTTP/1.1 200 OK") == 2
    assert fate.idle


async def test_a_request_in_pieces_is_put_together(side: Side) -> None:
    fate = await converse(side, [bytes([byte]) for byte in PLAIN], settle=False)
    assert fate.said.startswith(b"HTTP/1.1 200 OK")
    assert side.in_lane == 0
    assert side.board.cells["default"].admitted == 1


async def test_pipelined_requests_are_answered_in_order(side: Side) -> None:
    pipeline = plain("/allowed/open") + PLAIN + plain("/allowed/open", method="HEAD") + PLAIN
    fate = await converse(side, [pipeline, PLAIN], settle=True)
    statuses = [part[:3] for part in fate.said.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"429", b"200", b"429", b"200", b"200"]


def serving(clock: Clock, board: Board) -> Listeners:
    app = build_app(
        Paper(board),
        HttpSettings(),
        transport="tcp",
        metrics=metrics_text,
        now=clock,
        telemetry=Log(),
    )
    assert LANE in app
    return Listeners([Endpoint(app=app, setting="x", tcp=(("127.0.0.1", 0),))])


def write_buffer(served: Listeners) -> int:
    """Bytes that the only connection's client has not taken."""
    runner = served._bound[0].runner
    assert runner is not None
    assert runner.server is not None
    (connection,) = runner.server.connections
    assert connection.transport is not None
    return connection.transport.get_write_buffer_size()


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory: Callable[[], asyncio.AbstractEventLoop] | None = request.param
    with asyncio.Runner(loop_factory=factory) as made:
        yield made


def test_idle_connections_end_and_a_request_in_the_lane_keeps_one(
    runner: asyncio.Runner, clock: Clock, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (listeners, routes):
        monkeypatch.setattr(module, "IDLE_S", 0.4)

    async def story() -> None:
        served = serving(clock, board)
        await served.start()
        port = int(served.addresses[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = last = time.monotonic()
        while last < began + 1.0:
            writer.write(PLAIN)
            await asyncio.wait_for(reader.readuntil(b"}"), 5)
            last = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert await reader.read() == b"", "it ended too early"
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert 0.3 < time.monotonic() - last < 2.0
        writer.close()
        await served.stop(1.0)

    runner.run(story())


def test_a_client_that_does_not_read_is_paused_and_loses_nothing(
    runner: asyncio.Runner, clock: Clock, board: Board
) -> None:
    count = 5_000

    async def send(client: socket.socket) -> int:
        """One request a time, so that each could take the lane; gives up when it blocks."""
        sent, blocked_since = 0, None
        while sent < count:
            try:
                assert client.send(PLAIN) == len(PLAIN)
                sent, blocked_since = sent + 1, None
            except BlockingIOError:
                blocked_since = blocked_since or time.monotonic()
                if time.monotonic() > blocked_since + 0.5:
                    break
            await asyncio.sleep(0)
        return sent

    async def story() -> None:
        served = serving(clock, board)
        await served.start()
        served._bound[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        port = int(served.addresses[0].rpartition(":")[2])
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.connect(("127.0.0.1", port))
            client.setblocking(False)
            sent = await send(client)
            waiting = write_buffer(served)
            assert 0 < waiting < 128 * 1024, "it neither wrote on for ever nor was it never full"
            said, loop, answer = 0, asyncio.get_running_loop(), 0
            async with asyncio.timeout(20):
                while answer == 0 or said < sent * answer:
                    part = await loop.sock_recv(client, 1 << 20)
                    assert part
                    answer = answer or part.index(b"}") + 1
                    said += len(part)
            assert said == sent * answer
            assert board.cells["default"].admitted == sent
        await served.stop(1.0)

    runner.run(story())


def test_the_second_moves_on_for_a_connection_that_asks_the_same(
    runner: asyncio.Runner, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 9))

    async def story() -> None:
        served = serving(clock, board)
        await served.start()
        port = int(served.addresses[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        dates: set[bytes] = set()
        async with asyncio.timeout(20):
            while len(dates) < 3:
                writer.write(PLAIN)
                answer = await reader.readuntil(b"}")
                dates.add(answer.partition(b"Date: ")[2].partition(b"\r\n")[0])
                await asyncio.sleep(0.01)
        writer.close()
        await served.stop(1.0)

    runner.run(story())


def test_stopping_ends_connections_that_only_knew_the_lane(
    runner: asyncio.Runner, clock: Clock, board: Board
) -> None:
    async def story() -> None:
        served = serving(clock, board)
        await served.start()
        port = int(served.addresses[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PLAIN)
        await asyncio.wait_for(reader.readuntil(b"}"), 5)
        began = time.monotonic()
        await served.stop(5.0)
        assert time.monotonic() - began < 2.0
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    runner.run(story())


def test_half_open_is_exact_over_both_paths_together(clock: Clock, board: Board) -> None:
    clients, each = 100, 1_000
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 9, ratio=0.05))

    async def client(port: int, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        admitted = 0
        for turn in range(each):
            writer.write(SLOW if (turn + number) % 8 == 0 else PLAIN)
            answer = await reader.readuntil(b"}")
            admitted += answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
        return admitted

    async def story() -> int:
        served = serving(clock, board)
        await served.start()
        port = int(served.addresses[0].rpartition(":")[2])
        async with asyncio.timeout(120):
            told = await asyncio.gather(*(client(port, number) for number in range(clients)))
        await served.stop(1.0)
        return sum(told)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        admitted = runner.run(story())
    assert abs(admitted - 5_000) <= 1
    assert (cell.admitted, cell.rejected) == (admitted, clients * each - admitted)


def test_a_request_that_comes_with_its_connection_is_answered_by_the_lane(
    runner: asyncio.Runner, clock: Clock, tmp_path: Path
) -> None:
    async def story() -> list[int]:
        side, found = Side(tmp_path / "s", known(clock), True, clock), []
        await side.start()
        with side.connect() as client:
            for request_ in (PLAIN, SLOW):  # nobody has had a turn before the first one comes
                client.send(request_)
                answer = await asyncio.wait_for(runner.get_loop().sock_recv(client, 4096), 5)
                assert answer.startswith(b"HTTP/1.1 200")
                found.append(side.made[-1].in_lane)
        assert side.listeners is not None
        await side.listeners.stop(1.0)
        return found

    assert runner.run(story()) == [1, 1]


async def test_what_both_paths_count_is_one_number(side: Side) -> None:
    for _ in range(10):
        await converse(side, [PLAIN, SLOW, plain("/allowed/shadow")], settle=True)
    await turns()
    assert side.board.cells["default"].admitted == 20
    # At 0.3, seven of ten would have been rejected without shadow mode.
    assert abs(side.board.cells["shadow"].shadow_rejected - 7) <= 1
