"""Each signal on a real sidecar: it opens the breaker for that reason, and the breaker heals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from sidecar.client import Breaker, Source
from tests.acceptance.support import timing
from tests.daemon import Daemon
from tests.servers import poll_until_sync

pytestmark = pytest.mark.slow  # each signal opens the breaker and heals it in real time

BAD_AND_GOOD: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "failure_ratio": (
        {"threshold": 0.5, "minimum": 10, "window": "2s"},
        {"count_ok": 5, "count_fail": 9},
        {"count_ok": 50},
    ),
    "slow": (
        {"max_latency": "200ms"},
        {"count_ok": 5, "latency_ms": 900},
        {"count_ok": 50, "latency_ms": 20},
    ),
    "stalled": ({"after": "1s"}, {"lag": 40}, {"count_ok": 50, "lag": 10}),
    "delivery": (
        {"ratio": 0.5, "minimum": 10},
        {"count_ok": 5, "count_fail": 9, "role": "producer"},
        {"count_ok": 50, "role": "producer"},
    ),
}


class _Reporter:
    """Posts the same body several times a second until the block is left."""

    def __init__(self, daemon: Daemon, body: dict[str, Any]) -> None:
        self._daemon = daemon
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.body = body

    def _run(self) -> None:
        while not self._ended.is_set():
            self._daemon.post("/v1/report", {"instance": "c-1", **self.body})
            self._ended.wait(0.2)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)


def _config(**signals: object) -> dict[str, object]:
    breaker = timing(
        evaluation_interval="200ms",
        report_interval="500ms",
        failure_threshold=40,
        signals=signals,
    )
    return {"store": "memory", "breakers": {"default": breaker}}


def _shows(daemon: Daemon, state: str, reason: str | None = None) -> Callable[[], bool]:
    def shown() -> bool:
        answer = daemon.allowed(peek=True).body
        return answer["state"] == state and reason in {None, answer["reason"]}

    return shown


@pytest.mark.parametrize("name", BAD_AND_GOOD)
def test_it_opens_for_that_reason_and_heals(name: str) -> None:
    settings, bad, good = BAD_AND_GOOD[name]
    with Daemon(_config(**{name: settings})) as daemon, _Reporter(daemon, good) as reporter:
        poll_until_sync(
            lambda: daemon.get("/v1/breakers/default").body["verdict"] == "healthy", 10, "healthy"
        )
        assert _shows(daemon, "CLOSED")()
        reporter.body = bad
        poll_until_sync(_shows(daemon, "OPEN", name), 10, "it opens")
        edges = daemon.get("/v1/breakers/default/history").body["transitions"]
        assert edges[0]["reason"] == name
        assert edges[0]["evidence"]
        reporter.body = good
        poll_until_sync(_shows(daemon, "CLOSED"), 40, "it heals")


def test_consumers_that_vanish_are_missed() -> None:
    settings = {"min_consumers": 2}
    with Daemon(_config(missing=settings)) as daemon:
        ends = time.monotonic() + 60
        alive = ["c-1", "c-2"]

        def report() -> None:
            for who in alive:
                daemon.post("/v1/report", {"instance": who, "count_ok": 10})

        def until(done: Callable[[], bool], what: str) -> None:
            while not done():
                assert time.monotonic() < ends, what
                report()
                threading.Event().wait(0.2)

        report()
        until(
            lambda: (
                daemon.get("/v1/breakers/default").body["reporters"] == {"fresh": 2, "stale": 0}
            ),
            "both are seen",
        )
        alive.remove("c-2")
        until(_shows(daemon, "OPEN", "missing"), "one is missed")
        alive.append("c-2")
        until(_shows(daemon, "CLOSED"), "it heals")


def test_producers_that_are_cut_off_alone_close_their_own_gate(tmp_path: Path) -> None:
    """The record stays as it is; every way to ask says what is in force here."""
    delivery = {"quorum": 2, "local": {"minimum": 10, "window": "30s", "shut": "5s"}}
    producer = {"instance": "p-1", "role": "producer"}
    state = tmp_path / "state.json"
    config = {**_config(delivery=delivery), "listen": {"state_file": str(state)}}
    with Daemon(config) as daemon, Breaker(address=daemon.url, on_no_answer=True) as client:
        poll_until_sync(lambda: client.source is Source.WATCH, 10, "the client follows")
        poll_until_sync(_shows(daemon, "CLOSED"), 10, "it is closed")
        before = daemon.get("/v1/breakers/default").body
        daemon.post("/v1/report", {**producer, "count_ok": 4, "count_fail": 6})
        answer = daemon.allowed()
        assert answer.status == 503
        assert answer.headers["x-breaker-state"] == answer.body["state"] == "OPEN"
        assert answer.headers["x-breaker-reason"] == "delivery_local"
        assert "60.0% of 10 deliveries failed" in answer.body["detail"]
        poll_until_sync(lambda: not client.allowed(), 10, "the client rejects")
        poll_until_sync(
            lambda: not json.loads(state.read_text())["breakers"]["default"]["allowed"],
            10,
            "the file says so",
        )
        assert daemon.get("/ext_authz/default/x").status == 429
        after = daemon.get("/v1/breakers/default").body
        assert (after["automaton"], after["seq"]) == ("CLOSED", before["seq"])
        assert after["local_gate"]["evidence"]["errored"] == 6
        assert daemon.get("/v1/breakers/default/history").body["transitions"] == []
        poll_until_sync(_shows(daemon, "HALF_OPEN", "delivery_local"), 10, "it tries")
        admitted = [daemon.allowed().status for _ in range(40)].count(200)
        assert admitted == 2, "a twentieth"
        daemon.post("/v1/report", {**producer, "count_ok": 1})
        poll_until_sync(_shows(daemon, "CLOSED"), 10, "it opens")
        assert daemon.allowed(peek=True).body["reason"] == before["reason"]
        poll_until_sync(client.allowed, 10, "the client admits")


def test_an_order_beats_a_sidecars_own_gate() -> None:
    with Daemon(_config(delivery={"quorum": 2, "local": {"minimum": 10}})) as daemon:
        poll_until_sync(_shows(daemon, "CLOSED"), 10, "it is closed")
        bad = {"instance": "p-1", "role": "producer", "count_fail": 10}
        daemon.post("/v1/report", bad)
        assert daemon.allowed(peek=True).body["reason"] == "delivery_local"
        order = {"mode": "closed", "ttl_s": 60, "reason": "we know better"}
        assert daemon.request("PUT", "/v1/breakers/default/override", order).status == 200
        assert _shows(daemon, "CLOSED", "forced")()
        daemon.post("/v1/report", bad)
        assert daemon.allowed().status == 200
        assert daemon.request("DELETE", "/v1/breakers/default/override").status == 204
        assert daemon.allowed(peek=True).body["reason"] == "delivery_local"


def test_hold_and_quorum_on_a_real_sidecar() -> None:
    """One instance alone can't stop the fleet; two can."""
    config = _config(failures={"quorum": 2})
    with Daemon(config) as daemon, _Reporter(daemon, {"count_fail": 50}):

        def signals() -> str:
            return str(daemon.get("/v1/breakers/default").body["signals"])

        poll_until_sync(lambda: "of the 2 reporters" in signals(), 10, "it is told why not")
        assert _shows(daemon, "CLOSED")()
        daemon.post("/v1/report", {"instance": "c-2", "count_fail": 1})
        poll_until_sync(_shows(daemon, "OPEN", "failures"), 10, "it opens")
