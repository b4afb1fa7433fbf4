"""`spool …`: what it asks a sidecar, and what it does with folders of its own accord."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.placing import UNPLACED
from sidecar.core.spooling import Idempotency, NewRecord
from sidecar.spool.frames import pack
from sidecar.spool.vault import Append
from tests.unit.cli.canned import Canned, Invoke
from tests.unit.spool.kit import AT, Box, Hasty, record, records

SPOOL: dict[str, Any] = {
    "usable": True,
    "fault": None,
    "records": 30,
    "bytes": 3000,
    "orphans": 1,
    "replay_rate": 10.0,
    "inflow_rate": 0.0,
    "left_s": 3.0,
    "topics": [
        {
            "topic": "orders",
            "direct": False,
            "paused": True,
            "records": 30,
            "backlogs": [
                {"partition": 0, "records": 10, "bytes": 1000, "oldest_age_s": 61.0},
                {"partition": 1, "records": 20, "bytes": 2000, "oldest_age_s": 60.0},
            ],
        },
        {"topic": "payments", "direct": True, "paused": False, "records": 0, "backlogs": []},
    ],
}


def box(root: Path, name: str = "me") -> Box:
    return Box(root, files=Hasty(), name=name)


# --- by the sidecar -----------------------------------------------------------------------------


def test_ls_shows_what_waits(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /v1/spool"] = (200, SPOOL)
    done = ask("spool", "ls")
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[1] == ["orders", "0", "10", "1000", "1m01s", "spooled", "paused"]
    assert lines[2][:4] == ["orders", "1", "20", "2000"]
    assert lines[3][:3] == ["payments", "-", "0"]
    assert "30 records wait" in done.stdout
    assert "3s to go" in done.stdout
    assert "1 spools beside it can't be adopted" in done.stdout
    assert json.loads(ask("spool", "ls", "-o", "json").stdout) == SPOOL


def test_ls_says_loudly_that_it_takes_nothing_more(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /v1/spool"] = (200, {**SPOOL, "fault": "sync failed"})
    assert "IT TAKES NOTHING MORE: sync failed" in ask("spool", "ls").stdout


def test_orders_go_to_the_sidecar_with_the_token(
    sidecar: Canned, ask: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    for order in ("pause", "resume"):
        sidecar.replies[f"POST /v1/spool/or%20ders/{order}"] = (200, {"topic": "or ders"})
        done = ask("spool", order, "or ders", "--token-file", str(tmp_path / "token"))
        assert done.exit_code == 0, done.stderr
        assert sidecar.headers[-1]["Authorization"] == "Bearer s3cret"
    refused = {"type": "urn:breaker-sidecar:unauthorized", "detail": "a token is needed"}
    sidecar.replies["POST /v1/spool/t/pause"] = (401, refused)
    assert ask("spool", "pause", "t").exit_code == 2
    unknown = {"type": "urn:breaker-sidecar:unknown-topic", "detail": "t is not among them"}
    sidecar.replies["POST /v1/spool/t/pause"] = (404, unknown)
    assert ask("spool", "pause", "t").exit_code == 2
    off = {"type": "urn:breaker-sidecar:publish-off", "detail": "nothing is published here"}
    sidecar.replies["GET /v1/spool"] = (404, off)
    assert ask("spool", "ls").exit_code == 3


# --- by the folder ------------------------------------------------------------------------------


def test_ls_of_folders(tmp_path: Path, invoke: Invoke) -> None:
    gone = box(tmp_path, "gone")
    gone.append(*records(range(5)))
    gone.vault.done([("t", 0, 2)])
    gone.vault.close()
    box(tmp_path, "empty").vault.close()
    alive = box(tmp_path, "alive")
    alive.append(record())
    said = json.loads(invoke("spool", "ls", "--folder", str(tmp_path), "-o", "json").stdout)
    assert [one["spool"] for one in said["spools"]] == ["alive", "empty", "gone"]
    assert [one["in_use"] for one in said["spools"]] == [True, False, False]
    (backlog,) = said["spools"][2]["backlogs"]
    assert (backlog["topic"], backlog["records"], backlog["done_sequence"]) == ("t", 3, 2)
    text = invoke("spool", "ls", "--folder", str(tmp_path)).stdout
    assert "in use: ask its sidecar" in text
    assert invoke("spool", "ls", "--folder", str(tmp_path / "gone")).stdout.count("\n") == 2
    alive.vault.close()


def test_ls_shows_the_spools_beside_one_that_can_not_be_read(
    tmp_path: Path, invoke: Invoke
) -> None:
    for name in ("a", "newer", "z"):
        kept = box(tmp_path, name)
        kept.append(record())
        kept.vault.close()
    (tmp_path / "newer" / "format").write_text('{"spool": 9}')
    done = invoke("spool", "ls", "--folder", str(tmp_path))
    assert done.exit_code == 3
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["a", "newer", "z"]
    assert "has format 9" in done.stdout
    said = json.loads(invoke("spool", "ls", "--folder", str(tmp_path), "-o", "json").stdout)
    assert [len(one["backlogs"]) for one in said["spools"]] == [1, 0, 1]
    assert invoke("spool", "ls", "--folder", str(tmp_path / "newer")).exit_code == 2


def test_verify_of_whole_and_damaged_ones(tmp_path: Path, invoke: Invoke) -> None:
    kept = box(tmp_path)
    kept.append(*records(range(20)))
    kept.append(record(1), partition=1)
    assert invoke("spool", "verify", str(tmp_path)).exit_code == 0, "beside a running daemon"
    kept.vault.close()
    (path,) = kept.segments()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = invoke("spool", "verify", str(tmp_path))
    assert done.exit_code == 3
    assert "DAMAGED" in done.stdout
    assert "1 records are missing" in done.stdout
    assert "20 records in 2 segments: 1 of 2 segments are damaged" in done.stderr
    said = json.loads(invoke("spool", "verify", str(tmp_path / "me"), "-o", "json").stdout)
    bad = [one for one in said["segments"] if not one["whole"]]
    assert [(one["records"], one["missing"], len(one["damaged"])) for one in bad] == [(19, 1, 1)]
    path.write_bytes(path.read_bytes()[:-3])
    (last, _) = json.loads(invoke("spool", "verify", str(tmp_path), "-o", "json").stdout)[
        "segments"
    ]
    assert last["unfinished"] is True


def test_verify_of_what_is_all_delivered(tmp_path: Path, invoke: Invoke) -> None:
    """The folder of a partition stays when its last segment is given back; so may what is none."""
    kept = box(tmp_path)
    kept.append(record())
    (path,) = kept.segments()
    kept.vault.done([("t", 0, 1)])
    kept.clock.at += 60
    kept.vault.tick()
    kept.vault.close()
    assert list(path.parent.iterdir()) == []
    for _ in range(2):
        done = invoke("spool", "verify", str(tmp_path))
        assert (done.exit_code, done.stdout) == (0, "")
        assert "0 records in 0 segments: all of it is whole" in done.stderr
        path.mkdir(exist_ok=True)


def test_records_are_carried_to_another_folder(tmp_path: Path, invoke: Invoke) -> None:
    odd = NewRecord(None, None, (("ä", b"\xff"), ("none", None)), 5, AT, Idempotency("k", b"12345"))
    kept = box(tmp_path / "a")
    kept.append(odd, *records(range(1500)))
    kept.append(record(7), topic="u", partition=4)
    kept.vault.done([("t", 0, 101)])
    assert invoke("spool", "export", str(tmp_path / "a")).exit_code == 3, "it is in use"
    kept.vault.close()
    done = invoke("spool", "export", str(tmp_path / "a"))
    assert done.exit_code == 0, done.stderr
    assert "1401 records of 1 spools" in done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["topic"], first["partition"], first["sequence"]) == ("t", 0, 102)
    assert base64.b64decode(first["key"]) == b"key-100"
    there = str(tmp_path / "b")
    put = invoke("spool", "import", there, input=done.stdout)
    assert put.exit_code == 0, put.stderr
    assert "1401 records" in put.stderr
    again = invoke("spool", "import", there, input=done.stdout)
    assert again.exit_code == 3
    assert "there already" in again.stderr
    (name,) = [path.name for path in (tmp_path / "b").iterdir()]
    arrived = box(tmp_path / "b", name)
    assert arrived.waiting() == records(range(100, 1500))
    assert arrived.waiting("u", 4) == [record(7)]
    arrived.vault.close()


def test_every_field_survives_the_journey(tmp_path: Path, invoke: Invoke) -> None:
    odd = NewRecord(None, None, (("ä", b"\xff"), ("none", None)), 5, AT, Idempotency("k", b"12345"))
    full = NewRecord(b"", b"\x00\xff", (), 2**60, AT + 0.125)
    kept = box(tmp_path / "a")
    kept.append(odd, full)
    kept.vault.close()
    lines = invoke("spool", "export", str(tmp_path / "a")).stdout
    (tmp_path / "lines").write_text(lines)
    assert invoke("spool", "import", str(tmp_path / "b"), str(tmp_path / "lines")).exit_code == 0
    (name,) = [path.name for path in (tmp_path / "b").iterdir()]
    arrived = box(tmp_path / "b", name)
    assert arrived.waiting() == [odd, full]
    arrived.vault.close()


def test_records_without_a_partition_yet_are_told_so(tmp_path: Path, invoke: Invoke) -> None:
    kept = box(tmp_path / "a")
    kept.vault.append([Append("t", UNPLACED, [pack(record())])])
    kept.vault.close()
    folder = str(tmp_path / "a")
    listed = json.loads(invoke("spool", "ls", "--folder", folder, "-o", "json").stdout)
    assert listed["spools"][0]["backlogs"][0]["partition"] is None
    verified = json.loads(invoke("spool", "verify", folder, "-o", "json").stdout)
    assert verified["segments"][0]["partition"] is None
    assert str(UNPLACED) not in invoke("spool", "ls", "--folder", folder).stdout
    assert str(UNPLACED) not in invoke("spool", "verify", folder).stdout
    lines = invoke("spool", "export", folder).stdout
    assert json.loads(lines)["partition"] is None
    assert invoke("spool", "import", str(tmp_path / "b"), input=lines).exit_code == 0
    assert "t" in invoke("spool", "verify", str(tmp_path / "b")).stdout
    (name,) = [path.name for path in (tmp_path / "b").iterdir()]
    arrived = box(tmp_path / "b", name)
    assert arrived.vault.backlog("t", UNPLACED).records == 1
    arrived.vault.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x", "line 2 is no record"),
        ("[]", "no object"),
        ('{"topic": "t"}', "is missing"),
        ('{"extra": 1}', "'extra' is unknown"),
        ('{"topic": "a/b", "headers": []}', "line 2 is no record: 'a/b' can't be a topic's name"),
    ],
)
def test_an_import_is_whole_or_nothing(
    tmp_path: Path, invoke: Invoke, line: str, said: str
) -> None:
    kept = box(tmp_path / "a")
    kept.append(record())
    kept.vault.close()
    good = invoke("spool", "export", str(tmp_path / "a")).stdout
    done = invoke("spool", "import", str(tmp_path / "b"), input=good + line)
    assert done.exit_code == 2
    assert said in done.stderr
    assert list((tmp_path / "b").iterdir()) == []


def test_an_import_into_a_spool_would_be_found_by_nobody(tmp_path: Path, invoke: Invoke) -> None:
    kept = box(tmp_path)
    kept.append(record())
    kept.vault.close()
    lines = invoke("spool", "export", str(tmp_path)).stdout
    before = sorted(kept.path.rglob("*"))
    done = invoke("spool", "import", str(kept.path), input=lines)
    assert done.exit_code == 2
    assert "name spool.dir" in done.stderr
    assert sorted(kept.path.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_import_of_nothing_is_told_and_makes_nothing(
    tmp_path: Path, invoke: Invoke, content: str
) -> None:
    lines = tmp_path / "lines.ndjson"
    lines.write_text(content)
    for given, name in (([], "standard input"), ([str(lines)], str(lines))):
        done = invoke("spool", "import", str(tmp_path / "b"), *given, input=content)
        assert done.exit_code == 2
        assert f"{name} holds no records" in done.stderr
        assert "`spool export`" in done.stderr
        assert not (tmp_path / "b").exists()


def test_what_is_no_spool_is_wrong_usage(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "some").mkdir()
    for command in (("ls", "--folder"), ("verify",), ("export",)):
        done = invoke("spool", *command, str(tmp_path / "some"))
        assert done.exit_code == 2, command
        assert "no spool" in done.stderr
