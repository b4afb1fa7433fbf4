"""Being found in the catalog of a real Consul: while it runs, and not a moment longer."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from sidecar.core.ports import Service
from sidecar.store.consul import ConsulSettings, ConsulStore
from tests.daemon import Daemon
from tests.integration.fleet import events
from tests.servers import ConsulServer, free_port, poll_until, poll_until_sync
from tests.telemetry import RecordedTelemetry

SOON_S = 15.0


def found(consul: ConsulServer, name: str, *, passing: bool = True) -> list[dict[str, Any]]:
    """Who is listed under a name."""
    path = f"/v1/health/service/{name}" + ("?passing" if passing else "")
    status, _, body = consul.request("GET", path)
    assert status == 200
    listed: list[dict[str, Any]] = json.loads(body)
    return listed


def config(consul: ConsulServer, prefix: str, **register: object) -> dict[str, object]:
    return {
        "consul": {"address": consul.address, "state_prefix": prefix},
        "breakers": {"default": {"consul_key_prefix": f"{prefix}-reports"}},
        "register": {"check_interval": "1s", **register},
    }


def test_a_sidecar_is_found_while_it_runs(consul: ConsulServer, prefix: str) -> None:
    with Daemon(config(consul, prefix, name=prefix, tags=["a", "b"])) as daemon:
        (one,) = poll_until_sync(lambda: found(consul, prefix), SOON_S, "it is found, passing")
        assert one["Service"]["Port"] == daemon.port
        assert one["Service"]["Tags"] == ["a", "b"]
        assert one["Service"]["ID"].startswith(f"{prefix}-")
        with Daemon(config(consul, prefix, name=prefix)) as second:
            poll_until_sync(lambda: len(found(consul, prefix)) == 2, SOON_S, "the second too")
            second.send_signal(signal.SIGTERM)
            second.wait(SOON_S)
            assert len(found(consul, prefix, passing=False)) == 1
        assert daemon.stop() == 0
        assert not found(consul, prefix, passing=False)


def test_the_service_beside_it_is_found_by_its_own_check(consul: ConsulServer, prefix: str) -> None:
    """Another daemon stands for that service: it answers /livez."""
    with Daemon() as service:
        url = f"http://127.0.0.1:{service.port}/livez"
        register = {"name": prefix, "port": service.port, "address": "127.0.0.1", "check": url}
        with Daemon(config(consul, prefix, **register)):
            (one,) = poll_until_sync(lambda: found(consul, prefix), SOON_S, "it is found")
            assert (one["Service"]["Address"], one["Service"]["Port"]) == (
                "127.0.0.1",
                service.port,
            )
            service.kill()
            poll_until_sync(lambda: not found(consul, prefix), SOON_S, "it passes no more")
            assert len(found(consul, prefix, passing=False)) == 1


@pytest.mark.slow  # it is looked for every ten seconds
def test_an_agent_that_lost_it_has_it_again(prefix: str) -> None:
    with ConsulServer() as consul, Daemon(config(consul, prefix, name=prefix)) as daemon:
        poll_until_sync(lambda: found(consul, prefix), SOON_S, "it is found, passing")
        consul.restart()  # in memory: it has forgotten everything
        assert not found(consul, prefix, passing=False)
        poll_until_sync(lambda: found(consul, prefix), 2 * SOON_S, "it is found again")
        told = [event["again"] for event in events(daemon, "service_registered")]
        assert told == [False, True]
        consul.kill()
        assert daemon.stop() == 0, "also where nobody can be told"


async def test_what_the_agent_knows_and_forgets(consul: ConsulServer, prefix: str) -> None:
    store = ConsulStore(ConsulSettings(port=consul.port), RecordedTelemetry())
    service = Service(
        id=f"{prefix}-1",
        name=prefix,
        address="",
        port=free_port(),
        tags=(),
        check=f"http://127.0.0.1:{consul.port}/v1/status/leader",
        check_every_s=1.0,
    )
    try:
        assert not await store.has_service(service.id)
        await store.deregister_service(service.id)
        await store.register_service(service)
        assert await store.has_service(service.id)
        assert len(found(consul, prefix, passing=False)) == 1
        await poll_until(lambda: found(consul, prefix), SOON_S, "the agent's check passes")
        await store.register_service(service)
        assert len(found(consul, prefix, passing=False)) == 1, "the same one again"
        await store.deregister_service(service.id)
        assert not await store.has_service(service.id)
    finally:
        await store.close()
