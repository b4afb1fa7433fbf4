"""`allowed`, `report` and `wait`: their exit codes and what goes where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.unit.cli.canned import UNKNOWN, Canned, Invoke

ADMIT = {
    "allowed": True,
    "breaker": "default",
    "state": "CLOSED",
    "reason": "recovered",
    "detail": "healthy",
    "seq": 4,
    "admit_ratio": 1.0,
    "stale": False,
    "override": None,
}
REJECT = ADMIT | {
    "allowed": False,
    "state": "OPEN",
    "reason": "failures",
    "detail": "25 failures\x1b[2J",
    "error": "…",
    "retry_after": 30,
    "stale": True,
}


def test_admitted_is_0(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /allowed"] = (200, ADMIT)
    result = ask("allowed")
    assert result.exit_code == 0
    assert result.stdout == "admit default CLOSED recovered: healthy\n"
    assert result.stderr == ""


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_rejected_is_1_whatever_status_says_so(sidecar: Canned, ask: Invoke, status: int) -> None:
    sidecar.replies["GET /allowed/orders"] = (status, REJECT)
    result = ask("allowed", "orders")
    assert result.exit_code == 1
    assert result.stdout == (
        "reject default OPEN failures: 25 failures\\u001b[2J (retry after 30 s) (stale)\n"
    )


def test_json_is_the_answer_itself(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /allowed?peek=1"] = (503, REJECT)
    result = ask("allowed", "--peek", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == REJECT


def test_an_unknown_name_is_2(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /allowed/nope"] = UNKNOWN
    result = ask("allowed", "nope")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "there are: default, orders" in result.stderr


@pytest.mark.parametrize(
    "reply",
    [
        (404, b"<h1>node exporter</h1>"),
        (200, b"hello"),
        (200, {"other": 1}),
        (500, {"type": "about:blank", "title": "x", "status": 500, "detail": "a defect"}),
    ],
)
def test_no_sidecar_or_a_broken_one_is_3(
    sidecar: Canned, ask: Invoke, reply: tuple[int, object]
) -> None:
    sidecar.replies["GET /allowed"] = reply
    result = ask("allowed")
    assert result.exit_code == 3
    assert result.stdout == ""


def test_nobody_there_is_3(invoke: Invoke) -> None:
    result = invoke("allowed", "--address", "unix:/nowhere")
    assert result.exit_code == 3
    assert "no answer from unix:/nowhere" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("allowed", "..", "--address", "h:1"),
        ("allowed", "--address", "foo://x"),
        ("allowed", "--no-such-flag"),
        ("allowed", "--deadline", "2"),
        ("report", "--ok", "-1"),
        ("report", "--instance", "a/b"),
        ("report", "--every", "-5s"),
        ("report", "--every", "0s"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_is_2(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_the_environment_says_where(
    sidecar: Canned, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar.replies["GET /allowed"] = (200, ADMIT)
    monkeypatch.setenv("NOMAD_PORT_breaker", sidecar.address.rpartition(":")[2])
    assert invoke("allowed").exit_code == 0
    monkeypatch.setenv("BREAKER_SIDECAR_ADDRESS", "unix:/nowhere")
    assert invoke("allowed").exit_code == 3
    assert invoke("allowed", "--address", f"http://{sidecar.address}").exit_code == 0


def test_a_report_is_sent_once(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["POST /v1/report/orders"] = (202, {"accepted": True})
    result = ask("report", "orders", "--ok", "10", "--fail", "2.5", "--instance", "c-1")
    assert result.exit_code == 0
    assert result.stdout == ""
    posted = {"instance": "c-1", "count_ok": 10, "count_fail": 2.5}
    assert sidecar.asked == [("POST /v1/report/orders", posted)]


def test_a_report_has_an_instance_by_default(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["POST /v1/report"] = (202, {"accepted": True})
    assert ask("report").exit_code == 0
    _, body = sidecar.asked[0]
    assert isinstance(body, dict)
    assert str(body["instance"]).endswith("-cli")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (UNKNOWN, 2),
        ((403, {"type": "urn:breaker-sidecar:reports-off", "detail": "switched off"}), 2),
        ((429, {"type": "urn:breaker-sidecar:too-many-instances", "detail": "later"}), 3),
        ((503, {"type": "urn:breaker-sidecar:store-unavailable", "detail": "later"}), 3),
    ],
)
def test_a_refused_report(
    sidecar: Canned, ask: Invoke, reply: tuple[int, object], code: int
) -> None:
    sidecar.replies["POST /v1/report"] = reply
    assert ask("report", "--fail", "1").exit_code == code


def until(true: Callable[[], object]) -> None:
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_reporting_goes_on_and_ends_with_a_goodbye(
    sidecar: Canned, ended_by: signal.Signals
) -> None:
    unavailable = (503, {"type": "urn:breaker-sidecar:store-unavailable", "detail": "later"})
    sidecar.replies["POST /v1/report"] = [
        (202, {"accepted": True}),
        unavailable,
        unavailable,
        (202, {"accepted": True}),
    ]
    sidecar.replies["DELETE /v1/report/default/c-1"] = (204, None)
    arguments = ["report", "--fail", "1", "--instance", "c-1", "--every", "50ms"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *arguments, "--address", sidecar.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(sidecar.asked) >= 6)
        os.kill(process.pid, ended_by)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == ""
    assert err.count("later") == 1
    assert err.count("the sidecar answers again") == 1
    assert sidecar.asked[-1] == ("DELETE /v1/report/default/c-1", None)


def test_wait_returns_once_it_is_ready(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /readyz"] = [(503, {"ready": False}), (200, {"ready": True})]
    result = ask("wait", "--timeout", "20s")
    assert result.exit_code == 0
    assert len(sidecar.asked) == 2


def test_wait_gives_up(invoke: Invoke, sidecar: Canned, ask: Invoke) -> None:
    result = invoke("wait", "--timeout", "300ms", "--address", "unix:/nowhere")
    assert result.exit_code == 1
    assert "not ready within 0.3 s: no answer" in result.stderr
    sidecar.replies["GET /readyz"] = (200, b"something else")
    result = ask("wait", "--timeout", "2s")
    assert result.exit_code == 1
    assert "answers 200 to /readyz" in result.stderr
