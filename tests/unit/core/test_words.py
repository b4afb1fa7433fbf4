"""What is said of a breaker, in the words that command line and page share."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core import words
from sidecar.core.wire import parse_rfc3339

NOW_AT = parse_rfc3339("2026-12-04T22:00:00Z")
OVERRIDE = {
    "mode": "open",
    "reason": "migration",
    "author": "ann",
    "set_at": "2026-12-04T21:58:00Z",
    "ttl_s": 900,
    "left_s": 780.2,
}


def item(**more: object) -> dict[str, Any]:
    return {
        "name": "default",
        "state": "CLOSED",
        "automaton": "CLOSED",
        "since": "2026-12-04T20:00:00Z",
        "override": None,
        "evaluating": True,
        "evaluator": {"instance": "i-1", "address": "h:1"},
    } | more


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0s"), (59.9, "59s"), (61, "1m01s"), (3600, "1h00m"), (90000, "1d01h")],
)
def test_spans(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_a_forced_breaker_says_so_itself_and_who_and_why_and_how_long() -> None:
    forced = item(state="OPEN", override=OVERRIDE)
    assert words.state(forced) == "OPEN (FORCED)"
    assert words.forced(forced) == (
        "FORCED open by ann, 13m00s left of 15m00s: migration; underneath: CLOSED"
    )
    assert list(words.notes(forced)) == ["FORCED open"]
    since_at = words.since_at(forced)
    assert since_at is not None
    assert NOW_AT - since_at == 120


@pytest.mark.parametrize(
    ("state", "ratio", "said"),
    [("HALF_OPEN", 0.05, "HALF_OPEN 5%"), ("CLOSED", 0.6, "CLOSED 60%"), ("CLOSED", 1.0, "CLOSED")],
)
def test_a_share_is_told_where_it_says_more(state: str, ratio: float, said: str) -> None:
    assert words.state(item(state=state, admit_ratio=ratio)) == said


def test_an_override_that_says_little_is_told_all_the_same() -> None:
    bare = item(override={"mode": "closed", "reason": "", "author": "", "ttl_s": "none"})
    assert words.forced(bare) == (
        "FORCED closed by somebody who gave no name, until somebody releases it: "
        "no reason was given; underneath: CLOSED"
    )
    assert words.since_at(bare) is None


@pytest.mark.parametrize(
    ("shadow", "said"),
    [
        (
            {
                "openings": 3,
                "since": "2026-11-20T20:00:00.000000Z",
                "rejected": 4711,
                "rejected_for_s": 7200,
            },
            (
                "shadow: would have opened 3 times in 14d02h (its history reaches back to "
                "2026-11-20T20:00:00Z); would have rejected 4711 calls here in 2h00m, "
                "since this sidecar began"
            ),
        ),
        (
            {"openings": 1, "since": None, "rejected": 1},
            (
                "shadow: would have opened once; would have rejected 1 call here, "
                "since this sidecar began"
            ),
        ),
        (
            {"openings": None, "since": None, "rejected": 0, "rejected_for_s": 5},
            (
                "shadow: how often it would have opened can't be read now; "
                "would have rejected 0 calls here in 5s, since this sidecar began"
            ),
        ),
        (None, None),
    ],
)
def test_the_shadow_report(shadow: object, said: str | None) -> None:
    assert words.shadow(item(shadow=shadow), NOW_AT) == said


def test_evidence_is_the_records_unless_it_is_closed_and_more_is_known() -> None:
    record = {"failures": 25, "threshold": 20, "reporters": 3, "known": 3, "index": 999}
    assert words.numbers(item(evidence=record)) == "failures 25, threshold 20"
    signal = {"name": "failures", "verdict": "healthy", "detail": "d", "evidence": {"failures": 1}}
    live = item(evidence=record, signals=[signal])
    assert words.numbers(live) == words.numbers_now(live) == "failures 1"
    assert words.numbers_then(live) == "failures 25, threshold 20"
    assert words.numbers(live | {"automaton": "OPEN"}) == "failures 25, threshold 20"
    assert list(words.signals(live)) == ["failures: healthy (d)"]


def test_of_several_signals_each_that_says_something_has_its_own_numbers() -> None:
    failures = {"name": "failures", "verdict": "healthy", "evidence": {"n": 1, "threshold": 20}}
    ratio = {"name": "failure_ratio", "verdict": "unhealthy", "evidence": {"threshold": 0.5}}
    lag = {"name": "lag", "verdict": "unknown", "evidence": {"lag": 0, "worst": None}}
    several = item(signals=[failures, ratio, lag])
    told = "failures: n 1, threshold 20; failure_ratio: threshold 0.5"
    assert words.numbers_now(several) == told
    assert words.numbers_now(item(signals=[lag, lag | {"name": "slow"}])) == "lag: lag 0"
    assert words.numbers_now(item(signals=[lag])) == "lag 0"


def test_what_only_the_evaluator_knows_names_it() -> None:
    follower = item(evaluating=False)
    assert words.unknown_here(follower) == (
        "verdict and reporters are known to its evaluator i-1, at h:1 there"
    )
    nobodys = words.unknown_here(item(evaluating=False, evaluator=None))
    assert nobodys is not None
    assert "nobody evaluates it" in nobodys
    assert words.unknown_here(item()) is None
    assert words.reporters(item(reporters=None)) is None
    assert words.reporters(item(reporters={"fresh": 2, "stale": 1})) == "2 fresh, 1 stale"


def test_stale_says_how_old_and_what_follows() -> None:
    sync = {"age": 12.3, "stale_after": 10, "max_stale": 30, "on_loss": "keep"}
    late = words.staleness(item(stale=True), sync)
    assert late == "stale: the store was last read 12s ago; after 30s the loss policy decides: keep"
    lost = item(stale=True, lost=True, reason="store_lost", state="HALF_OPEN", automaton="OPEN")
    assert words.staleness(lost, sync) == (
        "stale: the store was last read 12s ago; the loss policy decides: keep"
    )
    assert words.since_at(lost) is None
    assert list(words.notes(lost)) == ["store lost", "stale"]
    assert "never read yet" in str(words.staleness(item(stale=True), {}))


def test_the_most_pressing_comes_first() -> None:
    everything = item(
        override=OVERRIDE,
        stale=True,
        config_mismatch=True,
        mode="shadow",
        shadow={"openings": 0, "rejected": 0},
        evaluating=False,
    )
    said = words.concerns(everything, {}, NOW_AT)
    assert [one.split()[0] for one in said] == ["FORCED", "stale:", "the", "shadow:", "verdict"]
    assert words.concerns(item(), {}, NOW_AT) == []


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [1], {"a": "b"}, True, float("inf")])
def test_another_versions_answer_is_no_error(junk: object) -> None:
    keys = (
        *("name", "state", "automaton", "since", "override", "evaluator", "evidence"),
        *("signals", "reporters", "shadow", "stale", "lost", "config_mismatch", "admit_ratio"),
    )
    odd = dict.fromkeys(keys, junk)
    words.concerns(odd, junk, NOW_AT)
    for say in (words.state, words.numbers, words.reporters, words.since_at):
        say(odd)
    assert all(isinstance(note, str) for note in (*words.notes(odd), *words.signals(odd)))


def test_who_is_cut_off_alone_is_told_so() -> None:
    gate = {"stand": "shut", "for_s": 3.2}
    cut = item(state="OPEN", reason="delivery_local", detail="60% failed", local_gate=gate)
    said = "cut off from Kafka here alone: this sidecar rejects for 3s; 60% failed"
    assert words.local_gate(cut) == said
    assert words.concerns(cut, None, NOW_AT) == [said]
    assert list(words.notes(cut)) == ["here alone"]
    assert words.since_at(cut) is None
    trial = words.local_gate(cut | {"local_gate": {"stand": "trial", "for_s": None}})
    assert trial is not None
    assert "lets a trickle pass; " in trial
    assert words.local_gate(item(local_gate={"stand": "passing"})) is None
