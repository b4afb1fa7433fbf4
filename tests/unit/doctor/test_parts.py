"""What no real server is easily brought to say: clocks, limits, versions and records of others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

import pytest

from sidecar import __version__
from sidecar.config.load import load
from sidecar.config.model import Config, policy_hash
from sidecar.core.ports import Entry
from sidecar.doctor import agent, examine, fleet, kafka, reach, running
from sidecar.doctor.findings import Finding, Level
from sidecar.store.transport import Answer

WALL_AT = 1_800_000_000.0


@pytest.fixture
def config() -> Config:
    return load("store: consul\n", environ={})


def texts(findings: Iterable[Finding], level: Level) -> str:
    return "\n".join(finding.said for finding in findings if finding.level is level)


def answer(status: int = 200, body: object = "", **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, headers, content, 0.0)


@pytest.mark.parametrize(
    ("ahead_s", "level", "said"),
    [
        (0.4, Level.OK, "agrees"),
        (5.9, Level.OK, "agrees"),
        (-14.9, Level.OK, "agrees"),
        (65.0, Level.WARNING, "is 1m4s ahead of Consul's"),
        (-75.0, Level.WARNING, "is 1m5s behind Consul's"),
        (90_000.0, Level.FAULT, "reports from a day ahead"),
    ],
)
def test_clocks_with_ten_seconds_from_question_to_answer(
    ahead_s: float, level: Level, said: str
) -> None:
    got = answer(Date=formatdate(WALL_AT, usegmt=True))
    asked_at = WALL_AT + ahead_s
    found = list(agent.clocks(got, asked_at, asked_at + 10.0))
    assert said in texts(found, level)
    assert len(found) == 1


def test_an_answer_without_a_date_says_nothing_of_clocks() -> None:
    assert list(agent.clocks(answer(), 1.0, 2.0)) == []


def test_a_clock_that_was_never_set(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def faults() -> str:
        return texts(examine.examine(config, path=None, status=None), Level.FAULT)

    monkeypatch.setattr(examine, "_consul", _nothing)
    assert "believes" not in faults()
    monkeypatch.setattr(time, "time", lambda: 86_400.0 * 365)
    assert "believes that it is 1971-01-01" in faults()


async def _nothing(_config: Config) -> list[Finding]:
    return []


@pytest.mark.parametrize(
    ("got", "level", "said"),
    [
        (answer(429, b"Your IP is issuing too many requests"), "warning", "limits our requests"),
        (answer(503, b"rate limit exceeded"), "warning", "limits our requests"),
        (answer(500, b"No cluster leader"), "fault", "knows of no leader"),
        (answer(200, ""), "fault", "knows of no leader"),
        (answer(200, {"a": 1}), "fault", "is no Consul"),
        (answer(302, b""), "fault", "is no Consul"),
    ],
)
def test_answers_to_who_leads(config: Config, got: Answer, level: str, said: str) -> None:
    found = reach.without_leader(got, config.consul)
    assert found is not None
    assert found.level == level
    assert said in found.said
    assert found.mend


def status(**more: Any) -> dict[str, Any]:
    """What a running sidecar answers."""
    breaker = {"name": "default", "stale": False, "config_mismatch": False, "policy": {}}
    return {
        "instance": "i-1",
        "version": __version__,
        "store": {"kind": "consul"},
        "sync": {"age": 1.0},
        "breakers": [breaker],
        **more,
    }


def test_a_running_sidecar_in_order(config: Config) -> None:
    found = list(running.sidecar(status(), config))
    assert [finding.level for finding in found] == [Level.OK]


def test_a_running_sidecar_of_another_version(config: Config) -> None:
    found = running.sidecar(status(version="0.0.1"), config)
    assert f"it is version 0.0.1, this program {__version__}" in texts(found, Level.WARNING)


def test_a_running_sidecar_that_differs_from_its_evaluator(config: Config) -> None:
    breaker = {**status()["breakers"][0], "config_mismatch": True, "evaluator": {"instance": "i-9"}}
    found = running.sidecar(status(breakers=[breaker]), config)
    assert "otherwise than the evaluator's (i-9)" in texts(found, Level.WARNING)


def test_a_running_sidecar_that_never_read_the_store(config: Config) -> None:
    breaker = {**status()["breakers"][0], "stale": True}
    found = running.sidecar(status(breakers=[breaker], sync={"age": None}), config)
    assert "stale (store read never): default" in texts(found, Level.FAULT)


def record(config: Config, **more: object) -> dict[str, object]:
    """A state record of another sidecar's with our configuration."""
    return {
        "current_state": "CLOSED",
        "last_changed": "2026-11-20T20:00:00.123456Z",
        "schema": 1,
        "seq": 42,
        "epoch": 7,
        "automaton": "CLOSED",
        "reason": "recovered",
        "detail": "",
        "evidence": {},
        "open_count": 0,
        "open_for": 0.0,
        "admit_ratio": 1.0,
        "policy": policy_hash(config.breakers["default"]),
        "evaluator": "i-1",
        **more,
    }


