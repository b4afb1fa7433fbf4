"""Hosts without Docker and Python: the very bundle that `make bundle` makes, as an artifact."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sidecar import __version__
from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import CHANGE_S, PROGRAMS, START_S, Usual, served, statuses, variant, version
from tests.servers import poll_until_sync


@pytest.mark.packages  # what it takes to make the bundle
def test_the_bundle_runs_as_an_artifact(
    nomad: NomadAgent, place: Usual, tarball: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    app = tmp_path / "app"
    app.write_text(f"#!/bin/sh\nexec /usr/bin/env python3 {PROGRAMS / 'app.py'}\n", "utf-8")
    app.chmod(0o755)
    with served(tarball.parent) as url:
        job = variant(
            nomad,
            "without-docker",
            place.env(),
            bundle=f"{url}/{tarball.name}",
            bundle_checksum=f"sha256:{digest}",
            app=str(app),
        )
        nomad.run(job)
        [alloc] = nomad.running(job, 1, START_S)
    port = nomad.port_of(alloc, "breaker")
    program = nomad.folder_of(alloc, "breaker") / "local" / "breaker-sidecar" / "bin"
    assert (program / "breaker-sidecar").is_file()
    assert version(port) == __version__
    poll_until_sync(lambda: place.state() == "CLOSED", CHANGE_S, "it writes a record")
    poll_until_sync(
        lambda: nomad.log_of(alloc, "app", "stdout") == "200\n", CHANGE_S, "the first answer is 200"
    )
    place.report("c-1", fail=25)
    poll_until_sync(lambda: statuses([port]) == [503], CHANGE_S, "the breaker opens")
