"""Every key there is: its place, what it can hold, and the field that takes it.

Reading, showing, the schema and the names of variables all follow these tables; the defaults are
the model's.
"""

from typing import Any

import msgspec

from sidecar.config import kinds, model
from sidecar.config.kinds import Kind, choice, count, count_or, duration, pattern, size
from sidecar.core.naming import BREAKER_NAME, DEFAULT_NAME, RESERVED_NAMES

Path = tuple[str, ...]

TIMER_LEAST_S = 0.1  # no timer of a breaker may turn faster
DAY_S = 86_400.0
_COUNT_MAX = 2**63 - 1  # an int64 in the source system


class Key(msgspec.Struct, frozen=True):
    """One setting; ``nullable`` ones can be null, ``secret`` ones are never repeated."""

    name: str
    kind: Kind
    nullable: bool = False
    secret: bool = False
    field: str = ""

    @property
    def attribute(self) -> str:
        """The model's field: the key's own name, with _s for a duration."""
        return self.field or self.name


class Section(msgspec.Struct, frozen=True):
    """A mapping of known keys that becomes one struct of the model.

    An ``optional`` one that nobody writes, or that is null or false, leaves its field None; true
    stands for all of its defaults. One with a key ``enabled`` may be written as that key's value,
    and is on where any other key of it is written.
    """

    name: str
    struct: type[Any]
    keys: "tuple[Key | Section | Named, ...]"
    optional: bool = False

    def find(self, name: str) -> "Key | Section | Named | None":
        """The key of that name, None where there is none."""
        return next((key for key in self.keys if key.name == name), None)

    @property
    def switch(self) -> Key | None:
        """The key that a bare true or false in the section's place is meant for."""
        key = self.find("enabled")
        return key if isinstance(key, Key) else None


class Named(msgspec.Struct, frozen=True):
    """A mapping of names, each to a section of the same keys."""

    name: str
    each: Section
    names: Kind
    reserved: tuple[str, ...] = ()


def _timer(name: str, kind: Kind) -> Key:
    return Key(name, kind, field=f"{name}_s")


def _nullable_timer(name: str, kind: Kind) -> Key:
    return Key(name, kind, nullable=True, field=f"{name}_s")


