"""A bridge network: each allocation has its own localhost, and reaches Consul by its socket.

All of it happens in a network of the test's own: Nomad, its bridge, its firewall rules.
"""

from __future__ import annotations

import http.client
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.support import series
from tests.daemon import Answer
from tests.nomad.agent import NomadAgent
from tests.nomad.api import Alloc
from tests.nomad.fleet import APP, CHANGE_S, HERE, PROGRAMS, START_S, Usual, variant
from tests.nomad.namespace import Namespace
from tests.servers import ConsulServer, poll_until_sync

pytestmark = pytest.mark.nomad

PORT = 9100
"""Where a sidecar listens that was told nothing."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="breaker-") as made:
        yield Path(made)


@pytest.fixture
def network() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def ask(network: Namespace, port: int, path: str) -> Answer:
    """What the host's address answers to somebody on the host."""

    def request() -> Answer:
        connection = http.client.HTTPConnection(network.address, port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, {}, response.read())
        finally:
            connection.close()

    return network.call(request)


def passing(nomad: NomadAgent, alloc: Alloc) -> bool:
    """Whether Nomad's own checks of an allocation pass."""
    checks = nomad.get(f"/v1/client/allocation/{alloc['ID']}/checks")
    return bool(checks) and {one["Status"] for one in checks.values()} == {"success"}


def test_consul_by_its_socket_and_diagnostics_on_a_mapped_port(
    network: Namespace, folder: Path
) -> None:
    programs = {**HERE, APP: (sys.executable, str(PROGRAMS / "app.py"))}
    with (
        ConsulServer(unix_path=folder / "http.sock") as consul,
        NomadAgent(namespace=network) as nomad,
    ):
        place = Usual(consul, "")
        env = place.env()
        del env["BREAKER_SIDECAR__CONSUL__ADDRESS"]  # the file's own is what this is about
        job = variant(nomad, "bridge", env, programs, app_image=APP, consul_socket_dir=str(folder))
        nomad.run(job)
        allocs = nomad.running(job, 2, START_S)
        ports = [nomad.port_of(alloc, "diagnostics") for alloc in allocs]
        poll_until_sync(
            lambda: all(nomad.log_of(one, "app", "stdout") == "200\n" for one in allocs),
            CHANGE_S,
            "each application is answered on its own localhost",
        )
        poll_until_sync(
            lambda: all(passing(nomad, alloc) for alloc in allocs), CHANGE_S, "the checks pass"
        )
        assert [ask(network, port, "/allowed").status for port in ports] == [404, 404]
        with pytest.raises(ConnectionRefusedError):
            ask(network, PORT, "/allowed")
        place.report("c-1", fail=25)
        opened = 'breaker_state{breaker="default",state="OPEN"}'
        poll_until_sync(
            lambda: all(series(ask(network, port, "/metrics"))[opened] == 1 for port in ports),
            CHANGE_S,
            "both follow Consul",
        )
