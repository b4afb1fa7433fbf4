"""`/v1/watch`: what is sent, what is kept for those who come back, and who is dropped."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.types import Policy, State
from sidecar.http import events
from sidecar.http.server import (
    FEED,
    Endpoint,
    Feed,
    HttpSettings,
    Listeners,
    apply_settings,
    build_app,
)
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import Clock, Log, Paper, enter, make_record, metrics_text

Open = Callable[..., Any]


@dataclass
class Event:
    """One event as a client reads it."""

    id: int
    kind: str
    data: dict[str, Any]


class Watcher:
    """A client that reads events from a raw connection (HTTP/1.0: no chunks around them)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""

    async def block(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\n\n"), 10)

    async def next(self) -> Event:
        while (block := await self.block()).startswith(b":"):
            pass
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if line)
        return Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))


@dataclass
class Served:
    """The application on a port of its own."""

    app: Any
    listeners: Listeners
    open: list[Watcher]

    @property
    def feed(self) -> Feed:
        feed: Feed = self.app[FEED]
        return feed

    async def watch(self, *headers: str) -> Watcher:
        port = int(self.listeners.addresses[0].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        lines = ["GET /v1/watch HTTP/1.0", "Host: localhost", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        watcher = Watcher(reader, writer)
        self.open.append(watcher)
        watcher.head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return watcher

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.feed.count != count:  # noqa: ASYNC110 - it has no event of its own
                await asyncio.sleep(0.005)


@pytest.fixture
async def served(paper: Paper, board: Board, clock: Clock, log: Log) -> AsyncIterator[Served]:
    app = build_app(
        paper,
        HttpSettings(),
        transport="tcp",
        metrics=metrics_text,
        now=clock,
        telemetry=log,
        feed=Feed(board, clock, limit=20),
    )
    listeners = Listeners([Endpoint(app=app, setting="x", tcp=(("127.0.0.1", 0),))])
    await listeners.start()
    made = Served(app, listeners, [])
    yield made
    await listeners.stop(2.0)
    for watcher in made.open:
        watcher.writer.close()
    assert made.feed.count == 0


async def test_a_snapshot_comes_first_and_then_every_transition(
    served: Served, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 3))
    watcher = await served.watch()
    assert b"\r\nContent-Type: text/event-stream\r\n" in watcher.head
    assert b"\r\nCache-Control: no-store\r\n" in watcher.head
    snapshot = await watcher.next()
    assert snapshot.kind == "snapshot"
    assert snapshot.data["default"] == "default"
    assert [b["state"] for b in snapshot.data["breakers"]] == ["CLOSED"]
    enter(board, clock, "default", make_record(State.OPEN, 4))
    event = await watcher.next()
    assert (event.id, event.kind) == (snapshot.id + 1, "transition")
    assert event.data["breaker"] == "default"
    assert (event.data["from"], event.data["state"], event.data["seq"]) == ("CLOSED", "OPEN", 4)
    assert event.data["admit_ratio"] == 0.0
    assert 30 <= event.data["retry_after"] <= 33
    enter(board, clock, "default", make_record(State.HALF_OPEN, 5))
    assert (await watcher.next()).data["admit_ratio"] == 0.05


async def test_what_only_looks_different_is_no_transition(
    served: Served, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 3))
    watcher = await served.watch()
    await watcher.next()
    clock.now += 20.0
    board.refresh(clock.now)
    event = await watcher.next()
    assert (event.kind, event.data["stale"]) == ("change", True)


async def test_who_comes_back_is_sent_what_it_missed(
    served: Served, board: Board, clock: Clock
) -> None:
    watcher = await served.watch()
    known = (await watcher.next()).id
    for seq in range(3, 6):
        enter(board, clock, "default", make_record(State.OPEN, seq))
    again = await served.watch(f"Last-Event-ID: {known + 1}")
    missed = [await again.next() for _ in range(2)]
    assert [(e.id, e.kind, e.data["seq"]) for e in missed] == [
        (known + 2, "transition", 4),
        (known + 3, "transition", 5),
    ]
    current = await served.watch(f"Last-Event-ID: {known + 3}")
    assert (await current.block()).startswith(b":")
    enter(board, clock, "default", make_record(State.CLOSED, 6))
    assert (await current.next()).id == known + 4


@pytest.mark.parametrize("given", ["1", "99999999999999999", "-1", "x", "", "1" * 30, "0x1", "²"])
async def test_an_unknown_id_is_a_snapshot(served: Served, given: str) -> None:
    watcher = await served.watch(f"Last-Event-ID: {given}")
    assert (await watcher.next()).kind == "snapshot"


