"""`status`, `history`, `watch` and `explain` of real daemons on a real Consul, followers too."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.support import Consumers, Place, fleet, timing
from tests.daemon import Daemon
from tests.servers import ROOT, poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.slow]  # people's commands, beside real fleets

SOON_S = 20.0
LONG = timing(open_duration="60s", max_open_duration="120s", report_interval="20s")
"""A breaker that stays where it is while it is looked at."""
EVIL = "of \x1b]0;evil\x07 <b>intent</b>"


def cli(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of a real process, which has as much time as a busy machine may need."""
    address = ("--address", f"{daemon.host}:{daemon.port}", "--deadline", "10s")
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments, *address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def pair(place: Place) -> Iterator[tuple[Daemon, Daemon]]:
    """The evaluator of `default`, and another sidecar."""
    with fleet(place.config({"default": LONG}), 2) as daemons:

        def roles() -> tuple[Daemon, Daemon] | None:
            views = [daemon.get("/v1/breakers/default").body for daemon in daemons]
            for mine, other, (one, two) in ((0, 1, daemons), (1, 0, daemons[::-1])):
                holder = views[other]["evaluator"]
                if views[mine]["evaluating"] and views[mine]["verdict"] and holder:
                    return one, two
            return None

        yield poll_until_sync(roles, SOON_S, "one evaluates and the other knows")


def item(daemon: Daemon) -> dict[str, Any]:
    """`default` as `status -o json` has it."""
    result = cli(daemon, "status", "-o", "json")
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)["breakers"][0]
    return found


