"""Who evaluates: hand-over, takeover, paused holders, and what is done to the lock key."""

from __future__ import annotations

import json
import logging
import time

import pytest

from tests.integration.fleet import Fleet, events, metric, stays, view
from tests.servers import ConsulServer, poll_until_sync

pytestmark = pytest.mark.slow  # sessions have to expire

TTL_S = 10.0
LOCK_DELAY_S = 1.0
TAKEOVER_S = 2 * TTL_S + LOCK_DELAY_S + 2.0
"""How long a breaker may be without its evaluator after a kill -9."""

FIGURES = logging.getLogger("figures")
"""What was measured: `pytest --log-cli-level=info` shows it."""


def test_a_stopped_evaluator_hands_over_and_its_successor_goes_on(
    consul: ConsulServer, prefix: str
) -> None:
    """In the middle of a second ramp: ratio, open_count, seq and epoch are taken up."""
    slow = {"initial": 0.05, "ramp": "16s", "max": "60s"}
    with Fleet(consul, prefix, open_duration="500ms", half_open=slow) as fleet:
        fleet.start(3)
        fleet.wait_for("CLOSED")
        fleet.trip()
        fleet.wait_for("HALF_OPEN")
        fleet.trip(open_count=2)
        fleet.wait_for("HALF_OPEN")
        fleet.with_reports(lambda: fleet.record()["admit_ratio"] > 0.05, 8, "a first step")
        before = fleet.record()
        first = fleet.evaluator()
        sent = time.monotonic()
        assert first.stop() == 0
        stopped_s = time.monotonic() - sent
        poll_until_sync(
            lambda: fleet.holder() not in (None, fleet.name(first)), 2, "another holds the lock"
        )
        gone_s = time.monotonic() - sent
        FIGURES.info("stopped after %.3f s, handed over after %.3f s", stopped_s, gone_s)
        assert gone_s < 1.0

        fleet.daemons.remove(first)
        after = fleet.with_reports(
            lambda: (r := fleet.record())["seq"] > before["seq"] and r, 8, "the next step"
        )
        assert after["seq"] == before["seq"] + 1
        assert after["current_state"] == "HALF_OPEN"
        assert after["evaluator"] != before["evaluator"]
        assert after["last_changed"] == before["last_changed"]
        assert after["open_count"] == 2
        assert after["epoch"] > before["epoch"]
        assert after["admit_ratio"] > before["admit_ratio"]
        assert after["admit_ratio"] < 1.6 * before["admit_ratio"], "one step, not two"


def test_a_killed_and_a_paused_evaluator_are_replaced(consul: ConsulServer, prefix: str) -> None:
    """Two fleets, one wait. The paused one wakes up in another's term, and writes nothing."""
    killed_at: dict[str, float] = {}
    took_s: dict[str, float] = {}
    with (
        Fleet(consul, f"{prefix}-kill", open_duration="2s") as killed,
        Fleet(consul, f"{prefix}-stop", open_duration="2s") as paused,
    ):
        both = {"kill": killed, "stop": paused}
        for fleet in both.values():
            fleet.start(2)
        first = {kind: fleet.evaluator() for kind, fleet in both.items()}
        opened = {kind: fleet.trip() for kind, fleet in both.items()}
        written = metric(first["stop"], "breaker_evaluations_total", result="written")
        commits = metric(first["stop"], "breaker_consul_requests_total", op="commit")
        first["kill"].kill()
        killed_at["kill"] = time.monotonic()
        first["stop"].pause()
        killed_at["stop"] = time.monotonic()

        def replaced() -> bool:
            for kind, fleet in both.items():
                old = fleet.name(first[kind])
                if kind not in took_s and fleet.holder() not in (None, old):
                    took_s[kind] = time.monotonic() - killed_at[kind]
            return len(took_s) == 2

        poll_until_sync(replaced, TAKEOVER_S, "both are replaced")
        for kind, after_s in took_s.items():
            FIGURES.info("replaced %.2f s after a %s", after_s, kind)
            assert after_s < TAKEOVER_S
        for kind, fleet in both.items():
            half = fleet.wait_for("HALF_OPEN", 3)
            assert half["seq"] == opened[kind]["seq"] + 1
            assert half["epoch"] > opened[kind]["epoch"]
            assert half["open_count"] == 1

        first["stop"].resume()
        poll_until_sync(
            lambda: view(first["stop"])["state"] == "HALF_OPEN", 5, "it sees what happened"
        )
        poll_until_sync(lambda: events(first["stop"], "stood_down"), 5, "it knows its term is over")
        paused.trip(open_count=2)
        paused.all_answer(503)
        paused.with_reports(
            lambda: paused.record()["current_state"] == "CLOSED", 15, "the other heals it"
        )
        assert metric(first["stop"], "breaker_evaluations_total", result="written") == written
        assert metric(first["stop"], "breaker_consul_requests_total", op="commit") == commits
        others = {entry["evaluator"] for entry in paused.history()[1:]}
        assert others == {paused.name(paused.evaluator())}
        assert paused.name(first["stop"]) not in others
        seqs = [entry["seq"] for entry in paused.history()]
        assert seqs == sorted(set(seqs))