async def test_what_is_kept_is_bounded_and_too_old_an_id_is_a_snapshot(
    served: Served, board: Board, clock: Clock
) -> None:
    watcher = await served.watch()
    known = (await watcher.next()).id
    for seq in range(3, events.KEPT + 5):
        enter(board, clock, "default", make_record(State.OPEN, seq))
    again = await served.watch(f"Last-Event-ID: {known}")
    assert (await again.next()).kind == "snapshot"
    # Nobody got a turn meanwhile, so that this one is as far behind.
    assert (await watcher.next()).kind == "snapshot"


async def test_one_who_does_not_read_is_dropped_and_the_others_go_on(
    served: Served, board: Board, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, does_not = await served.watch(), await served.watch()
    does_not.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await reads.next()
    await served.until(2)
    detail = "x" * 20_000
    for seq in range(3, 1000):
        enter(board, clock, "default", make_record(State.OPEN, seq, detail=detail))
        assert (await reads.next()).data["seq"] == seq
        if served.feed.count == 1:
            break
    assert served.feed.count == 1
    enter(board, clock, "default", make_record(State.CLOSED, 2000))
    assert (await reads.next()).data["seq"] == 2000


async def test_there_is_room_for_so_many(served: Served) -> None:
    for _ in range(20):
        await (await served.watch()).next()
    refused = await served.watch()
    assert refused.head.startswith(b"HTTP/1.0 503 ")
    assert b"\r\nRetry-After: 5\r\n" in refused.head
    assert b"too-many-watchers" in await asyncio.wait_for(refused.reader.read(), 10)
    served.open[0].writer.close()
    await served.until(19)
    assert (await (await served.watch()).next()).kind == "snapshot"


async def test_a_comment_says_that_all_is_well(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "COMMENT_S", 0.05)
    watcher = await served.watch()
    await watcher.next()
    for _ in range(3):
        assert await watcher.block() == b": still here\n\n"


async def test_stopping_ends_it_at_once(served: Served) -> None:
    watcher = await served.watch()
    await watcher.next()
    began = time.monotonic()
    await served.listeners.stop(5.0)
    assert time.monotonic() - began < 2.0
    assert await asyncio.wait_for(watcher.reader.read(), 5) == b""


async def test_a_reload_that_changes_the_breakers_is_a_snapshot(
    served: Served, board: Board, clock: Clock
) -> None:
    watcher = await served.watch()
    before = await watcher.next()
    contact = Contact(synced=clock.now, stale_after_s=15.0, max_stale_s=30.0, on_loss=OnLoss.KEEP)
    board.reconfigure(
        [Policy(name="a", fingerprint="1"), Policy(name="b", fingerprint="1")],
        None,
        contact,
        now=clock.now,
    )
    apply_settings(served.app, HttpSettings())
    event = await watcher.next()
    assert (event.kind, event.id) == ("snapshot", before.id + 1)
    assert [b["breaker"] for b in event.data["breakers"]] == ["a", "b"]
    apply_settings(served.app, HttpSettings())
    enter(board, clock, "a", make_record(State.OPEN, 3))
    assert (await watcher.next()).kind == "transition"


async def test_all_are_told_in_the_same_moment(served: Served, board: Board, clock: Clock) -> None:
    watchers = [await served.watch() for _ in range(20)]
    for watcher in watchers:
        await watcher.next()
    for seq in range(3, 50):
        enter(board, clock, "default", make_record(State.OPEN, seq))
        await asyncio.sleep(0)
    told = [[(await watcher.next()).data["seq"] for _ in range(47)] for watcher in watchers]
    assert told == [list(range(3, 50))] * 20


async def test_head_and_the_door(client: Client) -> None:
    answer = await client.head("/v1/watch")
    assert answer.status == 200
    assert answer.content_type == "text/event-stream"
    assert (await client.get("/v1/watch", headers={"Host": "evil.example"})).status == 403
    assert (await client.get("/v1/watch", headers={"Origin": "https://evil.example"})).status == 403
    assert (await client.post("/v1/watch")).status == 405


async def test_it_is_chunked_for_clients_of_today(serve: Serve, board: Board, clock: Clock) -> None:
    client = await serve()
    async with client.get("/v1/watch") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert (await answer.content.readuntil(b"\n\n")).startswith(b"id: ")
        enter(board, clock, "default", make_record(State.OPEN, 3))
        assert b'"state":"OPEN"' in await answer.content.readuntil(b"\n\n")
