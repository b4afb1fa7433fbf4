"""`allowed --explain`."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.canned import Canned, Invoke, breaker

EVIL = "of \x1b]0;evil\x07 intent"
KNOWN = breaker(
    state="HALF_OPEN",
    automaton="HALF_OPEN",
    admit_ratio=0.05,
    since=None,
    evidence={"failures": 25, "threshold": 20, "index": 9},
    evaluating=False,
    config_mismatch=True,
    policy={"failure_threshold": 20, "half_open": {"initial": 0.05}},
)
WHY = {
    "because": "record",
    "why": "the record in the store decides",
    "counted": True,
    "more_admitted_in_s": 3.2,
    "retry_spread_s": 1.0,
    "spread": {"ratio": 0.05, "shadow_ratio": 1.0, "position": 0.4, "next_admitted_call": 12},
    "sync": {"age": 0.4, "stale_after": 10.0, "max_stale": 30.0, "on_loss": "keep"},
    "instance": "i-9",
    "known": KNOWN,
}
BODY = {
    "allowed": False,
    "breaker": "default",
    "state": "HALF_OPEN",
    "reason": "open_elapsed",
    "detail": "the open time is over",
    "stale": False,
    "retry_after": 4,
    "explain": WHY,
}


def said(output: str) -> dict[str, str]:
    rows = [line.strip().partition(" ") for line in output.splitlines()[1:]]
    return {head: rest.strip() for head, _, rest in rows}


def test_people_get_a_line_for_each_thing(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /allowed?explain=1"] = (503, BODY)
    result = ask("allowed", "--explain")
    assert result.exit_code == 1
    assert result.stdout.startswith("reject default HALF_OPEN open_elapsed: the open time is over")
    rows = said(result.stdout)
    assert rows["because"] == "record: the record in the store decides"
    assert rows["counted"] == "yes"
    assert rows["record"] == "HALF_OPEN for -, seq 1"
    assert rows["then"] == "failures 25, threshold 20"
    assert rows["now"] == rows["reporters"] == "known to the evaluator alone"
    assert rows["evaluator"] == "i-1 at h:1"
    assert rows["settings"].startswith(
        "failure_threshold 20, open_duration None, half_open.initial"
    )
    assert "another configuration" in rows["mismatch"]
    assert rows["store"] == "read 0s ago, stale after 10s, on_loss keep"
    assert rows["more"].startswith("is admitted in 3s (about 20")
    assert rows["spread"] == "5.0% of the calls; of the next ones, number 12 is admitted"


def test_a_forced_one_is_loud_and_safe_to_print(sidecar: Canned, ask: Invoke) -> None:
    override = {"mode": "open", "reason": EVIL, "author": "ann", "ttl_s": "none", "left_s": None}
    known = KNOWN | {"override": override, "signals": [{"name": EVIL, "evidence": {EVIL: EVIL}}]}
    why = WHY | {"known": known, "more_admitted_in_s": None, "counted": False}
    sidecar.replies["GET /allowed/orders?peek=1&explain=1"] = (503, BODY | {"explain": why})
    result = ask("allowed", "orders", "--explain", "--peek", color=True)
    assert (
        "\x1b[1m!! FORCED open by ann, until somebody releases it: of \\u001b]0;" in result.stdout
    )
    assert "\x1b]" not in result.stdout
    assert said(result.stdout)["counted"] == "no, only looked at"
    assert said(result.stdout)["more"].startswith("no time is known")


def test_as_json_it_is_the_sidecars(sidecar: Canned, ask: Invoke) -> None:
    sidecar.replies["GET /allowed?explain=1"] = (503, BODY)
    assert json.loads(ask("allowed", "--explain", "-o", "json").stdout) == BODY


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (None, "explains nothing"),
        ({"withheld": "Host x is neither"}, "not explained here: Host x is neither"),
        ({}, "because"),
        ({"known": [], "spread": 1, "sync": "x"}, "none has been seen"),
    ],
)
def test_whatever_comes_the_decision_stands(
    sidecar: Canned, ask: Invoke, explanation: object, words: str
) -> None:
    sidecar.replies["GET /allowed?explain=1"] = (503, BODY | {"explain": explanation})
    result = ask("allowed", "--explain")
    assert result.exit_code == 1
    assert words in result.stdout
