"""The example services as they are run, with a sidecar, on a real Kafka and a real Consul."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import ROOT, ConsulServer, free_port, poll_until_sync

pytestmark = [pytest.mark.kafka, pytest.mark.consul]

SOON_S = 30.0
KEYS = [f"customer-{n}" for n in range(20)]


class Service:
    """One of the programs, with its settings in a file."""

    def __init__(self, folder: Path, name: str, **settings: object) -> None:
        self._log = folder / f"{name}.log"
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings), "utf-8")
        self._command = [sys.executable, "-m", f"examples.services.{name}", "-c", str(file)]
        self.port = int(str(settings.get("listen", ":0")).rpartition(":")[2])

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ}
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(SOON_S)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(SOON_S)

    def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of an answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {name.replace("_", "-"): value for name, value in headers.items()},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, dict(fault.headers), fault.read().decode()

    def post(self, key: str, **headers: str) -> tuple[int, Mapping[str, str], dict[str, Any]]:
        status, got, text = self.ask("POST", "/api/v1/task", {"key": key}, **headers)
        return status, got, json.loads(text)

    def alive(self) -> bool:
        try:
            return self.ask("GET", "/livez")[0] == 200
        except OSError:
            return False


@pytest.fixture
def sidecar(consul: ConsulServer, prefix: str) -> Iterator[Daemon]:
    """Registers the database, and keeps the breaker."""
    port = free_port()
    config = {
        "consul": {"address": consul.address, "state_prefix": prefix},
        "register": {
            "name": f"{prefix}-db",
            "address": "127.0.0.1",
            "port": port,
            "check": f"http://127.0.0.1:{port}/livez",
            "check_interval": "1s",
        },
        "breakers": {
            "tasks": {
                "consul_key_prefix": f"{prefix}-reports",
                "evaluation_interval": "500ms",
                "report_interval": "1s",
                "open_duration": "1s",
                "half_open": {"initial": 0.5, "ramp": "1s", "max": "20s"},
            }
        },
    }
    with Daemon(config) as daemon:
        yield daemon


@pytest.fixture
def api(kafka: Kafka, prefix: str, sidecar: Daemon, tmp_path: Path) -> Iterator[Service]:
    kafka.create_topic(prefix, 4)
    with Service(
        tmp_path,
        "api",
        listen=f"127.0.0.1:{free_port()}",
        kafka=kafka.bootstrap,
        topic=prefix,
        sidecar=f"127.0.0.1:{sidecar.port}",
    ) as service:
        poll_until_sync(service.alive, SOON_S, "the API answers")
        yield service


@pytest.fixture
def working(
    kafka: Kafka, consul: ConsulServer, prefix: str, sidecar: Daemon, tmp_path: Path
) -> Iterator[tuple[Service, Service]]:
    """The database where the sidecar says it is, and a worker that finds it in Consul."""
    assert sidecar.file is not None
    port = yaml.safe_load(sidecar.file.read_text("utf-8"))["register"]["port"]
    database = Service(tmp_path, "database", listen=f"127.0.0.1:{port}", write_s=0.0)
    worker = Service(
        tmp_path,
        "worker",
        kafka=kafka.bootstrap,
        topic=prefix,
        group=prefix,
        consul=consul.address,
        database=f"{prefix}-db",
        sidecar=f"127.0.0.1:{sidecar.port}",
        report_interval_s=1.0,
        instance="worker-1",
        store=str(tmp_path / "known.db"),
        newest_only=False,
        brake_most_s=0.5,
        retry_delays_s=[1.0, 5.0],
    )
    with database, worker:
        poll_until_sync(database.alive, SOON_S, "the database answers")
        yield database, worker


def test_the_api_publishes_with_identity_version_and_a_key(
    api: Service, kafka: Kafka, prefix: str
) -> None:
    told = [api.post(key) for key in KEYS * 2]
    assert {status for status, _, _ in told} == {202}
    again = [api.post("again", Idempotency_Key="mine")[2] for _ in range(2)]
    assert {answer["id"] for answer in again} == {"mine"}
    records = kafka.read(prefix, len(told) + 2)
    ids = {answer["id"]: answer for _, _, answer in told} | {"mine": again[-1]}
    partitions: dict[bytes, set[int]] = {}
    for record in records:
        headers = dict(record.headers)
        event = json.loads(record.value)
        assert headers["id"].decode() == event["id"]
        assert headers["id"].decode() in ids
        assert headers["version"].decode() == str(event["version"])
        partitions.setdefault(record.key, set()).add(record.partition)
    assert all(len(found) == 1 for found in partitions.values()), "one key, one partition"
    assert len({min(found) for found in partitions.values()}) > 1
    assert api.stop() == 0


def test_an_open_breaker_is_told_with_retry_after(api: Service, sidecar: Daemon) -> None:
    assert api.post("a")[0] == 202
    sidecar.post("/v1/report/tasks", {"instance": "c", "count_fail": 25})
    _, headers, _ = poll_until_sync(
        lambda: answer if (answer := api.post("a"))[0] == 503 else None, SOON_S, "it is refused"
    )
    assert int(headers["Retry-After"]) >= 1


def test_an_outage_of_the_database_loses_nothing(
    api: Service,
    working: tuple[Service, Service],
    sidecar: Daemon,
    consul: ConsulServer,
    prefix: str,
) -> None:
    """The worker finds the database through Consul, trips the breaker, and catches up."""
    database, worker = working
    accepted: set[str] = set()

    def send() -> None:
        for key in KEYS:
            status, _, answer = api.post(key)
            if status == 202:
                accepted.add(answer["id"])

    def until(state: str, within_s: float) -> None:
        def reached() -> bool:
            send()
            return bool(sidecar.get("/v1/breakers/tasks").body["state"] == state)

        poll_until_sync(reached, within_s, f"it is {state}")

    def handled() -> set[str]:
        return {line.split()[0] for line in database.ask("GET", "/tasks")[2].splitlines()}

    send()
    poll_until_sync(lambda: accepted <= handled(), SOON_S, "all is handled")
    assert database.ask("PUT", "/mode/down")[0] == 200
    until("OPEN", SOON_S)
    assert database.ask("PUT", "/mode/healthy")[0] == 200
    until("CLOSED", 60.0)
    poll_until_sync(lambda: accepted <= handled(), 60.0, "nothing is lost")
    key = f"{prefix}-reports/worker-1"
    assert consul.kv_get(key) is not None
    assert worker.stop() == 0, worker.log[-3000:]
    poll_until_sync(lambda: consul.kv_get(key) is None, SOON_S, "it said goodbye")
