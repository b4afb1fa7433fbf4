"""How the daemon starts, stops, reloads and speaks."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.acceptance.support import Caller, Place, all_answer, events, fleet, holds, series, timing
from tests.daemon import Daemon
from tests.servers import free_port, poll_until_sync

STOP_S = 5.0
MEMORY = {"store": "memory"}
RELOADED = "breaker_config_last_reload_successful"


# --- stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.consul
def test_a_stop_leaves_nothing_behind(place: Place, number: signal.Signals) -> None:
    """The lock is free, the session gone, and so are the keys of those who reported through it."""
    with Daemon(place.config({"default": timing(), "other": timing()})) as daemon:
        poll_until_sync(lambda: place.state() == place.state("other") == "CLOSED", 10, "records")
        leader = place.consul.kv_entry(place.key("leader"))
        assert leader is not None
        session = leader["Session"]
        assert daemon.post("/v1/report", {"instance": "mine-1", "count_ok": 3}).status == 202
        assert daemon.post("/v1/report/other", {"instance": "mine-2", "count_ok": 3}).status == 202
        place.report("theirs")
        poll_until_sync(
            lambda: (
                set(place.consul.kv_keys(place.prefix + "/reports/"))
                == {
                    f"{place.reports()}/mine-1",
                    f"{place.reports()}/theirs",
                    f"{place.reports('other')}/mine-2",
                }
            ),
            5,
            "the reports are written",
        )

        began = time.monotonic()
        assert daemon.stop(number) == 0
        assert time.monotonic() - began < 2
        assert session not in {one["ID"] for one in place.consul.sessions()}
        for name in ("default", "other"):
            lock = place.consul.kv_entry(place.key("leader", name))
            assert lock is not None, "the lock key itself is never deleted"
            assert "Session" not in lock
        assert place.consul.kv_keys(place.prefix + "/reports/") == [f"{place.reports()}/theirs"]
        assert place.state() == "CLOSED"
        assert [len(events(daemon, name)) for name in ("stopping", "stopped")] == [1, 1]
        assert events(daemon, "stopping")[0]["signal"] == number.name


@pytest.mark.consul
def test_it_stops_in_time_with_consul_frozen_and_callers_waiting(own_place: Place) -> None:
    """Everybody who waits has an answer, and nothing waits for Consul."""
    with Daemon(own_place.config()) as daemon:
        poll_until_sync(lambda: own_place.state() == "CLOSED", 10, "a record")
        assert daemon.post("/v1/report", {"instance": "mine-1", "count_ok": 3}).status == 202
        own_place.consul.freeze()
        assert daemon.post("/v1/report", {"instance": "mine-2", "count_ok": 3}).status == 202
        with _polls(daemon, 5) as statuses:
            began = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began < STOP_S
        assert statuses == [200] * 5
        assert events(daemon, "stopped")[0]["seconds"] < STOP_S


def test_it_stops_at_once_with_open_long_polls() -> None:
    """They are answered with what there is."""
    with Daemon(MEMORY) as daemon, _polls(daemon, 20) as statuses:
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 2
    assert statuses == [200] * 20


@contextlib.contextmanager
def _polls(daemon: Daemon, count: int) -> Iterator[list[int]]:
    """Long polls that are open inside the block; afterwards the list has their statuses."""
    seq = daemon.get("/v1/breakers/default").body["seq"]
    statuses: list[int] = []
    connections = [
        http.client.HTTPConnection(daemon.host, daemon.port, timeout=30) for _ in range(count)
    ]

    def finish(connection: http.client.HTTPConnection) -> None:
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)

    for connection in connections:
        connection.request("GET", f"/v1/breakers/default?index={seq}&wait=30s")
    assert daemon.get("/livez").status == 200  # by then it has read what came before
    yield statuses
    for connection in connections:
        with contextlib.closing(connection):
            finish(connection)


@pytest.mark.consul
def test_it_answers_while_it_stops(own_place: Place) -> None:
    """With Consul frozen a stop takes a while; callers have answers until its last second."""
    with Daemon(own_place.config()) as daemon, Caller(daemon) as caller:
        poll_until_sync(lambda: own_place.state() == "CLOSED", 10, "a record")
        own_place.consul.freeze()
        began = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        poll_until_sync(lambda: events(daemon, "stopping"), 2, "it is stopping")
        answered = 0.0
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                assert caller.ask() == 200
                answered = time.monotonic() - began
        assert daemon.wait(STOP_S) == 0
        took = events(daemon, "stopped")[0]["seconds"]
        assert took >= 0.5, "it tried to hand over"
        assert answered >= took - 1.0, (answered, took)


@pytest.mark.consul
def test_a_stopped_evaluator_is_replaced_in_under_a_second(place: Place) -> None:
    """No lock-delay after a release: the next report is judged by the successor."""
    with fleet(place.config(), size=2) as daemons:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        by_role = {bool(d.get("/v1/breakers/default").body["evaluating"]): d for d in daemons}
        first, second = by_role[True], by_role[False]
        first.send_signal(signal.SIGTERM)
        poll_until_sync(lambda: events(first, "stopping"), 2, "it is stopping")
        began = time.monotonic()
        place.report("c-1", fail=25)
        poll_until_sync(lambda: second.allowed().status == 503, 3, "the successor trips it")
        took = time.monotonic() - began
        assert first.wait(STOP_S) == 0
        assert took < 1.0
        record = place.record()
        assert record["seq"] == 2
        assert record["epoch"] > 1


# --- starting ---------------------------------------------------------------------------------


def test_a_taken_port_says_who_usually_sits_there() -> None:
    """Exit 1, and a message that tells the mend."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Daemon(MEMORY, port=port, wait=False) as daemon:
            assert daemon.wait(5) == 1
            failed = events(daemon, "start_failed")
            assert len(failed) == 1
            assert "node_exporter" in failed[0]["error"]
            assert "listen.address" in failed[0]["error"]
            assert str(port) in failed[0]["error"]
            assert not events(daemon, "started")


