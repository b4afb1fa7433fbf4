"""The Dockerfile, as far as it can be had without Docker: its commands run, outside of an image.

No image is built here. What is run are the very commands of the file, on this machine, with the
image's folders moved below a temporary one.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar import __version__
from tests.daemon import Daemon
from tests.servers import ROOT, free_port

pytestmark = pytest.mark.packages

DEADLINE_S = 240.0


@dataclass(frozen=True)
class Step:
    """One instruction."""

    verb: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Its arguments, of a command its JSON form."""
        found = self.rest[self.rest.find("[") :]
        words: list[str] = json.loads(found) if found.startswith("[") else shlex.split(self.rest)
        return words


def stages() -> list[list[Step]]:
    """The instructions of each stage, FROM first."""
    text = "\n".join(
        line
        for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    made: list[list[Step]] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        verb, _, rest = line.strip().partition(" ")
        if verb == "FROM":
            made.append([])
        if verb and made:  # what stands before is for FROM alone
            made[-1].append(Step(verb, rest.strip()))
    return made


BUILD, FINAL = stages()


def only(verb: str) -> Step:
    """The one instruction of that kind in the final stage."""
    (found,) = [step for step in FINAL if step.verb == verb]
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last rule that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!")
        parts = path.split("/")
        upward = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        tail = pattern.removeprefix("**/")
        if any(
            fnmatch.fnmatchcase(one, pattern) and one.count("/") == pattern.count("/")
            for one in upward
        ) or (tail != pattern and tail in parts):
            out = not rule.startswith("!")
    return out


def test_the_context_is_what_the_wheel_is_built_from() -> None:
    tops = {path.name for path in ROOT.iterdir() if not ignored(path.name)}
    copied = {
        word
        for step in BUILD
        if step.verb == "COPY"
        for word in step.rest.split()[:-1]
        if not word.startswith("--")
    }
    assert tops == copied
    assert all((ROOT / name).exists() for name in copied)
    for junk in (".git", ".venv/bin/python", "tests/conftest.py", "sidecar/core/__pycache__/a.pyc"):
        assert ignored(junk), junk
    assert not ignored("sidecar/core/breaker.py")


def test_both_stages_have_one_base_that_can_be_chosen() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.search(r"^ARG BASE=python:3\.11-slim\n\nFROM ", text, re.MULTILINE)
    assert [stage[0].rest for stage in (BUILD, FINAL)] == ["${BASE} AS build", "${BASE}"]


def test_the_image_is_called_as_the_job_files_call_it() -> None:
    for page in ("Dockerfile", "docs/install.md"):
        text = (ROOT / page).read_text("utf-8")
        assert f"docker build -t breaker-sidecar:{__version__} ." in text, page


def test_the_final_stage_has_no_tools_and_no_root() -> None:
    user = only("USER").rest.split(":")
    assert all(part.isdigit() and int(part) > 0 for part in user)
    order = [step.verb for step in FINAL]
    assert order.index("USER") > max(at for at, verb in enumerate(order) if verb in {"RUN", "COPY"})
    runs = [step.words for step in FINAL if step.verb == "RUN"]
    assert [words[:4] for words in runs] == [["python", "-m", "pip", "uninstall"]]
    assert {step.rest.split()[0] for step in FINAL if step.verb == "COPY"} == {"--from=build"}
    assert "EXPOSE" not in order


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the final image, made by the commands of the build stage."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    python = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", python], check=True, timeout=DEADLINE_S)
    env = {**os.environ, "PATH": f"{python / 'bin'}:{os.environ['PATH']}"}
    for step in BUILD:
        if step.verb == "COPY":
            *names, _ = step.rest.split()
            for name in names:
                _copy(name, source)
        elif step.verb == "RUN":
            words = [re.sub(r"^(/opt|/wheels)", rf"{root}\1", word) for word in step.words]
            done = subprocess.run(
                words,
                cwd=source,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE_S,
            )
            assert done.returncode == 0, done.stderr
    return root


def _copy(name: str, target: Path) -> None:
    if (ROOT / name).is_dir():
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, target / name, ignore=skipped)
    else:
        shutil.copy(ROOT / name, target)


def test_the_pinned_versions_are_installed_and_nothing_else(image: Path) -> None:
    site = next((image / "opt" / "sidecar" / "lib").glob("python*/site-packages"))
    got = {path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info")}
    pins = {
        line.replace("-", "_").replace("==", "-").lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    }
    own = {name for name in got if name.startswith("breaker_sidecar-")}
    assert len(own) == 1
    assert {name.replace("-", "_").lower() for name in got - own} <= {
        pin.replace("-", "_") for pin in pins
    }
    assert not [path for path in site.iterdir() if path.name in {"pip", "setuptools", "pytest"}]
    assert list(
        site.rglob("sidecar/__pycache__/*.pyc")
    )  # compiled now: the root is read-only later


def test_health_is_told_by_the_command_of_the_image(image: Path) -> None:
    check = only("HEALTHCHECK")
    assert only("ENTRYPOINT").words == ["breaker-sidecar"]
    assert only("CMD").words == ["run"]
    program = str(image / "opt" / "sidecar" / "bin" / "breaker-sidecar")
    words = [program if word == "breaker-sidecar" else word for word in check.words]

    def healthy(port: int) -> int:
        env = {"PATH": os.environ["PATH"], "NOMAD_PORT_breaker": str(port)}
        return subprocess.run(words, env=env, capture_output=True, check=False).returncode

    assert healthy(free_port()) == 1
    with Daemon(program=(program,)) as daemon:
        assert healthy(daemon.port) == 0
