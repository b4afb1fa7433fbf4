"""A fleet under Nomad: the source system's consumers, twelve on a host, two versions at once."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from sidecar import __version__
from tests.acceptance.support import Consumers, Witness
from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import (
    APP,
    CHANGE_S,
    HERE,
    PROGRAMS,
    START_S,
    Usual,
    ask_ready,
    served,
    statuses,
    variant,
    version,
)
from tests.nomad.variants import Job
from tests.servers import ROOT, poll_until_sync

NEXT = "9.9.9"


def consumers(nomad: NomadAgent, place: Usual, url: str, program: Path) -> Job:
    """The consumer job, its program fetched as an artifact."""
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    return variant(
        nomad,
        "kafka-consumer",
        {},
        consumer=f"{url}/{program.name}",
        consumer_checksum=f"sha256:{digest}",
        consul_address=place.consul.address,
        report_interval="1s",
    )


def test_the_failure_switch_takes_the_answers_to_503_and_back(
    nomad: NomadAgent, place: Usual, tmp_path: Path
) -> None:
    program = tmp_path / "consumer"
    program.write_text(f"#!{sys.executable}\n" + (PROGRAMS / "consumer.py").read_text("utf-8"))
    sidecars = variant(nomad, "breaker-sidecar", place.env(), app_image=APP)
    switch = "nomad/jobs/kafka-consumer"

    def reporters() -> int:
        return len(place.consul.kv_keys(place.reports() + "/"))

    with served(tmp_path) as url:
        job = consumers(nomad, place, url, program)
        nomad.run(job)
        nomad.run(sidecars)
        nomad.running(job, 3, START_S)
        ports = [nomad.port_of(one, "breaker") for one in nomad.running(sidecars, 3, START_S)]
        poll_until_sync(
            lambda: reporters() == 3 and statuses(ports) == [200] * 3 and place.state() == "CLOSED",
            CHANGE_S,
            "three consumers report, and all may send",
        )
        before = place.history()
        nomad.put_variable(switch, inject_failure="true")
        poll_until_sync(lambda: statuses(ports) == [503] * 3, START_S, "nobody may send")
        nomad.put_variable(switch, inject_failure="false")
        poll_until_sync(
            lambda: statuses(ports) == [200] * 3 and place.state() == "CLOSED",
            START_S,
            "all may send again",
        )
    moves = place.history()[len(before) :]
    assert (moves[0]["from"], moves[0]["to"], moves[0]["reason"]) == ("CLOSED", "OPEN", "failures")
    assert moves[0]["evidence"]["reporters"] >= 2
    assert (moves[-1]["from"], moves[-1]["to"]) == ("HALF_OPEN", "CLOSED")
    assert len(nomad.allocs(job["ID"])) == 3, "the switch needs no new allocation"


def test_twelve_on_a_host_all_answer(nomad: NomadAgent, place: Usual) -> None:
    job = variant(nomad, "host-network", place.env(), app_image=APP)
    nomad.run(job)
    allocs = nomad.running(job, 12, 3 * START_S)
    ports = [nomad.port_of(alloc, "breaker") for alloc in allocs]
    diagnostics = [nomad.port_of(alloc, "diagnostics") for alloc in allocs]
    assert len({*ports, *diagnostics}) == 24
    poll_until_sync(lambda: statuses(ports) == [200] * 12, CHANGE_S, "all twelve answer")
    assert [ask_ready(port) for port in diagnostics] == [200] * 12
    # The other listener has no more than readiness and metrics.
    assert statuses(diagnostics) == [404] * 12
    for alloc, port in zip(allocs, ports, strict=True):
        place.report(f"c-{port}", fail=2)
        assert alloc["TaskStates"]["breaker"]["Restarts"] == 0
    poll_until_sync(lambda: statuses(ports) == [503] * 12, CHANGE_S, "24 failures stop all twelve")

    def found() -> bool:
        listed = nomad.get("/v1/service/breaker-sidecar")
        return sorted(one["Port"] for one in listed) == sorted(diagnostics)

    poll_until_sync(found, CHANGE_S, "Nomad's services name every sidecar")


def another_version(folder: Path) -> tuple[str, ...]:
    """This checkout's program as a release to come."""
    shutil.copytree(ROOT / "sidecar", folder / "sidecar")
    file = folder / "sidecar" / "__init__.py"
    text = file.read_text("utf-8")
    assert f'"{__version__}"' in text
    file.write_text(text.replace(f'"{__version__}"', f'"{NEXT}"'), "utf-8")
    return ("/usr/bin/env", f"PYTHONPATH={folder}", sys.executable, "-m", "sidecar")


