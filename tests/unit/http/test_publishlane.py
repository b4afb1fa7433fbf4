"""The fast lane for records: what it hands over, what it leaves alone, and who is answered when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sidecar.core.publishing import (
    Delivered,
    Draft,
    Dropped,
    Outcome,
    PublishPolicy,
    Refusal,
    Refused,
    Spooled,
    TopicPolicy,
)
from sidecar.http import admin, publishlane
from sidecar.http.publish import Held
from sidecar.http.publishlane import PublishLane
from sidecar.http.settings import HttpSettings, LiveSettings, Transport
from sidecar.http.turns import LATER, MORE, Later
from tests.unit.http.support import Clock, Desk
from tests.unit.http.twins import Side, converse, known, turns

BODY = b"\x00record\r\n\xff"
LIMITS = PublishPolicy(
    max_record_bytes=5_000,
    max_outstanding_bytes=20_000,
    topics={"orders": TopicPolicy(), "asks": TopicPolicy(breaker="default")},
)


class Asker:
    """A connection that only remembers."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def resume(self, take: Callable[[bytes], bytes | Later | None]) -> None:
        raise AssertionError

    def answer(self, reply: bytes) -> None:
        self.replies.append(reply)


def request(
    body: bytes = BODY,
    *extra: str,
    target: str = "/v1/publish/orders",
    host: str = "localhost",
    kind: str | None = "application/octet-stream",
    length: int | None = None,
) -> bytes:
    size = len(body) if length is None else length
    lines = [f"POST {target} HTTP/1.1", f"Host: {host}", *extra]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode() + body


def make_lane(
    desk: Desk,
    settings: HttpSettings | None = None,
    transport: Transport = "tcp",
    tokens: admin.Tokens | None = None,
) -> PublishLane:
    live = LiveSettings(
        settings or HttpSettings(open_orders=True, allowed_hosts=frozenset({"box"}))
    )
    return PublishLane(desk, Held(), tokens or admin.Tokens(Clock()), live, transport)


@pytest.fixture
def desk() -> Desk:
    return Desk(LIMITS)


@pytest.fixture
async def sides(tmp_path: Path, clock: Clock) -> AsyncIterator[list[Side]]:
    """With the lane and without."""
    made = []
    for name, lane in (("lane", True), ("aiohttp", False)):
        side = Side(tmp_path / name, known(clock), lane, clock, publishing=Desk(LIMITS))
        await side.start()
        made.append(side)
    yield made
    for side in made:
        assert side.listeners is not None
        await side.listeners.stop(1.0)


def desk_of(side: Side) -> Desk:
    assert isinstance(side.publishing, Desk)
    return side.publishing


@pytest.mark.parametrize(
    ("request_", "draft"),
    [
        (request(), Draft(None, BODY, ())),
        (request(kind=None), Draft(None, BODY, ())),
        (request(host="Box:1"), Draft(None, BODY, ())),
        (request(BODY, "kafka-key:  a b "), Draft(b"a b", BODY, ())),
        (request(BODY, "Kafka-Partition: 17"), Draft(None, BODY, (), 17)),
        (
            request(BODY, "Kafka-Header-Trace-Id: 1", "X: y", "kafka-header-b:", "Kafka-Key: k"),
            Draft(b"k", BODY, (("Trace-Id", b"1"), ("b", b""))),
        ),
    ],
)
async def test_what_it_hands_over_is_what_aiohttp_would(
    desk: Desk, sides: list[Side], request_: bytes, draft: Draft
) -> None:
    desk.outcome = None
    if b"Box" not in request_:
        fates = [await converse(side, [request_], settle=True) for side in sides]
        assert fates[0] == fates[1]
        assert [desk_of(side).drafts for side in sides] == [[("orders", draft)]] * 2
        assert [side.in_lane for side in sides] == [1, 0]
    assert make_lane(desk).take(request_, Asker()) is LATER
    assert desk.drafts == [("orders", draft)]


