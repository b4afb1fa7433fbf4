"""`spool dead-letters …`: what is listed, shown, put back and deleted."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.placing import UNPLACED
from sidecar.core.publishing import SEQUENCE_HEADER
from sidecar.core.spooling import NewRecord
from sidecar.core.words import clock
from sidecar.publish.deadletters import FILE, DeadLetters
from sidecar.publish.letters import Letter
from tests.unit.cli.canned import Invoke
from tests.unit.spool.kit import AT, Box, Hasty

LETTERS = (
    ("orders", 0, b"a", b"1", "record-too-large"),
    ("orders", 1, None, b"2", "unknown-partition"),
    ("page\x1bviews", UNPLACED, b"\xff", None, "unknown-kafka-topic"),
)
HEADERS = (("h", b"x"), (SEQUENCE_HEADER, b"a/7/1"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`spool.dir` with three letters in it."""
    made = tmp_path / "spool"
    made.mkdir()
    letters = [
        Letter(topic, partition, NewRecord(key, value, HEADERS, 17, AT), why, f"so: {why}", AT)
        for topic, partition, key, value, why in LETTERS
    ]
    asyncio.run(DeadLetters(made).add(letters))
    return made


def listed(invoke: Invoke, folder: Path, *more: str) -> list[dict[str, Any]]:
    done = invoke("spool", "dead-letters", "ls", str(folder), "-o", "json", *more)
    assert done.exit_code == 0, done.stderr
    letters: list[dict[str, Any]] = json.loads(done.stdout)["letters"]
    return letters


def arrived(folder: Path) -> Box:
    (name,) = [path.name for path in folder.iterdir() if path.is_dir()]
    return Box(folder, files=Hasty(), name=name)


def test_ls_shows_them_oldest_first_and_filters(folder: Path, invoke: Invoke) -> None:
    done = invoke("spool", "dead-letters", "ls", str(folder))
    assert done.exit_code == 0
    heads, *lines = done.stdout.splitlines()
    assert heads.split()[:4] == ["ID", "SET", "ASIDE", "TOPIC"]
    assert {line.split()[1] for line in lines} == {clock(AT)}
    assert [line.split()[2:5] for line in lines[:2]] == [
        ["orders", "0", "record-too-large"],
        ["orders", "1", "unknown-partition"],
    ]
    assert "\x1b" not in done.stdout
    assert [one["partition"] for one in listed(invoke, folder)] == [0, 1, None]
    assert [one["key"] for one in listed(invoke, folder, "--topic", "orders")] == ["a", None]
    (one,) = listed(invoke, folder, "--reason", "unknown-partition")
    assert listed(invoke, folder, "--id", one["id"]) == [one]
    few = invoke("spool", "dead-letters", "ls", str(folder), "--limit", "1")
    assert (len(few.stdout.splitlines()), "2 more" in few.stderr) == (2, True)
    assert "there are none" in invoke("spool", "dead-letters", "ls", str(folder.parent)).stderr


def test_show_tells_all_of_one(folder: Path, invoke: Invoke) -> None:
    for one in listed(invoke, folder):
        done = invoke("spool", "dead-letters", "show", str(folder), one["id"])
        assert done.exit_code == 0
        assert one["reason"] in done.stdout
        assert "header    h: x" in done.stdout
        whole = invoke("spool", "dead-letters", "show", str(folder), one["id"], "-o", "json")
        assert json.loads(whole.stdout)["timestamp"] == 17
    assert invoke("spool", "dead-letters", "show", str(folder), "nobody").exit_code == 2


def test_which_has_to_be_said(folder: Path, invoke: Invoke) -> None:
    for command in ("put-back", "purge"):
        for more in ((), ("--all", "--topic", "orders")):
            done = invoke("spool", "dead-letters", command, str(folder), *more)
            assert (done.exit_code, "say which" in done.stderr) == (2, True)
    assert len(listed(invoke, folder)) == 3


def test_what_is_put_back_waits_in_the_spool_and_is_no_letter_any_more(
    folder: Path, invoke: Invoke
) -> None:
    which = ("spool", "dead-letters", "put-back", str(folder), "--topic", "orders")
    letter = listed(invoke, folder)[0]["id"]
    shown = invoke("spool", "dead-letters", "show", str(folder), letter).stdout
    dry = invoke(*which, "--dry-run")
    assert dry.stdout == "2 would be put back\n"
    assert len(listed(invoke, folder)) == 3
    done = invoke(*which, "-o", "json")
    assert json.loads(done.stdout) == {"matched": 2, "put_back": 2}
    assert [one["topic"] for one in listed(invoke, folder)] == ["page\x1bviews"]
    box = arrived(folder)
    (first,) = box.waiting("orders", 0)
    assert first._replace(accepted_at=AT) == NewRecord(b"a", b"1", (("h", b"x"),), 17, AT)
    assert first.accepted_at > AT, "or its topic's max_age would drop it at once"
    assert "breaker-sequence: a/7/1" in shown, "which would make it a copy for readers of two"
    assert [record.value for record in box.waiting("orders", 1)] == [b"2"]
    box.vault.close()
    again = invoke(*which)
    assert (again.exit_code, again.stdout) == (0, "0 put back\n")


def test_what_root_does_is_not_roots(folder: Path, invoke: Invoke) -> None:
    """Where the tests aren't root's, all of it is ours anyway."""
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    for path in (folder, folder / FILE):
        os.chown(path, owner, -1)
    which = ("spool", "dead-letters", "put-back", str(folder), "--topic", "orders")
    assert invoke(*which).exit_code == 0
    found = list(folder.rglob("*"))
    assert len(found) > 5
    assert {path.stat().st_uid for path in found} == {owner}


def test_partitions_may_be_chosen_anew(folder: Path, invoke: Invoke) -> None:
    which = ("spool", "dead-letters", "put-back", str(folder), "--reason", "unknown-partition")
    assert invoke(*which, "--by-key").exit_code == 0
    box = arrived(folder)
    assert [record.value for record in box.waiting("orders", UNPLACED)] == [b"2"]
    box.vault.close()


def test_purge_deletes_what_is_meant(folder: Path, invoke: Invoke) -> None:
    command = ("spool", "dead-letters", "purge", str(folder))
    assert invoke(*command, "--topic", "orders").stdout == "2 deleted\n"
    assert [one["reason"] for one in listed(invoke, folder)] == ["unknown-kafka-topic"]
    with (folder / FILE).open("ab") as file:
        file.write(b"torn")
    said = invoke("spool", "dead-letters", "ls", str(folder))
    assert "1 lines are no letters" in said.stderr
    assert json.loads(invoke(*command, "--all", "--dry-run", "-o", "json").stdout) == {
        "matched": 2,
        "deleted": 0,
    }
    assert invoke(*command, "--all").stdout == "2 deleted\n"
    assert (folder / FILE).read_bytes() == b""


def test_a_folder_that_isnt_there_and_a_file_that_cant_be_read(
    folder: Path, invoke: Invoke
) -> None:
    for command in (("ls",), ("purge", "--all"), ("put-back", "--all")):
        none = invoke("spool", "dead-letters", *command, str(folder / "none"))
        assert (none.exit_code, "is no folder" in none.stderr) == (2, True)
    (folder / FILE).unlink()
    (folder / FILE).mkdir()
    for command in (("ls",), ("purge", "--all"), ("put-back", "--all")):
        done = invoke("spool", "dead-letters", *command, str(folder))
        assert done.exit_code == 3, command
