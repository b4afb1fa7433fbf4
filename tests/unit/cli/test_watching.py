"""`status`, `history` and `watch`."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.cli.client import Client
from sidecar.cli.following import Follower
from sidecar.client.address import places
from tests.unit.cli.canned import (
    UNKNOWN,
    Canned,
    Invoke,
    Stream,
    breaker,
    decision,
    event,
    transition,
)

EVIL = "of \x1b]0;evil\x07 intent\u202e"
OVERRIDE = {
    "mode": "open",
    "reason": EVIL,
    "author": "ann",
    "set_at": "2026-11-20T20:02:12Z",
    "ttl_s": 900,
    "expires_at": "2026-11-20T20:17:12Z",
    "left_s": 840.0,
}
STATUS = {
    "instance": "i-9",
    "version": "1.0",
    "role": "auto",
    "store": {"kind": "consul"},
    "sync": {"age": 0.4, "stale_after": 10, "max_stale": 30, "on_loss": "keep"},
    "breakers": [
        breaker(evaluating=True, reporters={"fresh": 3, "stale": 1}),
        breaker(
            "orders",
            state="HALF_OPEN",
            admit_ratio=0.05,
            stale=True,
            config_mismatch=True,
            evaluator=None,
            detail=EVIL,
            evidence={"failures": 7, "threshold": 20, "index": 9},
        ),
        breaker(
            "dark",
            mode="shadow",
            automaton="OPEN",
            since=None,
            shadow={"openings": 3, "since": "2026-11-06T18:03:12Z", "rejected": 17},
        ),
        breaker("held", state="OPEN", reason="forced", override=OVERRIDE, detail="forced"),
    ],
}


@pytest.fixture
def asked(sidecar: Canned, monkeypatch: pytest.MonkeyPatch) -> Canned:
    """A status, at 20:03:12."""
    monkeypatch.setattr("sidecar.cli.tables.wall", lambda: 1795204800.0 + 192)
    monkeypatch.setattr("sidecar.cli.watching.wall", lambda: 1795204800.0 + 192)
    sidecar.replies["GET /v1/status"] = (200, STATUS)
    return sidecar


def test_status_is_a_table(asked: Canned, ask: Invoke) -> None:
    result = ask("status")
    assert result.exit_code == 0
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert rows[0] == "BREAKER STATE SINCE REASON EVIDENCE REPORTERS EVALUATOR NOTES DETAIL"
    assert rows[1] == "default CLOSED 3m11s created - 3 fresh, 1 stale i-1 - no state was there"
    assert rows[2] == (
        "orders HALF_OPEN 5% 3m11s created failures 7, threshold 20 unknown here nobody "
        "stale, config mismatch of \\u001b]0;evil\\u0007 intent\\u202e"
    )
    assert rows[3].startswith("dark CLOSED - created - unknown here i-1 shadow of OPEN")
    assert rows[4].startswith("held OPEN (FORCED) 1m00s forced - unknown here i-1 FORCED open")
    assert rows[-1] == "sidecar i-9, version 1.0, role auto, store consul (read 0s ago)"


def test_status_says_below_what_no_column_can(asked: Canned, ask: Invoke) -> None:
    said = ask("status").stdout.splitlines()[6:-1]
    assert said[0] == (
        "!! held is FORCED open by ann, 14m00s left of 15m00s: "
        "of \\u001b]0;evil\\u0007 intent\\u202e; underneath: CLOSED"
    )
    assert said[1].startswith("orders: stale: the store was last read 0s ago; after 30s the loss")
    assert said[2].startswith("orders: the record was written under another configuration")
    assert said[3].startswith("orders: nobody evaluates it")
    assert said[4].startswith("dark: shadow: would have opened 3 times in 14d02h")
    assert "17 calls" in said[4]
    # What is true of many is said once.
    known = "verdict and reporters are known to its evaluator i-1, at h:1 there"
    assert said[5:] == [f"dark, held: {known}"]


def test_status_as_json_is_the_sidecars(asked: Canned, ask: Invoke) -> None:
    assert json.loads(ask("status", "-o", "json").stdout) == STATUS


def test_status_of_one_breaker_has_no_other(asked: Canned, ask: Invoke) -> None:
    one = json.loads(ask("status", "orders", "-o", "json").stdout)
    assert [item["name"] for item in one["breakers"]] == ["orders"]
    assert one["instance"] == STATUS["instance"]
    table = ask("status", "orders").stdout
    assert table.splitlines()[1].startswith("orders")
    assert "dark" not in table
    asked.replies["GET /v1/status"] = (200, {**STATUS, "default": "orders"})
    assert ask("status", "default").stdout == table
    unknown = ask("status", "nope")
    assert unknown.exit_code == 2
    assert "orders" in unknown.stderr


def test_no_colour_but_on_a_terminal_that_wants_it(
    asked: Canned, ask: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[" not in ask("status").stdout
    coloured = ask("status", color=True).stdout
    assert "\x1b[32mCLOSED" in coloured
    assert "\x1b[1m!! held is FORCED" in coloured
    assert "\x1b[31m\x1b[1mOPEN (FORCED)" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in ask("status", color=True).stdout


def test_history(sidecar: Canned, ask: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.cli.tables.wall", lambda: 1795204800.0 + 192)
    body = {"breaker": "default", "transitions": [transition(2, "CLOSED", "OPEN")]}
    sidecar.replies["GET /v1/breakers/default/history"] = (200, body)
    result = ask("history")
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split()[:4] == ["AT", "AGO", "FROM", "TO"]
    assert row.split()[:8] == [
        "2026-11-20T20:00:02.123Z",
        "3m09s",
        "CLOSED",
        "OPEN",
        "failures",
        "2",
        "7",
        "i-1",
    ]
    assert json.loads(ask("history", "-o", "json").stdout) == body


def test_an_empty_history_says_so_beside_the_data(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /v1/breakers/default/history"] = (
        200,
        {"breaker": "default", "transitions": []},
    )
    result = ask("history")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "default has had no transition yet" in result.stderr


@pytest.mark.parametrize("command", ["history", "watch"])
def test_an_unknown_name_is_2(sidecar: Canned, ask: Invoke, command: str) -> None:
    sidecar.replies["GET /v1/breakers/nope"] = UNKNOWN
    sidecar.replies["GET /v1/breakers/nope/history"] = UNKNOWN
    assert ask(command, "nope").exit_code == 2


@pytest.mark.parametrize("command", ["history", "watch", "status"])
def test_nobody_there_is_3(invoke: Invoke, command: str) -> None:
    assert invoke(command, "--address", "unix:/nowhere").exit_code == 3


# --- watch -----------------------------------------------------------------------------------


@contextmanager
def watching(sidecar: Canned, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "watch", *arguments, "--address", sidecar.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(60, process.kill)  # so that no read of its output waits for ever
    guard.start()
    try:
        yield process
    finally:
        guard.cancel()
        process.kill()
        process.communicate(timeout=10)


def streaming(sidecar: Canned, *names: str) -> Stream:
    """A sidecar with these breakers, and the stream it will send."""
    sidecar.replies["GET /v1/breakers"] = (200, {"breakers": [breaker(name) for name in names]})
    stream: Stream = queue.Queue()
    sidecar.replies["GET /v1/watch"] = (200, stream)
    stream.put(event("snapshot", breakers=[decision(name) for name in names]))
    return stream


def follow(sidecar: Canned, name: str | None = None) -> Iterator[dict[str, Any]]:
    return Follower(Client(places(sidecar.address)), name).events()


def test_watch_prints_what_came_and_went_between_two_events(sidecar: Canned) -> None:
    stream = streaming(sidecar, "default", "b")
    history = [transition(n, a, b) for n, a, b in [(1, "OPEN", "CLOSED"), (2, "CLOSED", "OPEN")]]
    history += [transition(3, "OPEN", "HALF_OPEN"), transition(4, "HALF_OPEN", "OPEN")]
    sidecar.replies["GET /v1/breakers/default/history"] = (200, {"transitions": history})
    with watching(sidecar) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("default is CLOSED since 2026")
        assert process.stderr.readline().startswith("b is CLOSED")
        stream.put(event("transition", **decision(state="HALF_OPEN", seq=3, admit_ratio=0.05)))
        first, second = process.stdout.readline(), process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 0
    assert first == (
        "2026-11-20T20:00:02.123Z default CLOSED -> OPEN "
        "failures: 25 failures in the last interval, threshold 20 (seq 2)\n"
    )
    assert " OPEN -> HALF_OPEN " in second
    # The history knows more already; that is told when its event comes.
    assert rest == ""
    assert [what for what, _ in sidecar.asked].count("GET /v1/breakers") == 1


def test_a_step_of_the_ramp_is_no_transition_and_nothing_is_told_twice(sidecar: Canned) -> None:
    stream = streaming(sidecar, "default")
    sidecar.replies["GET /v1/breakers/default/history"] = (
        200,
        {"transitions": [transition(2, "OPEN", "HALF_OPEN"), transition(4, "HALF_OPEN", "CLOSED")]},
    )
    half = {"state": "HALF_OPEN", "reason": "open_elapsed"}
    stream.put(event("transition", **decision(seq=2, admit_ratio=0.05, **half)))
    stream.put(event("transition", **decision(seq=3, admit_ratio=0.5, **half)))
    stream.put(event("change", **decision(seq=3, admit_ratio=0.5, stale=True, **half)))
    stream.put(b": still here\n\n")
    stream.put(event("transition", **decision(seq=4)))
    told = follow(sidecar)
    assert [(e["to"], e["seq"]) for e in (next(told), next(told))] == [
        ("HALF_OPEN", 2),
        ("CLOSED", 4),
    ]


def test_an_override_is_told_when_it_begins_and_when_it_ends(sidecar: Canned) -> None:
    stream = streaming(sidecar, "default")
    sidecar.replies["GET /v1/breakers/default/history"] = (
        200,
        {"transitions": [transition(3, "CLOSED", "OPEN")]},
    )
    bare = {key: value for key, value in OVERRIDE.items() if key != "left_s"}
    forced = {"state": "OPEN", "reason": "forced", "detail": "forced open by ann"}
    stream.put(event("transition", **decision(override={**bare, "set_at": None}, **forced)))
    # The evaluator fills in the times and writes the record; then the automaton moves underneath.
    stream.put(event("transition", **decision(seq=2, override=bare, **forced)))
    stream.put(event("transition", **decision(seq=3, override=bare, **forced)))
    shut = {**bare, "mode": "closed", "set_at": "2026-11-20T20:05:00Z"}
    stream.put(event("transition", **decision(seq=3, override=shut, reason="forced")))
    back = decision(seq=4, state="OPEN", reason="failures", at="2026-11-20T20:06:00.000000Z")
    stream.put(event("transition", **back))
    told = follow(sidecar)
    begins, under, replaced, ends = (next(told) for _ in range(4))
    assert (begins["event"], begins["from"], begins["to"]) == ("override_begins", "CLOSED", "OPEN")
    assert begins["override"]["author"] == "ann"
    assert (under["event"], under["seq"], under["in_force"]) == ("transition", 3, False)
    assert (replaced["event"], replaced["mode"]) == ("override_begins", "closed")
    assert (ends["event"], ends["from"], ends["to"], ends["mode"]) == (
        "override_ends",
        "CLOSED",
        "OPEN",
        "closed",
    )


def test_people_see_overrides_loud_and_without_their_escapes(sidecar: Canned) -> None:
    stream = streaming(sidecar, "default")
    bare = {key: value for key, value in OVERRIDE.items() if key != "left_s"}
    at = {"at": "2026-11-20T20:06:00.123456Z"}
    stream.put(event("transition", **decision(state="OPEN", reason="forced", override=bare, **at)))
    stream.put(event("transition", **decision(**at)))
    with watching(sidecar) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == (
            "!! 2026-11-20T20:06:00.123Z default CLOSED -> OPEN FORCED open by ann, "
            "15m00s left of 15m00s: of \\u001b]0;evil\\u0007 intent\\u202e\n"
        )
        assert process.stdout.readline() == (
            "!! 2026-11-20T20:06:00.123Z default OPEN -> CLOSED not FORCED open any more\n"
        )


def test_a_shadowed_breakers_transitions_are_underneath(sidecar: Canned) -> None:
    stream = streaming(sidecar, "dark")
    sidecar.replies["GET /v1/breakers/dark/history"] = (
        200,
        {"transitions": [transition(2, "CLOSED", "OPEN")]},
    )
    stream.put(event("transition", **decision("dark", seq=2, reason="shadow", detail="shadow: x")))
    stream.put(event("change", **decision("dark", seq=2, state="OPEN", reason="store_lost")))
    told = follow(sidecar)
    first, second = next(told), next(told)
    assert (first["to"], first["in_force"]) == ("OPEN", False)
    assert (second["reason"], second["from"], second["to"]) == ("store_lost", "CLOSED", "OPEN")


def test_one_breaker_alone(sidecar: Canned) -> None:
    stream = streaming(sidecar, "a", "b")
    sidecar.replies["GET /v1/breakers/b"] = (200, breaker("b"))
    stream.put(event("change", **decision("a", state="OPEN", reason="store_lost")))
    stream.put(event("change", **decision("b", state="OPEN", reason="store_lost")))
    assert next(follow(sidecar, "b"))["breaker"] == "b"


def test_a_breaker_that_a_reload_takes_away_ends_its_watch(sidecar: Canned) -> None:
    stream = streaming(sidecar, "a", "b")
    sidecar.replies["GET /v1/breakers/b"] = (200, breaker("b"))
    stream.put(event("snapshot", breakers=[decision("a")]))
    with watching(sidecar, "b") as process:
        assert process.wait(30) == 2
        assert process.stderr is not None
        assert "knows no breaker b any more" in process.stderr.read()


def test_a_sidecar_that_goes_away_is_told_of_once_and_followed_again(sidecar: Canned) -> None:
    stream = streaming(sidecar, "default")
    stream.put(None)
    sidecar.replies["GET /v1/breakers"] = [
        (200, {"breakers": [breaker()]}),
        (500, {"type": "about:blank", "detail": "x"}),
        (200, {"breakers": [breaker(state="OPEN", reason="store_lost", detail="away")]}),
    ]
    with watching(sidecar, "-o", "json") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("default is CLOSED")
        assert "has ended the stream" in process.stderr.readline()
        assert "Trying again" in process.stderr.readline()
        stream.put(None)  # the second attempt fares no better
        assert "answers again" in process.stderr.readline()
        line = json.loads(process.stdout.readline())
        assert (line["breaker"], line["from"], line["to"]) == ("default", "CLOSED", "OPEN")
        assert (line["event"], line["reason"]) == ("transition", "store_lost")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0


def test_a_restart_tells_no_history_anew(sidecar: Canned) -> None:
    """A sidecar that begins knows no state for a moment, and then all that it knew before."""
    stream: Stream = queue.Queue()
    sidecar.replies["GET /v1/watch"] = (200, stream)
    sidecar.replies["GET /v1/breakers"] = (200, {"breakers": [breaker(seq=5, state="OPEN")]})
    history = [transition(n, "CLOSED", "OPEN") for n in range(1, 6)]
    history.append(transition(6, "OPEN", "HALF_OPEN"))
    sidecar.replies["GET /v1/breakers/default/history"] = (200, {"transitions": history})
    stream.put(event("snapshot", breakers=[decision(seq=0, reason="no_state")]))
    stream.put(event("transition", **decision(seq=5, state="OPEN")))
    stream.put(event("transition", **decision(seq=6, state="HALF_OPEN")))
    told = follow(sidecar)
    assert [(e["from"], e["to"], e["seq"]) for e in (next(told), next(told), next(told))] == [
        ("OPEN", "CLOSED", 0),
        ("CLOSED", "OPEN", 5),
        ("OPEN", "HALF_OPEN", 6),
    ]


def test_where_no_stream_is_to_be_had_it_asks_again_and_again(sidecar: Canned) -> None:
    sidecar.replies["GET /v1/watch"] = (503, {"type": "urn:x", "detail": "too many"})
    sidecar.replies["GET /v1/breakers/default"] = (200, breaker())
    with watching(sidecar, "default", "-o", "json") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()
        assert "asking every 0.5 s" in process.stderr.readline()
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
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