def test_localhost_is_one_port_whatever_families_there_are() -> None:
    """A container without IPv6 has no ::1, and is served all the same."""
    anywhere = {"BREAKER_SIDECAR__LISTEN__ADDRESS": "localhost:0"}
    with Daemon(MEMORY, env=anywhere, wait=False) as daemon:
        poll_until_sync(lambda: events(daemon, "started"), 10, "it listens")
        (started,) = events(daemon, "started")
        assert len({place.rpartition(":")[2] for place in started["listening"]}) == 1
        assert started["listening"][0].startswith("127.0.0.1:")


@pytest.mark.consul
def test_a_taken_port_takes_no_lock_with_it(place: Place) -> None:
    """A daemon that fails to start leaves neither a session nor a report behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        before = {str(one["ID"]) for one in place.consul.sessions()}
        with Daemon(place.config(), port=taken.getsockname()[1], wait=False) as daemon:
            assert daemon.wait(5) == 1
            left = [
                one
                for one in place.consul.sessions()
                if one["ID"] not in before and place.prefix in json.dumps(one)
            ]
            assert left == []
            lock = place.consul.kv_entry(place.key("leader"))
            assert lock is None or "Session" not in lock


def _held(daemon: Daemon) -> bool:
    """Whether SIGTERM waits: the daemon has begun, and has no handlers yet."""
    said = Path(f"/proc/{daemon.pid}/status").read_text("ascii")
    (held,) = (line.split()[1] for line in said.splitlines() if line.startswith("SigBlk:"))
    return bool(int(held, 16) & 1 << signal.SIGTERM - 1)


def test_signals_that_come_during_the_start_are_heard() -> None:
    """A scheduler writes the file anew, or changes its mind, a moment after it has started us."""
    with Daemon(MEMORY, wait=False) as daemon:
        poll_until_sync(lambda: _held(daemon), 5, "it has begun")
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: events(daemon, "config_reloaded"), 10, "the reload")
        assert daemon.allowed().status == 200
    with Daemon(MEMORY, wait=False) as daemon:
        poll_until_sync(lambda: _held(daemon), 5, "it has begun")
        for _ in range(2):
            daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


NOWHERE = "hangs.test"
RESOLVER = f"""\
import socket, sys
known = socket.getaddrinfo
def getaddrinfo(host, *args, **more):
    if host == "{NOWHERE}":
        open("PIPE").read()
    return known(host, *args, **more)
