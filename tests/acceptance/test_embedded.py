"""The daemon that `make run` starts: no file, no store but its own memory, nothing else needed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sidecar.telemetry.names import METRICS
from tests.acceptance.support import events, series
from tests.daemon import Daemon
from tests.servers import poll_until_sync

CONSUL_ENV = {
    "CONSUL_HTTP_ADDR": "192.0.2.1:8500",  # reserved for documentation: nobody answers there
    "CONSUL_HTTP_TOKEN": "not-a-token",
    "CONSUL_HTTP_TOKEN_FILE": "/nowhere/token",
    "CONSUL_HTTP_SSL": "1",
    "CONSUL_HTTP_SSL_VERIFY": "perhaps",
    "CONSUL_CACERT": "/nowhere/ca.pem",
    "CONSUL_CLIENT_CERT": "/nowhere/cert.pem",
    "CONSUL_CLIENT_KEY": "/nowhere/key.pem",
    "CONSUL_NAMESPACE": "nobody",
}
_SHORT = "BREAKER_SIDECAR__BREAKERS__DEFAULT__"
SHORTER = {
    f"{_SHORT}OPEN_DURATION": "1s",
    f"{_SHORT}EVALUATION_INTERVAL": "200ms",
    f"{_SHORT}REPORT_INTERVAL": "1s",
    f"{_SHORT}HALF_OPEN__RAMP": "800ms",
}
TRIP = {"instance": "c1", "count_fail": 25, "count_ok": 0}


@pytest.fixture(scope="module")
def embedded() -> Iterator[Daemon]:
    """One daemon for the tests that only look at it."""
    with Daemon(env=CONSUL_ENV) as daemon:
        yield daemon


def test_a_report_rejects_and_healthy_ones_bring_it_back() -> None:
    """The walk-through of the README, with shorter times by environment variables."""
    with Daemon(env={**CONSUL_ENV, **SHORTER}) as daemon:
        first = daemon.allowed()
        assert first.status == 200
        assert first.body == {
            "allowed": True,
            "breaker": "default",
            "state": "CLOSED",
            "reason": "created",
            "detail": first.body["detail"],
            "seq": 1,
            "admit_ratio": 1.0,
            "stale": False,
            "override": None,
        }
        assert first.headers["x-breaker"] == "default"
        assert first.headers["x-breaker-state"] == "CLOSED"
        assert first.headers["x-breaker-stale"] == "false"
        assert first.headers["cache-control"] == "no-store"

        assert daemon.post("/v1/report", TRIP).status == 202
        rejected = daemon.allowed()
        assert rejected.status == 503
        assert int(rejected.headers["retry-after"]) in {1, 2}
        assert rejected.body["retry_after"] == int(rejected.headers["retry-after"])
        assert rejected.body["error"]
        assert rejected.body["reason"] == "failures"

        def healed() -> bool:
            assert daemon.post("/v1/report", {"instance": "c1", "count_ok": 10}).status == 202
            return bool(daemon.allowed(peek=True).body["state"] == "CLOSED")

        poll_until_sync(healed, 10, "healthy reports bring it back")
        assert daemon.allowed().status == 200
        entries = daemon.get("/v1/breakers/default/history").body["transitions"]
        assert [(entry["from"], entry["to"]) for entry in entries] == [
            ("CLOSED", "OPEN"),
            ("OPEN", "HALF_OPEN"),
            ("HALF_OPEN", "CLOSED"),
        ]
        assert daemon.stop() == 0


def test_the_defaults_are_those_of_the_contract() -> None:
    """25 failures reject for half a minute, and for whoever asks in whatever way."""
    with Daemon(env=CONSUL_ENV) as daemon:
        assert daemon.post("/v1/report", {"instance": "c1", "count_fail": 19}).status == 202
        assert daemon.allowed().status == 200
        assert daemon.post("/v1/report", {"instance": "c2", "count_fail": 1}).status == 202
        rejected = daemon.allowed()
        assert rejected.status == 503
        assert 28 <= int(rejected.headers["retry-after"]) <= 33

        head = daemon.request("HEAD", "/allowed")
        assert (head.status, head.content) == (503, b"")
        assert head.headers["retry-after"] == daemon.allowed().headers["retry-after"]
        for status in (401, 403, 429, 503):
            assert daemon.get(f"/allowed?deny_status={status}").status == status
        assert daemon.get("/allowed?deny_status=500").status == 400
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            asked = daemon.request(method, "/ext_authz/default/any/path?q=1", b"{not json")
            assert asked.status == 429, method
            assert "retry-after" in asked.headers
        assert daemon.get("/readyz").status == 200
        assert daemon.get("/readyz?strict=1").status == 200
        assert daemon.get("/livez").status == 200

        gone = daemon.request("DELETE", "/v1/report/default/c1")
        assert gone.status == 204
        assert daemon.request("DELETE", "/v1/report/default/c1").status == 404
        assert daemon.allowed().status == 503, "a goodbye is no recovery"


def test_a_report_for_one_breaker_is_none_for_another() -> None:
    """In memory, where nothing but the name says whose it is, unless they share a prefix."""
    shared = {"consul_key_prefix": "both"}
    names = ("orders", "refunds", "default", "a", "b")
    breakers = {name: shared if name in {"a", "b"} else {} for name in names}
    with Daemon({"breakers": breakers}) as daemon:
        for name, failures in (("orders", 25), ("refunds", 1), ("a", 25)):
            report = {"instance": "c-1", "count_fail": failures}
            assert daemon.request("POST", f"/v1/report/{name}", report).status == 202
        assert [daemon.allowed(name).status for name in names] == [503, 200, 200, 503, 503]
        assert daemon.get("/v1/breakers/default").body["reporters"] == {"fresh": 0, "stale": 0}
        shown = daemon.get("/v1/breakers").body["breakers"]
        prefixes = {each["name"]: each["policy"]["consul_key_prefix"] for each in shown}
        unsaid = dict.fromkeys(names[:3], "service-metrics/kafka-consumer")
        assert prefixes == unsaid | {"a": "both", "b": "both"}, "as configured"


def test_a_withdrawn_report_counts_no_more(embedded: Daemon) -> None:
    """15 of one that left and 15 of another are not 30."""
    assert embedded.post("/v1/report", {"instance": "w1", "count_fail": 15}).status == 202
    assert embedded.request("DELETE", "/v1/report/default/w1").status == 204
    assert embedded.post("/v1/report", {"instance": "w2", "count_fail": 15}).status == 202
    assert embedded.allowed().status == 200
    assert embedded.request("DELETE", "/v1/report/default/w2").status == 204


def test_a_gateway_that_is_admitted(embedded: Daemon) -> None:
    """HEAD, Envoy's check and a strange Host and Origin get the same word as anybody."""
    strange = {"Host": "shop.example", "Origin": "https://shop.example"}
    for method, path in (
        ("HEAD", "/allowed"),
        ("HEAD", "/allowed/default"),
        ("GET", "/allowed/default"),
        ("POST", "/ext_authz/default/orders"),
        ("GET", "/ext_authz/default/"),
    ):
        assert embedded.request(method, path, headers=strange).status == 200, (method, path)
    assert embedded.get("/v1/breakers", {"Host": "shop.example"}).status == 403
    assert embedded.get("/v1/breakers", {"Origin": "https://shop.example"}).status == 403


