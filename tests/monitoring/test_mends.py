"""What a runbook says to do does what it says: those mends that nothing else here tries."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.acceptance.support import Consumers, Place, fleet, holds, timing
from tests.daemon import Daemon
from tests.monitoring.test_runbooks import FOLDER, fenced
from tests.servers import ConsulServer, consul_binary, poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.slow]  # a fleet has to wait

DEADLINE_S = 30.0
ORDERS = timing(
    report_interval="5s",  # so that five reporters stay fresh on a busy machine
    half_open={"initial": 0.1, "ramp": "400ms", "max": "800ms"},
)
FIVE = [f"c-{number}" for number in range(1, 6)]


@pytest.fixture
def place(consul: ConsulServer, prefix: str) -> Place:
    """Keys of this test alone."""
    return Place(consul, prefix)


def said(page: str, begins: str) -> list[str]:
    """The one command of a page that begins so, as words."""
    (line,) = [line for line in fenced(FOLDER / f"{page}.md", "console") if begins in line]
    return line.removeprefix("$ ").split()


def run_consul(place: Place, words: list[str]) -> None:
    """Run a page's command by Consul's own program, on this test's keys."""
    own = [word.replace("breaker/orders/", f"{place.state_prefix}/orders/") for word in words[1:]]
    subprocess.run(
        [consul_binary(), *own],
        check=True,
        capture_output=True,
        timeout=DEADLINE_S,
        env={**os.environ, "CONSUL_HTTP_ADDR": place.consul.address},
    )


def state(daemons: list[Daemon]) -> set[str]:
    """The states that are in force."""
    return {daemon.allowed("orders", peek=True).body["state"] for daemon in daemons}


def five_are_known(place: Place, daemons: list[Daemon]) -> bool:
    """All five report health, and the evaluator has noticed."""
    for instance in FIVE:
        place.report(instance, breaker="orders")
    seen = [daemon.get("/v1/breakers/orders").body["reporters"] for daemon in daemons]
    return any(reporters is not None and reporters["fresh"] == len(FIVE) for reporters in seen)


def test_a_breaker_that_waits_for_a_fleet_that_was_halved_closes(place: Place) -> None:
    """Half open past `half_open.max` with two of five; then as BreakerHalfOpenStuck says."""
    with fleet(place.config({"orders": ORDERS}), size=2) as daemons:
        poll_until_sync(lambda: five_are_known(place, daemons), DEADLINE_S, "five are known")
        place.report(FIVE[0], fail=25, breaker="orders")
        poll_until_sync(lambda: place.history("orders"), DEADLINE_S, "it opens")
        with Consumers(place, 2, every_s=0.1, breaker="orders"):
            poll_until_sync(lambda: state(daemons) == {"HALF_OPEN"}, DEADLINE_S, "half open")
            holds(lambda: state(daemons) == {"HALF_OPEN"}, 2.0, "it waits for the others")
            assert place.record("orders")["evidence"]["known"] == len(FIVE)
            run_consul(place, said("BreakerHalfOpenStuck", "consul kv delete"))
            poll_until_sync(lambda: state(daemons) == {"CLOSED"}, DEADLINE_S, "it closes")
            assert place.history("orders")[-1]["reason"] == "created"
            holds(lambda: state(daemons) == {"CLOSED"}, 2.0, "it stays closed")
