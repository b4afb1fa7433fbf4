"""The shown configuration loads again; the schema accepts it and refuses what load refuses."""

from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import load
from sidecar.config.model import Breaker, Config, Consul, HalfOpen, Listen
from sidecar.config.render import schema, show

VALIDATOR = jsonschema_rs.validator_for(schema())


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def test_the_shown_defaults_are_the_documented_ones() -> None:
    tree = yaml.safe_load(show(Config()))
    assert list(tree) == [
        *("store", "role", "data_dir", "reports", "listen", "consul", "kafka"),
        *("register", "breakers", "spool", "admin"),
    ]
    assert tree["listen"]["socket_mode"] == "0600"
    assert tree["consul"]["session_ttl"] == "10s"
    assert tree["breakers"]["default"]["half_open"] == {
        "initial": 0.05,
        "ramp": "30s",
        "max": "2m",
    }


def test_every_field_of_the_model_is_shown() -> None:
    """A field without a key could never be set, and a key without a field never read."""
    tree = yaml.safe_load(show(Config()))

    def names(struct: type[Any], *without: str) -> set[str]:
        found = {field.name.removesuffix("_s") for field in msgspec.structs.fields(struct)}
        return found - set(without)

    assert set(tree) == names(Config, "publish", "kafka_second")
    assert set(tree["listen"]) == names(Listen)
    assert set(tree["consul"]) == names(Consul)
    assert set(tree["breakers"]["default"]) == names(Breaker, "name", "shed")
    assert set(tree["breakers"]["default"]["half_open"]) == names(HalfOpen)


def test_secrets_are_masked() -> None:
    text = show(load("consul: {token: s3cret, token_file: /t}", environ={}))
    assert "s3cret" not in text
    assert "/t" in text


SECONDS = st.integers(min_value=100, max_value=10**7).map(lambda ms: ms / 1000)
CONFIGS = st.builds(
    Config,
    store=st.sampled_from(["memory", "consul"]),
    reports=st.sampled_from(["tcp", "off"]),
    data_dir=st.none() | st.just("null-dir"),
    listen=st.builds(Listen, socket_mode=st.integers(0, 0o777)),
    consul=st.builds(Consul, max_stale_s=st.integers(5000, 10**7).map(lambda ms: ms / 1000)),
    breakers=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
    .filter(lambda name: name not in ("state", "override", "leader"))
    .flatmap(
        lambda name: st.builds(
            lambda open_s, ratio, group: {
                name: Breaker(
                    name=name,
                    group=group,
                    open_duration_s=open_s,
                    max_open_duration_s=2 * open_s,
                    half_open=HalfOpen(initial=ratio),
                )
            },
            SECONDS,
            st.floats(min_value=0, max_value=1, exclude_min=True),
            st.none() | st.sampled_from(["on", "1e3", "0x1f", "12:30", "2026-11-20"]),
        )
    ),
)


@given(CONFIGS)
def test_what_is_shown_loads_again_and_fits_the_schema(config: Config) -> None:
    text = show(config)
    assert load(text, environ={}) == config
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "circuit_breaker: {consul_address: 'a:1', failure_threshold: 20, open_duration: 30s}",
        "circuit_breaker:\nserver: {a: 1}\nkafka: [1]",
        "breakers: {a: }",
        "breakers: {a: {report_gc: 0, half_open: {initial: 1}}}",
        "listen: {socket_mode: 0600}",
        "consul: {lock_delay: 1.5s, token: null}",
    ],
)
def test_the_schema_accepts(text: str) -> None:
    load(text, environ={})
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "stor: memory",
        "server: {}",
        "circuit_breaker: {}\nbreakers: {}",
        "breakers: {state: {}}",
        "breakers: {-a: {}}",
        "breakers: {a: {evaluation_interval: 5}}",
        "breakers: {a: {evaluation_interval: 5 s}}",
        "breakers: {a: {signals: {leg: {}}}}",
        "breakers: {a: {deny_status: 500}}",
        "consul: {state_prefix: a//b}",
    ],
)
def test_the_schema_refuses(text: str) -> None:
    assert not accepts(text)


def test_the_schema_names_the_defaults() -> None:
    tree = schema()["properties"]
    assert tree["store"]["default"] == "memory"
    assert tree["consul"]["properties"]["max_stale"]["default"] == "30s"
    assert tree["circuit_breaker"]["properties"]["failure_threshold"]["default"] == 20
