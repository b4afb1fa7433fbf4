"""Reports as anybody writes them: odd ones, old ones, dead reporters, and rights that are lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.integration.fleet import Fleet, events, metric, stamp, stays, view
from tests.servers import AclToken, ConsulServer, poll_until_sync

HOUR_S = 3600.0
DAY_S = 86400.0


def bad_bodies() -> dict[str, bytes]:
    """Each would trip the breaker if its failures were counted, by the key it stands under."""

    def body(**changes: object) -> bytes:
        fields = {"timestamp": stamp(), "rate_ok": 0.0, "count_fail": 1000, **changes}
        return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()

    return {
        "no-json": b"failures: 1000",
        "empty": b"",
        "list": b"[" + body() + b"]",
        "cut": body()[:-1],
        "not-utf-8": body().replace(b"rate_ok", b"\xff"),
        "deep": b'{"x":' * 3000,
        "no-timestamp": body(timestamp=...),
        "no-rate": body(rate_ok=...),
        "no-failures": body(count_fail=...),
        "text-timestamp": body(timestamp="soon"),
        "number-timestamp": body(timestamp=1e9),
        "null-timestamp": body(timestamp=None),
        "ahead": body(timestamp=stamp(time.time() + DAY_S + 60)),
        "text-failures": body(count_fail="1000"),
        "true-failures": body(count_fail=True),
        "negative-failures": body(count_fail=-1),
        "negative-rate": body(rate_ok=-1),
        "nan": body(count_fail=float("nan")),
        "infinite": body(rate_ok=float("inf")),
        "nan-lag": body(lag=float("nan")),
        "too-large": body(padding="x" * 66_000),
    }


def test_bad_reports_are_ignored_alone(consul: ConsulServer, prefix: str) -> None:
    """Counted each, logged once a key; the good ones beside them are added up as ever."""
    with Fleet(consul, prefix, report_interval="20s") as fleet:
        (daemon,) = fleet.start(1)
        created = fleet.wait_for("CLOSED")
        fleet.report("good-1", fail=19)
        bad = bad_bodies()
        for key, value in bad.items():
            consul.kv_put(f"{fleet.reports}/{key}", value)

        def counted(at_least: int) -> Callable[[], bool]:
            return lambda: metric(daemon, "breaker_bad_records_total", kind="report") >= at_least

        poll_until_sync(counted(len(bad)), 5, "each is counted")
        poll_until_sync(lambda: len(events(daemon, "bad_report")) >= len(bad), 5, "each is told")
        said = {line["reporter"]: line["fault"] for line in events(daemon, "bad_report")}
        assert said.keys() == bad.keys()
        assert len(events(daemon, "bad_report")) == len(bad)
        assert all(len(fault) < 300 for fault in said.values())
        assert view(daemon)["reporters"] == {"fresh": 1, "stale": 0}
        assert fleet.record() == created

        consul.kv_put(f"{fleet.reports}/no-json", b"failures: 2000")
        poll_until_sync(counted(len(bad) + 1), 5, "another one there is counted")
        assert len(events(daemon, "bad_report")) == len(bad), "and not logged again"
        assert metric(daemon, "breaker_bad_records_total", kind="report") == len(bad) + 1

        fleet.report("good-2", fail=1)
        opened = fleet.wait_for("OPEN")
        assert opened["evidence"]["failures"] == 20
        assert opened["evidence"]["reporters"] == 2


def test_keys_that_name_no_instance_do_not_count(consul: ConsulServer, prefix: str) -> None:
    """Nested, odd, and in a prefix that only begins the same; a folder is no report at all."""
    with Fleet(consul, prefix, report_interval="20s") as fleet:
        (daemon,) = fleet.start(1)
        created = fleet.wait_for("CLOSED")
        failing = {"timestamp": stamp(), "rate_ok": 0, "count_fail": 1000}
        odd = ["team/c-1", "-dash", ".dot", "with space", "ümlaut", "x" * 129, "c-1/"]
        for name in odd:
            consul.kv_put(f"{fleet.reports}/{name}", dict(failing))
        consul.kv_put(f"{fleet.reports}/", b"")
        consul.kv_put(f"{fleet.reports}-2/c-1", dict(failing))
        consul.kv_put(f"{fleet.reports}", dict(failing))
        fleet.report("c-1", fail=1)
        poll_until_sync(lambda: view(daemon)["reporters"]["fresh"] == 1, 5, "one is known")
        poll_until_sync(
            lambda: metric(daemon, "breaker_bad_records_total", kind="report") == len(odd),
            5,
            "the odd ones are counted",
        )
        assert view(daemon)["signals"][0]["evidence"]["failures"] == 1
        assert fleet.record() == created


def test_a_consumer_that_repeats_its_body_goes_stale(consul: ConsulServer, prefix: str) -> None:
    """Consul doesn't note an identical PUT, and nor do we: it may hang in a loop of its own."""
    with Fleet(consul, prefix, report_interval="300ms") as fleet:
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        same: dict[str, object] = {"timestamp": stamp(), "rate_ok": 5, "count_fail": 0}

        def repeated() -> dict[str, Any]:
            consul.kv_put(f"{fleet.reports}/c-1", same)
            return view(daemon)

        poll_until_sync(lambda: repeated()["verdict"] == "healthy", 3, "it is fresh")
        began = time.monotonic()
        poll_until_sync(lambda: repeated()["verdict"] == "unknown", 3, "it is stale")
        assert 0.3 < time.monotonic() - began < 2.0
        assert view(daemon)["reporters"] == {"fresh": 0, "stale": 1}
        fleet.report(ok=5)
        poll_until_sync(lambda: view(daemon)["verdict"] == "healthy", 3, "another value is fresh")


