"""Fast takeover on a real Consul: the dead and the paused are replaced soon, and write no more."""

from __future__ import annotations

import json
import statistics
import time

import pytest

from tests.integration.fleet import Fleet, events, metric, view
from tests.integration.takeover import fast, kill, late_write, reign, until_another, until_tripped
from tests.servers import ConsulServer, poll_until_sync

pytestmark = pytest.mark.slow  # checks have to expire

CHECK_TTL = "2s"
LIMIT_S = 15.0
"""Consul doubles a session's ttl: by that alone nobody is replaced in less than 17 s."""
MIDDLE_S = 6.0
"""`python -m bench --only takeover` measures the target, on a machine that does nothing else."""
RUNS = 3


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
