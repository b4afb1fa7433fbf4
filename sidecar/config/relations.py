"""What must hold between settings; each rule reads as the sentence that an operator is told."""

from collections.abc import Iterator

import msgspec

from sidecar.config import model
from sidecar.config.addresses import is_loopback, split_host_port
from sidecar.config.model import SPOOLING, Breaker, Config, Kafka, Publish, Tls
from sidecar.config.shapes import Path
from sidecar.config.units import format_duration as dur
from sidecar.config.units import format_size

_LEAST_SHARE = 0.001


class Clash(msgspec.Struct, frozen=True):
    """A rule that is broken; it is told at the first of the paths that somebody wrote."""

    paths: tuple[Path, ...]
    problem: str
    fix: str


def clashes(config: Config) -> Iterator[Clash]:
    """Every broken rule of a configuration."""
    yield from _listen(config)
    yield from _consul(config)
    yield from _kafka(config.kafka, "kafka")
    if config.kafka_second is not None:
        yield from _kafka(config.kafka_second, "kafka_second")
    yield from _register(config)
    if config.publish is not None:
        yield from _publish(config, config.publish)
    for breaker in config.breakers.values():
        yield from _times(breaker)
        yield from _prefixes(config, breaker)
        yield from _auto(breaker)
        yield from _shed(breaker)
        yield from _signals(breaker)
        yield from _lag(config, breaker)
        yield from _probe(config, breaker)


def _listen(config: Config) -> Iterator[Clash]:
    listen, at = config.listen, ("listen", "address")
    host, _ = split_host_port(listen.address)
    if not is_loopback(host) and not listen.allow_remote:
        yield Clash(
            (at, ("listen", "allow_remote")),
            "is reached from other machines",
            "listen on localhost, or set listen.allow_remote: true",
        )
    mine, other = model.listen_targets(listen), model.diagnostics_targets(listen)
    if any(_collide(one, two) for one in mine for two in other):
        yield Clash(
            (("listen", "diagnostics"), at),
            "binds what listen.address binds too",
            "take another port",
        )
    if config.reports == "socket" and listen.socket is None:
        yield Clash(
            (("reports",),),
            "takes reports on a socket that isn't there",
            "set listen.socket, or reports: tcp",
        )