socket.getaddrinfo = getaddrinfo
sys.modules["uvloop"] = None  # it has a resolver of its own
"""
"""A module that Python loads first. One name hangs, as where no name server answers."""
HANGS = {
    "its file": "",
    "the name to listen on": "{store: memory, listen: {allow_remote: true}}",
    "Consul's name": f"{{consul: {{address: '{NOWHERE}:8500'}}}}",
    "the spool": """\
        store: memory
        kafka: {bootstrap_servers: ["127.0.0.1:9"]}
        publish: {topics: {orders: {}}}
        spool: {dir: FOLDER}
        """,
}


@pytest.mark.parametrize("what", HANGS)
def test_a_start_that_hangs_is_ended_like_any_other(what: str, tmp_path: Path) -> None:
    """It reads from a pipe that nobody writes to: no handler interrupts that."""
    pipe = tmp_path / "i-1" / "format"  # where a spool says what it is
    env = {"NOMAD_ALLOC_ID": "i-1", "PYTHONPATH": str(tmp_path)}
    if "listen" in what:
        env["BREAKER_SIDECAR__LISTEN__ADDRESS"] = f"{NOWHERE}:{free_port()}"
    with contextlib.ExitStack() as stack:
        config = textwrap.dedent(HANGS[what]).replace("FOLDER", str(tmp_path))
        daemon = Daemon(config, wait=False, env=env)
        stack.callback(daemon.close)
        if what == "its file":
            pipe = daemon.folder / "breaker.yaml"
            pipe.unlink()
        pipe.parent.mkdir(mode=0o700, exist_ok=True)
        os.mkfifo(pipe)
        (tmp_path / "sitecustomize.py").write_text(RESOLVER.replace("PIPE", str(pipe)))

        def reads() -> int | None:
            with contextlib.suppress(OSError):  # nobody does
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            return None

        daemon.start()
        stack.callback(os.close, poll_until_sync(reads, 15, "it hangs"))
        assert daemon.stop() == 0
        parts = [event["part"] for event in events(daemon, "stop_overran")]
        where = "event loop" if "listen" in what else "threads"
        assert parts == ([] if what == "its file" else [where]), daemon.said()


BAD = """\
store: memory
colour: red
listen:
  diagnostics: 127.0.0.1:99999
consul:
  max_stale: 2s
breakers:
  orders:
    failure_threshold: 0
    open_duration: 30
    half_open:
      ramp: 1m
      max: 10s
  "-bad":
    mode: perhaps