LISTEN = Section(
    "listen",
    model.Listen,
    (
        Key("address", kinds.LISTEN_ADDRESS),
        Key("socket", kinds.SOCKET, nullable=True),
        Key("socket_mode", kinds.MODE),
        Key("state_file", kinds.PATH, nullable=True),
        Key("diagnostics", kinds.DIAGNOSTICS_ADDRESS, nullable=True),
        Key("allowed_hosts", kinds.HOSTS),
        Key("allow_remote", kinds.BOOLEAN),
    ),
)
CONSUL = Section(
    "consul",
    model.Consul,
    (
        Key("address", kinds.CONSUL_ADDRESS),
        Key("state_prefix", kinds.PREFIX),
        _timer("session_ttl", duration(10.0, DAY_S)),  # Consul's own bounds
        _timer("lock_delay", duration(0.0, 60.0)),  # Consul's own bounds
        Key("fast_takeover", duration(1.0, 60.0), nullable=True, field="fast_takeover_s"),
        Key("on_loss", choice("keep", "allow", "deny")),
        _timer("max_stale", duration(5.0)),
        Key("token", kinds.TEXT, nullable=True, secret=True),
        Key("token_file", kinds.PATH, nullable=True),
        Key("scheme", choice("http", "https")),
        Key("ca_file", kinds.PATH, nullable=True),
        Key("client_cert", kinds.PATH, nullable=True),
        Key("client_key", kinds.PATH, nullable=True),
        Key("tls_verify", kinds.BOOLEAN),
        Key("namespace", kinds.TEXT, nullable=True),
    ),
)
KAFKA = Section(
    "kafka",
    model.Kafka,
    (
        Key("bootstrap_servers", kinds.SERVERS),
        Key("client_id", kinds.TEXT),
        _timer("request_timeout", duration(0.5, 60.0)),
        Section(
            "tls",
            model.Tls,
            (
                Key("enabled", kinds.BOOLEAN),
                Key("ca_file", kinds.PATH, nullable=True),
                Key("client_cert", kinds.PATH, nullable=True),
                Key("client_key", kinds.PATH, nullable=True),
                Key("verify", kinds.BOOLEAN),
            ),
        ),
        Section(
            "sasl",
            model.Sasl,
            (
                Key("mechanism", choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), nullable=True),
                Key("username", kinds.TEXT, nullable=True),
                Key("password", kinds.TEXT, nullable=True, secret=True),
                Key("password_file", kinds.PATH, nullable=True),
            ),
        ),
    ),
)
KAFKA_SECOND = Section("kafka_second", model.Kafka, KAFKA.keys, optional=True)
REGISTER = Section(
    "register",
    model.Register,
    (
        Key("name", kinds.SERVICE, nullable=True),
        Key("address", kinds.HOST, nullable=True),
        Key("port", count(1, 65535), nullable=True),
        Key("tags", kinds.TAGS),
        Key("check", kinds.CHECK),
        _timer("check_interval", duration(1.0, 3600.0)),
    ),
)
HALF_OPEN = Section(
    "half_open",
    model.HalfOpen,
    (
        Key("initial", kinds.RATIO),
        _timer("ramp", duration(TIMER_LEAST_S)),
        _timer("max", duration(TIMER_LEAST_S)),
    ),
)
AUTO_THRESHOLD = Section(
    "auto_threshold",
    model.AutoThreshold,
    (
        Key("initial", count(1, _COUNT_MAX)),
        Key("floor", count(1, _COUNT_MAX)),
        Key("cap", count(1, _COUNT_MAX)),
        _timer("history", duration(60.0, 7 * DAY_S)),
        Key("deviations", count(2, 20)),
    ),
)
SHED = Section(
    "shed",
    model.Shed,
    (
        _timer("start", duration(TIMER_LEAST_S, DAY_S)),
        _timer("full", duration(TIMER_LEAST_S, DAY_S)),
        Key("least", kinds.RATIO),
        Key("minimum", count(1, _COUNT_MAX)),
    ),
    optional=True,
)
_FOR = _timer("for", duration(0.0, DAY_S))
_QUORUM = Key("quorum", count(1, 100_000))
_WINDOW = _timer("window", duration(1.0, 3600.0))
_MAX_OUTSTANDING = Key("max_outstanding", count(1, _COUNT_MAX), nullable=True)
_MINIMUM = Key("minimum", count(1, _COUNT_MAX))
SIGNALS = Section(
    "signals",
    model.Signals,
    (
        Section("failures", model.Failures, (_FOR, _QUORUM)),
        Section(
            "failure_ratio",
            model.FailureRatio,
            (Key("threshold", kinds.RATIO), _MINIMUM, _WINDOW, _FOR, _QUORUM),
            optional=True,
        ),
        Section(
            "slow",
            model.Slow,
            (_nullable_timer("max_latency", duration(0.001, 3600.0)), _FOR, _QUORUM),
            optional=True,
        ),
        Section(
            "stalled",
            model.Stalled,
            (
                _timer("after", duration(1.0, DAY_S)),
                Key("always_busy", kinds.BOOLEAN),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "missing",
            model.Missing,
            (
                Key("min_consumers", count(1, 100_000), nullable=True),
                Key("ratio", kinds.RATIO, nullable=True),
                _WINDOW,
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "delivery",
            model.Delivery,
            (
                Key("ratio", kinds.RATIO),
                _MINIMUM,
                _MAX_OUTSTANDING,
                Section(
                    "local",
                    model.Local,
                    (
                        Key("ratio", kinds.RATIO),
                        _MINIMUM,
                        _MAX_OUTSTANDING,
                        _WINDOW,
                        _timer("shut", duration(TIMER_LEAST_S, 3600.0)),
                        Key("trial", kinds.RATIO),
                    ),
                    optional=True,
                ),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "lag",
            model.Lag,
            (
                Key("max_messages", count(1, _COUNT_MAX), nullable=True),
                Key("max_seconds", duration(1.0, 30 * DAY_S, bare_s=True), nullable=True),
                _WINDOW,
                Key("floor", count(0, _COUNT_MAX)),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
        Section(
            "probe",
            model.Probe,
            (
                Key("failures", count(1, 1000)),
                _nullable_timer("max_latency", duration(0.001, 3600.0)),
                _timer("interval", duration(0.5, 3600.0)),
                Key("topic", kinds.TOPIC),
                Key("create", kinds.BOOLEAN),
                _FOR,
                _QUORUM,
            ),
            optional=True,
        ),
    ),
)
BREAKER = Section(
    "breaker",
    model.Breaker,
    (
        Key("mode", choice("enforce", "shadow")),
        Key("topic", kinds.TOPIC, nullable=True),
        Key("group", kinds.TEXT, nullable=True),
        Key("consul_key_prefix", kinds.PREFIX),
        _timer("evaluation_interval", duration(TIMER_LEAST_S)),
        Key("failure_threshold", count_or("auto", 1, _COUNT_MAX)),
        AUTO_THRESHOLD,
        _timer("report_interval", duration(TIMER_LEAST_S)),
        _timer("report_gc", duration(TIMER_LEAST_S, or_zero=True)),
        _timer("open_duration", duration(TIMER_LEAST_S)),
        _timer("max_open_duration", duration(TIMER_LEAST_S)),
        HALF_OPEN,
        SHED,
        Key("on_unknown", choice("hold", "healthy")),
        Key("foreign_writes", choice("adopt", "reassert")),
        Key("deny_status", kinds.number_of(401, 403, 429, 503)),
        SIGNALS,
    ),
)
BREAKERS = Named(
    "breakers",
    BREAKER,
    pattern(
        f"^{BREAKER_NAME}$",
        "is not a breaker's name",
        "use up to 64 letters, digits, _ . and -, a letter or digit first",
    ),
    tuple(RESERVED_NAMES),
)
PUBLISH = Section(
    "publish",
    model.Publish,
    (
        _timer("timeout", duration(0.1, 60.0)),
        _timer("delivery_timeout", duration(0.1, 60.0)),
        Key("max_record", size(1024, 16 * 1024**2)),
        Key("max_request", size(1024, 256 * 1024**2)),
        Key("max_outstanding", size(1024**2, 4 * 1024**3)),
        Key("replay_rate", count(1, 10_000_000)),
        _timer("missing_topic_after", duration(5.0, 30 * DAY_S, or_zero=True)),
        Named(
            "topics",
            Section(
                "topic",
                model.PublishTopic,
                (
                    Key("outage", choice(*model.OUTAGES)),
                    Key("breaker", kinds.TEXT, nullable=True),
                    Key("max_outstanding", count(1, 10_000_000)),
                ),
            ),
            kinds.TOPIC_OR_ANY,
        ),
    ),
    optional=True,
)
SPOOL = Section(
    "spool",
    model.Spool,
    (
        Key("dir", kinds.PATH, nullable=True),
        Key("max_bytes", size(1024**2, 1024**5)),
        Named(
            "topics",
            Section(
                "topic",
                model.SpoolTopic,
                (
                    Key("max_bytes", size(64 * 1024, 1024**5)),
                    _nullable_timer("max_age", duration(1.0)),
                    Key("when_full", choice("reject", "drop_oldest")),
                ),
            ),
            kinds.TOPIC_OR_ANY,
        ),
    ),
)
ROOT = Section(
    "",
    model.Config,
    (
        Key("store", choice("memory", "consul")),
        Key("role", choice("auto", "follower")),
        Key("data_dir", kinds.PATH, nullable=True),
        Key("reports", choice("tcp", "socket", "off")),
        LISTEN,
        CONSUL,
        KAFKA,
        KAFKA_SECOND,
        REGISTER,
        BREAKERS,
        PUBLISH,
        SPOOL,
        Section("admin", model.Admin, (Key("token_file", kinds.PATH, nullable=True),)),
    ),
)

# The source system's block: where each of its keys lands.
BLOCK = "circuit_breaker"
BLOCK_SIBLINGS = ("server", "kafka")
"""The rest of the source system's own file, passed over beside the block; but a `kafka` that has
`bootstrap_servers`, which the source system's never has, is ours."""
BLOCK_PATHS: dict[str, Path] = {
    "consul_address": ("consul", "address"),
    "consul_key_prefix": ("breakers", DEFAULT_NAME, "consul_key_prefix"),
    "evaluation_interval": ("breakers", DEFAULT_NAME, "evaluation_interval"),
    "failure_threshold": ("breakers", DEFAULT_NAME, "failure_threshold"),
    "open_duration": ("breakers", DEFAULT_NAME, "open_duration"),
}


def find_named(path: Path) -> tuple[Named, int] | None:
    """The mapping of names that a path goes through, and which of its steps is the name."""
    here: Key | Section | Named | None = ROOT
    for depth, step in enumerate(path):
        if isinstance(here, Named):
            return here, depth
        here = here.find(step) if isinstance(here, Section) else None
    return None


def find_key(path: Path) -> Key | None:
    """The key at a path such as ("breakers", "orders", "half_open", "ramp"); None elsewhere."""
    found = _find(path)
    return found if isinstance(found, Key) else None


def find_switched(path: Path) -> Section | None:
    """The section at a path, where it can be switched on as a whole; None elsewhere."""
    found = _find(path)
    return found if isinstance(found, Section) and (found.optional or found.switch) else None


def _find(path: Path) -> Key | Section | Named | None:
    here: Key | Section | Named | None = ROOT
    for step in path:
        if isinstance(here, Named):
            here = here.each
        elif isinstance(here, Section):
            here = here.find(step)
        else:
            return None
    return here


def block_key(name: str) -> Key:
    """The key behind one of the source block's."""
    key = find_key(BLOCK_PATHS[name])
    if key is None:
        raise LookupError(name)
    return key
