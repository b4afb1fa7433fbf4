"""What a sound configuration amounts to: defaults, the long form, the source system's block."""

from pathlib import Path

import pytest

from sidecar.config.faults import ConfigFaults
from sidecar.config.load import load, load_file
from sidecar.config.model import (
    Admin,
    AutoThreshold,
    Breaker,
    Config,
    Consul,
    Delivery,
    HalfOpen,
    Lag,
    Listen,
    Local,
    Shed,
    Signals,
    Stalled,
    Tls,
    default_breaker,
    policy_hash,
)

BLOCK = """\
circuit_breaker:
  consul_address: 127.0.0.1:8500
  consul_key_prefix: service-metrics/kafka-consumer
  evaluation_interval: 5s
  failure_threshold: 20
  open_duration: 30s
"""

LONG = """\
store: memory
role: auto
data_dir: null
listen:
  address: localhost:9100
  socket: null
  diagnostics: null
  allowed_hosts: []
consul:
  address: 127.0.0.1:8500
  state_prefix: breaker
  session_ttl: 10s
  lock_delay: 1s
  on_loss: keep
  max_stale: 30s
breakers:
  default:
    mode: enforce
    topic: null
    group: null
    consul_key_prefix: service-metrics/kafka-consumer
    evaluation_interval: 5s
    failure_threshold: 20
    report_interval: 5s
    report_gc: 1h
    open_duration: 30s
    max_open_duration: 5m
    half_open: {initial: 0.05, ramp: 30s, max: 2m}
    on_unknown: hold
    foreign_writes: adopt
    deny_status: 503
    signals: {}
"""


def test_without_anything_the_defaults() -> None:
    assert load(None, environ={}) == Config()
    assert list(Config().breakers) == ["default"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~", "breakers: {}", "breakers:"])
def test_an_empty_file_is_no_file(text: str) -> None:
    assert load(text, environ={}) == Config()


def test_the_documented_long_form_is_the_defaults() -> None:
    assert load(LONG, environ={}) == Config()


def test_the_source_block_alone_is_a_whole_configuration() -> None:
    assert load(BLOCK, environ={}) == Config(store="consul")


def test_the_source_block_says_all_it_can_say() -> None:
    text = """\
server:
  address: ":8080"
kafka: {brokers: [a:9092], topic: tasks}
circuit_breaker:
  consul_address: 10.0.0.7:8500
  consul_key_prefix: metrics/tasks
  evaluation_interval: 1500ms
  failure_threshold: 7
  open_duration: 1m
"""
    breaker = Breaker(
        consul_key_prefix="metrics/tasks",
        evaluation_interval_s=1.5,
        failure_threshold=7,
        open_duration_s=60.0,
    )
    expected = Config(
        store="consul", consul=Consul(address="10.0.0.7:8500"), breakers={"default": breaker}
    )
    assert load(text, environ={}) == expected


def test_any_open_duration_of_the_block_will_do() -> None:
    """The block has no key for the longest open time."""
    breaker = load("circuit_breaker: {open_duration: 10m}", environ={}).breakers["default"]
    assert (breaker.open_duration_s, breaker.max_open_duration_s) == (600.0, 600.0)


def test_an_empty_block_is_the_block() -> None:
    assert load("circuit_breaker:", environ={}) == Config(store="consul")


def test_the_block_stands_beside_other_sections() -> None:
    text = BLOCK + "listen: {address: 'localhost:9200'}\nconsul: {on_loss: deny}\nstore: memory\n"
    config = load(text, environ={})
    assert config.store == "memory"
    assert config.listen.address == "localhost:9200"
    assert config.consul == Consul(on_loss="deny")


def test_the_block_and_consul_may_agree_in_other_words() -> None:
    text = BLOCK + "consul: {address: 'http://127.0.0.1:8500/'}\n"
    assert load(text, environ={}).store == "consul"


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ("consul: {}", "consul"),
        ("consul:", "consul"),
        ("consul: {}\nstore: memory", "memory"),
        ("breakers: {a: {}}", "memory"),
        ("store: consul", "consul"),
    ],
)
def test_the_store_follows_from_the_sections(text: str, store: str) -> None:
    assert load(text, environ={}).store == store


