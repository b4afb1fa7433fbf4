"""The fast lane for reports: what it takes in, what it leaves alone, and what becomes of half."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.core.board import Board
from sidecar.core.intake import IntakeFull, Post
from sidecar.core.types import Policy
from sidecar.http import framing, reportlane
from sidecar.http.reportlane import ReportLane
from sidecar.http.settings import HttpSettings, LiveSettings, Transport
from sidecar.http.turns import MORE
from tests.unit.http.support import Clock, Paper, make_board
from tests.unit.http.twins import Side, converse, known, turns

BODY = b'{"instance":"c-1","count_ok":10}'


@pytest.fixture
def paper(board: Board) -> Paper:
    return Paper(board, at_once=True)


@pytest.fixture
def live() -> LiveSettings:
    return LiveSettings(HttpSettings(allowed_hosts=frozenset({"box"})))


@pytest.fixture
def lane(paper: Paper, live: LiveSettings) -> ReportLane:
    return ReportLane(paper, live, "tcp")


@pytest.fixture
async def side(tmp_path: Path, clock: Clock) -> AsyncIterator[Side]:
    made = Side(tmp_path / "s", known(clock), True, clock)
    await made.start()
    yield made
    assert made.listeners is not None
    await made.listeners.stop(1.0)


def request(
    body: bytes = BODY,
    *extra: str,
    target: str = "/v1/report",
    host: str = "localhost",
    kind: str = "application/json",
    length: int | None = None,
) -> bytes:
    size = len(body) if length is None else length
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}", *extra]
    return "\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode() + body


@pytest.mark.parametrize(
    "request_",
    [
        request(),
        request(target="/v1/report/default"),
        request(host="127.0.0.1:9100"),
        request(host="[::1]:9100"),
        request(host="Box:1"),
        request(kind="application/json; charset=utf-8"),
        request(kind="Application/JSON;charset=UTF-8"),
        request(BODY, "Connection: keep-alive", "User-Agent: x", "X-Forwarded-For: 1.2.3.4"),
    ],
)
def test_what_it_takes_in(lane: ReportLane, paper: Paper, request_: bytes) -> None:
    for _ in range(2):
        reply = lane.reply(request_)
        assert reply
        head, _, body = reply.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n")
        assert b"\r\nContent-Length: %d\r\n" % len(body) in head
        assert json.loads(body) == {"accepted": True, "breaker": "default", "instance": "c-1"}
    assert paper.posts == [("default", Post(instance="c-1", count_ok=10))] * 2


@pytest.mark.parametrize(
    "request_",
    [
        request(target="/v1/report/"),
        request(target="/v1/report/nobody"),
        request(target="/v1/report?x=1"),
        request(target="/v1/report/default/c-1"),
        request(target="/v1/reports"),
        request(host="evil.example"),
        request(host=""),
        request(kind="text/plain"),
        request(kind="application/json; charset=latin-1"),
        request(b""),
        request(b"{"),
        request(b'{"instance":"-"}'),
        request(b'{"instance":"c-1","count_fail":-1}'),
        request(b" " * 10_000),
        request(BODY, "Origin: https://evil.example"),
        request(BODY, "Origin: http://localhost"),
        request(BODY, "Sec-Fetch-Site: cross-site"),
        request(BODY, "Content-Encoding: gzip"),
        request(BODY, "Transfer-Encoding: chunked"),
        request(BODY, "Expect: 100-continue"),
        request(BODY, "Connection: close"),
        request(BODY, "Content-Type: application/json"),
        request(BODY, "X: " + "x" * framing.MAX_HEAD),
        request(length=5),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"Host: localhost\r\n", b""),
        request().replace(b"POST", b"PUT"),
        request() * 2,
        request()[:40],
    ],
)
def test_what_it_leaves_alone(lane: ReportLane, paper: Paper, request_: bytes) -> None:
    assert lane.reply(request_) is None
    assert paper.posts == []


def test_where_somebody_must_wait_or_be_refused_it_is_not_for_the_lane(
    lane: ReportLane, paper: Paper
) -> None:
    paper.at_once = False
    assert lane.reply(request()) is None
    paper.at_once, paper.fault = True, IntakeFull("enough")
    assert lane.reply(request()) is None


@pytest.mark.parametrize(
    ("reports", "transport", "taken"),
    [("tcp", "tcp", True), ("socket", "tcp", False), ("socket", "unix", True), ("off", "unix", 0)],
)
def test_where_reports_are_taken(
    paper: Paper, reports: str, transport: Transport, taken: bool
) -> None:
    live = LiveSettings(HttpSettings(reports=reports))  # type: ignore[arg-type]
    host = "localhost" if transport == "tcp" else "whatever"  # a socket's host says nothing
    assert bool(ReportLane(paper, live, transport).reply(request(host=host))) == taken


def test_a_reload_is_seen(lane: ReportLane, live: LiveSettings, paper: Paper) -> None:
    assert lane.reply(request(host="box"))
    live.current = HttpSettings()
    assert lane.reply(request(host="box")) is None
    assert lane.reply(request())
    live.current = HttpSettings(reports="off")
    assert lane.reply(request()) is None
    assert len(paper.posts) == 2


def test_what_it_remembers_is_bounded(lane: ReportLane) -> None:
    for number in range(3 * reportlane.MAX_REMEMBERED):
        assert lane.reply(request(BODY, f"X-Request-Id: {number}"))
        assert len(lane._forms) <= reportlane.MAX_REMEMBERED
    assert lane.reply(request(BODY, "X: " + "x" * reportlane.MAX_REMEMBERED_BYTES))
    assert all(len(head) <= reportlane.MAX_REMEMBERED_BYTES for head in lane._forms)


def test_the_date_is_the_second_of_the_answer(
    lane: ReportLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for at in (1_795_000_000.0, 1_795_000_000.9, 1_795_000_001.0):
        monkeypatch.setattr(framing, "time", lambda at=at: at)
        monkeypatch.setattr(framing, "rfc822_formatted_time", lambda at=at: f"at {at}")
        reply = lane.reply(request())
        assert reply
        said.append(reply.partition(b"Date: ")[2].partition(b"\r\n")[0])
    assert said == [b"at 1795000000.0", b"at 1795000000.0", b"at 1795000001.0"]


def test_half_a_report_is_nothing_yet(lane: ReportLane, paper: Paper) -> None:
    whole = request()
    for size in range(len(whole) - len(BODY), len(whole)):
        assert lane.reply(whole[:size]) == MORE
    # What is refused whatever its body says is refused without it.
    assert lane.reply(request(target="/v1/report/nobody")[:-1]) is None
    assert paper.posts == []


@pytest.mark.parametrize("cut", [0, 10, len(BODY) - 1])
async def test_a_body_may_come_after_its_head(side: Side, cut: int) -> None:
    whole = request()
    at = len(whole) - len(BODY) + cut
    fate = await converse(side, [whole[:at], whole[at:], whole], settle=True)
    assert fate.said.count(b"HTTP/1.1 202 Accepted") == 2
    assert side.in_lane == 2
    assert fate.idle
    assert len(fate.posts) == 2


async def test_in_more_pieces_it_is_left_to_aiohttp_whole(side: Side) -> None:
    whole = request()
    at = len(whole) - len(BODY)
    parts = [whole[:at], whole[at : at + 5], whole[at + 5 :]]
    fate = await converse(side, [*parts, whole], settle=True)
    assert fate.said.count(b"HTTP/1.1 202 Accepted") == 2
    assert side.in_lane == 1
    assert len(fate.posts) == 2


async def test_half_a_report_keeps_a_connection_as_it_does_with_aiohttp(side: Side) -> None:
    whole = request()
    with side.connect() as client:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, whole[:-5])
        async with asyncio.timeout(20):
            while not side.made or not side.made[0]._held:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
        (connection,) = side.made
        connection._next_keepalive_close_time = 0.0
        connection._process_keepalive()  # as the timer would
        assert connection.transport is not None
        await turns()
        await loop.sock_sendall(client, whole[-5:])
        async with asyncio.timeout(20):
            answer = await loop.sock_recv(client, 4096)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert len(side.paper.posts) == 1


async def test_the_default_breaker_may_be_any(clock: Clock, live: LiveSettings) -> None:
    paper = Paper(make_board(clock, Policy(name="orders", fingerprint="f")), at_once=True)
    lane = ReportLane(paper, live, "tcp")
    assert lane.reply(request())
    assert lane.reply(request(target="/v1/report/default"))
    assert [name for name, _ in paper.posts] == ["orders", "orders"]
