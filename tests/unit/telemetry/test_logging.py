"""The log: one safe line an event, and never a wait for a reader that has stopped."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.telemetry import names
from sidecar.telemetry.lines import LINE_BYTES, printable
from sidecar.telemetry.logging import LibraryLogs, Log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    for fd in (read, write):
        os.close(fd)


def written(read: int) -> bytes:
    """All that lies in the pipe now."""
    data = b""
    while True:
        try:
            data += os.read(read, 1 << 20)
        except BlockingIOError:
            return data


def test_json_is_one_object_a_line(pipe: tuple[int, int]) -> None:
    log = Log(fd=pipe[1])
    assert log.event("transition", "warning", {"breaker": "b", "failures": 25, "ratio": 0.5})
    assert log.event("started", "info", {})
    first, second = written(pipe[0]).splitlines()
    line = json.loads(first)
    assert list(line) == ["timestamp", "level", "event", "breaker", "failures", "ratio"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert line == {
        "level": "warning",
        "event": "transition",
        "breaker": "b",
        "failures": 25,
        "ratio": 0.5,
    }
    assert json.loads(second)["event"] == "started"


def test_levels_below_the_least_are_not_written(pipe: tuple[int, int]) -> None:
    log = Log(fd=pipe[1], level="warning")
    assert log.event("started", "info", {})
    assert written(pipe[0]) == b""
    assert log.event("store_lost", "error", {})
    assert json.loads(written(pipe[0]))["event"] == "store_lost"


HOSTILE = "a\nb\r\x1b[2J\x1b]0;x\x07\x7f\x9b\u2028\u202e\ud800\0"


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_text_can_forge_a_line_or_move_the_cursor(pipe: tuple[int, int], style: str) -> None:
    log = Log(fd=pipe[1], style="json" if style == "json" else "console")
    assert log.event(HOSTILE, "info", {"value": HOSTILE, HOSTILE: 1, "many": [HOSTILE]})
    data = written(pipe[0])
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    text = data[:-1].decode()
    assert text.isprintable()


def test_json_keeps_the_value_of_what_it_escapes(pipe: tuple[int, int]) -> None:
    Log(fd=pipe[1]).event("library", "info", {"value": HOSTILE})
    assert json.loads(written(pipe[0]))["value"] == HOSTILE


def test_odd_values_are_written_all_the_same(pipe: tuple[int, int]) -> None:
    fields: dict[str, object] = {
        "nan": float("nan"),
        "none": None,
        "path": Path("/x"),
        "level": "mine",
        "event": "mine",
        "timestamp": "mine",
    }
    assert Log(fd=pipe[1]).event("started", "no-such-level", fields)
    line = json.loads(written(pipe[0]), parse_constant=pytest.fail)
    assert line["nan"] == "nan"
    assert line["path"] == "/x"
    assert (line["event"], line["event_"], line["level_"]) == ("started", "mine", "mine")


def test_a_value_that_cant_be_shown_raises_nothing(pipe: tuple[int, int]) -> None:
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert not Log(fd=pipe[1]).event("started", "info", {"value": Awkward()})


def test_secrets_stay_out(pipe: tuple[int, int]) -> None:
    log = Log(fd=pipe[1])
    log.event(
        "store_denied",
        "error",
        {
            "token": "s3cret",
            "Authorization": "Bearer s3cret",
            "x-consul-token": "s3cret",
            "error": "GET /v1/kv/x?token=s3cret&dc=a {'X-Consul-Token': 's3cret'}",
            "detail": "sent Bearer s3cret",
            "token_file": "/run/token",
        },
    )
    data = written(pipe[0])
    assert b"s3cret" not in data
    assert b"/run/token" in data
    assert b"dc=a" in data


def test_a_line_fits_into_one_write(pipe: tuple[int, int]) -> None:
    log = Log(fd=pipe[1])
    assert log.event("transition", "info", {f"k{n}": "é" * 9000 for n in range(8)})
    assert log.event("transition", "info", {f"k{n}": "é" * 9000 for n in range(900)})
    assert log.event("task_failed", "error", {"traceback": "x" * 9000 + "ValueError: the end"})
    lines = written(pipe[0]).splitlines(keepends=True)
    assert [len(line) <= LINE_BYTES for line in lines] == [True] * 3
    assert json.loads(lines[1])["truncated"] is True
    assert json.loads(lines[2])["traceback"].endswith("ValueError: the end")


def test_a_reader_that_has_stopped_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    log = Log(fd=pipe[1])
    began = time.monotonic()
    results = [log.event("transition", "info", {"n": n, "pad": "x" * 900}) for n in range(500)]
    assert time.monotonic() - began < 5
    assert results[0]
    assert not results[-1]
    held = written(pipe[0]).splitlines()
    assert len(held) == results.count(True)
    assert log.event("started", "info", {})
    told, line = (json.loads(x) for x in written(pipe[0]).splitlines())
    assert told["event"] == "log_lines_dropped"
    assert told["lines"] == results.count(False)
    assert line["event"] == "started"


def test_nobody_reading_any_more_is_survived() -> None:
    read, write = os.pipe()
    log = Log(fd=write)
    os.close(read)
    assert not log.event("started", "info", {})
    os.close(write)
    assert not log.event("started", "info", {})


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_readable_lines(environ: dict[str, str], coloured: bool) -> None:
    leader, follower = pty.openpty()
    try:
        log = Log(fd=follower, environ=environ)
        fields: dict[str, object] = {"breaker": "b", "from": "CLOSED", "detail": 'x "y" ×'}
        assert log.event("transition", "warning", fields)
        text = os.read(leader, 4096).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert ("\x1b[" in text) == coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\r\n")
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} WARNING  transition breaker=b from=CLOSED detail="x \\"y\\" ×"',
        plain,
    )


def test_what_libraries_log_becomes_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, dict[str, object]]] = []

    def event(name: str, *, level: str, **fields: object) -> None:
        seen.append((name, level, fields))

    logger = logging.getLogger("some.library")
    monkeypatch.setattr(logger, "handlers", [LibraryLogs(event)])
    monkeypatch.setattr(logger, "propagate", False)
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("bad %s", "thing")
    logger.info("not worth a line")
    logger.warning("%d", "no number")
    (name, level, fields), (_, other, loose) = seen
    assert (name, level) == (names.LIBRARY, "error")
    assert fields["logger"] == "some.library"
    assert fields["message"] == "bad thing"
    assert str(fields["traceback"]).rstrip().endswith("ValueError: inside")
    assert (other, loose["message"]) == ("warning", "%d")


def test_what_a_library_repeats_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, object]] = []
    now = 0.0

    def event(_: str, *, level: str, **fields: object) -> None:
        seen.append((str(fields["message"]), fields.get("repeated")))

    logger = logging.getLogger("chatty.library")
    monkeypatch.setattr(logger, "handlers", [LibraryLogs(event, lambda: now)])
    monkeypatch.setattr(logger, "propagate", False)
    for second in range(90):
        now = float(second)
        logger.warning("no way to node %s", second % 3)
    logger.warning("something else")
    for _ in range(2):
        logger.error("a defect", exc_info=ValueError("inside"))
    assert seen == [
        ("no way to node 0", None),
        ("no way to node 0", 59),
        ("something else", None),
        ("a defect", None),
        ("a defect", None),
    ]


def test_installing_takes_the_root_loggers_place() -> None:
    code = (
        "import logging, sys\n"
        "from sidecar.telemetry.logging import LibraryLogs\n"
        "LibraryLogs(lambda name, *, level, **f: print(name, level, f['message'])).install()\n"
        "logging.getLogger('asyncio').error('task was destroyed')\n"
        "assert 'rich' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "library error task was destroyed\n"
    assert done.stderr == ""


def test_rich_is_left_out_of_the_daemon() -> None:
    code = (
        "import sys\n"
        "from sidecar.telemetry.logging import Log\n"
        "Log()\n"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_printable_leaves_readable_text_alone() -> None:
    assert printable("25 × größer") == "25 × größer"
    assert printable("a\tb\n\U000e0001") == "a\\tb\\n\\U000e0001"
