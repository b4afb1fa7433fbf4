"""The configuration as the program sees it: frozen values, and the single place of a default.

Durations are float seconds in fields that end in ``_s``; the YAML keys have no ``_s``.
"""

import hashlib
from typing import Literal

import msgspec

from sidecar.config.addresses import Endpoint, bind_targets, join_host_port, with_scheme
from sidecar.core.naming import DEFAULT_NAME

DEFAULT_PORT = 9100
OWN_CHECKS = ("readyz", "livez")
"""Of `register.check`: what the sidecar itself answers."""


class Listen(msgspec.Struct, frozen=True):
    """Where the sidecar answers; see listen_targets for what an address binds."""

    address: str = f"localhost:{DEFAULT_PORT}"
    socket: str | None = None
    socket_mode: int = 0o600
    state_file: str | None = None
    diagnostics: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allow_remote: bool = False


class Consul(msgspec.Struct, frozen=True):
    """Where Consul is and how its state is kept; consul_endpoint reads the address."""

    address: str = "127.0.0.1:8500"
    state_prefix: str = "breaker"
    session_ttl_s: float = 10.0
    lock_delay_s: float = 1.0
    fast_takeover_s: float | None = None
    on_loss: Literal["keep", "allow", "deny"] = "keep"
    max_stale_s: float = 30.0
    token: str | None = None
    token_file: str | None = None
    scheme: Literal["http", "https"] = "http"
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_verify: bool = True
    namespace: str | None = None

    @property
    def history_prefix(self) -> str:
        """Outside the state prefix, so that nobody's watch carries the history."""
        return f"{self.state_prefix}-history"

    @property
    def normal_prefix(self) -> str:
        """Where what was learned for `failure_threshold: auto` is kept; outside it likewise."""
        return f"{self.state_prefix}-normal"


class Tls(msgspec.Struct, frozen=True):
    """TLS to Kafka's brokers."""

    enabled: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    verify: bool = True


class Sasl(msgspec.Struct, frozen=True):
    """Who the sidecar says it is to Kafka's brokers; nobody without a mechanism."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: str | None = None
    password_file: str | None = None


class Kafka(msgspec.Struct, frozen=True):
    """Where Kafka is, for what reads it or writes to it; unused without bootstrap servers."""

    bootstrap_servers: tuple[str, ...] = ()
    client_id: str = "breaker-sidecar"
    request_timeout_s: float = 5.0
    tls: Tls = Tls()
    sasl: Sasl = Sasl()


class HalfOpen(msgspec.Struct, frozen=True):
    """How an open breaker lets traffic back in: the first ratio, its growth, the longest stay."""

    initial: float = 0.05
    ramp_s: float = 30.0
    max_s: float = 120.0


class AutoThreshold(msgspec.Struct, frozen=True):
    """`failure_threshold: auto`: what holds until the normal is known, and the bounds after."""

    initial: int = 20
    floor: int = 10
    cap: int = 1000
    history_s: float = 3600.0
    deviations: int = 6


class Shed(msgspec.Struct, frozen=True):
    """A closed breaker admits less while a message would wait longer than `start`."""

    start_s: float = 10.0
    full_s: float = 60.0
    least: float = 0.05
    minimum: int = 100


# Defaults are left out of a breaker's hash, so that a version with one more signal agrees with one
# that doesn't know it, as long as nobody uses it.
class Failures(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sum of failures; the threshold is the breaker's own `failure_threshold`."""

    for_s: float = 0.0
    quorum: int = 1


class FailureRatio(msgspec.Struct, frozen=True, omit_defaults=True):
    """Failed of all messages in a window."""

    threshold: float = 0.5
    minimum: int = 20
    window_s: float = 30.0
    for_s: float = 0.0
    quorum: int = 1


