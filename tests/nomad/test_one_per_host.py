"""One sidecar a host: a changed setting is taken up by SIGHUP; nothing is lost by it."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.acceptance.support import Consumers, holds
from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import CHANGE_S, START_S, Usual, config_reloads, statuses, variant
from tests.servers import free_port, poll_until_sync

VARIABLE = "nomad/jobs/breaker-host"


def test_a_changed_template_reloads_without_losing_state(
    nomad: NomadAgent, place: Usual, tmp_path: Path
) -> None:
    port = free_port()
    env = place.env(
        # Longer than the test, so that what it stays in is no transition's work.
        BREAKER_SIDECAR__BREAKERS__DEFAULT__OPEN_DURATION="5m",
        BREAKER_SIDECAR__BREAKERS__DEFAULT__MAX_OPEN_DURATION="5m",
    )
    job = variant(nomad, "one-per-host", env, socket_dir=str(tmp_path), port=str(port))
    nomad.run(job)
    [alloc] = nomad.running(job, 1, START_S)

    def reloads() -> int:
        return config_reloads(nomad.log_of(alloc, "breaker"))

    with Consumers(place) as consumers:
        poll_until_sync(lambda: place.state() == "CLOSED", CHANGE_S, "a record")
        nomad.put_variable(VARIABLE, failure_threshold="40")
        poll_until_sync(lambda: reloads() == 1, START_S, "SIGHUP is heard")
        assert statuses([port]) == [200]
        consumers.fail = 10  # three of them: past 20, below 40
        holds(lambda: statuses([port]) == [200], 1.5, "30 failures are too few now")
        consumers.fail = 15
        poll_until_sync(lambda: statuses([port]) == [503], CHANGE_S, "45 failures open it")
        tripped = place.record()
        assert (tripped["evidence"]["threshold"], tripped["current_state"]) == (40, "OPEN")
        nomad.put_variable(VARIABLE, failure_threshold="50")
        poll_until_sync(lambda: reloads() == 2, START_S, "SIGHUP is heard again")
        assert statuses([port]) == [503]
        assert place.record() == tripped
    [after] = nomad.allocs(job["ID"])
    assert after["TaskStates"]["breaker"]["Restarts"] == 0
    socket = tmp_path / "breaker.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o666