@contextlib.contextmanager
def asking(nomad: NomadAgent, job: Job) -> Iterator[list[set[str]]]:
    """Meanwhile every sidecar of the job is asked; whoever answers has to admit.

    Yields the versions that answered in one round, once for each round.
    """
    rounds: list[set[str]] = []
    faults: list[BaseException] = []
    ended = threading.Event()

    def ask_all() -> None:
        try:
            while not ended.wait(0.05):
                alive = [a for a in nomad.allocs(job["ID"]) if a["ClientStatus"] == "running"]
                ports = [nomad.port_of(alloc, "breaker") for alloc in alive]
                assert set(statuses(ports)) <= {200, None}
                rounds.append({one for port in ports if (one := version(port))})
        except BaseException as fault:  # noqa: BLE001 - raised below
            faults.append(fault)

    thread = threading.Thread(target=ask_all, daemon=True)
    thread.start()
    try:
        yield rounds
    finally:
        ended.set()
        thread.join()
    if faults:
        raise faults[0]


def test_an_update_with_two_versions_side_by_side_moves_nothing(
    nomad: NomadAgent, place: Usual, tmp_path: Path
) -> None:
    programs = {**HERE, "breaker-sidecar:next": another_version(tmp_path)}
    old = variant(nomad, "breaker-sidecar", place.env(), app_image=APP)
    new = variant(
        nomad,
        "breaker-sidecar",
        place.env(),
        programs,
        app_image=APP,
        sidecar_image="breaker-sidecar:next",
    )
    nomad.run(old)
    nomad.running(old, 3, START_S)
    with Consumers(place) as fleet, Witness(place) as witness:
        poll_until_sync(lambda: place.state() == "CLOSED", CHANGE_S, "a record")
        with asking(nomad, new) as rounds:
            nomad.run(new)
            poll_until_sync(lambda: updated(nomad, new), 3 * START_S, "all three are new")
        assert {__version__, NEXT} in rounds, "both versions answered at the same time"
        quiet = witness.records
        assert {record["current_state"] for record in quiet} == {"CLOSED"}
        assert {entry["to"] for entry in place.history()} <= {"CLOSED"}
        fleet.fail = 10
        ports = [nomad.port_of(one, "breaker") for one in nomad.running(new, 3, START_S)]
        poll_until_sync(lambda: statuses(ports) == [503] * 3, CHANGE_S, "the new ones trip it")
        poll_until_sync(lambda: len(witness.records) > len(quiet), CHANGE_S, "the trip is seen")
        numbers = [record["seq"] for record in witness.records]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def updated(nomad: NomadAgent, job: Job) -> bool:
    """Whether the newest version of the job is deployed, and says that it is the new version."""
    deployed = nomad.get(f"/v1/job/{job['ID']}/deployment")
    alive = [one for one in nomad.allocs(job["ID"]) if one["ClientStatus"] == "running"]
    return (
        deployed["JobVersion"] == 1
        and deployed["Status"] == "successful"
        and [one["JobVersion"] for one in alive] == [1, 1, 1]
        and {version(nomad.port_of(one, "breaker")) for one in alive} == {NEXT}
    )
