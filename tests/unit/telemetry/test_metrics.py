"""The exposition: what a scrape shows, and what it never shows."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.intake import Post
from sidecar.core.reports import Tally
from sidecar.core.signal_settings import Delivery, Local, SignalSettings
from sidecar.core.signals import Judgement, Signal
from sidecar.core.types import Policy, State, Verdict
from sidecar.telemetry import names
from sidecar.telemetry.metrics import PIECE, Metrics

CONTACT = Contact(synced=None, stale_after_s=5, max_stale_s=30, on_loss=OnLoss.KEEP)
CONTRACT = {
    "breaker_build_info",
    "breaker_state",
    "breaker_admit_ratio",
    "breaker_decisions_total",
    "breaker_transitions_total",
    "breaker_verdict",
    "breaker_evaluator",
    "breaker_evaluations_total",
    "breaker_evaluation_duration_seconds",
    "breaker_reporters",
    "breaker_last_sync_timestamp_seconds",
    "breaker_stale",
    "breaker_consul_requests_total",
    "breaker_consul_request_duration_seconds",
    "breaker_cas_conflicts_total",
    "breaker_foreign_writes_total",
    "breaker_bad_records_total",
    "breaker_config_last_reload_successful",
    "breaker_config_mismatch",
    "breaker_override",
    "breaker_shadow_rejections_total",
}


@pytest.fixture
def board() -> Board:
    return Board("i-1", [Policy(name="default"), Policy(name="b")], "default", CONTACT, now=0)


@pytest.fixture
def metrics(board: Board) -> Metrics:
    return Metrics(board, version="1.2.3", now=lambda: 100.0, wall=lambda: 5000.0)


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample, as the text shows it: name{labels} in the order written."""
    lines = b"".join(metrics.render()[0]).decode().splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}


def evaluate(board: Board, name: str, verdict: Verdict) -> None:
    cell = board.cells[name]
    cell.evaluating = True
    signal = Signal(name="failures", verdict=verdict, detail="", evidence={})
    cell.judgement = Judgement(
        verdict=verdict, reason="failures", detail="", evidence={}, signals=(signal,)
    )
    cell.tally = Tally(index=1, fresh=3, stale=1, reporters=3, failures=0, successes=0)


def test_the_list_is_the_contracts(metrics: Metrics) -> None:
    assert {str(m) for m in names.METRICS} >= CONTRACT


def test_every_metric_has_help_and_the_names_follow_the_conventions(metrics: Metrics) -> None:
    text = b"".join(metrics.render()[0]).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    for family in families.values():
        assert family.documentation
        assert not re.search(r"[A-Z]|_created$", family.name)
    for metric in names.METRICS:
        assert (metric.kind == "counter") == metric.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert not {"alloc", "allocation", "instance"} & set(metric.labels)


def test_content_type(metrics: Metrics) -> None:
    assert metrics.render()[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_the_pieces_are_small_and_make_one_whole() -> None:
    policies = [Policy(name=f"b{number}") for number in range(60)]
    board = Board("i-1", policies, None, CONTACT, now=0)
    metrics = Metrics(board, version="1")
    for cell in board.cells.values():
        cell.evaluating = True
    pieces = list(metrics.render()[0])
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE + 2
    text = b"".join(pieces).decode()
    # Each family in one block, under one help and one type.
    heads = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads)) == text.count("# HELP ")
    assert len(scrape(metrics)) == sum(not line.startswith("#") for line in text.splitlines())
    assert text.count('breaker="b59"') == text.count('breaker="b0"') > 30


def test_a_reload_between_two_pieces_spoils_nothing(board: Board, metrics: Metrics) -> None:
    pieces, _ = metrics.render()
    begun = [next(pieces) for _ in range(3)]
    board.reconfigure([Policy(name="other")], None, CONTACT, now=1)
    metrics.count(names.CONSUL_REQUESTS, op="read", outcome="ok")
    families = list(text_string_to_metric_families(b"".join([*begun, *pieces]).decode()))
    assert len({family.name for family in families}) == len(families)


def test_no_created_series(metrics: Metrics) -> None:
    metrics.count(names.CONSUL_REQUESTS, op="read", outcome="ok")
    metrics.observe(names.CONSUL_DURATION, 0.2, op="read")
    assert b"_created" not in b"".join(metrics.render()[0])


def test_the_state_is_one_series_a_state(board: Board, metrics: Metrics) -> None:
    cell = board.cells["default"]
    cell.decision = replace(cell.decision, state=State.HALF_OPEN, admit_ratio=0.05, stale=False)
    seen = scrape(metrics)
    assert seen['breaker_state{breaker="default",state="HALF_OPEN"}'] == 1
    assert seen['breaker_state{breaker="default",state="OPEN"}'] == 0
    assert seen['breaker_state{breaker="default",state="CLOSED"}'] == 0
    assert seen['breaker_admit_ratio{breaker="default"}'] == 0.05
    assert seen['breaker_stale{breaker="default"}'] == 0
    assert seen['breaker_stale{breaker="b"}'] == 1


def test_decisions_are_read_where_they_are_counted(board: Board, metrics: Metrics) -> None:
    cell = board.cells["default"]
    cell.admitted, cell.rejected, cell.shadow_rejected = 7, 3, 2
    seen = scrape(metrics)
    assert seen['breaker_decisions_total{breaker="default",decision="admit"}'] == 7
    assert seen['breaker_decisions_total{breaker="default",decision="reject"}'] == 3
    assert seen['breaker_shadow_rejections_total{breaker="default"}'] == 2
    assert seen['breaker_decisions_total{breaker="b",decision="admit"}'] == 0