"""


def test_a_bad_configuration_is_refused_with_every_fault() -> None:
    """Exit 2; each fault with its line; no port was opened, not even for a moment."""
    with Daemon(BAD, wait=False) as daemon:
        assert daemon.wait(5) == 2
        said = daemon.stderr()
        for part in (
            "colour",
            "listen.diagnostics",
            "consul.max_stale",
            "breakers.orders.failure_threshold",
            "breakers.orders.open_duration",
            "half_open.ramp",
            "-bad",
            "breaker.yaml:2",
        ):
            assert part in said, f"{part} is missing:\n{said}"
        assert not daemon.logs(), "nothing was started"
        with socket.socket() as probe:
            assert probe.connect_ex((daemon.host, daemon.port)) != 0
        assert daemon.stdout() == ""


def test_data_dir_is_for_one_daemon_and_keeps_its_identity(tmp_path: Path) -> None:
    """A second daemon on it is refused; the next one there is the same instance."""
    data_dir = tmp_path / "data"
    config = {**MEMORY, "data_dir": str(data_dir)}
    with Daemon(config) as first:
        instance = first.get("/v1/status").body["instance"]
        with Daemon(config, wait=False) as second:
            assert second.wait(5) == 1
            failed = events(second, "start_failed")
            assert len(failed) == 1
            assert str(data_dir) in failed[0]["error"]
            assert "data_dir" in failed[0]["error"]
        assert first.allowed().status == 200
        assert first.stop() == 0
    with Daemon(config) as again:
        assert again.get("/v1/status").body["instance"] == instance
        again.kill()
    with Daemon(config) as after_a_crash:
        assert after_a_crash.get("/v1/status").body["instance"] == instance
    with Daemon(MEMORY, env={"NOMAD_ALLOC_ID": "a1b2-c3"}) as nomad:
        assert nomad.get("/v1/status").body["instance"] == "a1b2-c3"
    with Daemon(MEMORY) as other:
        assert other.get("/v1/status").body["instance"] != instance


# --- reloading --------------------------------------------------------------------------------


class _Hammer:
    """Two producers that ask without pause, each on its connection; counts what came back."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        self.failed: list[str] = []
        self.answered = 0

    def _run(self) -> None:
        with Caller(self._daemon) as caller:
            while not self._ended.is_set():
                try:
                    status = caller.ask("/allowed/kept")
                    if status != 200:
                        self.failed.append(str(status))
                except (OSError, http.client.HTTPException) as fault:
                    self.failed.append(repr(fault))
                    return
                self.answered += 1
                self._ended.wait(0.001)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5)


@pytest.mark.consul
def test_reload_changes_breakers_and_loses_neither_state_nor_request(place: Place) -> None:
    """A threshold is lowered, a breaker goes, another comes; an open one stays open."""
    slow = timing(open_duration="30s", max_open_duration="1m")
    before = {"kept": timing(), "open": slow, "gone": timing()}
    with Daemon(place.config(before)) as daemon, _Hammer(daemon) as hammer:
        poll_until_sync(
            lambda: all(place.state(name) == "CLOSED" for name in before), 10, "records"
        )
        place.report("c-1", fail=25, breaker="open")
        poll_until_sync(lambda: daemon.allowed("open").status == 503, 3, "open")
        opened = place.record("open")
        place.report("c-1", fail=10, breaker="kept")

        after = {"kept": timing(failure_threshold=1000), "open": slow, "new": timing()}
        daemon.configure(place.config(after))
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: daemon.allowed("new").status == 200, 5, "the new one answers")
        assert daemon.allowed("gone").status == 404
        assert daemon.allowed("open").status == 503
        assert place.record("open") == opened
        poll_until_sync(lambda: len(events(daemon, "config_reloaded")) == 1, 5, "it says so")
        assert series(daemon.get("/metrics"))[RELOADED] == 1
        poll_until_sync(lambda: place.state("new") == "CLOSED", 5, "the new one is evaluated")

        def released() -> bool:
            lock = place.consul.kv_entry(place.key("leader", "gone"))
            return lock is not None and "Session" not in lock

        poll_until_sync(released, 5, "the lock of the one that went is free")
        policy = daemon.get("/v1/breakers/kept").body["policy"]
        assert policy["failure_threshold"] == 1000
        place.report("c-1", fail=25, breaker="kept")
        holds(lambda: daemon.allowed("kept").status == 200, 0.5, "25 of 1000 are few")
    assert hammer.failed == []
    assert hammer.answered > 500


@pytest.mark.consul
def test_a_lowered_threshold_trips_on_what_is_there_already(place: Place) -> None:
    """No new report is needed: 10 failures are enough once 5 are too many."""
    slow = timing(report_interval="10s", open_duration="30s", max_open_duration="1m")
    with Daemon(place.config({"default": slow})) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        place.report("c-1", fail=10)
        holds(lambda: daemon.allowed().status == 200, 0.7, "10 of 20 are few")
        daemon.configure(place.config({"default": {**slow, "failure_threshold": 5}}))
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: daemon.allowed().status == 503, 3, "10 of 5 are many")
        assert place.record()["evidence"]["threshold"] == 5