@pytest.mark.parametrize(
    "outcome",
    [
        Delivered(1, 2),
        Delivered(1, None, "second"),
        Spooled(None, 3),
        Dropped("Kafka is away"),
        Refused(Refusal.UNKNOWN_OUTCOME, "there was no word of it in time"),
        Refused(Refusal.DISK_FULL, "full"),
        Refused(Refusal.INVALID, "bad"),
    ],
)
async def test_answers_are_those_of_aiohttp_byte_for_byte(
    sides: list[Side], outcome: Outcome
) -> None:
    for side in sides:
        desk_of(side).outcome = outcome
    fates = [await converse(side, [request(), request()], settle=True) for side in sides]
    assert fates[0] == fates[1]
    assert fates[0].said.count(b"HTTP/1.1 ") == 2
    assert [side.in_lane for side in sides] == [2, 0]


@pytest.mark.parametrize(
    "request_",
    [
        request(target="/v1/publish/"),
        request(target="/v1/publish/nobody"),
        request(target="/v1/publish/asks"),
        request(target="/v1/publish/.."),
        request(target="/v1/publish/orders?ack=delivered"),
        request(target="/v1/publish/orders/x"),
        request(host="evil.example"),
        request(kind="application/json"),
        request(kind="application/x-ndjson"),
        request(kind="text/plain"),
        request(b""),
        request(b"x" * 6_000),
        request(b"x" * 10_000),
        request(BODY, "Idempotency-Key: 1"),
        request(BODY, "Kafka-Partition: x"),
        request(BODY, "Kafka-Partition: 100000"),
        request(BODY, "Kafka-Header-a: 1", "Kafka-Header-a: 2"),
        request(BODY, "Kafka-Partiton: 1"),
        request(BODY, "Origin: http://localhost"),
        request(BODY, "Sec-Fetch-Site: cross-site"),
        request(BODY, "Content-Encoding: gzip"),
        request(BODY, "Transfer-Encoding: chunked"),
        request(BODY, "Expect: 100-continue"),
        request(BODY, "Connection: close"),
        request(length=3),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"POST", b"PUT"),
        request() * 2,
        request()[:40],
    ],
)
def test_what_it_leaves_alone(desk: Desk, request_: bytes) -> None:
    assert make_lane(desk).take(request_, Asker()) is None
    assert desk.drafts == []


def test_what_must_wait_for_its_place_and_what_is_too_much_is_not_for_the_lane(desk: Desk) -> None:
    desk.at_once = False
    assert make_lane(desk).take(request(), Asker()) is None
    desk.at_once, desk.outcome = True, None
    lane = make_lane(desk)
    for _ in range(4):
        assert lane.take(request(b"x" * 5_000), Asker()) is LATER
    assert lane.take(request(), Asker()) is None


