"""The kit's reports: to a real sidecar, and straight to a real Consul where there is none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.consumer import ConsulKeys, Event, Report
from sidecar.consumer.consul import NotWritten
from sidecar.consumer.report import Reporter, instance_name
from tests.daemon import Daemon
from tests.servers import ConsulServer, free_port, poll_until
from tests.unit.consumer.fake import Kit
from tests.unit.consumer.records import Rec

PATIENCE_S = 20.0


async def handle(event: Event[bytes]) -> None:
    if event.value == b"2":
        raise ConnectionError("away")


def kit() -> Kit:
    made = Kit(handle)
    made.source.add(*[Rec(offset=n, key=b"%d" % n, value=b"%d" % n) for n in range(5)])
    return made


async def told(report: Report, look: Any) -> Any:
    """What there is to see once a runner with this report has said something."""
    made = kit()
    reporter = Reporter(made.flow, made.source, report)
    async with made.running():
        task = asyncio.create_task(reporter.run())
        try:
            return await poll_until(look, PATIENCE_S, "it was reported")
        finally:
            task.cancel()
            await reporter.leave()


async def test_a_local_sidecar_hears_counts_latency_and_lag_and_the_goodbye() -> None:
    config = {"breakers": {"orders": {"failure_threshold": 1000, "report_interval": "1s"}}}
    with Daemon(config) as daemon:

        def failures() -> Any:
            found = daemon.get("/v1/breakers/orders").body
            (signal,) = found["signals"]
            return signal["evidence"].get("failures") == 2 and found

        report = Report(
            breaker="orders",
            instance="worker-1",
            interval_s=0.2,
            address=f"127.0.0.1:{daemon.port}",
        )
        assert (await told(report, failures))["reporters"] == {"fresh": 1, "stale": 0}
        answer = daemon.request("DELETE", "/v1/report/orders/worker-1")
        assert answer.status == 404, "it has withdrawn already"


async def test_without_a_sidecar_consul_gets_the_source_systems_format_until_the_stop(
    consul: ConsulServer, prefix: str
) -> None:
    report = Report(
        instance="worker-1",
        interval_s=0.2,
        address=f"127.0.0.1:{free_port()}",
        consul=ConsulKeys(
            prefix=f"{prefix}/reports/",
            environ={"CONSUL_HTTP_ADDR": f"http://127.0.0.1:{consul.port}"},
        ),
    )
    key = f"{prefix}/reports/worker-1"
    value = json.loads(await told(report, lambda: consul.kv_get(key)))
    assert {"timestamp", "rate_ok", "count_fail", "count_ok", "interval", "role"} <= value.keys()
    assert (value["role"], value["count_ok"], value["count_fail"]) == ("consumer", 5, 2)
    assert value["rate_ok"] > 0
    assert value["lag"] == 0
    assert consul.kv_get(key) is None


async def test_what_nobody_took_is_told_with_the_next_report(
    consul: ConsulServer, prefix: str
) -> None:
    environ = {"CONSUL_HTTP_ADDR": f"127.0.0.1:{free_port()}"}
    report = Report(
        instance="worker-1",
        interval_s=0.05,
        address=f"127.0.0.1:{free_port()}",
        consul=ConsulKeys(prefix=prefix, environ=environ),
    )
    made = kit()
    reporter = Reporter(made.flow, made.source, report)
    async with made.running():
        task = asyncio.create_task(reporter.run())
        await poll_until(lambda: made.committed() == 5, PATIENCE_S, "all are done with")
        await asyncio.sleep(0.3)
        environ["CONSUL_HTTP_ADDR"] = f"127.0.0.1:{consul.port}"
        key = f"{prefix}/worker-1"
        value = json.loads(await poll_until(lambda: consul.kv_get(key), PATIENCE_S, "it came"))
        task.cancel()
        await reporter.leave()
    assert value["count_ok"] == 5
    assert value["count_fail"] == 2
    assert value["interval"] > 0.2


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"NOMAD_ALLOC_ID": "a1", "NOMAD_TASK_NAME": "worker"}, "a1-worker"),
        ({"NOMAD_ALLOC_ID": "a1", "NOMAD_TASK_NAME": "wörker 1"}, "a1-w-rker-1"),
    ],
)
def test_an_instance_is_named_after_its_allocation(environ: dict[str, str], name: str) -> None:
    assert instance_name(environ) == name


def test_what_can_not_be_is_refused() -> None:
    for wrong in (
        {"breaker": "a/b"},
        {"instance": "a b"},
        {"interval_s": 0.0},
        {"address": "http://"},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - an AddressError is one
            Report(**wrong)


@pytest.mark.consul
def test_consul_is_reached_by_the_variables_that_all_its_clients_know(tmp_path: Path) -> None:
    socket = tmp_path / "consul.sock"
    with ConsulServer(acl=True, unix_path=socket) as guarded:
        token = guarded.make_token('key_prefix "ours/" { policy = "write" }').secret
        file = tmp_path / "token"
        file.write_text(f"{token}\n")
        over_tcp = {"CONSUL_HTTP_ADDR": f"127.0.0.1:{guarded.port}", "CONSUL_HTTP_TOKEN": token}
        over_unix = {"CONSUL_HTTP_ADDR": f"unix://{socket}", "CONSUL_HTTP_TOKEN_FILE": str(file)}
        for instance, environ in (("tcp", over_tcp), ("unix", over_unix)):
            keys = ConsulKeys(prefix="ours", environ=environ)
            keys.put(instance, b"{}", 5.0)
            assert guarded.kv_get(f"ours/{instance}") == b"{}"
            keys.delete(instance, 5.0)
            assert guarded.kv_get(f"ours/{instance}") is None
        with pytest.raises(NotWritten, match="403"):
            ConsulKeys(prefix="theirs", environ=over_tcp).put("w", b"{}", 5.0)
        with pytest.raises(NotWritten, match="no address"):
            ConsulKeys(environ={"CONSUL_HTTP_ADDR": "http://"}).put("w", b"{}", 5.0)
