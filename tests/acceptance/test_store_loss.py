"""Consul goes away and comes back: what holds meanwhile, and that it is always visible.

Away is a frozen server (its kernel still takes connections, no answer ever comes) or one that
isn't there at all. `max_stale` is 5 s, the least there is, so staleness must show within 2.5 s.
"""

from __future__ import annotations

import contextlib
import math
import time

import pytest

from tests.acceptance.support import (
    Caller,
    Place,
    all_answer,
    events,
    holds,
    measured,
    series,
    timing,
)
from tests.daemon import Daemon
from tests.servers import ConsulServer, free_port, poll_until_sync

pytestmark = pytest.mark.consul

MAX_STALE_S = 5.0
SLACK_S = 0.7
"""What two busy cores may add to a deadline."""

WELL = timing(report_interval="1s")
# Trips just before the loss: one is over before the loss policy holds, one after, one much later.
BREAKERS = {
    "well": WELL,
    "soon": timing(open_duration="3s", half_open={"initial": 0.1, "ramp": "2s"}),
    "later": timing(
        open_duration="7s", max_open_duration="1m", half_open={"initial": 0.1, "ramp": "2s"}
    ),
    "long": timing(open_duration="1m", max_open_duration="1m"),
}


def _state(daemon: Daemon, name: str) -> tuple[str, str, bool]:
    """State, reason and staleness in force, from the headers."""
    headers = daemon.allowed(name, peek=True).headers
    return (
        headers["x-breaker-state"],
        headers["x-breaker-reason"],
        headers["x-breaker-stale"] == "true",
    )


def _consul(on_loss: str = "keep") -> dict[str, object]:
    return {"max_stale": f"{MAX_STALE_S:g}s", "on_loss": on_loss}


def test_keep_allow_and_deny_while_consul_is_frozen(own_place: Place) -> None:
    """Nothing changes until `max_stale`; then each policy's word; then all is as it was."""
    place = own_place
    with contextlib.ExitStack() as stack:
        by_policy = {
            on_loss: stack.enter_context(
                Daemon(place.config(BREAKERS, _consul(on_loss)), wait=False)
            )
            for on_loss in ("keep", "allow", "deny")
        }
        daemons = list(by_policy.values())
        for daemon in daemons:
            daemon.wait_ready()
        poll_until_sync(
            lambda: all(place.state(name) == "CLOSED" for name in BREAKERS), 10, "four records"
        )
        for name in ("long", "later", "soon"):
            place.report("c-1", fail=25, breaker=name)
            poll_until_sync(all_answer(daemons, 503, name), 3, f"{name} is open")
        tripped = time.monotonic()
        place.consul.freeze()
        frozen = time.monotonic()

        _before_the_policy(daemons, frozen)
        _policies(by_policy, frozen, tripped)
        _seen_from_outside(daemons)

        place.consul.thaw()
        # Whatever was believed meanwhile, the fleet's own record goes on where it stood: whoever
        # let go of a lock frees it at once, so that nobody waits for the old session's end.
        poll_until_sync(lambda: place.state("soon") == "HALF_OPEN", 8, "soon goes on")
        poll_until_sync(lambda: all(_joined(d) for d in daemons), 20, "all is as it was")
        for daemon in daemons:
            assert len(events(daemon, "store_lost")) == 1
            assert len(events(daemon, "store_back")) == 1
        edges = [(entry["from"], entry["to"]) for entry in place.history("soon")]
        assert edges == [("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN")]


def _joined(daemon: Daemon) -> bool:
    """Nothing is stale, and the record's word holds for every breaker."""
    return (
        not any(_state(daemon, name)[2] for name in BREAKERS)
        and _state(daemon, "well")[0] == "CLOSED"
        and _state(daemon, "long")[:2] == ("OPEN", "failures")
        and daemon.get("/readyz?strict=1").status == 200
    )


def _before_the_policy(daemons: list[Daemon], frozen: float) -> None:
    """Stale shows within half of `max_stale`; what was in force stays, even past its time."""
    poll_until_sync(
        lambda: all(_state(d, name)[2] for d in daemons for name in BREAKERS),
        MAX_STALE_S / 2 + SLACK_S,
        "stale everywhere",
    )
    assert time.monotonic() - frozen <= MAX_STALE_S / 2 + SLACK_S
    for daemon in daemons:
        assert _state(daemon, "well")[0] == "CLOSED"
        assert _state(daemon, "soon")[:2] == ("OPEN", "failures")
    # Counted from the last completed read, which may be a whole wait (0.5 s) before the freeze.
    while time.monotonic() < frozen + MAX_STALE_S - 0.5 - SLACK_S:
        assert all(d.allowed("soon", peek=True).status == 503 for d in daemons)
        time.sleep(0.05)


