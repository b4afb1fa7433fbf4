"""The spool against what a machine does to it: kill -9 at any moment, and a disk that is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT


def run(*command: str, timeout_s: float) -> str:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("mode", "rounds"),
    [
        ("staying", 20),
        ("moving", 15),
        pytest.param("staying", 60, marks=pytest.mark.slow),
        pytest.param("moving", 40, marks=pytest.mark.slow),
    ],
)
def test_kill_at_any_moment(tmp_path: Path, mode: str, rounds: int) -> None:
    """What was acknowledged is there once, in order, until done; what was done is known to be.

    Moving: each time another allocation adopts it, and is killed maybe while it does.
    """
    said = run(
        *(sys.executable, "-m", "tests.spool_crash", str(rounds), "11", str(tmp_path), mode),
        timeout_s=60 + 2 * rounds,
    )
    summary = json.loads(said)
    assert summary["rounds"] == rounds
    assert summary["promises"] > rounds, "nothing was put to the test"


def test_a_full_file_system(tmp_path: Path) -> None:
    """507's reason: nothing half-written, room for progress, and on it goes when there is some."""
    mine = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" -m tests.spool_full "$1"'
    said = run(
        *("unshare", *mine, "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable),
        timeout_s=120,
    )
    assert said == "held\n"
