"""The status page: everything is there, everything is escaped, and nobody else may have it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from sidecar.core.board import Board
from sidecar.core.errors import StoreUnreachable
from sidecar.core.override import Mode, placed
from sidecar.core.reports import Tally
from sidecar.core.signals import judge
from sidecar.core.types import LockHolder, Policy, State, Transition
from sidecar.http.markup import Markup, element, told
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import WALL_AT, Clock, Paper, enter, make_board, make_record

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\x1b]0;x\x07\u202e"


class Reader(HTMLParser):
    """Which elements there are, with their attributes, and the text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {"script": "", "style": ""}
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.scripts:
            self.scripts[self._open[-1]] += data
        else:
            self.text += data


async def page(client: Client) -> Reader:
    answer = await client.get("/")
    assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
    return Reader(await answer.text())


async def test_the_policy_allows_this_style_and_this_script_and_nothing_else(
    client: Client,
) -> None:
    answer = await client.get("/")
    read = Reader(await answer.text())
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in answer.headers["Content-Security-Policy"].split(";")
    )
    for element_ in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(read.scripts[element_].encode()).digest())
        assert policy[f"{element_}-src"] == f"'sha256-{digest.decode()}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    outside = [a for _, a in read.elements if {"src", "href", "action"} & a.keys()]
    assert outside == [{"rel": "icon", "href": "data:,"}]
    assert not [a for _, a in read.elements if any(n.startswith("on") or n == "style" for n in a)]


async def test_a_follower_shows_record_evaluator_and_what_is_odd(
    client: Client, board: Board, clock: Clock
) -> None:
    holder = LockHolder(instance="alloc-2", address="10.0.0.2:9100", since_at=WALL_AT - 60)
    board.lock("default", "session-1", holder, 1, now=clock.now)
    enter(board, clock, "default", make_record(State.OPEN, 42, policy="another"))
    clock.now += 16  # a poll is overdue
    board.refresh(clock.now)
    read = await page(client)
    for said in (
        "OPEN",
        "25 failures in the last interval, threshold 20",
        "failures 25, threshold 20",
        "known to its evaluator alloc-2, at 10.0.0.2:9100 there",
        "the store was last read 16s ago",
        "written under another configuration",
        "seq 42, epoch 7",
        "unknown here",
    ):
        assert said in read.text, said
    assert ("article", {"data-breaker": "default", "data-state": "OPEN"}) in read.elements
    assert "default OPEN" in read.text  # the title


async def test_the_evaluator_shows_verdict_signals_and_reporters(
    client: Client, board: Board, clock: Clock
) -> None:
    cell = enter(board, clock, "default", make_record(State.CLOSED, 1))
    assert cell.seen is not None
    cell.evaluating = True
    cell.tally = Tally(9, 3, 1, 3, 4.0, 100.0)
    cell.judgement = judge(cell.tally, cell.seen, cell.policy)
    read = await page(client)
    assert "3 fresh, 1 stale" in read.text
    assert "failures: healthy (4 failures in the last interval, threshold 20)" in read.text
    assert "all closed" in read.text


async def test_a_forced_breaker_comes_first_and_loud(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.CLOSED, 1))
    order = placed(Mode.OPEN, ttl_s=900, reason="migration", author="ann", wall_at=WALL_AT)
    board.override("default", order, 9, 9, live=True, now=clock.now, wall_at=WALL_AT)
    board.refresh(clock.now)
    clock.now += 60
    read = await page(client)
    assert "default is FORCED open by ann, 14m00s left of 15m00s: migration" in read.text
    assert "OPEN (FORCED)" in read.text
    names = [name for name, attributes in read.elements if attributes.get("class") == "alarm"]
    assert names == ["p"]
    assert read.elements.index(("p", {"class": "alarm"})) < [n for n, _ in read.elements].index(
        "article"
    )