def test_a_reporters_clock_causes_no_transition(consul: ConsulServer, prefix: str) -> None:
    """Jumping an hour to and fro; and old failures of keys that are seen for the first time."""
    consul.kv_put(
        f"{prefix}-reports/left-behind",
        {"timestamp": stamp(time.time() - HOUR_S), "rate_ok": 0, "count_fail": 1000},
    )
    with Fleet(consul, prefix) as fleet:
        (daemon,) = fleet.start(1)
        created = fleet.wait_for("CLOSED")
        began = time.monotonic()
        turns = [0.0, HOUR_S, -HOUR_S]

        def jumping() -> bool:
            turns.append(turns.pop(0))
            fleet.report(ok=50, fail=1, at=time.time() + turns[0])
            assert fleet.record() == created
            return time.monotonic() - began > 2.0

        poll_until_sync(jumping, 5, "many jumps")
        assert view(daemon)["reporters"] == {"fresh": 1, "stale": 1}
        assert view(daemon)["verdict"] == "healthy"
        fleet.report("late", fail=1000, at=time.time() - HOUR_S)
        stays(lambda: fleet.record() == created, 0.5, "an old first report trips nothing")
        # What changes under our eyes counts, whatever its writer's clock says.
        fleet.report("late", fail=25, at=time.time() - HOUR_S)
        fleet.wait_for("OPEN")


def test_dead_reporters_are_collected(consul: ConsulServer, prefix: str) -> None:
    """Their keys go after `report_gc`; who reports, however little, stays."""
    with Fleet(consul, prefix, report_interval="300ms", report_gc="1s") as fleet:
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        for n in range(40):
            fleet.report(f"dead-{n}", ok=1)
        consul.kv_put(
            f"{fleet.reports}/left", {"timestamp": stamp(0), "rate_ok": 0, "count_fail": 0}
        )
        fleet.with_reports(
            lambda: consul.kv_keys(f"{fleet.reports}/") == [f"{fleet.reports}/alive"],
            6,
            "only the living one is left",
            instance="alive",
        )
        gone = {"left", *(f"dead-{n}" for n in range(40))}
        poll_until_sync(
            lambda: {line["reporter"] for line in events(daemon, "reporter_dropped")} == gone,
            5,
            "each is told of, once its deletion was answered",
        )