def test_an_invalid_reload_is_refused_whole() -> None:
    """One good line beside a bad one does nothing; it is logged and shown until it is mended."""
    good = {**MEMORY, "breakers": {"default": timing()}}
    with Daemon(good) as daemon:
        daemon.configure(
            {**MEMORY, "breakers": {"default": timing(failure_threshold=5, open_duration="1 s")}}
        )
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: events(daemon, "config_refused"), 3, "it is refused")
        assert series(daemon.get("/metrics"))[RELOADED] == 0
        refused = events(daemon, "config_refused")
        assert len(refused) == 1
        assert refused[0]["level"] == "error"
        assert any("open_duration" in fault for fault in refused[0]["faults"])
        policy = daemon.get("/v1/breakers/default").body["policy"]
        assert policy["failure_threshold"] == 20
        assert daemon.post("/v1/report", {"instance": "c1", "count_fail": 10}).status == 202
        assert daemon.allowed().status == 200

        daemon.configure(good)
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: series(daemon.get("/metrics"))[RELOADED] == 1, 3, "mended")


def test_a_store_that_needs_a_restart_changes_nobodys_rights() -> None:
    """The file names Consul; what runs is in memory, where orders need no token."""
    order = {"mode": "open", "ttl_s": 60, "reason": "a test"}
    with Daemon(MEMORY) as daemon:
        daemon.configure({"store": "consul"})
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: events(daemon, "config_reloaded"), 5, "it is taken over")
        assert events(daemon, "config_reloaded")[0]["restart_needed_for"] == ["store"]
        assert daemon.request("PUT", "/v1/breakers/default/override", order).status == 200
        assert daemon.allowed().status == 503


def test_what_was_read_last_is_in_effect() -> None:
    """A long file takes seconds to read; what is written meanwhile is not overtaken by it."""
    long = {f"b{number}": timing() for number in range(300)}
    with Daemon({**MEMORY, "breakers": {"first": timing()}}) as daemon:
        daemon.configure({**MEMORY, "breakers": long})
        daemon.send_signal(signal.SIGHUP)
        assert (
            daemon.get("/livez").status == 200
        )  # the loop has turned: two signals that wait are one
        daemon.configure({**MEMORY, "breakers": {"last": timing()}})
        for _ in range(5):
            daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: daemon.allowed("last").status == 200, 20, "the last one")
        holds(lambda: daemon.allowed("last").status == 200, 1.0, "it stays")
        assert [one["name"] for one in daemon.get("/v1/breakers").body["breakers"]] == ["last"]