def test_what_machines_look_at(embedded: Daemon) -> None:
    """Alive, ready, which version, and the interface's own description."""
    assert embedded.get("/livez").status == 200
    ready = embedded.get("/readyz")
    assert ready.status == 200
    assert ready.body["stale"] is False
    version = embedded.get("/version")
    assert version.body["version"]
    document = embedded.get("/openapi.json")
    assert document.status == 200
    assert document.body["openapi"].startswith("3.")
    assert {"/allowed", "/allowed/{name}", "/v1/report", "/v1/breakers", "/metrics"} <= set(
        document.body["paths"]
    )
    for path in ("/livez", "/readyz", "/version", "/openapi.json", "/metrics", "/v1/breakers"):
        head = embedded.request("HEAD", path)
        assert (head.status, head.content) == (200, b""), path
    breakers = embedded.get("/v1/breakers").body["breakers"]
    assert [breaker["name"] for breaker in breakers] == ["default"]
    assert embedded.get("/v1/status").body["store"]["kind"] == "memory"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_shuts_down_its_sending_side_is_answered(
    embedded: Daemon, version: str
) -> None:
    report = b'{"instance":"half","count_ok":1}'
    posted = f"Content-Type: application/json\r\nContent-Length: {len(report)}\r\n"
    for line, more, body, status in (
        ("GET /allowed", "", b"", b"200"),
        ("GET /metrics", "", b"", b"200"),
        ("POST /v1/report", posted, report, b"202"),
    ):
        head = f"{line} HTTP/{version}\r\nHost: localhost\r\n{more}\r\n"
        assert embedded.half_closed(head.encode() + body)[9:12] == status, line
    assert embedded.request("DELETE", "/v1/report/default/half").status == 204
    seq = poll_until_sync(lambda: embedded.allowed(peek=True).body["seq"], 10.0, "a state")
    waits = f"GET /v1/breakers/default?index={seq}&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert embedded.half_closed(waits.encode()) == b"", "it would have to wait for minutes"


