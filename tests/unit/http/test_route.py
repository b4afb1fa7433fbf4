"""A route: for how long its answers hold, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.types import Policy, State
from sidecar.http.allowed import Answers
from sidecar.http.route import IDLE_S, Route, on_the_loop
from tests.unit.http.support import Alarms, Clock, enter, make_record


@pytest.fixture
def alarms(clock: Clock) -> Alarms:
    return Alarms(clock)


@pytest.fixture
def route(alarms: Alarms) -> Route:
    return Route(Answers(), alarms, name=None, deny_status=None, bare=False)


def holds(route: Route) -> bool:
    """What a connection looks at."""
    return route.cell.decision is route.decision


def test_it_holds_to_the_end_of_the_second(
    route: Route, board: Board, clock: Clock, alarms: Alarms
) -> None:
    assert route.decision is None
    assert route.refresh(board, clock.now)
    assert holds(route)
    (alarm,) = alarms.waiting
    assert clock.now < alarm.at <= clock.now + 1.0
    assert route.idle_until == alarm.at + IDLE_S
    alarms.move(1.0)
    assert not holds(route)
    assert not alarms.waiting, "nothing is awake for a route that nobody asks by"
    assert route.refresh(board, clock.now)
    assert holds(route)


def test_a_new_decision_ends_it_and_its_timer(
    route: Route, board: Board, clock: Clock, alarms: Alarms
) -> None:
    route.refresh(board, clock.now)
    enter(board, clock, "default", make_record(State.OPEN, 7))
    assert not holds(route)
    route.refresh(board, clock.now)
    assert holds(route)
    assert len(alarms.waiting) == 1
    assert b"X-Breaker-Seq: 7\r\n" in route.rejection


@pytest.mark.parametrize(
    ("policy", "default"),
    [
        (Policy(name="default", fingerprint="f1", deny_status=429), "default"),
        (Policy(name="other", fingerprint="f2"), "other"),
        (Policy(name="other", fingerprint="f2"), None),
    ],
)
def test_a_reload_ends_it(route: Route, board: Board, policy: Policy, default: str | None) -> None:
    route.refresh(board, 1000.0)
    contact = Contact(synced=None, stale_after_s=15.0, max_stale_s=30.0, on_loss=OnLoss.KEEP)
    board.reconfigure([policy], default, contact, now=1000.0)
    assert not holds(route)
    found = default is not None
    assert route.refresh(board, 1000.0) is found
    assert holds(route) is found


def test_retry_after_ends_it_within_the_second(
    route: Route, board: Board, clock: Clock, alarms: Alarms
) -> None:
    enter(board, clock, "default", make_record(State.OPEN, 7))
    route.refresh(board, clock.now)
    for _ in range(300):
        alarms.move(0.01)
        if not holds(route):
            route.refresh(board, clock.now)
        said = int(route.rejection.partition(b"Retry-After: ")[2].partition(b"\r\n")[0])
        assert said == route.page.decision.retry_after(clock.now)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("after_s", [-1.0, 0.0, 1e-5, 0.02])
def test_the_loop_calls_later_whatever_is_left(
    factory: Callable[[], asyncio.AbstractEventLoop], after_s: float
) -> None:
    async def story() -> None:
        called, loop = asyncio.Event(), asyncio.get_running_loop()
        timer = on_the_loop(after_s, called.set)
        assert loop.time() <= timer.when() < loop.time() + 1.0
        async with asyncio.timeout(10):
            await called.wait()
        cancelled = on_the_loop(after_s, lambda: pytest.fail("it was cancelled"))
        cancelled.cancel()
        await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(story())
