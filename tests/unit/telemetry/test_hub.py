"""The hub: counting and telling never raise, and some things are told once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.core import ports
from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss
from sidecar.core.types import Policy
from sidecar.telemetry import hub, names
from sidecar.telemetry.hub import Telemetry
from sidecar.telemetry.logging import Log
from sidecar.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    contact = Contact(synced=None, stale_after_s=5, max_stale_s=30, on_loss=OnLoss.KEEP)
    return Metrics(Board("i", [Policy(name="b")], "b", contact, now=0), version="1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def telemetry(metrics: Metrics, path: Path) -> Iterator[Telemetry]:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    yield Telemetry(Log(fd=fd), metrics)
    os.close(fd)


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_it_is_the_cores_port(telemetry: Telemetry) -> None:
    port: ports.Telemetry = telemetry
    port.event(names.STARTED)


def test_counts_arrive(telemetry: Telemetry, metrics: Metrics) -> None:
    telemetry.count(names.CONSUL_REQUESTS, op="read", outcome="ok")
    telemetry.count(names.CONSUL_REQUESTS, 2, op="read", outcome="ok")
    telemetry.observe(names.CONSUL_DURATION, 0.01, op="read")
    text = b"".join(metrics.render()[0]).decode()
    assert 'breaker_consul_requests_total{op="read",outcome="ok"} 3.0' in text
    assert 'breaker_consul_request_duration_seconds_count{op="read"} 1.0' in text


def test_a_wrong_metric_is_told_once_and_ends_nothing(telemetry: Telemetry, path: Path) -> None:
    for _ in range(3):
        telemetry.count("breaker_nothing_total")
        telemetry.count(names.CAS_CONFLICTS, breaker="b")
        telemetry.observe(names.CONSUL_DURATION, 0.1)
    assert events(path) == [names.METRIC_MISUSED] * 3


def test_once_is_once_until_it_is_over(telemetry: Telemetry, path: Path) -> None:
    assert telemetry.once("mismatch:b", names.MISMATCH, breaker="b")
    assert not telemetry.once("mismatch:b", names.MISMATCH, breaker="b")
    telemetry.again("mismatch:b")
    telemetry.again("never told")
    assert telemetry.once("mismatch:b", names.MISMATCH, breaker="b")
    assert events(path) == [names.MISMATCH] * 2


def test_what_was_told_is_remembered_within_bounds(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ONCE_MAX", 3)
    for key in "abcd":
        assert telemetry.once(key, names.BAD_REPORT)
    assert not telemetry.once("d", names.BAD_REPORT)
    assert telemetry.once("a", names.BAD_REPORT)


def test_lines_given_up_are_counted(metrics: Metrics) -> None:
    read, write = os.pipe()
    os.close(read)
    Telemetry(Log(fd=write), metrics).event(names.STARTED)
    os.close(write)
    assert "breaker_log_lines_dropped_total 1.0" in b"".join(metrics.render()[0]).decode()


def test_every_event_has_a_name_of_its_own() -> None:
    assert len({*names.EVENTS}) == len(names.EVENTS)
    assert all(event.isidentifier() and event.islower() for event in names.EVENTS)