class Slow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Processing latency."""

    max_latency_s: float | None = None
    for_s: float = 0.0
    quorum: int = 1


class Stalled(msgspec.Struct, frozen=True, omit_defaults=True):
    """No throughput while there is work."""

    after_s: float = 30.0
    always_busy: bool = False
    for_s: float = 0.0
    quorum: int = 1


class Missing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Too few reporters, or too many that went silent."""

    min_consumers: int | None = None
    ratio: float | None = None
    window_s: float = 300.0
    for_s: float = 0.0
    quorum: int = 1


class Local(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a sidecar holds its own callers back, for its own producers' deliveries."""

    ratio: float = 0.5
    minimum: int = 20
    max_outstanding: int | None = None
    window_s: float = 15.0
    shut_s: float = 5.0
    trial: float = 0.05


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """Producers' deliveries to Kafka."""

    ratio: float = 0.5
    minimum: int = 20
    max_outstanding: int | None = None
    local: Local | None = None
    for_s: float = 0.0
    quorum: int = 1


class Lag(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Kafka says of the consumer group; `kafka` says where Kafka is."""

    max_messages: int | None = None
    max_seconds: float | None = None
    window_s: float = 60.0
    floor: int = 100
    for_s: float = 0.0
    quorum: int = 1


class Probe(msgspec.Struct, frozen=True, omit_defaults=True):
    """Canaries through every broker; `kafka` says where Kafka is."""

    failures: int = 3
    max_latency_s: float | None = None
    interval_s: float = 10.0
    topic: str = "breaker-sidecar-probe"
    create: bool = True
    for_s: float = 0.0
    quorum: int = 1


class Signals(msgspec.Struct, frozen=True, omit_defaults=True):
    """A breaker's signals; one that is None is off."""

    failures: Failures = Failures()
    failure_ratio: FailureRatio | None = None
    slow: Slow | None = None
    stalled: Stalled | None = None
    missing: Missing | None = None
    delivery: Delivery | None = None
    lag: Lag | None = None
    probe: Probe | None = None


class Breaker(msgspec.Struct, frozen=True):
    """One flow's breaker; the defaults are those of the source system where it has the setting."""

    name: str = DEFAULT_NAME
    mode: Literal["enforce", "shadow"] = "enforce"
    topic: str | None = None
    group: str | None = None
    consul_key_prefix: str = "service-metrics/kafka-consumer"
    evaluation_interval_s: float = 5.0
    failure_threshold: int | Literal["auto"] = 20
    auto_threshold: AutoThreshold = AutoThreshold()
    report_interval_s: float = 5.0
    report_gc_s: float = 3600.0
    open_duration_s: float = 30.0
    max_open_duration_s: float = 300.0
    half_open: HalfOpen = HalfOpen()
    shed: Shed | None = None
    on_unknown: Literal["hold", "healthy"] = "hold"
    foreign_writes: Literal["adopt", "reassert"] = "adopt"
    deny_status: Literal[401, 403, 429, 503] = 503
    signals: Signals = Signals()


class Register(msgspec.Struct, frozen=True):
    """The service that is registered at the local Consul agent; none without a name."""

    name: str | None = None
    address: str | None = None
    port: int | None = None
    tags: tuple[str, ...] = ()
    check: str = "readyz"
    check_interval_s: float = 5.0


OUTAGES = ("breaker", "spool_all", "spool_failed", "reject", "drop", "dual")
SPOOLING = ("breaker", "spool_all", "spool_failed", "dual")
"""Of `publish.topics.<t>.outage`: those that need the spool."""


class PublishTopic(msgspec.Struct, frozen=True):
    """How one topic's records are handled while Kafka doesn't take them."""

    outage: str = "breaker"
    breaker: str | None = None
    max_outstanding: int = 10_000


class Publish(msgspec.Struct, frozen=True):
    """The durable publish; sizes in bytes."""

    timeout_s: float = 5.0
    delivery_timeout_s: float = 2.0
    max_record: int = 1000 * 1024
    max_request: int = 8 * 1024**2
    max_outstanding: int = 64 * 1024**2
    replay_rate: int = 20_000
    missing_topic_after_s: float = 3600.0
    topics: dict[str, PublishTopic] = msgspec.field(default_factory=dict)


class SpoolTopic(msgspec.Struct, frozen=True):
    """What one topic may keep in the spool."""

    max_bytes: int = 256 * 1024**2
    max_age_s: float | None = None
    when_full: Literal["reject", "drop_oldest"] = "reject"


class Spool(msgspec.Struct, frozen=True):
    """Where records wait on disk for Kafka; there is none without a folder."""

    dir: str | None = None
    max_bytes: int = 1024**3
    topics: dict[str, SpoolTopic] = msgspec.field(default_factory=dict)


class Admin(msgspec.Struct, frozen=True):
    """Who may override over TCP: the bearer token in this file."""

    token_file: str | None = None


def _one_breaker() -> dict[str, Breaker]:
    return {DEFAULT_NAME: Breaker()}


class Config(msgspec.Struct, frozen=True):
    """Everything the daemon is told, already checked as a whole."""

    store: Literal["memory", "consul"] = "memory"
    role: Literal["auto", "follower"] = "auto"
    data_dir: str | None = None
    reports: Literal["tcp", "socket", "off"] = "tcp"
    listen: Listen = Listen()
    consul: Consul = Consul()
    kafka: Kafka = Kafka()
    kafka_second: Kafka | None = None
    register: Register = Register()
    breakers: dict[str, Breaker] = msgspec.field(default_factory=_one_breaker)
    publish: Publish | None = None
    spool: Spool = Spool()
    admin: Admin = Admin()


def listen_targets(listen: Listen) -> list[tuple[str, int]]:
    """The (host, port) pairs to bind: ``localhost`` is both 127.0.0.1 and ::1."""
    return bind_targets(listen.address)


def diagnostics_targets(listen: Listen) -> list[tuple[str, int]]:
    """The (host, port) pairs of the diagnostics listener, none where it is off."""
    return bind_targets(listen.diagnostics) if listen.diagnostics else []


def consul_endpoint(consul: Consul) -> Endpoint:
    """Where to reach Consul: scheme, host, port, path prefix or unix socket."""
    return with_scheme(consul.address, consul.scheme)


def registered_port(config: Config) -> int:
    """The port of the service that is registered: its own, or that of the first listener."""
    own = config.register.port
    return listen_targets(config.listen)[0][1] if own is None else own


def registered_check(config: Config) -> str:
    """The URL that the local agent asks: a path of the first listener, or the one given."""
    check = config.register.check
    if check not in OWN_CHECKS:
        return check
    host, port = listen_targets(config.listen)[0]
    host = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    return f"http://{join_host_port(host, port)}/{check}"


def default_breaker(config: Config) -> str | None:
    """The breaker named ``default``, else the only one, else None."""
    if DEFAULT_NAME in config.breakers:
        return DEFAULT_NAME
    return next(iter(config.breakers)) if len(config.breakers) == 1 else None


def policy_hash(breaker: Breaker) -> str:
    """Sixteen hex digits that differ where two sidecars would judge the same flow differently.

    ``deny_status`` is left out: it is how one gateway wants its answer, and may differ between
    sidecars that agree in everything else. So may a sidecar's own gate, ``delivery.local``.
    """
    policy = msgspec.to_builtins(breaker)
    del policy["deny_status"]
    if breaker.failure_threshold != "auto":
        del policy["auto_threshold"]  # without effect, and unknown to older versions
    if breaker.signals.delivery is not None:
        policy["signals"]["delivery"].pop("local", None)
    if breaker.shed is None:
        del policy["shed"]
    if breaker.signals.failures == Failures():
        policy["signals"].pop("failures", None)
    return hashlib.sha256(msgspec.json.encode(policy, order="sorted")).hexdigest()[:16]