def test_a_reload_moves_the_state_file_and_asks_another_kafka(tmp_path: Path) -> None:
    """Neither waits for a restart; what is no longer named is taken away."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    flow = timing(topic="t", group="g", signals={"lag": True})
    with Daemon({**MEMORY, "listen": {"state_file": str(first)}}) as daemon:
        poll_until_sync(first.exists, 5, "it is kept")
        nowhere = f"127.0.0.1:{free_port()}"
        moved = {
            "listen": {"state_file": str(second)},
            "kafka": {"bootstrap_servers": nowhere},
            "breakers": {"default": flow},
        }
        daemon.configure({**MEMORY, **moved})
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: second.exists() and not first.exists(), 5, "it has moved")

        def lag() -> str:
            found = daemon.get("/v1/breakers/default").body["signals"] or ()
            return "".join(signal["detail"] for signal in found if signal["name"] == "lag")

        poll_until_sync(lambda: "reached" in lag(), 20, "the new Kafka is asked")
        assert events(daemon, "config_reloaded")[0]["restart_needed_for"] == []
        daemon.configure(MEMORY)
        daemon.send_signal(signal.SIGHUP)
        poll_until_sync(lambda: not second.exists(), 5, "it is gone")


def test_a_reload_tells_what_waits_for_a_restart_as_long_as_it_does(tmp_path: Path) -> None:
    """Also when nothing has changed since the reload before; and no longer when it is undone."""
    elsewhere = {**MEMORY, "data_dir": str(tmp_path / "data")}
    with Daemon(MEMORY) as daemon:
        for settings in (elsewhere, elsewhere, MEMORY):
            told = len(events(daemon, "config_reloaded"))
            daemon.configure(settings)
            daemon.send_signal(signal.SIGHUP)
            poll_until_sync(
                lambda told=told: len(events(daemon, "config_reloaded")) > told,  # type: ignore[misc]
                5,
                "it says so",
            )
        said = [one["restart_needed_for"] for one in events(daemon, "config_reloaded")]
        assert said == [["data_dir"], ["data_dir"], []]


# --- speaking ---------------------------------------------------------------------------------


@pytest.mark.consul
def test_the_log_is_json_and_a_transition_is_one_line_with_its_evidence(place: Place) -> None:
    """Not on a terminal: every line is an object with time, level and event."""
    with fleet(place.config(), size=2) as daemons:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        place.report("c-1", fail=25)
        poll_until_sync(lambda: place.state() == "HALF_OPEN", 5, "half open")

        def told() -> list[dict[str, object]]:
            lines = [line for daemon in daemons for line in events(daemon, "transition")]
            return lines if len(lines) == 2 else []

        opened, half = poll_until_sync(told, 2, "two lines")
        assert (opened["from_state"], opened["to_state"]) == ("CLOSED", "OPEN")
        assert opened["breaker"] == "default"
        assert opened["reason"] == "failures"
        assert opened["evidence_failures"] == 25
        assert opened["evidence_threshold"] == 20
        assert opened["evidence_reporters"] == 1
        assert (half["from_state"], half["to_state"]) == ("OPEN", "HALF_OPEN")
        assert half["seq"] == int(str(opened["seq"])) + 1
        for daemon in daemons:
            assert daemon.stop() == 0
            lines = daemon.stderr().splitlines()
            assert lines
            for line in lines:
                entry = json.loads(line)
                assert {"timestamp", "level", "event"} <= entry.keys(), line
            stamps = [json.loads(line)["timestamp"] for line in lines]
            assert all(a <= b for a, b in itertools.pairwise(stamps))
            assert daemon.stdout() == ""


@pytest.mark.consul
def test_bad_reports_are_told_once_a_key_and_the_others_count(place: Place) -> None:
    """Junk beside good reports: counted each time, logged once, and never in the way."""
    with Daemon(place.config()) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")

        def counted(wanted: int) -> bool:
            metrics = series(daemon.get("/metrics"))
            return metrics.get('breaker_bad_records_total{kind="report"}') == wanted

        for number in range(3):
            place.consul.kv_put(f"{place.reports()}/junk", f"no json {number}")
            poll_until_sync(partial(counted, number + 1), 3, "counted")
        place.consul.kv_put(f"{place.reports()}/large", "x" * 70_000)
        place.consul.kv_put(
            f"{place.reports()}/minus",
            {"timestamp": "2026-01-01T00:00:00Z", "rate_ok": 1.0, "count_fail": -1},
        )
        place.report("c-1", fail=20)
        poll_until_sync(all_answer([daemon], 503), 3, "the good one counts")
        bad = events(daemon, "bad_report")
        assert sorted(str(line["reporter"]) for line in bad) == ["junk", "large", "minus"]


@pytest.mark.consul
def test_diagnostics_and_socket_answer_beside_the_port(place: Place, tmp_path: Path) -> None:
    """The diagnostics know no decision; the socket takes all, and is gone after a stop."""
    port, path = free_port(), tmp_path / "breaker.sock"
    listen = {"diagnostics": f"127.0.0.1:{port}", "socket": str(path)}
    with Daemon(place.config(listen=listen)) as daemon:
        assert _status(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/livez") == 200
        assert _status(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/metrics") == 200
        assert _status(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/allowed") == 404
        assert path.stat().st_mode & 0o777 == 0o600
        assert _status(_Unix(path), "/allowed") == 200
        assert daemon.stop() == 0
        assert not path.exists()


class _Unix(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(str(self._path))


def _status(connection: http.client.HTTPConnection, path: str) -> int:
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
