"""`/v1/breakers`, `/v1/status`, history, and the long poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from aiohttp import ClientResponse

from sidecar.core.board import Board
from sidecar.core.reports import Tally
from sidecar.core.signals import judge
from sidecar.core.types import LockHolder, Policy, State, Transition
from sidecar.http.problems import Problem
from sidecar.http.server import WAITERS, HttpSettings, apply_settings
from sidecar.http.waiting import Waiters
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import WALL_AT, Clock, Paper, enter, make_board, make_record


async def until(condition: Callable[[], bool]) -> None:
    """Poll, with a deadline."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def test_a_breaker_nobody_knows_of_yet(client: Client) -> None:
    body = await (await client.get("/v1/breakers/default")).json()
    assert body["name"] == "default"
    assert body["seq"] == 0
    assert body["reason"] == "no_state"
    assert body["stale"] is True
    unknown = ("automaton", "since", "epoch", "open_count", "open_for", "retry_at", "evidence")
    assert all(body[key] is None for key in (*unknown, "evaluator", "verdict", "signals"))


async def test_a_follower_tells_record_and_holder(
    client: Client, board: Board, clock: Clock
) -> None:
    holder = LockHolder(instance="alloc-2", address="10.0.0.2:9100", since_at=WALL_AT - 60)
    board.lock("default", "session-1", holder, 1, now=clock.now)
    enter(board, clock, "default", make_record(State.OPEN, 42, policy="another"))
    await client.get("/allowed")
    clock.now += 12.5
    body = await (await client.get("/v1/breakers/default")).json()
    policy = body.pop("policy")
    assert body == {
        "name": "default",
        "state": "OPEN",
        "automaton": "OPEN",
        "reason": "failures",
        "detail": "25 failures in the last interval, threshold 20",
        "since": "2026-11-18T11:06:40.000000Z",
        "seq": 42,
        "epoch": 7,
        "admit_ratio": 0.0,
        "open_count": 1,
        "open_for": 30.0,
        "retry_at": "2026-11-18T11:07:10.000000Z",
        "evidence": {"failures": 25, "threshold": 20, "reporters": 3},
        "stale": False,
        "lost": False,
        "local_gate": None,
        "override": None,
        "mode": "enforce",
        "config_mismatch": True,
        "evaluator": {
            "instance": "alloc-2",
            "address": "10.0.0.2:9100",
            "since": "2026-11-18T11:05:40.000000Z",
        },
        "evaluating": False,
        "verdict": None,
        "signals": None,
        "reporters": None,
        "decisions": {"admitted": 0, "rejected": 1, "shadow_rejected": 0, "for_s": 12.5},
    }
    assert policy["failure_threshold"] == 20
    assert policy["half_open"] == {"initial": 0.05, "ramp": 30.0, "max": 120.0}


async def test_the_evaluator_tells_its_verdict(client: Client, board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.CLOSED, 1))
    assert cell.seen is not None
    cell.evaluating = True
    cell.tally = Tally(9, 3, 1, 3, 4.0, 100.0)
    cell.judgement = judge(cell.tally, cell.seen, cell.policy)
    body = await (await client.get("/v1/breakers/default")).json()
    assert body["verdict"] == "healthy"
    assert body["reporters"] == {"fresh": 3, "stale": 1}
    assert body["signals"] == [
        {
            "name": "failures",
            "verdict": "healthy",
            "detail": "4 failures in the last interval, threshold 20",
            "evidence": {"failures": 4, "threshold": 20, "reporters": 3},
        }
    ]
    cell.evaluating = False  # what it knew is of no use once another evaluates
    body = await (await client.get("/v1/breakers/default")).json()
    assert body["verdict"] is None


async def test_a_released_lock_has_no_evaluator(client: Client, board: Board, clock: Clock) -> None:
    gone = LockHolder(instance="a", address="b", since_at=WALL_AT, released=True)
    board.lock("default", None, gone, 1, now=clock.now)
    body = await (await client.get("/v1/breakers/default")).json()
    assert body["evaluator"] is None


async def test_all_of_them_and_status(serve: Serve, clock: Clock) -> None:
    board = make_board(clock, Policy(name="b", shadow=True), Policy(name="a"))
    client = await serve(backend=Paper(board))
    clock.now += 2.5
    listed = await (await client.get("/v1/breakers")).json()
    assert list(listed) == ["breakers"]
    assert [b["name"] for b in listed["breakers"]] == ["a", "b"]
    assert [b["mode"] for b in listed["breakers"]] == ["enforce", "shadow"]
    status = await (await client.get("/v1/status")).json()
    assert status["role"] == "auto"
    assert status["instance"] == "alloc-1"
    assert status["default"] is None
    assert status["sync"] == {
        "age": 2.5,
        "stale_after": 15.0,
        "max_stale": 30.0,
        "on_loss": "keep",
    }
    shadow = [breaker.pop("shadow") for breaker in status["breakers"]]
    assert status["breakers"] == listed["breakers"]
    assert shadow[0] is None
    assert shadow[1]["by"] == "mode"
    head = await client.head("/v1/breakers")
    assert head.status == 200
    assert await head.read() == b""


