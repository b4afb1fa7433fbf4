"""A publishing allocation on another host, and back: its spool stays where it was, and waits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from sidecar.cli.main import cli
from tests.gateways import ask
from tests.kafka import Kafka
from tests.nomad.agent import NomadAgent
from tests.nomad.api import Alloc
from tests.nomad.fleet import HERE, IMAGE, START_S
from tests.nomad.variants import SECOND, Job
from tests.servers import poll_until_sync
from tests.toxiproxy import Proxy, Toxiproxy

pytestmark = [pytest.mark.nomad, pytest.mark.kafka]

BACK_S = 60.0


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[NomadAgent, NomadAgent]]:
    """Two hosts, each with a folder for the spools of what runs on it."""
    folders = [tmp_path / "near", tmp_path / "far"]
    with (
        NomadAgent(meta={"spool": str(folders[0])}) as near,
        NomadAgent(meta={"spool": str(folders[1])}, joins=near) as far,
    ):
        yield near, far
        near.stop_all()


@pytest.fixture
def way(kafka: Kafka, toxiproxy: Toxiproxy) -> Proxy:
    """The only way to Kafka that the sidecars know."""
    return toxiproxy.proxy(f"spool-{uuid.uuid4().hex[:8]}", kafka.broker.port)


def publisher(topic: str, way: Proxy, folder: Path) -> Job:
    """One allocation with a sidecar whose spool lies on its host."""
    file = folder / "breaker.yaml"
    publish = {"timeout": "3s", "delivery_timeout": "1s", "topics": {topic: {}}}
    file.write_text(
        yaml.safe_dump(
            {
                "store": "memory",
                "kafka": {"bootstrap_servers": [way.address]},
                "publish": publish,
            }
        ),
        "utf-8",
    )
    command, *first = HERE[IMAGE]
    task = {
        "Name": "breaker",
        "Driver": "raw_exec",
        "Config": {"command": command, "args": [*first, "run", "-c", str(file)]},
        "Env": {"BREAKER_SIDECAR__SPOOL__DIR": "${meta.spool}"},
        "Resources": {"CPU": 100, "MemoryMB": 128},
    }
    group = {
        "Name": "publisher",
        "Count": 1,
        "Networks": [{"Mode": "host", "DynamicPorts": [{"Label": "breaker"}]}],
        "Tasks": [task],
        "Migrate": {"MaxParallel": 1, "HealthCheck": "task_states", "MinHealthyTime": SECOND // 5},
    }
    return {
        "ID": f"publisher-{topic}",
        "Name": "publisher",
        "Type": "service",
        "Datacenters": ["dc1"],
        "TaskGroups": [group],
    }


def publish(port: int, topic: str, numbers: range) -> set[str]:
    """Hand records over; what became of them."""
    headers = {"Content-Type": "application/octet-stream", "Kafka-Partition": "0"}
    return {
        str(ask(port, "POST", f"/v1/publish/{topic}", headers, b"%d" % number).body["status"])
        for number in numbers
    }


def waiting(port: int) -> int:
    return int(ask(port, "GET", "/v1/spool", {}).body["records"])


def kept(folder: Path) -> dict[str, int]:
    """Records by spool, of those that no sidecar uses."""
    done = CliRunner().invoke(cli, ["spool", "ls", "--folder", str(folder), "-o", "json"])
    assert done.exit_code == 0, done.stderr
    return {
        spool["spool"]: sum(backlog["records"] for backlog in spool["backlogs"])
        for spool in json.loads(done.stdout)["spools"]
        if not spool["in_use"]
    }


def test_a_rescheduled_allocations_spool_waits_for_the_host_to_be_used_again(
    hosts: tuple[NomadAgent, NomadAgent], kafka: Kafka, way: Proxy, tmp_path: Path
) -> None:
    nomad = hosts[0]
    folders = {
        host.node_id: tmp_path / name for host, name in zip(hosts, ("near", "far"), strict=True)
    }
    topic = kafka.create_topic(f"t-{uuid.uuid4().hex[:8]}")
    job = publisher(topic, way, tmp_path)

    def up(elsewhere: str | None = None) -> tuple[Alloc, int]:
        """The allocation that runs, on another host than that one, once its sidecar answers."""

        def look() -> tuple[Alloc, int] | None:
            [alloc] = nomad.running(job, 1, START_S)
            port = nomad.port_of(alloc, "breaker")
            if alloc["NodeID"] == elsewhere:
                return None
            try:
                usable = ask(port, "GET", "/v1/spool", {}).body["usable"]
            except OSError:
                return None
            return (alloc, port) if usable else None

        return poll_until_sync(look, START_S, "a sidecar publishes")

    way.refuse()
    nomad.run(job)
    first, port = up()
    assert publish(port, topic, range(10)) == {"spooled"}
    drain(nomad, first["NodeID"], away=True)
    second, port = up(elsewhere=first["NodeID"])
    left, other = folders[first["NodeID"]], folders[second["NodeID"]]
    assert left != other
    assert kept(left) == {first["ID"]: 10}, "the old host has them, and nobody there"
    assert publish(port, topic, range(100, 105)) == {"spooled"}
    way.heal()
    poll_until_sync(lambda: waiting(port) == 0, BACK_S, "what came here is delivered")
    assert publish(port, topic, range(105, 106)) <= {"spooled", "delivered"}
    poll_until_sync(lambda: waiting(port) == 0, BACK_S, "and so it goes on")
    assert kept(left) == {first["ID"]: 10}
    drain(nomad, first["NodeID"], away=False)
    drain(nomad, second["NodeID"], away=True)
    third, port = up(elsewhere=second["NodeID"])
    assert third["NodeID"] == first["NodeID"]
    poll_until_sync(
        lambda: kafka.end_offsets(topic)[0] >= 16 and waiting(port) == 0,
        BACK_S,
        "who comes to the old host brings them to Kafka",
    )
    records = kafka.read(topic, kafka.end_offsets(topic)[0])
    assert list(dict.fromkeys(int(record.value) for record in records)) == [
        *range(100, 106),
        *range(10),
    ]
    assert sorted(kept(left)) == [], "the one that was left is gone"
    assert set(kept(other).values()) <= {0}


def drain(nomad: NomadAgent, node: str, *, away: bool) -> None:
    """Empty a host, or make it take work again."""
    nomad.request(
        "PUT",
        f"/v1/node/{node}/drain",
        {"DrainSpec": {"Deadline": -1} if away else None, "MarkEligible": not away},
    )