def test_a_session_exists_only_while_holding_or_trying(consul: ConsulServer, prefix: str) -> None:
    """Six sidecars that know one breaker are one session, and none once they have stopped."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(6)
        fleet.evaluator()
        poll_until_sync(lambda: len(fleet.sessions()) == 1, 3, "one session")
        stays(lambda: len(fleet.sessions()) == 1, 1.0, "one session")
        assert fleet.sessions() == [f"breaker-sidecar {fleet.holder()}"]
        for daemon in fleet.daemons:
            assert daemon.stop() == 0
        assert fleet.sessions() == []


def test_a_follower_never_stands(consul: ConsulServer, prefix: str) -> None:
    """It has no session, takes no free lock, and obeys what others write."""
    with Fleet(consul, prefix) as fleet:
        followers = fleet.start(2, role="follower")
        stays(lambda: not fleet.sessions() and not fleet.holder(), 1.2, "followers don't stand")
        assert fleet.record() == {}
        (evaluator,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        assert fleet.sessions() == [f"breaker-sidecar {fleet.name(evaluator)}"]
        fleet.trip()
        fleet.all_answer(503)
        assert evaluator.stop() == 0
        fleet.daemons.remove(evaluator)
        stays(lambda: not fleet.sessions() and not fleet.holder(), 1.2, "followers don't stand")
        assert all(not view(daemon)["evaluating"] for daemon in followers)


def test_a_plain_put_on_the_lock_key_is_survived(consul: ConsulServer, prefix: str) -> None:
    """The session still holds it: its holder says so again, reports it, and goes on."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(2)
        first = fleet.evaluator()
        consul.kv_put(fleet.lock, "junk")
        poll_until_sync(lambda: fleet.holder() == fleet.name(first), 5, "the value is restored")
        consul.kv_put(fleet.lock, "more of it")  # within a second of the correction
        poll_until_sync(lambda: fleet.holder() == fleet.name(first), 5, "the value is restored")
        assert set(json.loads(consul.kv_get(fleet.lock) or b"")) >= {"instance", "address", "since"}
        assert events(first, "lock_broken")
        assert view(first)["evaluating"]
        fleet.trip()
        fleet.all_answer(503)
        consul.kv_put(fleet.lock, b"")
        fleet.heal()
        poll_until_sync(lambda: fleet.holder() == fleet.name(first), 5, "restored again")


def test_a_deleted_lock_key_is_survived(consul: ConsulServer, prefix: str) -> None:
    """By one sidecar alone and by two: somebody has it again within two seconds."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(1)
        for size in (1, 2):
            fleet.evaluator()
            consul.kv_delete(fleet.lock)
            poll_until_sync(fleet.holder, 2, f"one of {size} holds the lock")
            fleet.trip()
            fleet.all_answer(503)
            fleet.heal()
            poll_until_sync(lambda: len(fleet.sessions()) == 1, 3, "one session")
            if size == 1:
                fleet.start(1)


def test_two_hundred_trips_seen_by_ten_sidecars_are_one(consul: ConsulServer, prefix: str) -> None:
    """Each of the reports alone reaches the threshold: one transition, one epoch, no fork."""
    with Fleet(consul, prefix, open_duration="60s", max_open_duration="60s") as fleet:
        fleet.start(10)
        before = fleet.wait_for("CLOSED", 10)
        fleet.report_all(200, fail=25)
        fleet.all_answer(503, 10)
        poll_until_sync(
            lambda: {view(d)["reporters"]["fresh"] for d in [fleet.evaluator()]} == {200},
            10,
            "all the reports are read",
        )
        after = fleet.record()
        assert after["seq"] == before["seq"] + 1
        assert after["epoch"] == before["epoch"]
        assert fleet.edges() == [("CLOSED", "OPEN")]
        seen = [view(daemon) for daemon in fleet.daemons]
        assert {(v["seq"], v["epoch"], v["state"]) for v in seen} == {
            (after["seq"], after["epoch"], "OPEN")
        }
        assert sum(metric(d, "breaker_transitions_total") for d in fleet.daemons) == 1
