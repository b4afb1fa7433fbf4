"""The committed files: Nomad takes each of them as it is, and the README says whom it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar import __version__
from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import FILES, IMAGE

JOBS = sorted(FILES.glob("*.nomad.hcl"))
CHECKSUM = f"sha256:{'0' * 64}"
ASKED = {
    "app": "/usr/local/bin/app",
    "app_image": "app:1",
    "bundle": "https://artifacts.example/breaker-sidecar.tar.gz",
    "bundle_checksum": CHECKSUM,
    "consumer_checksum": CHECKSUM,
}
"""What a user has to fill in, of the variables without a default."""


def variables(file: Path) -> list[str]:
    """The variables that this file wants to be told, as options of a command."""
    blocks = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', file.read_text(), re.DOTALL | re.M)
    return [f"-var={name}={ASKED[name]}" for name, body in blocks if "default" not in body]


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_nomad_takes_the_file_as_it_is(nomad: NomadAgent, file: Path) -> None:
    assert "successful" in nomad.command("job", "validate", *variables(file), str(file))
    nomad.command("fmt", "-check", str(file))


def test_the_readme_says_whom_each_file_is_for() -> None:
    text = (FILES / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| \[(\S+\.hcl)\]\(\1\)", text, re.MULTILINE)) == [
        file.name for file in JOBS
    ]


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_each_file_says_how_it_is_run(file: Path) -> None:
    head = file.read_text("utf-8").partition("\n\n")[0]
    assert "nomad job run" in head
    assert f"nomad/{file.name}" in head


def test_the_files_name_the_image_of_this_version() -> None:
    assert f"breaker-sidecar:{__version__}" == IMAGE
    for file in JOBS:
        named = set(re.findall(r'"(breaker-sidecar:\S+)"', file.read_text("utf-8")))
        assert named <= {IMAGE}, file
