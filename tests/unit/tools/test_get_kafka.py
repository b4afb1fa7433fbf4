"""Where Kafka's jars come from: the cache, else Maven, whole or not at all."""

import re
from pathlib import Path

import pytest

from tools import get_kafka
from tools.shelf import BuildFailedError, ToolMissingError


def fake(path: Path, script: str) -> Path:
    """An executable shell script at this path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own with Java alone: an empty cache and its own link."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(get_kafka, "LINK", tmp_path / "tools" / "kafka")
    fake(tmp_path / "bin" / "java", "exit 0")
    return tmp_path


def maven(folder: Path, script: str) -> None:
    """A Maven that runs the script with the folder it is to fill as $to."""
    found = 'for word; do case "$word" in -DoutputDirectory=*) to="${word#*=}";; esac; done'
    fake(folder / "bin" / "mvn", f"PATH=/usr/bin:/bin\n{found}\n{script}")


def test_it_is_young_enough_for_kraft_alone() -> None:
    found = re.match(r"(\d+)\.(\d+)\.", get_kafka.pinned_version())
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (3, 9)


def test_maven_fills_the_cache_once(folder: Path) -> None:
    maven(folder, 'mkdir "$to" && echo jar > "$to/kafka.jar"')
    linked = get_kafka.ensure()
    assert (linked / "kafka.jar").read_text() == "jar\n"
    maven(folder, "exit 1")
    assert get_kafka.ensure().resolve() == get_kafka.cached()


def test_a_failed_fetch_leaves_nothing_in_the_cache(folder: Path) -> None:
    maven(folder, 'mkdir "$to" && echo half > "$to/kafka.jar"; exit 1')
    with pytest.raises(BuildFailedError, match="Maven's central repository"):
        get_kafka.ensure()
    assert [path.name for path in get_kafka.cached().parent.iterdir()] == [".lock"]


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(ToolMissingError, match="no `mvn` on PATH"):
        get_kafka.ensure()
    (folder / "bin" / "java").unlink()
    with pytest.raises(ToolMissingError, match="no `java` on PATH"):
        get_kafka.ensure()