def test_every_key_is_taken() -> None:
    text = """\
store: consul
role: follower
data_dir: /var/lib/breaker
reports: off
listen:
  address: 0.0.0.0:9200
  socket: /run/breaker.sock
  socket_mode: 0660
  diagnostics: 0.0.0.0:9101
  allowed_hosts: [Breaker.Internal, 10.0.0.7]
  allow_remote: yes
consul:
  address: https://consul.example:8501/eu
  state_prefix: teams/breaker
  session_ttl: 30s
  lock_delay: 0
  on_loss: deny
  max_stale: 1m
  token: secret
  token_file: /secrets/token
  ca_file: /ca.pem
  client_cert: /c.pem
  client_key: /k.pem
  tls_verify: false
  namespace: payments
breakers:
  Orders.eu-1:
    mode: shadow
    topic: 123
    group: g one
    consul_key_prefix: m/orders
    evaluation_interval: 100ms
    failure_threshold: 9223372036854775807
    report_interval: 1s
    report_gc: 0
    open_duration: 2s
    max_open_duration: 2s
    half_open: {initial: 1, ramp: 3s, max: 3s}
    on_unknown: healthy
    foreign_writes: reassert
    deny_status: 429
    signals: {}
admin: {token_file: /secrets/admin}
"""
    orders = Breaker(
        name="Orders.eu-1",
        mode="shadow",
        topic="123",
        group="g one",
        consul_key_prefix="m/orders",
        evaluation_interval_s=0.1,
        failure_threshold=2**63 - 1,
        report_interval_s=1.0,
        report_gc_s=0.0,
        open_duration_s=2.0,
        max_open_duration_s=2.0,
        half_open=HalfOpen(initial=1.0, ramp_s=3.0, max_s=3.0),
        on_unknown="healthy",
        foreign_writes="reassert",
        deny_status=429,
    )
    consul = Consul(
        address="https://consul.example:8501/eu",
        state_prefix="teams/breaker",
        session_ttl_s=30.0,
        lock_delay_s=0.0,
        on_loss="deny",
        max_stale_s=60.0,
        token="secret",
        token_file="/secrets/token",
        scheme="https",
        ca_file="/ca.pem",
        client_cert="/c.pem",
        client_key="/k.pem",
        tls_verify=False,
        namespace="payments",
    )
    listen = Listen(
        address="0.0.0.0:9200",
        socket="/run/breaker.sock",
        socket_mode=0o660,
        diagnostics="0.0.0.0:9101",
        allowed_hosts=("breaker.internal", "10.0.0.7"),
        allow_remote=True,
    )
    expected = Config(
        store="consul",
        role="follower",
        data_dir="/var/lib/breaker",
        reports="off",
        listen=listen,
        consul=consul,
        breakers={"Orders.eu-1": orders},
        admin=Admin(token_file="/secrets/admin"),
    )
    assert load(text, environ={}) == expected


@pytest.mark.parametrize("mode", ["0600", "'0600'", "0o600", "600"])
def test_a_socket_mode_is_octal_however_it_is_written(mode: str) -> None:
    assert load(f"listen: {{socket_mode: {mode}}}", environ={}).listen.socket_mode == 0o600


def test_anchors_share_settings() -> None:
    text = """\
breakers:
  a: &base {failure_threshold: 50, mode: shadow, consul_key_prefix: m/a}
  b:
    <<: *base
    consul_key_prefix: m/b
  c: *base
"""
    breakers = load(text, environ={}).breakers
    assert list(breakers) == ["a", "b", "c"]
    assert [b.failure_threshold for b in breakers.values()] == [50, 50, 50]
    assert [b.consul_key_prefix for b in breakers.values()] == ["m/a", "m/b", "m/a"]


def test_an_earlier_merge_wins_over_a_later() -> None:
    text = """\
breakers:
  a: &a {failure_threshold: 50}
  b: &b {failure_threshold: 60, mode: shadow}
  c: {<<: [*a, *b]}
"""
    found = load(text, environ={}).breakers["c"]
    assert (found.failure_threshold, found.mode) == (50, "shadow")


def test_the_default_breaker() -> None:
    assert default_breaker(Config()) == "default"
    assert default_breaker(load("breakers: {a: {}}", environ={})) == "a"
    assert default_breaker(load("breakers: {a: {}, default: {}}", environ={})) == "default"
    assert default_breaker(load("breakers: {a: {}, b: {}}", environ={})) is None


