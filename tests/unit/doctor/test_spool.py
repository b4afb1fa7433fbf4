"""The spool's folder as `doctor` sees it."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner

from sidecar.cli.main import cli
from sidecar.doctor import spool
from sidecar.doctor.findings import Finding, Level

GIB = 1 << 30


def told(found: list[Finding], level: Level) -> str:
    return "\n".join(one.said for one in found if one.level is level)


def test_a_good_folder_has_room_and_syncs_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    found = list(spool.folder(str(tmp_path), 1, {}))
    assert "MiB are free" in told(found, Level.OK)
    assert told(found, Level.FAULT) == ""
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_not_there_is_made_by_the_daemon(tmp_path: Path) -> None:
    found = list(spool.folder(str(tmp_path / "a" / "b"), 1, {}))
    assert "the daemon makes it" in told(found, Level.OK)


def test_what_is_no_folder_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "no folder" in told(list(spool.folder(str(tmp_path / "file"), 1, {})), Level.FAULT)


def test_a_spool_is_no_folder_for_spools(tmp_path: Path) -> None:
    (tmp_path / "format").write_text('{"spool": 1}')
    assert "spool itself" in told(list(spool.folder(str(tmp_path), 1, {})), Level.FAULT)


def test_too_little_room_for_what_may_wait(tmp_path: Path) -> None:
    found = told(list(spool.folder(str(tmp_path), GIB << 20, {})), Level.WARNING)
    assert "spool.max_bytes is" in found


def test_dead_letters_are_to_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "dead-letters.ndjson").touch()
    assert told(list(spool.folder(str(tmp_path), 1, {})), Level.WARNING) == ""
    (tmp_path / "dead-letters.ndjson").write_bytes(bytes(3 << 20))
    (found,) = [one for one in spool.folder(str(tmp_path), 1, {}) if one.level is Level.WARNING]
    assert "3.0 MiB of dead letters, of 256 at most" in found.said


def test_a_folder_that_goes_with_the_allocation(tmp_path: Path) -> None:
    (tmp_path / "alloc" / "spool").mkdir(parents=True)
    environ = {"NOMAD_ALLOC_DIR": str(tmp_path / "alloc")}
    found = list(spool.folder(str(tmp_path / "alloc" / "spool"), 1, environ))
    assert "goes away with this allocation" in told(found, Level.WARNING)
    (tmp_path / "elsewhere").mkdir()
    environ = {"NOMAD_ALLOC_DIR": str(tmp_path / "x" / "alloc")}
    found = list(spool.folder(str(tmp_path / "elsewhere"), 1, environ))
    assert "goes away" not in told(found, Level.WARNING)


def test_one_that_others_may_write_into(tmp_path: Path) -> None:
    (open_ := tmp_path / "open").mkdir()
    open_.chmod(0o777)
    assert "others may write" in told(list(spool.folder(str(open_), 1, {})), Level.WARNING)


def test_memory_is_no_disk() -> None:
    found = list(spool.folder("/dev/shm", 1, {}))
    assert "lies in memory" in told(found, Level.WARNING) or not os.path.ismount("/dev/shm")


def test_the_command_looks_at_it(tmp_path: Path) -> None:
    (file := tmp_path / "breaker.yaml").write_text(f"spool: {{dir: {tmp_path}}}\n")
    done = CliRunner().invoke(cli, ["doctor", "-c", str(file), "--address", "127.0.0.1:1"])
    assert f"spool.dir = {tmp_path}: a sync took" in done.output