def entry(key: str, value: object, session: str | None = None) -> Entry:
    return Entry(key=key, value=json.dumps(value).encode(), modify_index=1, session=session)


@pytest.mark.parametrize(
    ("more", "level", "said"),
    [
        ({}, Level.OK, "is CLOSED (recovered)"),
        ({"schema": 2}, Level.WARNING, "schema 2; this version writes 1"),
        (
            {"current_state": "OPEN", "automaton": "OPEN", "admit_ratio": 0.0, "detail": "why"},
            Level.WARNING,
            "is OPEN (recovered: why)",
        ),
        (
            {"reason": "shed", "admit_ratio": 0.6, "detail": "why"},
            Level.WARNING,
            "is CLOSED at 60% (shed: why)",
        ),
        ({"policy": "another"}, Level.WARNING, "otherwise than i-1, who wrote its record"),
    ],
)
def test_records(config: Config, more: dict[str, object], level: Level, said: str) -> None:
    found = list(fleet.breakers(config, [entry("breaker/state", record(config, **more))]))
    assert said in texts(found, level)


def test_a_record_of_the_source_system(config: Config) -> None:
    foreign = {"current_state": "OPEN", "last_changed": "2026-11-20T20:00:00Z"}
    found = list(fleet.breakers(config, [entry("breaker/state", foreign)]))
    assert "is OPEN, by a record of the source system" in texts(found, Level.OK)


def test_an_override(config: Config) -> None:
    found = list(fleet.breakers(config, [entry("breaker/override", {"mode": "open"})]))
    assert "somebody overrides it (breaker/override)" in texts(found, Level.WARNING)


def test_who_evaluates(config: Config) -> None:
    held = {"instance": "i-3", "address": "h:1", "since": "2026-11-20T20:00:00Z"}
    state = entry("breaker/state", record(config))
    found = list(fleet.breakers(config, [state, entry("breaker/leader", held, "session")]))
    assert "is i-3" in texts(found, Level.OK)
    found = list(fleet.breakers(config, [state, entry("breaker/leader", held)]))
    assert "nobody holds its lock; i-3 was the last" in texts(found, Level.WARNING)


@pytest.mark.parametrize(
    "text", ["", "kafka:", "kafka: {topic: a}", "kafka: 7", "- a", "a: [", "x"]
)
def test_files_without_brokers(text: str, tmp_path: Any) -> None:
    (tmp_path / "file").write_text(text)
    assert kafka.brokers_of(str(tmp_path / "file")) == []
    assert kafka.brokers_of(str(tmp_path / "none")) == []
    assert list(kafka.brokers([])) == []


def test_brokers_may_be_one_text(tmp_path: Any) -> None:
    (tmp_path / "file").write_text('kafka: {brokers: "a:1, b"}')
    assert kafka.brokers_of(str(tmp_path / "file")) == ["a:1", "b"]