def test_our_own_gate_shows_where_there_is_one(board: Board, metrics: Metrics) -> None:
    gated = Policy(name="b", signals=SignalSettings(delivery=Delivery(local=Local())))
    board.reconfigure([Policy(name="default"), gated], "default", CONTACT, now=0)
    seen = scrape(metrics)
    assert seen['breaker_local_gate{breaker="b"}'] == 0
    assert seen['breaker_local_gate_closures_total{breaker="b"}'] == 0
    assert 'breaker_local_gate{breaker="default"}' not in seen
    board.delivered(board.cells["b"], Post(instance="p", count_fail=30), now=1.0)
    board.refresh(1.0)
    seen = scrape(metrics)
    assert seen['breaker_local_gate{breaker="b"}'] == 1
    assert seen['breaker_local_gate_closures_total{breaker="b"}'] == 1
    assert seen['breaker_state{breaker="b",state="OPEN"}'] == 1


def test_the_last_sync_is_a_wall_time(board: Board, metrics: Metrics) -> None:
    assert scrape(metrics)["breaker_last_sync_timestamp_seconds"] == 0
    board.synced(97.5)
    assert scrape(metrics)["breaker_last_sync_timestamp_seconds"] == 4997.5


def test_a_follower_shows_nothing_that_only_an_evaluator_knows(metrics: Metrics) -> None:
    shown = scrape(metrics)
    for metric in names.METRICS:
        if metric.by == "evaluator":
            assert not [key for key in shown if key.startswith(metric)], metric


def test_the_evaluator_shows_verdicts_and_reporters(board: Board, metrics: Metrics) -> None:
    evaluate(board, "b", Verdict.UNHEALTHY)
    seen = scrape(metrics)
    assert seen['breaker_verdict{breaker="b",signal="failures",verdict="unhealthy"}'] == 1
    assert seen['breaker_verdict{breaker="b",signal="failures",verdict="healthy"}'] == 0
    assert seen['breaker_reporters{breaker="b",freshness="fresh"}'] == 3
    assert seen['breaker_reporters{breaker="b",freshness="stale"}'] == 1
    assert seen['breaker_evaluator{breaker="b"}'] == 1
    assert seen['breaker_evaluator{breaker="default"}'] == 0
    edge = 'breaker_transitions_total{breaker="b",from="CLOSED",reason="failures",to="OPEN"}'
    assert seen[edge] == 0
    assert seen['breaker_evaluations_total{breaker="b",result="written"}'] == 0
    assert not [key for key in seen if key.startswith("breaker_verdict") and "default" in key]


def test_unreadable_reports_are_an_unknown_verdict(board: Board, metrics: Metrics) -> None:
    cell = board.cells["b"]
    cell.evaluating = True
    cell.judgement = Judgement(verdict=Verdict.UNKNOWN, reason="", detail="", evidence={})
    seen = scrape(metrics)
    assert seen['breaker_verdict{breaker="b",signal="failures",verdict="unknown"}'] == 1


def test_a_former_evaluators_counters_stay_and_its_gauges_go(
    board: Board, metrics: Metrics
) -> None:
    evaluate(board, "b", Verdict.HEALTHY)
    labels = {"breaker": "b", "from": "CLOSED", "to": "OPEN", "reason": "failures"}
    metrics.count(names.TRANSITIONS, **labels)
    board.cells["b"].evaluating = False
    seen = scrape(metrics)
    edge = 'breaker_transitions_total{breaker="b",from="CLOSED",reason="failures",to="OPEN"}'
    assert seen[edge] == 1
    assert not [key for key in seen if key.startswith("breaker_verdict")]
    assert not [key for key in seen if key.startswith("breaker_reporters")]


def test_known_kinds_start_at_zero(metrics: Metrics) -> None:
    seen = scrape(metrics)
    for kind in ("report", "state", "history", "override", "normal"):
        assert seen[f'breaker_bad_records_total{{kind="{kind}"}}'] == 0
    assert seen["breaker_cas_conflicts_total"] == 0


def test_durations_fall_into_buckets(metrics: Metrics) -> None:
    metrics.observe(names.EVALUATION_DURATION, 0.003)
    seen = scrape(metrics)
    assert seen['breaker_evaluation_duration_seconds_bucket{le="0.0025"}'] == 0
    assert seen['breaker_evaluation_duration_seconds_bucket{le="0.005"}'] == 1
    assert seen["breaker_evaluation_duration_seconds_count"] == 1


def test_a_refused_reload_shows(metrics: Metrics) -> None:
    assert scrape(metrics)["breaker_config_last_reload_successful"] == 1
    metrics.reloaded(False)
    assert scrape(metrics)["breaker_config_last_reload_successful"] == 0


def test_breakers_that_come_and_go_are_followed(board: Board, metrics: Metrics) -> None:
    board.reconfigure([Policy(name="c")], None, CONTACT, now=1)
    seen = scrape(metrics)
    assert 'breaker_stale{breaker="c"}' in seen
    assert 'breaker_stale{breaker="b"}' not in seen


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("breaker_nothing_total", {}),
        (names.CONSUL_REQUESTS, {"op": "read"}),
        (names.CAS_CONFLICTS, {"breaker": "b"}),
        (names.STALE, {}),
    ],
)
def test_an_undeclared_metric_is_refused(
    metrics: Metrics, metric: str, labels: dict[str, str]
) -> None:
    with pytest.raises((KeyError, ValueError)):
        metrics.count(metric, **labels)