def _policies(by_policy: dict[str, Daemon], frozen: float, tripped: float) -> None:
    keep, allow, deny = by_policy["keep"], by_policy["allow"], by_policy["deny"]
    poll_until_sync(
        lambda: all(_state(d, "well")[1] == "store_lost" for d in by_policy.values()),
        frozen + MAX_STALE_S + SLACK_S - time.monotonic(),
        "the loss policy holds",
    )
    assert _state(keep, "well") == ("CLOSED", "store_lost", True)
    assert _state(keep, "soon") == ("HALF_OPEN", "store_lost", True)
    assert _state(keep, "long") == ("OPEN", "store_lost", True)
    assert _state(keep, "later")[0] == "OPEN", "its time isn't over"
    assert keep.allowed("soon", peek=True).body["admit_ratio"] == 0.1
    assert 50 <= int(keep.allowed("long").headers["retry-after"]) <= 66
    with Caller(keep) as caller:
        admitted = [caller.ask("/allowed/soon") for _ in range(200)].count(200)
    assert abs(admitted - 20) <= 1
    for name in BREAKERS:
        assert _state(allow, name) == ("CLOSED", "store_lost", True)
        assert allow.allowed(name).status == 200
        assert _state(deny, name) == ("OPEN", "store_lost", True)
        assert deny.allowed(name).status == 503
        assert int(deny.allowed(name).headers["retry-after"]) >= 1
    poll_until_sync(
        lambda: _state(keep, "later")[0] == "HALF_OPEN",
        tripped + 7 + SLACK_S - time.monotonic(),
        "its time is over, too",
    )


def _seen_from_outside(daemons: list[Daemon]) -> None:
    for daemon in daemons:
        ready = daemon.get("/readyz")
        assert ready.status == 200
        assert ready.body["stale"] is True
        assert daemon.get("/readyz?strict=1").status == 503
        assert daemon.get("/livez").status == 200
        metrics = series(daemon.get("/metrics"))
        for name in BREAKERS:
            assert metrics[f'breaker_stale{{breaker="{name}"}}'] == 1
        assert len(events(daemon, "store_lost")) == 1
        assert not events(daemon, "store_back")


def test_decisions_are_as_quick_while_consul_is_frozen(own_place: Place) -> None:
    """`/allowed` does no I/O, so that the 99th percentile stays about what it was."""
    config = own_place.config({"default": WELL}, _consul())
    with Daemon(config) as daemon:
        poll_until_sync(lambda: own_place.state() == "CLOSED", 10, "a record")
        before = _p99_s(daemon)
        own_place.consul.freeze()
        poll_until_sync(lambda: _state(daemon, "default")[2], 4, "stale")
        frozen = min(_p99_s(daemon) for _ in range(2))
        said = measured("p99 of /allowed before and while frozen", [before, frozen])
        assert frozen <= max(5 * before, before + 0.010), said


def _p99_s(daemon: Daemon, calls: int = 1000) -> float:
    """The 99th percentile of as many calls on one connection."""
    took: list[float] = []
    with Caller(daemon) as caller:
        for _ in range(calls):
            began = time.perf_counter()
            assert caller.ask("/allowed") == 200
            took.append(time.perf_counter() - began)
    return sorted(took)[math.floor(calls * 0.99)]


def test_a_daemon_started_while_consul_is_away_joins_when_it_comes(prefix: str) -> None:
    """It starts, says so, decides by policy, and takes part once it can."""
    server = ConsulServer()
    server.port = free_port()
    place = Place(server, prefix)
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        daemons = {
            on_loss: stack.enter_context(
                Daemon(place.config({"default": WELL}, _consul(on_loss)), wait=False)
            )
            for on_loss in ("keep", "allow", "deny")
        }
        for daemon in daemons.values():
            daemon.wait_ready(5)
        assert time.monotonic() - began < 5
        for on_loss, daemon in daemons.items():
            answer = daemon.allowed()
            assert answer.status == (503 if on_loss == "deny" else 200)
            assert answer.headers["x-breaker-reason"] == "no_state"
            assert answer.headers["x-breaker-stale"] == "true"
            assert daemon.get("/readyz").body["stale"] is True
            assert daemon.get("/readyz?strict=1").status == 503
        poll_until_sync(
            lambda: all(len(events(daemon, "store_lost")) == 1 for daemon in daemons.values()),
            3,
            "each has said so",
        )

        stack.callback(server.close)
        server.start()
        fleet = list(daemons.values())
        poll_until_sync(
            lambda: all(_state(d, "default") == ("CLOSED", "created", False) for d in fleet),
            20,
            "all have joined",
        )
        assert all(len(events(daemon, "store_back")) == 1 for daemon in fleet)
        place.report("c-1", fail=25)
        poll_until_sync(all_answer(fleet, 503), 3, "they take part")


def test_a_follower_alone_says_that_nobody_evaluates(place: Place) -> None:
    """It never stands; after `max_stale` without a lock holder it is stale, and not before."""
    with Daemon(place.config({"default": WELL}, _consul())) as evaluator:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        assert evaluator.stop() == 0
    with Daemon(place.config({"default": WELL}, _consul(), role="follower")) as follower:
        began = time.monotonic()
        assert _state(follower, "default") == ("CLOSED", "created", False)
        holds(
            lambda: not _state(follower, "default")[2], MAX_STALE_S - 1 - SLACK_S, "fresh at first"
        )
        poll_until_sync(lambda: _state(follower, "default")[2], 3, "stale")
        assert time.monotonic() - began <= MAX_STALE_S + SLACK_S
        assert _state(follower, "default") == ("CLOSED", "no_evaluator", True)
        assert follower.allowed().status == 200
        assert follower.get("/readyz?strict=1").status == 503
        lock = place.consul.kv_entry(place.key("leader"))
        assert lock is not None
        assert "Session" not in lock
        place.report("c-1", fail=25)
        holds(lambda: follower.allowed().status == 200, 0.5, "nobody evaluates the report")

        with Daemon(place.config({"default": WELL}, _consul())):
            poll_until_sync(
                lambda: _state(follower, "default") == ("OPEN", "failures", False),
                5,
                "it follows who evaluates",
            )