def _collide(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two addresses can't be bound at once; port 0 is a free one each time."""
    same_family = (":" in one[0]) == (":" in other[0])
    wild = {one[0], other[0]} & {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return bool(one[1]) and one[1] == other[1] and same_family and bool(one[0] == other[0] or wild)


def _consul(config: Config) -> Iterator[Clash]:
    consul, cert, key = config.consul, ("consul", "client_cert"), ("consul", "client_key")
    if (consul.client_cert is None) != (consul.client_key is None):
        missing = "client_key" if consul.client_key is None else "client_cert"
        yield Clash((cert, key), "is half of a pair", f"set consul.{missing} too")
    if consul.fast_takeover_s is not None and consul.fast_takeover_s >= consul.session_ttl_s:
        fast, ttl = dur(consul.fast_takeover_s), dur(consul.session_ttl_s)
        yield Clash(
            (("consul", "fast_takeover"), ("consul", "session_ttl")),
            f"fast_takeover ({fast}) is not shorter than session_ttl ({ttl})",
            "set fast_takeover to 2s, or leave it out",
        )


def _kafka(kafka: Kafka, section: str) -> Iterator[Clash]:
    tls, sasl = kafka.tls, kafka.sasl
    at: Path = (section, "tls")
    if (tls.client_cert is None) != (tls.client_key is None):
        missing = "client_key" if tls.client_key is None else "client_cert"
        pair = ((*at, "client_cert"), (*at, "client_key"))
        yield Clash(pair, "is half of a pair", f"set {section}.tls.{missing} too")
    if not tls.enabled and tls != Tls():
        yield Clash(((*at, "enabled"),), "is off, and TLS is set up", "set it to true")
    named = [f for f in ("username", "password", "password_file") if getattr(sasl, f) is not None]
    if sasl.mechanism is None and named:
        mechanism = ((section, "sasl", "mechanism"), (section, "sasl", named[0]))
        yield Clash(mechanism, "is missing", "set it: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
    if sasl.mechanism is not None and ("username" not in named or len(named) < 2):
        lacks = "username" if "username" not in named else "password"
        yield Clash(
            ((section, "sasl", lacks), (section, "sasl", "mechanism")),
            f"is missing: {sasl.mechanism} needs it",
            "set username, and password_file or password",
        )


def _register(config: Config) -> Iterator[Clash]:
    wanted, at = config.register, ("register", "name")
    if wanted.name is None:
        return
    if config.store != "consul":
        said = "asks for a service in Consul's catalog, and no Consul is configured"
        yield Clash((at,), said, "set store: consul, or leave register out")
    own = wanted.port is None or wanted.check in model.OWN_CHECKS
    if own and not model.listen_targets(config.listen)[0][1]:
        yield Clash(
            (at, ("listen", "address")),
            "registers a listener whose port the system chooses",
            "give listen.address a port, or set register.port and a URL as register.check",
        )


def _publish(config: Config, publish: Publish) -> Iterator[Clash]:
    at: Path = ("publish",)
    if not config.kafka.bootstrap_servers:
        servers: Path = ("kafka", "bootstrap_servers")
        yield Clash((servers, at), "is missing, and publish needs it", "write where Kafka is")
    if not publish.topics:
        yield Clash(((*at, "topics"),), "has no topic", 'name one, or "*" for all of them')
    if publish.delivery_timeout_s > publish.timeout_s / 2:
        longest, whole = dur(publish.delivery_timeout_s), dur(publish.timeout_s)
        yield Clash(
            ((*at, "delivery_timeout"), (*at, "timeout")),
            f"delivery_timeout ({longest}) leaves too little of timeout ({whole}) for the spool",
            "make it half of timeout, or less",
        )
    if publish.max_record > publish.max_request:
        yield Clash(
            ((*at, "max_record"), (*at, "max_request")),
            f"max_record ({format_size(publish.max_record)}) is larger than max_request"
            f" ({format_size(publish.max_request)})",
            "make max_request as large, or larger",
        )
    for name, topic in publish.topics.items():
        if topic.breaker is not None and topic.breaker not in config.breakers:
            yield Clash(
                ((*at, "topics", name, "breaker"),),
                f"names no breaker ({topic.breaker})",
                f"there are {', '.join(config.breakers)}",
            )
        if topic.outage in SPOOLING and config.spool.dir is None:
            folder: Path = ("spool", "dir")
            yield Clash(
                ((*at, "topics", name, "outage"), folder),
                f"is {topic.outage}, and there is no spool",
                "set spool.dir to a folder that outlives the process, or outage: reject",
            )
        other = config.kafka_second
        if topic.outage == "dual" and not (other and other.bootstrap_servers):
            second: Path = ("kafka_second", "bootstrap_servers")
            yield Clash(
                ((*at, "topics", name, "outage"), second),
                "is dual, and there is no second cluster",
                "set kafka_second.bootstrap_servers, or outage: breaker",
            )


def _times(breaker: Breaker) -> Iterator[Clash]:
    at: Path = ("breakers", breaker.name)
    ramp, longest = breaker.half_open.ramp_s, breaker.half_open.max_s
    if ramp > longest:
        yield Clash(
            ((*at, "half_open", "ramp"), (*at, "half_open", "max")),
            f"half_open.ramp ({dur(ramp)}) is longer than half_open.max ({dur(longest)})",
            f"set half_open.max to {dur(ramp)} or more, or shorten the ramp",
        )
    if breaker.open_duration_s > breaker.max_open_duration_s:
        first, top = dur(breaker.open_duration_s), dur(breaker.max_open_duration_s)
        yield Clash(
            ((*at, "open_duration"), (*at, "max_open_duration")),
            f"open_duration ({first}) is longer than max_open_duration ({top})",
            f"set max_open_duration to {first} or more",
        )
    stale_s = 3 * breaker.report_interval_s
    if 0 < breaker.report_gc_s < stale_s:
        yield Clash(
            ((*at, "report_gc"), (*at, "report_interval")),
            f"report_gc ({dur(breaker.report_gc_s)}) would delete reports before they are stale",
            f"set report_gc to {dur(stale_s)} (3 report_interval) or more, or to 0 for never",
        )


def _auto(breaker: Breaker) -> Iterator[Clash]:
    """The learned threshold's bounds, and a history that holds enough intervals."""
    auto, at = breaker.auto_threshold, ("breakers", breaker.name, "auto_threshold")
    if auto.floor > auto.cap:
        yield Clash(
            ((*at, "floor"), (*at, "cap")),
            f"floor ({auto.floor}) is above cap ({auto.cap})",
            f"set cap to {auto.floor} or more",
        )
    elif not auto.floor <= auto.initial <= auto.cap:
        yield Clash(
            ((*at, "initial"), (*at, "floor"), (*at, "cap")),
            f"initial ({auto.initial}) is not between floor ({auto.floor}) and cap ({auto.cap})",
            f"set initial to a number from {auto.floor} to {auto.cap}",
        )
    least_s = 60 * breaker.report_interval_s
    if breaker.failure_threshold == "auto" and auto.history_s < least_s:
        yield Clash(
            ((*at, "history"), ("breakers", breaker.name, "report_interval")),
            f"history ({dur(auto.history_s)}) holds fewer than 60 report_interval",
            f"set it to {dur(least_s)} or more",
        )


def _shed(breaker: Breaker) -> Iterator[Clash]:
    """There must be a way from start to full, and something left to be admitted."""
    shed, at = breaker.shed, ("breakers", breaker.name, "shed")
    if shed is None:
        return
    if shed.start_s >= shed.full_s:
        start, full = dur(shed.start_s), dur(shed.full_s)
        yield Clash(
            ((*at, "start"), (*at, "full")),
            f"shed.start ({start}) is not shorter than shed.full ({full})",
            f"set shed.full to {dur(6 * shed.start_s)}, or lower shed.start",
        )
    if not _LEAST_SHARE <= shed.least < 1:
        yield Clash(
            ((*at, "least"),),
            f"is not between {_LEAST_SHARE} and 1",
            "write what shall be admitted at the worst, such as 0.05",
        )


def _signals(breaker: Breaker) -> Iterator[Clash]:
    """What a signal can't do without, and bounds that can't be met."""
    signals, at = breaker.signals, ("breakers", breaker.name, "signals")
    if signals.slow is not None and signals.slow.max_latency_s is None:
        yield Clash(
            ((*at, "slow", "max_latency"),), "is missing", "set the latency to trip at, as 500ms"
        )
    missing = signals.missing
    if missing is not None and missing.min_consumers is None and missing.ratio is None:
        yield Clash(
            ((*at, "missing", "min_consumers"), (*at, "missing", "ratio")),
            "is missing, and so is ratio",
            "set one of the two: min_consumers: 2, or ratio: 0.5",
        )
    local = signals.delivery.local if signals.delivery is not None else None
    if local is not None and local.shut_s >= local.window_s:
        shut, window = dur(local.shut_s), dur(local.window_s)
        yield Clash(
            ((*at, "delivery", "local", "shut"), (*at, "delivery", "local", "window")),
            f"shut ({shut}) would outlive what it rests on, which counts for window ({window})",
            f"set shut to {dur(local.window_s / 3)} or so, or a longer window",
        )
    ratio = signals.failure_ratio
    if ratio is not None and ratio.window_s < breaker.report_interval_s:
        window, interval = dur(ratio.window_s), dur(breaker.report_interval_s)
        yield Clash(
            ((*at, "failure_ratio", "window"), ("breakers", breaker.name, "report_interval")),
            f"failure_ratio.window ({window}) is shorter than report_interval ({interval})",
            f"set it to {interval} or more",
        )


def _lag(config: Config, breaker: Breaker) -> Iterator[Clash]:
    """What reading a group's lag can't do without."""
    lag, at = breaker.signals.lag, ("breakers", breaker.name)
    if lag is None:
        return
    for key, example in (("topic", "orders"), ("group", "billing")):
        if getattr(breaker, key) is None:
            yield Clash(((*at, key),), "is missing: signals.lag reads it", f"set it, as {example}")
    if not config.kafka.bootstrap_servers:
        yield Clash(
            (("kafka", "bootstrap_servers"), (*at, "signals", "lag")),
            f"is missing: signals.lag of {breaker.name} reads Kafka",
            "set where Kafka is, as kafka-1:9092",
        )
    least_s = 3 * breaker.evaluation_interval_s
    if lag.window_s < least_s:
        window, interval = dur(lag.window_s), dur(breaker.evaluation_interval_s)
        yield Clash(
            ((*at, "signals", "lag", "window"), (*at, "evaluation_interval")),
            f"lag.window ({window}) holds fewer than three evaluation_interval ({interval})",
            f"set it to {dur(least_s)} or more",
        )


def _probe(config: Config, breaker: Breaker) -> Iterator[Clash]:
    """What sending canaries can't do without."""
    probe, at = breaker.signals.probe, ("breakers", breaker.name, "signals", "probe")
    if probe is None:
        return
    if not config.kafka.bootstrap_servers:
        yield Clash(
            (("kafka", "bootstrap_servers"), at),
            f"is missing: signals.probe of {breaker.name} sends canaries to Kafka",
            "set where Kafka is, as kafka-1:9092",
        )
    if probe.max_latency_s is not None and probe.max_latency_s >= probe.interval_s / 2:
        most, half = dur(probe.max_latency_s), dur(probe.interval_s / 2)
        yield Clash(
            ((*at, "max_latency"), (*at, "interval")),
            f"probe.max_latency ({most}) is not shorter than half of interval ({half}), after which"
            " a canary has failed",
            f"set it below {half}, or a longer interval",
        )
    if probe.topic in {each.topic for each in config.breakers.values()}:
        yield Clash(
            ((*at, "topic"),),
            f"is the topic of a flow: canaries would be read as messages of {probe.topic}",
            "give canaries a topic of their own",
        )
    others = (each.signals.probe for each in config.breakers.values())
    first = next(each for each in others if each is not None)
    if (probe.topic, probe.create) != (first.topic, first.create):
        yield Clash(
            ((*at, "topic"), (*at, "create")),
            "differs from another breaker's: one prober sends for all of a sidecar's breakers",
            f"set the same topic and create everywhere, as topic: {first.topic}",
        )


def _prefixes(config: Config, breaker: Breaker) -> Iterator[Clash]:
    """Reports inside the state's prefix would wake every sidecar; the reverse mixes the two."""
    paths = (("breakers", breaker.name, "consul_key_prefix"), ("consul", "state_prefix"))
    consul = config.consul
    held = {
        consul.state_prefix: "state",
        consul.history_prefix: "history",
        consul.normal_prefix: "learned normal",
    }
    for prefix, what in held.items():
        if overlap(breaker.consul_key_prefix, prefix):
            yield Clash(
                paths,
                f"the reports' prefix ({breaker.consul_key_prefix}) and {prefix}/, which holds"
                f" the {what}, lie in one another",
                "give reports a prefix of their own, such as service-metrics/orders",
            )


def overlap(one: str, other: str) -> bool:
    """Whether one prefix is the other or lies in it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