async def test_who_may_is_asked_as_anywhere(desk: Desk, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n", "utf-8")
    closed, guarded = HttpSettings(), HttpSettings(admin_token_file=str(file))
    assert make_lane(desk, closed).take(request(), Asker()) is None
    assert make_lane(desk, closed, "unix").take(request(host="whatever"), Asker()) is LATER
    tokens = admin.Tokens(clock)
    lane = make_lane(desk, guarded, tokens=tokens)
    right = request(BODY, "Authorization: Bearer secret")
    assert lane.take(right, Asker()) is None, "the token has to be read first, which takes time"
    await tokens.read(str(file))
    assert lane.take(right, Asker()) is LATER
    for wrong in ("Bearer other", "Bearer", "Basic secret", "secret"):
        assert lane.take(request(BODY, f"Authorization: {wrong}"), Asker()) is None
    assert lane.take(request(), Asker()) is None
    clock.now += admin.KEPT_S
    assert lane.take(right, Asker()) is None, "it may be another one by now"


def test_what_it_remembers_is_bounded_and_is_no_permission(desk: Desk) -> None:
    desk.outcome, live = None, LiveSettings(HttpSettings(open_orders=True))
    lane = PublishLane(desk, Held(), admin.Tokens(Clock()), live, "tcp")
    for number in range(3 * publishlane.MAX_REMEMBERED):
        assert lane.take(request(b"x", f"Kafka-Key: {number}"), Asker()) is LATER
        assert len(lane._forms) <= publishlane.MAX_REMEMBERED
    assert (
        lane.take(request(b"x", "X: " + "x" * publishlane.MAX_REMEMBERED_BYTES), Asker()) is LATER
    )
    assert all(len(head) <= publishlane.MAX_REMEMBERED_BYTES for head in lane._forms)
    assert lane.take(request(), Asker()) is LATER
    live.current = HttpSettings()
    assert lane.take(request(), Asker()) is None
    live.current = HttpSettings(open_orders=True)
    desk.policy = replace(LIMITS, topics={})
    assert lane.take(request(), Asker()) is None


def test_half_a_record_is_nothing_yet(desk: Desk) -> None:
    whole, lane = request(), make_lane(desk)
    for size in range(len(whole) - len(BODY), len(whole)):
        assert lane.take(whole[:size], Asker()) == MORE
    assert lane.take(request(target="/v1/publish/nobody")[:-1], Asker()) is None
    assert desk.drafts == []


async def test_a_body_may_come_after_its_head(sides: list[Side]) -> None:
    whole = request()
    at = len(whole) - 3
    fate = await converse(sides[0], [whole[:at], whole[at:], whole], settle=True)
    assert fate.said.count(b"HTTP/1.1 202 Accepted") == 2
    assert sides[0].in_lane == 2
    assert fate.idle


async def test_a_few_have_their_turn_at_once(desk: Desk) -> None:
    """So that a decision that is asked for meanwhile needn't wait for all of them."""

    class Connection(Asker):
        def resume(self, take: Callable[[bytes], bytes | Later | None]) -> None:
            taken.append(take(request()))

    taken: list[object] = []
    lane, connections = make_lane(desk), [Connection() for _ in range(10)]
    for connection in connections:
        lane.queue(connection)
    seen = []
    async with asyncio.timeout(5):
        while len(taken) < 10:
            await asyncio.sleep(0)
            seen.append(len(taken))
        assert seen == [4, 8, 10]
        while not all(connection.replies for connection in connections):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert [len(connection.replies) for connection in connections] == [1] * 10


async def test_what_is_sent_behind_a_record_waits_for_its_answer(sides: list[Side]) -> None:
    desk = desk_of(sides[0])
    desk.outcome = None
    reader, writer = await asyncio.open_unix_connection(str(sides[0].path))
    writer.write(request())
    async with asyncio.timeout(5):
        while not desk.open:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0)
    for _ in range(3):
        writer.write(b"GET /allowed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await turns()
    desk.open.pop()(Spooled(0, 1))
    statuses = []
    for _ in range(4):
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(int(head[9:12]))
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    assert statuses == [202, 200, 200, 200]
    writer.close()


async def test_a_sender_that_leaves_leaves_its_record(sides: list[Side]) -> None:
    side = sides[0]
    desk = desk_of(side)
    desk.outcome = None
    with side.connect() as client:
        client.send(request())
        async with asyncio.timeout(5):
            while not desk.open:  # noqa: ASYNC110 - it has no event of its own
                await asyncio.sleep(0)
    await turns()
    desk.open.pop()(Spooled(0, 1))
    await turns()
    assert [protocol.transport for protocol in side.made] == [None]
    assert side.log.events == []


async def test_a_stop_waits_for_what_was_taken(sides: list[Side]) -> None:
    side = sides[0]
    desk = desk_of(side)
    desk.outcome = None
    reader, writer = await asyncio.open_unix_connection(str(side.path))
    writer.write(request())
    async with asyncio.timeout(5):
        while not desk.open:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0)
    assert side.listeners is not None
    stop = asyncio.create_task(side.listeners.stop(5.0))
    asyncio.get_running_loop().call_later(0.05, partial(desk.open[0], Spooled(0, 1)))
    said = await reader.read()
    assert said.startswith(b"HTTP/1.1 202 Accepted")
    await asyncio.wait_for(stop, 4.0)
    writer.close()
