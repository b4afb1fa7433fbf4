"""Orders on a real fleet: at once everywhere, kept through all, ended by each one's own clock."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.support import Place, all_answer, at, events, fleet, series, timing
from tests.daemon import Daemon
from tests.servers import ROOT, poll_until_sync

pytestmark = pytest.mark.consul

TOKEN = "t0ken-of-the-operators"
PATH = "/v1/breakers/default/override"


@pytest.fixture
def admin(tmp_path: Path) -> dict[str, str]:
    """The configuration's `admin` section, with a token file."""
    file = tmp_path / "admin-token"
    file.write_text(TOKEN + "\n")
    return {"token_file": str(file)}


def _command(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _through(daemon: Daemon) -> dict[str, str]:
    return {"BREAKER_SIDECAR_ADDRESS": daemon.url, "BREAKER_SIDECAR_TOKEN": TOKEN}


def _order(mode: str, ttl_s: object = 900, **more: object) -> dict[str, object]:
    return {"mode": mode, "ttl_s": ttl_s, "reason": "a test", "author": "ann", **more}


def _put(daemon: Daemon, order: dict[str, object], name: str = "default") -> int:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    path = f"/v1/breakers/{name}/override"
    return daemon.request("PUT", path, order, headers).status


def _override(daemon: Daemon, name: str | None = None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = daemon.allowed(name, peek=True).body["override"]
    return found


def _key(place: Place, breaker: str = "default") -> dict[str, Any] | None:
    value = place.consul.kv_get(place.key("override", breaker))
    return json.loads(value) if value else None


@contextlib.contextmanager
def _forced_fleet(place: Place, admin: dict[str, str]) -> Iterator[list[Daemon]]:
    with fleet(place.config(admin=admin)) as daemons:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        yield daemons


def test_forced_and_released_fleet_wide_by_the_command(place: Place, admin: dict[str, str]) -> None:
    """The record says what is in force first, so that a legacy reader obeys it too."""
    with _forced_fleet(place, admin) as daemons:
        before = place.record()
        done = _command(
            *("force", "open", "--ttl", "15m", "--reason", "database migration"),
            env=_through(daemons[0]),
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert daemons[0].allowed().status == 503, "here it holds before the command ends"
        poll_until_sync(all_answer(daemons, 503), 3, "the fleet rejects")
        for daemon in daemons:
            answer = daemon.allowed()
            assert answer.headers["x-breaker-reason"] == "forced"
            assert answer.headers["x-breaker-state"] == "OPEN"
            assert answer.headers["retry-after"] == "60"
            assert answer.body["override"]["reason"] == "database migration"
        poll_until_sync(lambda: place.state() == "OPEN", 3, "the record says so")
        record = place.record()
        assert (record["automaton"], record["seq"]) == ("CLOSED", before["seq"] + 1)
        assert place.history() == []
        for daemon in daemons:
            metrics = series(daemon.get("/metrics"))
            assert metrics['breaker_override{breaker="default",mode="open"}'] == 1
            assert metrics['breaker_state{breaker="default",state="OPEN"}'] == 1
            poll_until_sync(lambda d=daemon: events(d, "override"), 3, "it is logged")  # type: ignore[misc]

        refused = _command(
            *("force", "closed", "--ttl", "1m", "--reason", "no"), env=_through(daemons[1])
        )
        assert refused.returncode == 2
        assert "database migration" in refused.stderr
        assert daemons[1].allowed().status == 503

        assert _command("release", env=_through(daemons[2])).returncode == 0
        poll_until_sync(all_answer(daemons, 200), 3, "the fleet admits")
        poll_until_sync(lambda: place.state() == "CLOSED", 3, "the record says so")
        assert place.record()["seq"] == before["seq"] + 2
        assert _key(place) is None
        assert place.record()["last_changed"] == before["last_changed"]


def test_a_plain_put_is_an_order_too_and_a_bad_one_is_none(
    place: Place, admin: dict[str, str]
) -> None:
    with _forced_fleet(place, admin) as daemons:
        key = place.key("override")
        place.consul.kv_put(key, '{"mode": "open", "reason": "by hand"}')
        poll_until_sync(lambda: all(events(d, "bad_override") for d in daemons), 5, "it is told")
        assert all_answer(daemons, 200)()
        for daemon in daemons:
            metrics = series(daemon.get("/metrics"))
            assert metrics['breaker_bad_records_total{kind="override"}'] == 1

        place.consul.kv_put(key, '{"mode": "open", "reason": "by hand", "ttl_s": 600}')
        poll_until_sync(all_answer(daemons, 503), 3, "the fleet rejects")
        poll_until_sync(lambda: (_key(place) or {}).get("expires_at"), 5, "times are filled in")
        assert all_answer(daemons, 503)()

        # It survives who evaluates, and a sidecar that starts later knows how much is left.
        leader = next(d for d in daemons if d.get("/v1/breakers/default").body["evaluating"])
        assert leader.stop() == 0
        others = [d for d in daemons if d is not leader]
        assert all_answer(others, 503)()
        with Daemon(place.config(admin=admin)) as late:
            poll_until_sync(all_answer([late], 503), 5, "it joins")
            assert _override(late) == _override(others[0])
        assert place.state() == "OPEN"


def test_it_ends_by_each_sidecars_own_clock(own_place: Place, admin: dict[str, str]) -> None:
    """With Consul frozen and the evaluator stopped, nobody but the clock can say so."""
    with _forced_fleet(own_place, admin) as daemons:
        leader = next(d for d in daemons if d.get("/v1/breakers/default").body["evaluating"])
        others = [d for d in daemons if d is not leader]
        sent = time.monotonic()
        assert _put(leader, _order("open", 4)) == 200
        set_by = time.monotonic()
        poll_until_sync(all_answer(others, 503), 2, "the fleet rejects")
        own_place.consul.freeze()
        leader.pause()
        try:
            while time.monotonic() < sent + 3.8:
                assert all_answer(others, 503)() or time.monotonic() >= sent + 4
                time.sleep(0.05)
            poll_until_sync(all_answer(others, 200), 2, "they admit again")
            assert time.monotonic() <= set_by + 4 + 0.5
        finally:
            leader.resume()
        own_place.consul.thaw()
        poll_until_sync(lambda: _key(own_place) is None, 20, "whoever evaluates deletes it")
        poll_until_sync(lambda: own_place.state() == "CLOSED", 5, "and the record says so")


def test_the_automaton_goes_on_under_a_forced_breaker(place: Place, admin: dict[str, str]) -> None:
    """It trips underneath; released, the breaker is where the evidence has brought it."""
    breakers = {"default": timing(open_duration="1m", max_open_duration="1m")}
    with fleet(place.config(breakers, admin=admin)) as daemons:
        assert _put(daemons[0], _order("closed")) == 200
        place.report("c-1", fail=25)
        poll_until_sync(lambda: place.record().get("automaton") == "OPEN", 5, "it trips")
        assert place.state() == "CLOSED"
        assert all_answer(daemons, 200)()
        assert _put(daemons[0], _order("shadow")) == 200
        poll_until_sync(
            lambda: (_override(daemons[1]) or {}).get("mode") == "shadow", 3, "shadow everywhere"
        )
        assert [daemons[1].allowed().status for _ in range(10)] == [200] * 10
        metrics = series(daemons[1].get("/metrics"))
        assert metrics['breaker_shadow_rejections_total{breaker="default"}'] == 10
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert daemons[2].request("DELETE", PATH, headers=headers).status == 204
        poll_until_sync(all_answer(daemons, 503), 3, "it is open")
        assert daemons[0].allowed().headers["x-breaker-reason"] == "failures"


def test_straight_to_consul_with_ones_own_token(place: Place) -> None:
    """No sidecar needs to answer, or to take orders."""
    config = place.config()
    with fleet(config, 2) as daemons:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        file = str(daemons[0].file)

        def consul(*arguments: str) -> int:
            return _command(*arguments, "--consul", "-c", file).returncode

        assert consul("force", "open", "--ttl", "none", "--reason", "x") == 0
        poll_until_sync(all_answer(daemons, 503), 3, "the fleet rejects")
        assert (_key(place) or {})["ttl_s"] == "none"
        assert consul("force", "closed", "--ttl", "1m", "--reason", "x") == 2
        assert consul("force", "closed", "--ttl", "1m", "--reason", "x", "--replace") == 0
        poll_until_sync(all_answer(daemons, 200), 3, "the fleet admits")
        assert consul("release") == 0
        poll_until_sync(lambda: _override(daemons[0]) is None, 3, "it is released")
        away = _command(
            *("force", "open", "--ttl", "1m", "--reason", "x", "--consul"),
            env={"CONSUL_HTTP_ADDR": "127.0.0.1:1"},
        )
        assert away.returncode == 3
        assert "127.0.0.1:1" in away.stderr


def test_straight_to_consul_the_only_breaker_is_the_default_one(
    place: Place, tmp_path: Path
) -> None:
    """As everywhere; of several, one has to be named."""
    file = tmp_path / "breaker.yaml"

    def consul(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _command(*arguments, "--consul", "-c", str(file))

    file.write_text(yaml.safe_dump(place.config({"orders": timing()})), "utf-8")
    done = consul("force", "open", "--ttl", "1m", "--reason", "x")
    assert done.returncode == 0
    assert done.stderr.startswith("orders is forced open")
    assert place.consul.kv_get(place.key("override", "orders")) is not None
    assert consul("release").stderr == "orders is not forced any more\n"
    file.write_text(yaml.safe_dump(place.config({"a": timing(), "b": timing()})), "utf-8")
    done = consul("release")
    assert done.returncode == 2
    assert "there are: a, b" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("force", "open", "--reason", "x"),
        ("force", "open", "--ttl", "", "--reason", "x"),
        ("force", "open", "--ttl", "0s", "--reason", "x"),
        ("force", "open", "--ttl", "15m"),
        ("force", "open", "--ttl", "15m", "--reason", " "),
        ("force", "open", "--ttl", "15m", "--reason", "x" * 1025),
        ("force", "open", "--ttl", "15m", "--reason", "\udcff"),
        ("force", "open", "--ttl", "15m", "--reason", "x", "--author", " "),
        ("force", "open", "--ttl", "100000h", "--reason", "x"),
        ("force", "open", "state", "--ttl", "15m", "--reason", "x", "--consul"),
        ("force", "half_open", "--ttl", "15m", "--reason", "x"),
        ("force", "open", "nosuch", "--ttl", "15m", "--reason", "x"),
        ("forget", "nosuch"),
        ("forget",),
        ("release", "nosuch"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    with Daemon() as daemon:
        done = _command(*arguments, env={"BREAKER_SIDECAR_ADDRESS": daemon.url})
        assert done.returncode == 2, done.stderr
        assert done.stderr
        assert daemon.allowed().status == 200


def test_a_second_order_of_the_same_mode_counts_for_a_legacy_reader_too(
    place: Place, admin: dict[str, str]
) -> None:
    """Its timer ends an OPEN `open_duration` after `last_changed`: here a second."""
    with _forced_fleet(place, admin) as daemons:
        seq = place.record()["seq"]

        def lasts(seconds: float) -> bool:
            record = place.record()
            ends_at = at((_key(place) or {}).get("expires_at") or "1970-01-01T00:00:00Z")
            dated = abs(at(record["last_changed"]) + 1 - ends_at) < 2
            return record["current_state"] == "OPEN" and dated and ends_at > time.time() + seconds

        assert _put(daemons[0], _order("open", 100)) == 200
        poll_until_sync(lambda: lasts(80), 5, "it is dated for the first")
        assert _put(daemons[1], _order("open", 3000)) == 200
        poll_until_sync(lambda: lasts(2900), 5, "and for the second")
        assert place.record()["seq"] == seq + 2
        assert place.history() == []


def test_a_refused_forget_destroys_nothing(place: Place, admin: dict[str, str]) -> None:
    """Asked of the evaluator itself, which has to give its lock up first: another one takes it."""
    with _forced_fleet(place, admin) as daemons:
        place.report("c-1", fail=25)
        poll_until_sync(lambda: place.state() == "OPEN" and place.history(), 5, "a history")
        assert _put(daemons[0], _order("closed")) == 200
        first = place.history()[0]
        leader = next(d for d in daemons if d.get("/v1/breakers/default").body["evaluating"])
        refused = _command("forget", "default", env=_through(leader))
        assert refused.returncode == 2
        assert "configuration" in refused.stderr
        assert place.history()[0] == first
        assert (_key(place) or {})["mode"] == "closed"
        assert (_override(leader) or {})["mode"] == "closed"


def test_an_order_for_a_forgotten_breaker_holds(place: Place, admin: dict[str, str]) -> None:
    with Daemon(place.config(admin=admin)) as daemon:
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        assert _command("forget", "default", env=_through(daemon)).returncode == 0
        assert daemon.allowed().headers["x-breaker-reason"] == "forgotten"
        assert _put(daemon, _order("open")) == 200
        assert (daemon.allowed().status, daemon.allowed().body["reason"]) == (503, "forced")
        assert _command("release", env=_through(daemon)).returncode == 0
        assert daemon.allowed().headers["x-breaker-reason"] == "forgotten"
        assert place.state() == ""


def test_a_forgotten_breaker_leaves_nothing_behind(place: Place, admin: dict[str, str]) -> None:
    """Not while another sidecar evaluates it; then whole, and for good."""
    both = place.config({"default": timing(), "orders": timing()}, admin=admin)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Daemon(both))
        poll_until_sync(lambda: place.state("orders") == "CLOSED", 10, "a record")
        place.report("c-1", fail=25, breaker="orders")
        poll_until_sync(lambda: place.history("orders"), 5, "and a history")
        place.consul.kv_put(f"{place.state_prefix}-normal/orders", "{}")  # as `auto` leaves one
        assert _put(first, _order("open"), "orders") == 200
        second = stack.enter_context(Daemon(both))
        refused = _command("forget", "orders", env=_through(second))
        assert refused.returncode == 2
        assert "configuration" in refused.stderr

        second.configure(place.config({"default": timing()}, admin=admin))
        assert second.stop() == 0
        done = _command("forget", "orders", env=_through(first))
        assert done.returncode == 0, done.stderr
        left = place.consul.kv_keys(place.prefix)
        assert [key for key in left if "/orders/" in key and "/reports/" not in key] == []
        assert [key for key in left if key.endswith(("-history/orders", "-normal/orders"))] == []
        answer = first.allowed("orders")
        assert (answer.status, answer.headers["x-breaker-reason"]) == (200, "forgotten")
        assert first.allowed().status == 200
        assert place.state() == "CLOSED", "others are left alone"
