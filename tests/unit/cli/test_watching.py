"""`status`, `history` and `watch`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sidecar.cli import tables
from tests.unit.cli.canned import UNKNOWN, Canned, Invoke, breaker, transition

STATUS = {
    "instance": "i-9",
    "version": "1.0",
    "role": "auto",
    "store": {"kind": "consul"},
    "sync": {"age": 0.4},
    "breakers": [
        breaker(),
        breaker(
            "orders",
            state="HALF_OPEN",
            admit_ratio=0.05,
            stale=True,
            config_mismatch=True,
            reporters={"fresh": 3, "stale": 1},
            evaluator=None,
            detail="of \x1b]0;evil\x07 intent",
        ),
        breaker("dark", mode="shadow", automaton="OPEN", since=None),
    ],
}


def test_status_is_a_table(sidecar: Canned, ask: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.cli.tables.wall", lambda: 1795204800.0 + 192)  # 20:03:12
    sidecar.replies["GET /v1/status"] = (200, STATUS)
    result = ask("status")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    heads = "BREAKER STATE SINCE REASON REPORTERS EVALUATOR NOTES DETAIL"
    assert " ".join(lines[0]) == heads
    assert lines[1][:7] == ["default", "CLOSED", "3m11s", "created", "-", "i-1", "-"]
    joined = " ".join(lines[2])
    assert joined.startswith(
        "orders HALF_OPEN 5% 3m11s created 3 fresh, 1 stale - stale, config mismatch"
    )
    assert "\\u001b]0;evil\\u0007" in joined
    assert " ".join(lines[3]).startswith("dark CLOSED - created - i-1 shadow of OPEN")
    assert "sidecar i-9, version 1.0, role auto, store consul (read 0s ago)" in result.stdout


def test_status_as_json_is_the_sidecars(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /v1/status"] = (200, STATUS)
    assert json.loads(ask("status", "-o", "json").stdout) == STATUS


def test_no_colour_but_on_a_terminal_that_wants_it(
    sidecar: Canned, ask: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar.replies["GET /v1/status"] = (200, STATUS)
    assert "\x1b[" not in ask("status").stdout
    assert "\x1b[32mCLOSED" in ask("status", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in ask("status", color=True).stdout


def test_history(sidecar: Canned, ask: Invoke) -> None:
    body = {"breaker": "default", "transitions": [transition(2, "CLOSED", "OPEN")]}
    sidecar.replies["GET /v1/breakers/default/history"] = (200, body)
    result = ask("history")
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split()[:3] == ["AT", "FROM", "TO"]
    assert row.split()[:7] == [
        "2026-11-20T20:00:02.123Z",
        "CLOSED",
        "OPEN",
        "failures",
        "2",
        "7",
        "i-1",
    ]
    assert json.loads(ask("history", "-o", "json").stdout) == body


@pytest.mark.parametrize("command", ["history", "watch"])
def test_an_unknown_name_is_2(sidecar: Canned, ask: Invoke, command: str) -> None:
    sidecar.replies["GET /v1/breakers/nope"] = UNKNOWN
    sidecar.replies["GET /v1/breakers/nope/history"] = UNKNOWN
    assert ask(command, "nope").exit_code == 2


@pytest.mark.parametrize("command", ["history", "watch", "status"])
def test_nobody_there_is_3(invoke: Invoke, command: str) -> None:
    assert invoke(command, "--address", "unix:/nowhere").exit_code == 3


@contextmanager
def watching(sidecar: Canned, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "watch", *arguments, "--address", sidecar.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(30, process.kill)  # so that no read of its output waits for ever
    guard.start()
    try:
        yield process
    finally:
        guard.cancel()
        process.kill()
        process.communicate(timeout=10)


def test_watch_prints_what_came_and_went_between_two_looks(sidecar: Canned) -> None:
    sidecar.replies["GET /v1/breakers"] = (200, {"breakers": [breaker(), breaker("b")]})
    history = [transition(n, a, b) for n, a, b in [(1, "OPEN", "CLOSED"), (2, "CLOSED", "OPEN")]]
    history.append(transition(3, "OPEN", "HALF_OPEN"))
    sidecar.replies["GET /v1/breakers/default/history"] = (200, {"transitions": history})
    with watching(sidecar) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("default is CLOSED since 2026")
        assert process.stderr.readline().startswith("b is CLOSED")
        after = breaker(state="HALF_OPEN", seq=3)
        sidecar.replies["GET /v1/breakers"] = (200, {"breakers": [after, breaker("b")]})
        first, second = process.stdout.readline(), process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert first == (
        "2026-11-20T20:00:02.123Z default CLOSED -> OPEN "
        "failures: 25 failures in the last interval, threshold 20 (seq 2)\n"
    )
    assert " OPEN -> HALF_OPEN " in second
    assert rest == ""


def test_watch_shows_a_change_that_no_record_stands_behind(sidecar: Canned) -> None:
    """The loss policy answers, then the sidecar itself goes away, and comes back."""
    sidecar.replies["GET /v1/breakers/default"] = (200, breaker())
    with watching(sidecar, "default", "-o", "json") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()
        lost = breaker(state="OPEN", reason="store_lost", detail="the store has not answered")
        sidecar.replies["GET /v1/breakers/default"] = (200, lost)
        line = json.loads(process.stdout.readline())
        assert (line["breaker"], line["from"], line["to"]) == ("default", "CLOSED", "OPEN")
        assert line["reason"] == "store_lost"
        sidecar.replies["GET /v1/breakers/default"] = (500, {"type": "about:blank", "detail": "x"})
        assert "answered 500" in process.stderr.readline()
        assert "Trying again" in process.stderr.readline()
        sidecar.replies["GET /v1/breakers/default"] = (200, breaker())
        assert "answers again" in process.stderr.readline()
        assert json.loads(process.stdout.readline())["to"] == "CLOSED"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0s"), (59.9, "59s"), (61, "1m01s"), (3600, "1h00m"), (90000, "1d01h")],
)
def test_spans(seconds: float, said: str) -> None:
    assert tables.span(seconds) == said
