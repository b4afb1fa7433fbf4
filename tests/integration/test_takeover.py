"""Fast takeover on a real Consul: the dead and the paused are replaced soon, and write no more."""

from __future__ import annotations

import json
import statistics
import time

import pytest

from tests.integration.fleet import Fleet, events, metric, view
from tests.integration.takeover import fast, kill, late_write, reign, until_another, until_tripped
from tests.servers import ConsulServer, poll_until_sync
from tests.toxiproxy import Toxiproxy

pytestmark = pytest.mark.slow  # checks have to expire

CHECK_TTL = "2s"
LIMIT_S = 15.0
"""Consul doubles a session's ttl: by that alone nobody is replaced in less than 17 s."""
MIDDLE_S = 6.0
"""`python -m bench --only takeover` measures the target, on a machine that does nothing else."""
RUNS = 3
BREAKERS = 60
ANSWER_S = 0.1
"""What the way to a Consul in another region takes."""


def test_a_killed_evaluator_is_replaced_soon(consul: ConsulServer, prefix: str) -> None:
    """Each within the limit, the middle one sooner; no late write passes."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(RUNS + 1, consul=fast(fleet, CHECK_TTL))
        runs = [kill(fleet, LIMIT_S) for _ in range(RUNS)]
        assert sum(run.accepted for run in runs) == 0
        assert sum(run.late for run in runs) > RUNS
        assert statistics.median(run.seconds for run in runs) < MIDDLE_S
        survivor = reign(fleet).daemon
        until_tripped(fleet, 30)
        assert fleet.record()["epoch"] > RUNS, "every term has an epoch of its own"
        assert metric(survivor, "breaker_consul_requests_total", op="check_pass", outcome="ok")
        assert not events(survivor, "fast_takeover_off")


def test_a_paused_evaluator_wakes_up_in_anothers_term(consul: ConsulServer, prefix: str) -> None:
    """It knows by its own clock before it writes; a write of its session would be refused too."""
    with Fleet(consul, prefix, open_duration="6s") as fleet:
        fleet.start(2, consul=fast(fleet, "4s"))
        old = reign(fleet)
        until_tripped(fleet, 30)
        opened = fleet.record()
        commits = metric(old.daemon, "breaker_consul_requests_total", op="commit")
        began = time.monotonic()
        old.daemon.pause()
        until_another(fleet, old, began, LIMIT_S)
        assert not late_write(consul, fleet, old.session)
        half = fleet.wait_for("HALF_OPEN", 30)
        assert half["epoch"] > opened["epoch"]

        old.daemon.resume()
        poll_until_sync(lambda: events(old.daemon, "stood_down"), 15, "it knows its term is over")
        assert not late_write(consul, fleet, old.session)
        fleet.trip(15, open_count=2)
        poll_until_sync(lambda: view(old.daemon)["state"] == "OPEN", 15, "it follows")
        assert metric(old.daemon, "breaker_consul_requests_total", op="commit") == commits
        assert fleet.name(old.daemon) not in {e["evaluator"] for e in fleet.history()[1:]}
        seqs = [entry["seq"] for entry in fleet.history()]
        assert seqs == sorted(set(seqs))


def test_a_pause_shorter_than_the_check_costs_nothing(consul: ConsulServer, prefix: str) -> None:
    with Fleet(consul, prefix) as fleet:
        fleet.start(2, consul=fast(fleet, "8s"))
        old = reign(fleet)
        old.daemon.pause()
        time.sleep(1.0)  # how long it sleeps is the point
        old.daemon.resume()
        until_tripped(fleet, 30)
        assert fleet.record()["evaluator"] == fleet.name(old.daemon)
        assert reign(fleet).session == old.session
        assert not events(old.daemon, "stood_down")


def test_a_stop_hands_over_and_leaves_no_service(consul: ConsulServer, prefix: str) -> None:
    """The lock is released before the check goes, or this lock-delay would apply."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(2, consul=fast(fleet, "8s") | {"lock_delay": "60s"})
        old = reign(fleet)
        fleet.wait_for("CLOSED", 15)
        assert old.daemon.stop() == 0
        after = reign(fleet, 20)
        assert after.daemon is not old.daemon
        services = json.loads(consul.request("GET", "/v1/agent/services")[2])
        mine = {service for service in services if prefix in service}
        assert mine == {f"breaker-sidecar-{fleet.name(after.daemon)}"}


def test_many_breakers_of_a_dead_evaluator_are_taken_over_together(
    consul: ConsulServer, prefix: str
) -> None:
    """One after the other, each would cost a round trip; none is asked for twice."""
    locks = [f"{prefix}/b{number}/leader" for number in range(BREAKERS)]
    breakers = {f"b{number}": {"consul_key_prefix": f"{prefix}-r"} for number in range(BREAKERS)}

    def held(by: str) -> list[str]:
        entries = [consul.kv_entry(key) for key in locks]
        return [str(e["Session"]) for e in entries if e and e.get("Session") not in (None, by)]

    with Toxiproxy() as toxiproxy:
        proxy = toxiproxy.proxy("consul", int(consul.address.rpartition(":")[2]))
        with Fleet(consul, prefix, address=proxy.address) as fleet:
            (old,) = fleet.start(1, breakers=breakers)
            poll_until_sync(lambda: len(held("")) == BREAKERS, 30, "the first holds all")
            (session,) = set(held(""))
            (heir,) = fleet.start(1, breakers=breakers)
            proxy.slow(ANSWER_S)
            old.kill()
            consul.request("PUT", f"/v1/session/destroy/{session}")  # its ttl is over
            poll_until_sync(lambda: held(session), 15, "the first lock is taken")
            began = time.monotonic()
            poll_until_sync(lambda: len(held(session)) == BREAKERS, 30, "all are taken")
            assert time.monotonic() - began < (BREAKERS - 1) * ANSWER_S - 1.0
            assert len(set(held(session))) == 1
            poll_until_sync(
                lambda: metric(heir, "breaker_evaluator") == BREAKERS, 15, "it evaluates them"
            )
            assert metric(heir, "breaker_consul_requests_total", op="acquire") == BREAKERS
            assert metric(heir, "breaker_consul_requests_total", op="session_create") == 1