async def test_the_last_transitions_newest_first_and_the_shadow_report(
    serve: Serve, clock: Clock
) -> None:
    board = make_board(clock, Policy(name="dark", shadow=True, fingerprint="f1"))
    paper = Paper(board)
    paper.transitions = [
        Transition(
            seq=n,
            at=WALL_AT + n,
            from_state=State.CLOSED,
            to_state=State.OPEN,
            reason="failures",
            detail=f"dark {n}.",
            evidence={},
            epoch=1,
            evaluator="i-1",
        )
        for n in range(12)
    ]
    client = await serve(backend=paper)
    enter(board, clock, "dark", make_record(State.OPEN, 12, current_state=State.CLOSED))
    read = await page(client)
    assert re.findall(r"dark (\d+)\.", read.text)[:10] == [str(n) for n in range(11, 1, -1)]
    assert "would have opened 12 times" in read.text
    assert "reaches back to 2026-11-18T11:06:40Z" in read.text
    assert "would have rejected 0 calls here" in read.text


async def test_a_history_that_cannot_be_read_is_said(
    client: Client, paper: Paper, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 1))
    paper.fault = StoreUnreachable("away")
    assert "The history can't be read now." in (await page(client)).text


async def test_whatever_a_record_says_stays_text(
    client: Client, board: Board, clock: Clock, paper: Paper
) -> None:
    clean = {name for name, _ in (await page(client)).elements}
    paper.transitions.append(
        Transition(
            seq=1,
            at=WALL_AT,
            from_state=None,
            to_state=State.OPEN,
            reason=EVIL,
            detail="default" + EVIL,
            evidence={},
            epoch=1,
            evaluator=EVIL,
        )
    )
    holder = LockHolder(instance=EVIL, address=EVIL, since_at=WALL_AT)
    board.lock("default", "s", holder, 1, now=clock.now)
    record = make_record(
        State.OPEN, 1, reason=EVIL, detail=EVIL, evidence={EVIL: EVIL}, evaluator=EVIL, policy=EVIL
    )
    enter(board, clock, "default", record)
    order = placed(Mode.OPEN, ttl_s=900, reason=EVIL, author=EVIL, wall_at=WALL_AT)
    board.override("default", order, 9, 9, live=True, now=clock.now, wall_at=WALL_AT)
    board.refresh(clock.now)
    read = await page(client)
    found = {name for name, _ in read.elements}
    assert found - clean <= {"table", "tr", "th", "td", "div", "strong", "time", "b"}
    assert sum(name == "script" for name, _ in read.elements) == 1
    assert read.text.count("<script>alert(1)</script>") >= 6
    raw = await (await client.get("/")).text()
    assert not set(raw) & {"\x1b", "\x07", "\u202e"}


async def test_without_javascript_it_loads_itself_again(client: Client) -> None:
    read = await page(client)
    assert ("meta", {"http-equiv": "refresh", "content": "15"}) in read.elements
    text = await (await client.get("/")).text()
    assert "<noscript><meta" in text


async def test_head_and_no_other_method(client: Client) -> None:
    head = await client.head("/")
    assert (head.status, await head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) > 1000
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await client.request(method, "/")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_it_is_guarded_as_the_rest(client: Client, headers: dict[str, str]) -> None:
    assert (await client.get("/", headers=headers)).status == 403


async def test_a_sidecar_without_breakers_has_a_page_too(
    serve: Serve, board: Board, clock: Clock
) -> None:
    board.reconfigure([], None, board.contact, now=clock.now)
    assert "no breaker" in (await page(await serve())).text


def test_markup() -> None:
    assert element("p", "<&>", Markup("<b>"), None, class_='a"b', data_x=None) == (
        '<p class="a&quot;b">&lt;&amp;&gt;<b></p>'
    )
    assert told("a\x00b\nc") == "<bdi>a\N{REPLACEMENT CHARACTER}b\nc</bdi>"
    told("half a character: \ud800").encode()