async def test_history(client: Client, paper: Paper) -> None:
    paper.transitions.append(
        Transition(
            seq=2,
            at=WALL_AT,
            from_state=State.CLOSED,
            to_state=State.OPEN,
            reason="failures",
            detail="default failed",
            evidence={"failures": 25},
            epoch=7,
            evaluator="alloc-1",
        )
    )
    body = await (await client.get("/v1/breakers/default/history")).json()
    assert body["breaker"] == "default"
    assert [t["seq"] for t in body["transitions"]] == [2]
    assert body["transitions"][0]["from"] == "CLOSED"


@pytest.mark.parametrize(
    "query",
    [
        "index=-1",
        "index=x",
        "index=",
        "index=1.0",
        "index=%D9%A3",
        "index=1" + "0" * 18,
        "wait=30",
        "wait=",
        "wait=-1s",
        "wait=1d",
        "wait=s",
        "wait=1s%20",
        "wait=" + "1s" * 30,
        "index=0&wait=.s",
    ],
)
async def test_a_bad_wait_or_index_is_a_400(client: Client, query: str) -> None:
    answer = await client.get(f"/v1/breakers/default?{query}")
    assert answer.status == 400
    assert answer.content_type == "application/problem+json"
    detail = (await answer.json())["detail"]
    assert detail.startswith(("index is", "wait is"))


@pytest.mark.parametrize(
    "query", ["", "index=41&wait=5m", "index=42&wait=0", "wait=5m&index=42000"]
)
async def test_it_answers_at_once_when_there_is_no_reason_to_wait(
    client: Client, board: Board, clock: Clock, query: str
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    answer = await asyncio.wait_for(client.get(f"/v1/breakers/default?{query}"), 5)
    assert answer.status == 200
    assert (await answer.json())["seq"] == 42


async def test_it_answers_when_seq_changes_and_not_before(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    waiters = _waiters(client)
    asked = asyncio.create_task(client.get("/v1/breakers/default?index=42&wait=1m"), name="asked")
    await until(lambda: waiters.count == 1)
    # Stale is a change of the decision and no new seq: the client goes on waiting.
    clock.now += 16
    board.refresh(clock.now)
    assert board.cells["default"].decision.stale
    await until(lambda: waiters.count == 1)
    assert not asked.done()
    enter(board, clock, "default", make_record(State.HALF_OPEN, 43))
    answer = await asyncio.wait_for(asked, 5)
    body = await answer.json()
    assert (answer.status, body["seq"], body["state"]) == (200, 43, "HALF_OPEN")
    assert waiters.count == 0


async def test_after_the_wait_it_answers_with_what_there_is(
    client: Client, board: Board, clock: Clock
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    began = time.monotonic()
    answer = await client.get("/v1/breakers/default?index=42&wait=60ms")
    assert (answer.status, (await answer.json())["seq"]) == (200, 42)
    assert 0.05 <= time.monotonic() - began < 5


async def test_a_shutdown_lets_everybody_go(client: Client, board: Board, clock: Clock) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 42))
    waiters = _waiters(client)
    asked = [
        asyncio.create_task(client.get("/v1/breakers/default?index=42&wait=5m"), name=f"asked {n}")
        for n in range(5)
    ]
    await until(lambda: waiters.count == 5)
    waiters.close()
    answers: list[ClientResponse] = await asyncio.wait_for(asyncio.gather(*asked), 5)
    assert {a.status for a in answers} == {200}
    late = await asyncio.wait_for(client.get("/v1/breakers/default?index=42&wait=5m"), 5)
    assert late.status == 200


async def test_a_breaker_that_a_reload_removes_meanwhile_is_a_404(
    client: Client, board: Board, clock: Clock
) -> None:
    app = client.app
    assert app is not None
    asked = asyncio.create_task(client.get("/v1/breakers/default?index=0&wait=1m"), name="asked")
    await until(lambda: _waiters(client).count == 1)
    apply_settings(app, HttpSettings())  # a reload that changes nothing wakes nobody for good
    await until(lambda: _waiters(client).count == 1)
    board.reconfigure([Policy(name="b"), Policy(name="c")], None, board.contact, now=clock.now)
    apply_settings(app, HttpSettings())
    answer = await asyncio.wait_for(asked, 5)
    assert answer.status == 404
    assert (await answer.json())["breakers"] == ["b", "c"]


async def test_waiters_are_bounded(board: Board) -> None:
    waiters = Waiters(board, limit=2)
    waiting = [asyncio.create_task(waiters.change("default", 60), name=f"w{n}") for n in range(2)]
    await until(lambda: waiters.count == 2)
    with pytest.raises(Problem) as caught:
        await waiters.change("default", 60)
    assert caught.value.status == 503
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert waiters.count == 1
    waiters.close()
    assert await waiting[1] is False


def _waiters(client: Client) -> Waiters:
    app = client.app
    assert app is not None
    return app[WAITERS]
