"""Ways to a real Consul: a renewed token, a unix socket, and a server that asks for less."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from tests.integration.fleet import Fleet, events, metric
from tests.integration.takeover import reign, until_tripped
from tests.integration.test_policies import policy
from tests.servers import ConsulServer, poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.slow]

SOON_S = 15.0
REQUESTS = "breaker_consul_requests_total"


def test_a_rotated_token_is_taken_up_without_a_restart(tmp_path: Path, prefix: str) -> None:
    """As Nomad and Vault do it: a new token in the file, and only then the old one is revoked."""
    path = tmp_path / "token"
    with ConsulServer(acl=True) as server, Fleet(server, prefix) as fleet:
        rules = policy("auto", prefix)
        first, second = server.make_token(rules), server.make_token(rules)
        path.write_text(first.secret)
        section = {"address": server.address, "state_prefix": prefix, "token_file": str(path)}
        (daemon,) = fleet.start(1, consul=section)
        old = reign(fleet)
        fresh = path.with_suffix(".new")
        fresh.write_text(second.secret + "\n")
        fresh.rename(path)
        sent = metric(daemon, REQUESTS, op="session_renew", outcome="ok")
        poll_until_sync(
            lambda: metric(daemon, REQUESTS, op="session_renew", outcome="ok") >= sent + 2,
            30,
            "the session is renewed after that",
        )
        status, _, found = server.request("GET", "/v1/acl/token/self", token=first.secret)
        assert status == 200
        accessor = re.search(rb'"AccessorID": *"([^"]+)"', found)
        assert accessor is not None
        gone = f"/v1/acl/token/{accessor.group(1).decode()}"
        assert server.request("DELETE", gone)[0] == 200
        fleet.trip(30)
        fleet.all_answer(503)
        fleet.heal(30)
        assert reign(fleet).session == old.session, "no term was lost by it"
        assert not events(daemon, "stood_down")


def test_a_revoked_token_costs_a_term_until_the_next_is_there(tmp_path: Path, prefix: str) -> None:
    """The other order: denied, it stands down by its clock, and comes back by itself."""
    path = tmp_path / "token"
    with ConsulServer(acl=True) as server, Fleet(server, prefix) as fleet:
        token = server.make_token(policy("auto", prefix))
        path.write_text(token.secret)
        section = {"address": server.address, "state_prefix": prefix, "token_file": str(path)}
        (daemon,) = fleet.start(1, consul=section)
        reign(fleet)
        server.set_rules(token, "")
        poll_until_sync(lambda: events(daemon, "stood_down"), 40, "it can't go on")
        assert daemon.allowed().status == 200
        path.write_text(server.make_token(policy("auto", prefix)).secret)
        fleet.trip(40)
        fleet.all_answer(503)


def test_an_agent_on_a_unix_socket(tmp_path: Path, prefix: str) -> None:
    """All of it: elections, reports, the check of a fast takeover; also after the agent is away."""
    path = tmp_path / "consul.sock"
    data = tmp_path / "data"
    with (
        ConsulServer(unix_path=path, data_dir=data) as server,
        Fleet(server, prefix, address=f"unix://{path}") as fleet,
    ):
        section = {"address": f"unix://{path}", "state_prefix": prefix, "fast_takeover": "5s"}
        (daemon,) = fleet.start(1, consul=section)
        reign(fleet)
        fleet.trip(SOON_S)
        fleet.all_answer(503)
        server.stop()
        poll_until_sync(lambda: events(daemon, "store_lost"), SOON_S, "it is away")
        server.start()
        fleet.heal(60)
        fleet.all_answer(200)
        assert fleet.edges()[0] == ("CLOSED", "OPEN")
        assert fleet.edges()[-1] == ("HALF_OPEN", "CLOSED")
        assert daemon.stop() == 0


LIMITED = 'limits { request_limits { mode = "enforcing" read_rate = 500 write_rate = 10 } }'
"""So many writes a second that a small fleet needs no more, and a flood uses up."""


class Flood:
    """Somebody else's writes, which use up what the server gives. A context manager."""

    def __init__(self, server: ConsulServer) -> None:
        self._server = server
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(2)]
        self.refused = 0

    def _write(self) -> None:
        while not self._end.wait(0.01):
            try:
                status, _, _ = self._server.request("PUT", "/v1/kv/flood/a", b"1")
            except OSError:
                continue
            self.refused += status in (429, 503)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(20)


def test_a_server_that_asks_for_less_is_obeyed(tmp_path: Path, prefix: str) -> None:
    """Refused renewals are no loss of the session, and nobody storms meanwhile."""
    calm = {"evaluation_interval": "5s", "open_duration": "60s", "max_open_duration": "60s"}
    with (
        ConsulServer(data_dir=tmp_path, config=LIMITED) as server,
        Fleet(server, prefix, **calm) as fleet,
    ):
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED", SOON_S)
        old = reign(fleet)
        with Flood(server) as flood:
            throttled = {"op": "session_renew", "outcome": "throttled"}
            poll_until_sync(lambda: metric(daemon, REQUESTS, **throttled), 30, "one is refused")
        renewed = metric(daemon, REQUESTS, op="session_renew", outcome="ok")
        poll_until_sync(
            lambda: metric(daemon, REQUESTS, op="session_renew", outcome="ok") > renewed + 1,
            30,
            "it is renewed again",
        )
        assert flood.refused
        assert reign(fleet).session == old.session
        assert not events(daemon, "stood_down")

        with Flood(server):
            before, began = metric(daemon, REQUESTS), time.monotonic()
            fleet_answers = {daemon.allowed(peek=True).status}
            while time.monotonic() < began + 5.0:
                fleet_answers.add(daemon.allowed(peek=True).status)
                time.sleep(0.1)
            rate = (metric(daemon, REQUESTS) - before) / (time.monotonic() - began)
        assert fleet_answers == {200}
        assert rate < 20, "it backs off"
        assert metric(daemon, REQUESTS, outcome="lost") == 0
        until_tripped(fleet, 60)
        fleet.all_answer(503, SOON_S)
        assert fleet.record()["seq"] == 2
        assert fleet.edges() == [("CLOSED", "OPEN")]
