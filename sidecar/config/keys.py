"""Every key there is: its place, what it can hold, and the field that takes it.

Reading, showing, the schema and the names of variables all follow these tables; the defaults are
the model's.
"""

from sidecar.config import kinds, model
from sidecar.config.kinds import choice, count, count_or, duration, pattern, size
from sidecar.config.shapes import (
    COUNT_MAX,
    DAY_S,
    TIMER_LEAST_S,
    Key,
    Named,
    Path,
    Section,
    nullable_timer,
    timer,
)
from sidecar.config.signal_keys import SIGNALS
from sidecar.core.naming import BREAKER_NAME, DEFAULT_NAME, RESERVED_NAMES

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
        timer("session_ttl", duration(10.0, DAY_S)),  # Consul's own bounds
        timer("lock_delay", duration(0.0, 60.0)),  # Consul's own bounds
        nullable_timer("fast_takeover", duration(1.0, 60.0)),
        Key("on_loss", choice("keep", "allow", "deny")),
        timer("max_stale", duration(5.0)),
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
        timer("request_timeout", duration(0.5, 60.0)),
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
        timer("check_interval", duration(1.0, 3600.0)),
    ),
)
HALF_OPEN = Section(
    "half_open",
    model.HalfOpen,
    (
        Key("initial", kinds.RATIO),
        timer("ramp", duration(TIMER_LEAST_S)),
        timer("max", duration(TIMER_LEAST_S)),
    ),
)
AUTO_THRESHOLD = Section(
    "auto_threshold",
    model.AutoThreshold,
    (
        Key("initial", count(1, COUNT_MAX)),
        Key("floor", count(1, COUNT_MAX)),
        Key("cap", count(1, COUNT_MAX)),
        timer("history", duration(60.0, 7 * DAY_S)),
        Key("deviations", count(2, 20)),
    ),
)
SHED = Section(
    "shed",
    model.Shed,
    (
        timer("start", duration(TIMER_LEAST_S, DAY_S)),
        timer("full", duration(TIMER_LEAST_S, DAY_S)),
        Key("least", kinds.RATIO),
        Key("minimum", count(1, COUNT_MAX)),
    ),
    optional=True,
)
BREAKER = Section(
    "breaker",
    model.Breaker,
    (
        Key("mode", choice("enforce", "shadow")),
        Key("topic", kinds.TOPIC, nullable=True),
        Key("group", kinds.TEXT, nullable=True),
        Key("consul_key_prefix", kinds.PREFIX),
        timer("evaluation_interval", duration(TIMER_LEAST_S)),
        Key("failure_threshold", count_or("auto", 1, COUNT_MAX)),
        AUTO_THRESHOLD,
        timer("report_interval", duration(TIMER_LEAST_S)),
        timer("report_gc", duration(TIMER_LEAST_S, or_zero=True)),
        timer("open_duration", duration(TIMER_LEAST_S)),
        timer("max_open_duration", duration(TIMER_LEAST_S)),
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
        timer("timeout", duration(0.1, 60.0)),
        timer("delivery_timeout", duration(0.1, 60.0)),
        Key("max_record", size(1024, 16 * 1024**2)),
        Key("max_request", size(1024, 256 * 1024**2)),
        Key("max_outstanding", size(1024**2, 4 * 1024**3)),
        Key("replay_rate", count(1, 10_000_000)),
        timer("missing_topic_after", duration(5.0, 30 * DAY_S, or_zero=True)),
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
                    nullable_timer("max_age", duration(1.0)),
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