def test_reports_through_the_sidecar_are_written_behind(consul: ConsulServer, prefix: str) -> None:
    """The first failing one at once, then once an interval with everything added up."""
    with Fleet(consul, prefix, report_interval="1s") as fleet:
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        key = f"{fleet.reports}/local-1"

        def stored() -> dict[str, Any]:
            value: dict[str, Any] = json.loads(consul.kv_get(key) or b"{}")
            return value

        assert _post(daemon, count_ok=7, count_fail=1) == 202
        began = time.monotonic()
        first = poll_until_sync(stored, 0.9, "the first is written at once, not after an interval")
        assert (first["count_ok"], first["count_fail"]) == (7, 1)
        for _ in range(5):
            assert _post(daemon, count_ok=10, count_fail=2, latency_ms=4) == 202
        poll_until_sync(lambda: stored() != first, 3, "the others follow")
        second = stored()
        assert time.monotonic() - began > 0.8
        assert (second["count_ok"], second["count_fail"]) == (50, 10)
        assert 0.9 <= second["interval"] <= time.monotonic() - began + 0.1
        assert second["rate_ok"] == pytest.approx(50 / second["interval"], rel=0.01)
        assert second["latency_ms"] == 4
        poll_until_sync(
            lambda: metric(daemon, "breaker_consul_requests_total", op="put") == 2, 5, "two writes"
        )

        assert _post(daemon, count_fail=25) == 202
        fleet.wait_for("OPEN")
        fleet.all_answer(503)


def test_a_reporters_goodbye_deletes_its_key(consul: ConsulServer, prefix: str) -> None:
    """By DELETE, and for all that reported through a sidecar by its graceful stop."""
    with Fleet(consul, prefix) as fleet:
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        for n in range(3):
            assert _post(daemon, instance=f"local-{n}", count_fail=1) == 202
        fleet.report("elsewhere", ok=1)
        poll_until_sync(lambda: len(consul.kv_keys(f"{fleet.reports}/")) == 4, 3, "all are there")
        assert daemon.request("DELETE", "/v1/report/default/local-0").status == 204
        assert f"{fleet.reports}/local-0" not in consul.kv_keys(f"{fleet.reports}/")
        assert daemon.request("DELETE", "/v1/report/default/local-0").status == 404
        assert daemon.stop() == 0
        assert consul.kv_keys(f"{fleet.reports}/") == [f"{fleet.reports}/elsewhere"]


def test_a_token_that_loses_its_right_to_read_reports(prefix: str) -> None:
    """The list looks empty: unknown and never healthy. Half open it holds, past its longest."""
    half = {"initial": 0.05, "ramp": "2s", "max": "2s"}
    with ConsulServer(acl=True) as consul:
        token = consul.make_token(_rules(prefix, "read"))
        with Fleet(consul, prefix, token=token.secret, half_open=half) as fleet:
            (daemon,) = fleet.start(1)
            fleet.wait_for("CLOSED")
            fleet.with_reports(lambda: view(daemon)["verdict"] == "healthy", 5, "healthy")
            created = fleet.record()
            _unread(consul, token, fleet, daemon)
            fleet.report(fail=1000)
            stays(lambda: fleet.record() == created, 1.0, "what nobody can read changes nothing")
            consul.set_rules(token, _rules(prefix, "read"))
            fleet.wait_for("OPEN")
            half_open = fleet.wait_for("HALF_OPEN")
            assert half_open["admit_ratio"] == 0.05
            _unread(consul, token, fleet, daemon)
            began = time.monotonic()
            held = fleet.record()
            assert held["current_state"] == "HALF_OPEN"

            def holds() -> bool:
                assert fleet.record() == held
                return time.monotonic() - began > 3.0

            fleet.with_reports(holds, 5, "held for longer than the longest")
            assert view(daemon)["verdict"] == "unknown"
            consul.set_rules(token, _rules(prefix, "read"))
            fleet.heal()


def _unread(consul: ConsulServer, token: AclToken, fleet: Fleet, daemon: Daemon) -> None:
    """Take the right away, and wait until that is felt and said, while a consumer reports."""
    said = len(events(daemon, "reports_empty"))
    consul.set_rules(token, _rules(fleet.prefix, "deny"))
    fleet.with_reports(lambda: view(daemon)["verdict"] == "unknown", 5, "unknown")
    poll_until_sync(lambda: len(events(daemon, "reports_empty")) == said + 1, 5, "it is told once")


def _rules(prefix: str, reports: str) -> str:
    """A sidecar's rights, with these on the reports."""
    return f"""
        key_prefix "{prefix}/" {{ policy = "write" }}
        key_prefix "{prefix}-history/" {{ policy = "write" }}
        key_prefix "{prefix}-reports/" {{ policy = "{reports}" }}
        session_prefix "" {{ policy = "write" }}
    """


def _post(daemon: Daemon, instance: str = "local-1", **counts: float) -> int:
    return daemon.post("/v1/report", {"instance": instance, **counts}).status
