"""The configuration in the words of the parts, and what a reload can't change."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar import compose
from sidecar.config.load import load_file
from sidecar.config.model import Config, policy_hash
from sidecar.core.decision import OnLoss
from sidecar.core.signal_settings import Local, Probe
from sidecar.core.types import Policy
from sidecar.policies import policies
from tests.telemetry import RecordedTelemetry


def _config(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "breaker.yaml"
    file.write_text(text)
    return load_file(str(file), {}, None)


FULL = """
consul: {on_loss: deny, max_stale: 20s}
breakers:
  orders:
    mode: shadow
    consul_key_prefix: service-metrics/orders
    evaluation_interval: 1s
    failure_threshold: 7
    report_interval: 2s
    report_gc: 1h30m
    open_duration: 3s
    max_open_duration: 4m
    half_open: {initial: 0.1, ramp: 5s, max: 6s}
    on_unknown: healthy
    foreign_writes: reassert
    deny_status: 429
"""


def test_every_setting_reaches_the_rules(tmp_path: Path) -> None:
    """Each under the name that the rules know."""
    config = _config(tmp_path, FULL)
    (policy,) = policies(config)
    assert policy == Policy(
        name="orders",
        shadow=True,
        evaluation_interval_s=1.0,
        failure_threshold=7,
        report_interval_s=2.0,
        report_gc_s=5400.0,
        open_duration_s=3.0,
        max_open_duration_s=240.0,
        initial_ratio=0.1,
        ramp_s=5.0,
        half_open_max_s=6.0,
        unknown_is_healthy=True,
        reassert=True,
        deny_status=429,
        fingerprint=policy_hash(config.breakers["orders"]),
        consul_key_prefix="service-metrics/orders",
    )


def test_the_defaults_are_the_rules_defaults(tmp_path: Path) -> None:
    """An empty configuration and a policy without arguments are one."""
    (policy,) = policies(_config(tmp_path, "store: memory\n"))
    assert policy == Policy(name="default", fingerprint=policy.fingerprint)
    assert policy.fingerprint


def test_a_frozen_store_is_noticed_within_half_of_max_stale(tmp_path: Path) -> None:
    """That is when a decision becomes stale."""
    contact = compose.contact(_config(tmp_path, FULL))
    assert contact.synced is None
    assert contact.on_loss is OnLoss.DENY
    assert contact.max_stale_s == 20.0
    assert contact.stale_after_s == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("changed", "pending"),
    [
        ("store: consul\nbreakers: {orders: {failure_threshold: 9}}", []),
        ("store: consul\nbreakers: {default: {}, other: {consul_key_prefix: x}}", []),
        ("consul: {on_loss: allow, max_stale: 1m, session_ttl: 20s, lock_delay: 2s}", []),
        ("consul: {fast_takeover: 2s}", []),
        ("role: follower\nstore: consul", []),
        ("store: memory", ["store"]),
        ("store: consul\ndata_dir: /tmp/x", ["data_dir"]),
        ("store: consul\nlisten: {address: 'localhost:9200'}", ["listen.address"]),
        ("store: consul\nlisten: {allowed_hosts: [a.example]}", []),
        ("consul: {address: '127.0.0.1:8600'}", ["consul.address"]),
        ("consul: {state_prefix: other}", ["consul.state_prefix"]),
        ("consul: {token: secret}", ["consul.token"]),
        ("store: consul\nlisten: {state_file: /tmp/state.json}", []),
        ("store: consul\nkafka: {bootstrap_servers: a}", []),
        ("store: consul\nregister: {name: api, tags: [a]}", ["register.name", "register.tags"]),
    ],
)
def test_what_waits_for_a_restart(tmp_path: Path, changed: str, pending: list[str]) -> None:
    """Where the store and the listeners are; all else takes effect at once."""
    old = _config(tmp_path, "store: consul\n")
    new = _config(tmp_path, changed)
    assert compose.restart_needed(old, new) == pending
    assert compose.restart_needed(new, new) == []


def test_who_may_order_follows_from_the_store_that_is_there(tmp_path: Path) -> None:
    """A file that names another one opens no door, and the lock names the port that is open."""
    start = _config(tmp_path, "store: consul\nlisten: {address: localhost:9200}")
    read = _config(tmp_path, "store: memory\nlisten: {address: localhost:9300, allowed_hosts: [a]}")
    config = compose.effective(start, read)
    settings = compose.http_settings(config)
    assert not settings.open_orders
    assert settings.allowed_hosts == {"a"}
    candidate = compose.candidate(config, "i")
    assert candidate.address == "localhost:9200"
    assert not candidate.eager


@pytest.mark.parametrize(
    ("text", "fast_s"),
    [
        ("consul: {fast_takeover: 2s}", 2.0),
        ("consul: {fast_takeover: null}", None),
        ("consul: {}", None),
        ("{store: memory, consul: {fast_takeover: 2s}}", None),
    ],
)
def test_fast_takeover_is_for_a_store_that_others_share(
    tmp_path: Path, text: str, fast_s: float | None
) -> None:
    assert compose.candidate(_config(tmp_path, text), "me").fast_s == fast_s


def test_a_gate_of_its_own_reaches_the_rules(tmp_path: Path) -> None:
    local = "{ratio: 0.3, minimum: 5, max_outstanding: 9, window: 20s, shut: 4s, trial: 0.1}"
    text = f"breakers: {{a: {{signals: {{delivery: {{quorum: 2, local: {local}}}}}}}}}"
    (policy,) = policies(_config(tmp_path, text))
    assert policy.local == Local(
        ratio=0.3, minimum=5, max_outstanding=9, window_s=20.0, shut_s=4.0, trial=0.1
    )
    (without,) = policies(_config(tmp_path, "breakers: {a: {signals: {delivery: {}}}}"))
    assert without.local is None
    assert without.signals.delivery is not None


def test_kafka_is_asked_only_what_a_breaker_wants_to_know(tmp_path: Path) -> None:
    """And only then is aiokafka loaded."""
    where = "kafka: {bootstrap_servers: ['k:9092']}\n"
    flow = "topic: t, group: g"
    for text, asks in (
        (where, []),
        (f"{where}breakers: {{a: {{signals: {{probe: {{interval: 3s, topic: t}}}}}}}}", ["probe"]),
        (f"{where}breakers: {{a: {{{flow}, signals: {{lag: {{}}}}}}}}", ["lag"]),
        (
            f"{where}breakers: {{a: {{{flow}, signals: {{lag: {{}}, probe: {{}}}}}}}}",
            ["lag", "probe"],
        ),
    ):
        config = _config(tmp_path, text)
        made = compose.kafka_tasks(
            config,
            compose.board(config, "i", now=0.0),
            RecordedTelemetry(),
            news=lambda _: None,
            now=lambda: 0.0,
            draw=lambda: 0.5,
        )
        assert list(made) == asks
        assert set(made) <= set(compose.KAFKA_TASKS)


def test_how_canaries_are_sent_reaches_the_rules(tmp_path: Path) -> None:
    (policy,) = policies(
        _config(
            tmp_path,
            "kafka: {bootstrap_servers: ['k:9092']}\n"
            "breakers: {a: {signals: {probe: {interval: 3s, topic: t}}}}",
        )
    )
    assert policy.signals.probe == Probe(interval_s=3.0, topic="t")