def rows(text: str) -> list[str]:
    """Lines with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines()]


def trip(place: Place, *daemons: Daemon) -> None:
    """Report failures until every one of these has it, and shows the numbers."""
    place.report("c-1", fail=25)

    def open_everywhere() -> bool:
        return all(d.get("/v1/breakers/default").body["state"] == "OPEN" for d in daemons)

    poll_until_sync(open_everywhere, SOON_S, "it opens everywhere")


def test_status_of_a_follower_says_what_it_knows_and_who_knows_more(
    place: Place, pair: tuple[Daemon, Daemon]
) -> None:
    evaluator, follower = pair
    trip(place, evaluator, follower)

    def told() -> bool:
        return "1 fresh, 0 stale" in cli(evaluator, "status").stdout

    poll_until_sync(told, SOON_S, "the evaluator shows its reporters")
    for daemon in pair:
        said = rows(cli(daemon, "status").stdout)
        head = "BREAKER STATE SINCE REASON EVIDENCE REPORTERS EVALUATOR NOTES DETAIL"
        assert said[0] == head
        assert said[1].startswith("default OPEN ")
        assert " failures failures 25, threshold 20 " in said[1]
        assert said[1].endswith("25 failures in the last interval, threshold 20")
    # Each tells the evaluator's name; the follower also where to ask it.
    name = item(evaluator)["evaluator"]["instance"]
    text = cli(follower, "status").stdout
    assert "unknown here" in text
    address = f"{evaluator.host}:{evaluator.port}"
    assert (
        f"default: verdict and reporters are known to its evaluator {name}, at {address} there"
    ) in text.splitlines()
    shown = item(follower)
    assert (shown["state"], shown["reporters"], shown["evaluating"]) == ("OPEN", None, False)
    assert shown["evidence"]["failures"] == 25
    assert shown["shadow"] is None


def test_history_is_the_same_from_anywhere(place: Place, pair: tuple[Daemon, Daemon]) -> None:
    trip(place, *pair)
    for daemon in pair:
        result = cli(daemon, "history")
        assert (result.returncode, result.stderr) == (0, "")
        said = rows(result.stdout)
        assert said[0] == "AT AGO FROM TO REASON SEQ EPOCH EVALUATOR DETAIL"
        assert " CLOSED OPEN failures " in said[-1]
    told = [json.loads(cli(daemon, "history", "-o", "json").stdout) for daemon in pair]
    assert told[0] == told[1]
    assert told[0]["transitions"] == place.history()


@contextmanager
def watching(daemon: Daemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`watch` of a real process, past its first look."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "watch", *arguments, "--address", daemon.url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(90, process.kill)  # so that no read of its output waits for ever
    guard.start()
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("default is ")
        yield process
    finally:
        guard.cancel()
        process.kill()
        process.communicate(timeout=10)


def order(mode: str, reason: str, ttl_s: float = 600) -> dict[str, object]:
    """An override as a person writes it by `consul kv put`, with a ttl and nothing more."""
    return {"mode": mode, "reason": reason, "author": "ann", "ttl_s": ttl_s}


def test_a_follower_watches_transitions_and_overrides_come_and_go(
    place: Place, pair: tuple[Daemon, Daemon]
) -> None:
    evaluator, follower = pair
    with watching(follower, "-o", "json") as as_json, watching(follower) as for_people:
        assert as_json.stdout is not None
        assert for_people.stdout is not None
        trip(place, evaluator, follower)
        opened = json.loads(as_json.stdout.readline())
        assert (opened["event"], opened["from"], opened["to"]) == ("transition", "CLOSED", "OPEN")
        assert opened["evidence"]["failures"] == 25
        assert opened["in_force"] is True
        said = for_people.stdout.readline()
        assert " default CLOSED -> OPEN failures: 25 failures in the last interval" in said
        place.consul.kv_put(place.key("override"), order("closed", EVIL))
        begun = json.loads(as_json.stdout.readline())
        assert (begun["event"], begun["from"], begun["to"]) == ("override_begins", "OPEN", "CLOSED")
        assert (begun["override"]["author"], begun["override"]["ttl_s"]) == ("ann", 600)
        assert for_people.stdout.readline().endswith(
            " default OPEN -> CLOSED FORCED closed by ann, 10m00s left of 10m00s: "
            "of \\u001b]0;evil\\u0007 <b>intent</b>\n"
        )
        place.consul.kv_delete(place.key("override"))
        ended = json.loads(as_json.stdout.readline())
        assert (ended["event"], ended["from"], ended["to"]) == ("override_ends", "CLOSED", "OPEN")
        said = for_people.stdout.readline()
        assert said.startswith("!! ")
        assert said.endswith(" default CLOSED -> OPEN not FORCED closed any more\n")
        for process in (as_json, for_people):
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def test_watch_outlives_its_sidecar(place: Place) -> None:
    """The stream ends with the daemon; with the next one it goes on, and tells what it missed."""
    with Daemon(place.config({"default": LONG})) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", SOON_S, "there is a record")
        with watching(daemon, "-o", "json") as process:
            assert process.stderr is not None
            assert process.stdout is not None
            trip(place, daemon)
            # Once this is told the stream is there, and can be ended.
            assert json.loads(process.stdout.readline())["to"] == "OPEN"
            daemon.stop()
            assert "ended the stream" in process.stderr.readline()
            assert "Trying again" in process.stderr.readline()
            place.consul.kv_put(place.key("override"), order("closed", "it was a false alarm"))
            daemon.start().wait_ready()
            assert "answers again" in process.stderr.readline()
            while True:  # it may be seen before it knows a state
                entry = json.loads(process.stdout.readline())
                if entry["event"] == "override_begins":
                    break
            assert (entry["to"], entry["override"]["author"]) == ("CLOSED", "ann")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def test_a_forced_breaker_is_never_overlooked(place: Place, pair: tuple[Daemon, Daemon]) -> None:
    place.consul.kv_put(place.key("override"), order("open", EVIL))

    def forced() -> bool:
        return all(d.get("/v1/breakers/default").body["override"] for d in pair)

    poll_until_sync(forced, SOON_S, "it is forced everywhere")
    for daemon in pair:
        text = cli(daemon, "status").stdout
        said = rows(text)
        assert said[1].startswith("default OPEN (FORCED) ")
        assert "FORCED open" in said[1]
        loud = next(line for line in said if line.startswith("!! "))
        assert loud.startswith("!! default is FORCED open by ann, ")
        assert "left of 10m00s: of \\u001b]0;evil\\u0007 <b>intent</b>; underneath: CLOSED" in loud
        assert "\x1b" not in text
        shown = item(daemon)["override"]
        assert (shown["mode"], shown["author"], shown["reason"]) == ("open", "ann", EVIL)
        assert 0 < shown["left_s"] <= 600
        why = daemon.get("/allowed?explain=1&peek=1").body["explain"]
        assert why["because"] == "override"
        assert 0 < why["more_admitted_in_s"] <= 600


def test_explain_says_why_from_anywhere(place: Place, pair: tuple[Daemon, Daemon]) -> None:
    evaluator, follower = pair
    trip(place, evaluator, follower)
    plain = follower.get("/allowed?peek=1").body
    told = follower.get("/allowed?explain=1&peek=1")
    assert told.status == 503
    why = told.body["explain"]
    assert {k: v for k, v in told.body.items() if k not in {"explain", "retry_after", "error"}} == {
        k: v for k, v in plain.items() if k not in {"retry_after", "error"}
    }
    assert (why["because"], why["counted"]) == ("record", False)
    assert 0 < why["more_admitted_in_s"] <= 60
    assert why["known"]["signals"] is None
    assert why["known"]["evaluator"]["address"] == f"{evaluator.host}:{evaluator.port}"
    known = evaluator.get("/allowed?explain=1&peek=1").body["explain"]["known"]
    assert known["signals"][0]["name"] == "failures"
    result = cli(follower, "allowed", "--explain", "--peek")
    assert (result.returncode, result.stderr) == (1, "")
    said = rows(result.stdout)
    assert said[0].startswith("reject default OPEN failures: 25 failures in the last interval")
    assert "then failures 25, threshold 20" in said
    assert "reporters known to the evaluator alone" in said


def test_another_configuration_shows(place: Place) -> None:
    other = {**LONG, "failure_threshold": 21}
    with Daemon(place.config({"default": LONG})) as first:
        poll_until_sync(lambda: place.state() == "CLOSED", SOON_S, "there is a record")
        with Daemon(place.config({"default": other}, role="follower")) as second:
            poll_until_sync(lambda: item(second)["seq"] > 0, SOON_S, "the follower knows it")
            text = cli(second, "status").stdout
            assert "config mismatch" in rows(text)[1]
            assert "default: the record was written under another configuration" in text
            assert "config mismatch" not in cli(first, "status").stdout


def test_the_shadow_report_counts_openings_and_calls(place: Place) -> None:
    quick = timing(mode="shadow", half_open={"initial": 0.05, "ramp": "1s", "max": "20s"})
    with Daemon(place.config({"default": quick})) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", SOON_S, "there is a record")
        with Consumers(place) as consumers:
            consumers.fail = 25  # it opens, and again whenever its time is over

            def seen() -> bool:
                daemon.allowed()
                shadow = item(daemon)["shadow"]
                return int(shadow["openings"] or 0) >= 2 and int(shadow["rejected"]) >= 2

            poll_until_sync(seen, SOON_S * 3, "it would have opened twice and rejected calls")
        shown = item(daemon)
        assert shown["state"] == "CLOSED"
        assert shown["shadow"]["by"] == "mode"
        assert shown["shadow"]["openings"] >= 2
        assert shown["shadow"]["rejected"] >= 2
        since = datetime.fromisoformat(shown["shadow"]["since"])
        assert abs(datetime.now(UTC) - since) < timedelta(minutes=5)
        text = cli(daemon, "status").stdout
        assert "shadow of " in rows(text)[1]
        told = r"^default: shadow: would have opened \d+ times in .*rejected \d+ calls here in \S+,"
        assert re.search(told, text, re.MULTILINE), text


def test_with_consul_frozen_status_still_answers_and_says_so(own_place: Place) -> None:
    config = own_place.config({"default": LONG}, {"max_stale": "5s"})
    with Daemon(config) as daemon:
        poll_until_sync(lambda: own_place.state() == "CLOSED", SOON_S, "there is a record")
        own_place.consul.freeze()

        def stale() -> bool:
            said = rows(cli(daemon, "status").stdout)[1]
            return "store lost, stale" in said and " store_lost " in said

        poll_until_sync(stale, SOON_S * 2, "the loss is shown")
        text = cli(daemon, "status").stdout
        assert "the loss policy decides: keep" in text
        refused = cli(daemon, "history")
        assert refused.returncode == 3
        assert "the history can't be read now" in refused.stderr
        page = daemon.get("/").content.decode()
        assert "stale: the store was last read" in page


def test_exit_codes_of_those_who_look(place: Place) -> None:
    with Daemon(place.config({"default": LONG})) as daemon:
        for command in ("history", "watch"):
            unknown = cli(daemon, command, "nope")
            assert (unknown.returncode, unknown.stdout) == (2, "")
            assert "there are: default" in unknown.stderr
        assert cli(daemon, "status", "--no-such-flag").returncode == 2
    for command in ("status", "history", "watch"):
        gone = cli(daemon, command)
        assert (gone.returncode, gone.stdout) == (3, "")


def test_colour_only_where_it_is_wanted(place: Place) -> None:
    """A terminal gets colour, and with NO_COLOR none; what isn't a terminal never does."""
    with Daemon(place.config({"default": LONG})) as daemon:
        assert "\x1b" not in cli(daemon, "status").stdout
        assert "\x1b[32mCLOSED" in _on_a_terminal(daemon, {})
        assert "\x1b" not in _on_a_terminal(daemon, {"NO_COLOR": "1"})


def _on_a_terminal(daemon: Daemon, environ: dict[str, str]) -> str:
    master, slave = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "status", "--address", daemon.url],
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **environ},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        said = b""
        while chunk := _read(master):
            said += chunk
        assert process.wait(20) == 0
    finally:
        os.close(master)
    return said.decode()


def _read(master: int) -> bytes:
    """The next of what was written; nothing once the other end is closed."""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""
