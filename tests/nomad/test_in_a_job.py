"""The sidecar in an existing job: nobody asks before it can answer; nobody waits when it goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.acceptance.support import Consumers, Witness, at, holds, measured
from tests.daemon import Daemon
from tests.nomad.agent import NomadAgent
from tests.nomad.api import Alloc
from tests.nomad.fleet import (
    APP,
    CHANGE_S,
    HERE,
    IMAGE,
    PROGRAMS,
    START_S,
    Usual,
    holder,
    variant,
)
from tests.nomad.variants import Job
from tests.servers import poll_until_sync

TTL_S = 10.0
"""The session's. Were the lock not handed over, the next holder would wait for two thirds of it at
least: it is renewed after a third."""


def state(alloc: Alloc, task: str) -> str:
    """`pending`, `running`, `dead`, or nothing while Nomad knows of no such task."""
    states = alloc["TaskStates"] or {}
    return str(states[task]["State"]) if task in states else ""


def slow(folder: Path) -> tuple[tuple[str, ...], Path]:
    """A sidecar that takes its time to start: until the file is there."""
    gate = folder / "go"
    program = folder / "slow"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = run ] && until [ -e {gate} ]; do sleep 0.05; done\n'
        f'exec {" ".join(HERE[IMAGE])} "$@"\n',
        "utf-8",
    )
    program.chmod(0o755)
    return (str(program),), gate


def test_the_application_starts_when_the_sidecar_can_answer(
    nomad: NomadAgent, place: Usual, tmp_path: Path
) -> None:
    sidecar, gate = slow(tmp_path)
    programs = {IMAGE: sidecar, APP: (sys.executable, str(PROGRAMS / "app.py"))}
    job = variant(nomad, "breaker-sidecar", place.env(), programs, app_image=APP)
    job["TaskGroups"][0]["Count"] = 1
    nomad.run(job)

    def waits() -> bool:
        [alloc] = nomad.allocs(job["ID"]) or [{"TaskStates": None}]
        up = [state(alloc, task) for task in ("breaker", "breaker-ready")]
        return up == ["running", "running"] and state(alloc, "app") == "pending"

    poll_until_sync(waits, START_S, "the sidecar's process runs, and the application waits")
    holds(waits, 1.5, "the application waits for an answer, not for a process")
    gate.touch()
    [alloc] = nomad.running(job, 1, START_S)
    tasks = alloc["TaskStates"]
    assert tasks["breaker-ready"]["FinishedAt"] <= tasks["app"]["StartedAt"]
    poll_until_sync(
        lambda: nomad.log_of(alloc, "app", "stdout") == "200\n", CHANGE_S, "its first answer is 200"
    )


def test_who_is_stopped_or_drained_hands_its_locks_over(nomad: NomadAgent, place: Usual) -> None:
    job = variant(nomad, "breaker-sidecar", place.env(), app_image=APP)
    nomad.run(job)
    nomad.running(job, 3, START_S)
    names = {alloc["ID"] for alloc in nomad.allocs(job["ID"])}
    with Consumers(place), Witness(place) as witness:
        first = poll_until_sync(lambda: holder(place), CHANGE_S, "somebody evaluates")
        assert first in names
        poll_until_sync(lambda: place.state() == "CLOSED", CHANGE_S, "a record")
        nomad.request("PUT", f"/v1/allocation/{first}/stop")
        stopped_s = taken_over(nomad, job, place, first)
        allocs = nomad.running(job, 3, START_S)
        with Daemon(place.config(), env=place.env()) as elsewhere:
            # As on another host: the drain below leaves this one empty.
            second = poll_until_sync(lambda: holder(place), CHANGE_S, "somebody evaluates")
            assert second in {alloc["ID"] for alloc in allocs}
            [node] = nomad.get("/v1/nodes")
            drain(nomad, node["ID"], {"Deadline": -1})
            drained_s = taken_over(nomad, job, place, second)
            poll_until_sync(
                lambda: (
                    all(
                        alloc["ClientStatus"] == "complete"
                        for alloc in nomad.allocs(job["ID"])
                        if alloc["DesiredStatus"] == "stop"
                    )
                    and elsewhere.allowed(peek=True).status == 200
                ),
                START_S,
                "the host is empty, and the rest of the fleet goes on",
            )
            drain(nomad, node["ID"], None)
        records = witness.records
    measured("from the order to stop to the next holder of the lock", [stopped_s, drained_s])
    assert max(stopped_s, drained_s) < TTL_S / 2
    assert {record["current_state"] for record in records} == {"CLOSED"}
    assert {entry["to"] for entry in place.history()} <= {"CLOSED"}


def taken_over(nomad: NomadAgent, job: Job, place: Usual, before: str) -> float:
    """Wait until another holds the lock; seconds from when Nomad told `before` to stop."""
    after = poll_until_sync(
        lambda: next((name for name in [holder(place)] if name not in {None, before}), None),
        START_S,
        f"another than {before} holds the lock",
    )
    lock = json.loads(place.consul.kv_get(place.key("leader")) or b"{}")
    assert lock["instance"] == after
    told = poll_until_sync(lambda: told_to_stop(nomad, job, before), START_S, "Nomad says when")
    return at(lock["since"]) - told


def told_to_stop(nomad: NomadAgent, job: Job, name: str) -> float | None:
    """When Nomad told an allocation's sidecar to stop (epoch); None if that isn't known yet."""
    [alloc] = [one for one in nomad.allocs(job["ID"]) if one["ID"] == name]
    events = alloc["TaskStates"]["breaker"]["Events"]
    return next((one["Time"] / 1e9 for one in events if one["Type"] == "Killing"), None)


def drain(nomad: NomadAgent, node: str, spec: dict[str, object] | None) -> None:
    """Empty a host, or with None make it take work again."""
    nomad.request(
        "PUT", f"/v1/node/{node}/drain", {"DrainSpec": spec, "MarkEligible": spec is None}
    )
