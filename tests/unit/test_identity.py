"""Who a sidecar is: Nomad's word, else a name of its own, kept only where it was asked to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.core.reports import INSTANCE
from sidecar.identity import DataDir, DataDirTaken, instance, random_instance


def test_nomads_allocation_is_the_identity() -> None:
    """It beats everything else."""
    assert instance({"NOMAD_ALLOC_ID": "5f0c8d2e-9a57"}, None) == "5f0c8d2e-9a57"


def test_odd_characters_become_dashes() -> None:
    """An identity stands in values that others parse, and names folders."""
    assert instance({"NOMAD_ALLOC_ID": "a/b c"}, None) == "a-b-c"
    assert instance({"NOMAD_ALLOC_ID": "../../a"}, None) == "a"
    assert INSTANCE.fullmatch(instance({"NOMAD_ALLOC_ID": "x" * 300}, None))


@pytest.mark.parametrize("environ", [{}, {"NOMAD_ALLOC_ID": ""}])
def test_without_nomad_it_is_the_host_and_a_random_part(environ: dict[str, str]) -> None:
    """Two daemons on one host are two instances."""
    names = {instance(environ, None) for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r".+-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("host", "begins"),
    [("web1.example", "web1.example-"), ("ö§", "host-"), ("-x-", "x-"), ("y" * 300, "y" * 100)],
)
def test_any_host_name_makes_an_instance(
    monkeypatch: pytest.MonkeyPatch, host: str, begins: str
) -> None:
    """It also fits where reporters are named."""
    monkeypatch.setattr("socket.gethostname", lambda: host)
    name = random_instance()
    assert name.startswith(begins)
    assert INSTANCE.fullmatch(name)


def test_a_data_dir_keeps_the_name(tmp_path: Path) -> None:
    """Over restarts; made with its parents, for its owner alone."""
    folder = tmp_path / "deep" / "data"
    first = DataDir(str(folder))
    name = instance({}, first)
    assert instance({}, first) == name
    assert folder.stat().st_mode & 0o777 == 0o700
    del first
    assert (folder / "instance").read_text() == name + "\n"


def test_the_kept_name_outlives_the_process(tmp_path: Path) -> None:
    """A process that ended, however, has let go of the lock."""
    names = {_in_a_process(tmp_path) for _ in range(2)}
    assert len(names) == 1
    assert instance({}, DataDir(str(tmp_path))) in names


def _in_a_process(folder: Path) -> str:
    code = "import sys; from sidecar.identity import *; print(instance({}, DataDir(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(folder)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30, cwd=root
    ).stdout.strip()


@pytest.mark.parametrize("kept", ["", "\n", "two words\n", "a/b\n", "x\ny\n"])
def test_a_kept_name_that_is_none_is_made_anew(tmp_path: Path, kept: str) -> None:
    """Somebody edited it, or the disk was full."""
    (tmp_path / "instance").write_text(kept)
    name = DataDir(str(tmp_path)).instance()
    assert INSTANCE.fullmatch(name)
    assert (tmp_path / "instance").read_text() == name + "\n"


def test_two_sidecars_do_not_share_a_data_dir(tmp_path: Path) -> None:
    """They would be one instance: the second is told what to do."""
    first = DataDir(str(tmp_path))
    with pytest.raises(DataDirTaken, match="give each its own"):
        DataDir(str(tmp_path))
    assert first.instance()


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    """Or somebody else's file would be opened for writing."""
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        DataDir(str(tmp_path))