def test_every_metric_is_there(embedded: Daemon) -> None:
    """All names of the contract, no others than the list's, nothing about when a series began."""
    embedded.allowed()
    exposition = embedded.get("/metrics")
    assert exposition.headers["content-type"].startswith("text/plain")
    text = exposition.content.decode()
    assert "_created" not in text
    declared = set(re.findall(r"^# TYPE (breaker_\w+) ", text, re.MULTILINE))
    assert CONTRACT_METRICS <= declared <= set(map(str, METRICS))
    values = series(exposition)
    assert values['breaker_state{breaker="default",state="CLOSED"}'] == 1
    assert values['breaker_state{breaker="default",state="OPEN"}'] == 0
    assert values['breaker_admit_ratio{breaker="default"}'] == 1
    assert values['breaker_evaluator{breaker="default"}'] == 1
    assert values["breaker_config_last_reload_successful"] == 1
    assert values['breaker_decisions_total{breaker="default",decision="admit"}'] >= 1


CONTRACT_METRICS = {
    "breaker_admit_ratio",
    "breaker_bad_records_total",
    "breaker_build_info",
    "breaker_cas_conflicts_total",
    "breaker_config_last_reload_successful",
    "breaker_config_mismatch",
    "breaker_consul_request_duration_seconds",
    "breaker_consul_requests_total",
    "breaker_decisions_total",
    "breaker_evaluation_duration_seconds",
    "breaker_evaluations_total",
    "breaker_evaluator",
    "breaker_foreign_writes_total",
    "breaker_last_sync_timestamp_seconds",
    "breaker_override",
    "breaker_reporters",
    "breaker_shadow_rejections_total",
    "breaker_stale",
    "breaker_state",
    "breaker_transitions_total",
    "breaker_verdict",
}


def test_bad_reports_are_refused_with_every_fault(embedded: Daemon) -> None:
    """400 with the fields, 413, 415, 405 with what is allowed; and nothing of it counts."""
    refused = embedded.post("/v1/report", {"instance": "../x", "count_fail": -1})
    assert refused.status == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert {error["field"] for error in refused.body["errors"]} == {"instance", "count_fail"}
    assert embedded.post("/v1/report", b"{").status == 415
    as_json = {"Content-Type": "application/json"}
    assert embedded.post("/v1/report", b"{", as_json).status == 400
    assert embedded.post("/v1/report", b"[" + b" " * 70_000 + b"]", as_json).status == 413
    wrong = embedded.get("/v1/report")
    assert wrong.status == 405
    assert wrong.headers["allow"] == "POST"
    assert embedded.allowed().status == 200


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "name"), [("coverage", ""), ("fuzzing", 'name = "default"')])
def test_the_interface_is_what_its_description_says(phase: str, name: str) -> None:
    """Schemathesis makes up requests by /openapi.json, and holds each answer against it.

    Most made-up names are a 404, so that the second run uses the one that there is. 503 is an open
    breaker's word, which its reports may well bring about.
    """
    with Daemon(env=CONSUL_ENV) as daemon:
        settings = daemon.folder / "schemathesis.toml"
        settings.write_text(_SCHEMATHESIS + name)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
                *("--no-color", "run", f"{daemon.url}/openapi.json"),
                *("--max-examples", "8", "--seed", "1", "--request-timeout", "3"),
                *("--generation-database", "none", "--phases", phase),
            ],
            cwd=daemon.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert daemon.get("/livez").status == 200
        assert not events(daemon, "request_failed")


# OpenAPI has no word for "any method", which is what Envoy's check takes.
_SCHEMATHESIS = """
[[operations]]
include-path = "/ext_authz/{name}/{path}"
checks.unsupported_method.enabled = false
# Its answer has no end.
[[operations]]
include-path = "/v1/watch"
enabled = false
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503"]
[parameters]
"query.wait" = "20ms"
"""