def test_the_policy_hash_tells_policies_apart() -> None:
    one = policy_hash(Breaker())
    assert len(one) == 16
    assert int(one, 16) >= 0
    assert policy_hash(load(BLOCK, environ={}).breakers["default"]) == one
    assert policy_hash(Breaker(failure_threshold=21)) != one
    assert policy_hash(Breaker(half_open=HalfOpen(ramp_s=31.0))) != one
    assert policy_hash(Breaker(deny_status=403)) == one
    delivery = Signals(delivery=Delivery())
    gated = Signals(delivery=Delivery(local=Local(ratio=0.9)))
    assert policy_hash(Breaker(signals=gated)) == policy_hash(Breaker(signals=delivery)) != one


def test_a_setting_without_effect_is_not_in_the_hash() -> None:
    """A version that doesn't know `auto` agrees with one that doesn't use it."""
    assert policy_hash(Breaker()) == "b9511b6f5a5940d6"
    caps = [AutoThreshold(cap=cap) for cap in (100, 200)]
    assert len({policy_hash(Breaker(auto_threshold=auto)) for auto in caps}) == 1
    learned = {policy_hash(Breaker(failure_threshold="auto", auto_threshold=a)) for a in caps}
    assert len(learned) == 2
    assert len({policy_hash(Breaker(shed=shed)) for shed in (None, Shed(), Shed(least=0.1))}) == 3


@pytest.mark.parametrize("text", ["auto", "17"])
def test_a_threshold_is_a_number_or_learned(text: str) -> None:
    yaml = f"breakers: {{a: {{failure_threshold: {text}, auto_threshold: {{initial: 30}}}}}}"
    threshold = load(yaml, environ={}).breakers["a"].failure_threshold
    assert threshold == (text if text == "auto" else 17)
    variable = {"BREAKER_SIDECAR__BREAKERS__A__FAILURE_THRESHOLD": text}
    assert load("breakers: {a: {}}", environ=variable).breakers["a"].failure_threshold == threshold


def test_a_section_may_be_switched_by_a_word() -> None:
    text = "breakers: {a: {shed: true, signals: {stalled: on, probe: false, slow: off}}}"
    breaker = load(text, environ={}).breakers["a"]
    assert breaker.shed == Shed()
    assert breaker.signals == Signals(stalled=Stalled())


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ("true", Tls(enabled=True)),
        ("false", Tls()),
        ("{}", Tls()),
        ("{ca_file: /ca.pem}", Tls(enabled=True, ca_file="/ca.pem")),
        ("{verify: false}", Tls(enabled=True, verify=False)),
    ],
)
def test_tls_is_spoken_to_kafka_where_it_is_set_up(text: str, tls: Tls) -> None:
    assert load(f"kafka: {{tls: {text}}}", environ={}).kafka.tls == tls


@pytest.mark.parametrize("text", ["90", "90s", "1m30s", "90.0"])
def test_seconds_of_lag_need_no_unit(text: str) -> None:
    flow = "topic: t, group: g, signals: {lag: {max_seconds: " + text + "}}"
    config = load(f"kafka: {{bootstrap_servers: a}}\nbreakers: {{a: {{{flow}}}}}", environ={})
    assert config.breakers["a"].signals.lag == Lag(max_seconds=90.0)


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "breaker.yaml"
    file.write_bytes(b"\xef\xbb\xbfrole: follower\n")  # with the mark that some editors leave
    assert load_file(str(file), {}).role == "follower"
    assert load_file(None, {}) == Config()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "can't be read"), (b"\xff\xfe\x00", "is not UTF-8"), (b"#" * (2 << 20), "is larger")],
)
def test_an_unreadable_file_is_a_fault(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "breaker.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigFaults) as caught:
        load_file(str(file), {})
    assert problem in str(caught.value)
    assert str(file)[:40] in str(caught.value)  # what is longer is shown shortened


def test_a_kafka_of_ours_beside_the_block_is_read() -> None:
    config = load("circuit_breaker:\nkafka: {bootstrap_servers: [a, 'b:9093']}", environ={})
    assert config.kafka.bootstrap_servers == ("a:9092", "b:9093")
