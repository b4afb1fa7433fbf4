"""What is legal and unwise: one sentence each, for `check` and for the log at the start."""

import math
import stat
from collections.abc import Iterator
from itertools import combinations

from sidecar.config import model
from sidecar.config.addresses import is_loopback, split_host_port
from sidecar.config.model import Breaker, Config, Delivery
from sidecar.config.relations import overlap
from sidecar.config.units import format_duration as dur

_FEW = 3  # reporters that any flow of some size has
_SLOW_TAKEOVER_S = 60.0
_COMMIT_S = 5.0  # Kafka's own auto.commit.interval.ms
_SETTLING_S = 60.0  # in the simulation the backlog has stopped growing by then
_SETTLES = 1.5
"""Times ln(1/least) report intervals: over a shorter range, what `shed` admits may swing."""


def warnings(config: Config) -> list[str]:
    """Every warning of a configuration, each with its key first; empty where it is sound."""
    found = [*_listen(config), *_store(config)]
    if config.store == "consul":
        found += _consul(config)
    found += _register(config)
    found += [*_publish(config), *_spool(config)]
    for breaker in config.breakers.values():
        found += _breaker(breaker)
        delivery = breaker.signals.delivery
        if config.reports == "off" and delivery is not None and delivery.local is not None:
            at = f"breakers.{breaker.name}.signals.delivery.local"
            found.append(f"{at}: has no effect, since reports: off takes no producer's word")
        found += _lag(breaker)
    found += _prefixes(config)
    return found


def _listen(config: Config) -> Iterator[str]:
    listen = config.listen
    host, port = split_host_port(listen.address)
    if port == 0:
        yield "listen.address: port 0 lets the system choose; clients can't know which"
    if listen.allow_remote and is_loopback(host):
        yield "listen.allow_remote: has no effect while listen.address is a loopback one"
    if not is_loopback(host) and config.reports == "tcp":
        yield "reports: whoever reaches listen.address can trip a breaker; consider socket or off"
    if listen.socket is not None and listen.socket_mode & stat.S_IWOTH:
        yield "listen.socket_mode: every user of this machine may report and override"


def _store(config: Config) -> Iterator[str]:
    if config.store == "consul":
        return
    if config.role == "follower":
        yield "role: a follower on its own in-memory store never changes state"
    if config.consul != model.Consul():
        yield "store: memory leaves the consul section without effect"


def _consul(config: Config) -> Iterator[str]:
    consul = config.consul
    endpoint = model.consul_endpoint(consul)
    if consul.max_stale_s < consul.session_ttl_s:
        yield (
            f"consul.max_stale: {dur(consul.max_stale_s)} is shorter than session_ttl"
            f" ({dur(consul.session_ttl_s)}), so an ordinary takeover counts as a loss"
        )
    if consul.session_ttl_s > _SLOW_TAKEOVER_S:
        yield (
            f"consul.session_ttl: a killed evaluator is replaced only after up to"
            f" {dur(2 * consul.session_ttl_s)}"
        )
    if consul.on_loss == "deny":
        yield "consul.on_loss: deny rejects everything (no_state) until Consul has once been read"
    if endpoint.scheme == "https" and endpoint.socket is None and not consul.tls_verify:
        yield "consul.tls_verify: false lets anyone in between answer for Consul"
    if consul.token and consul.token_file:
        yield "consul.token: has no effect beside token_file"
    secret = consul.token or consul.token_file
    remote = endpoint.socket is None and not is_loopback(endpoint.host)
    if secret and remote and endpoint.scheme == "http":
        yield "consul.address: the token crosses the network in the clear; use https"


def _register(config: Config) -> Iterator[str]:
    wanted = config.register
    if wanted.name is None:
        if wanted != model.Register():
            yield "register: has no effect without register.name"
        return
    own_check = wanted.check in model.OWN_CHECKS
    if own_check and wanted.port not in (None, model.listen_targets(config.listen)[0][1]):
        yield (
            f"register.check: {wanted.check} is the sidecar's, and port {wanted.port} is somebody"
            " else's; name a URL there"
        )
    host, _ = split_host_port(config.listen.address)
    if wanted.port is None and is_loopback(host) and not is_loopback(wanted.address or ""):
        yield (
            f"register.address: {wanted.name} is found by other machines, and listen.address is a"
            " loopback one"
        )


def _publish(config: Config) -> Iterator[str]:
    publish, second = config.publish, config.kafka_second
    if publish is None:
        return
    asked = config.admin.token_file is not None or config.listen.socket is not None
    if config.store == "consul" and not asked:
        yield "publish: nobody may; over TCP it needs admin.token_file, else set listen.socket"
    if publish.max_outstanding < publish.max_request:
        yield "publish.max_outstanding: is less than max_request, and bounds a request first"
    if second is not None and second.bootstrap_servers == config.kafka.bootstrap_servers:
        yield "kafka_second.bootstrap_servers: is the first cluster once more"
    for name, topic in config.spool.topics.items():
        if topic.max_bytes < publish.max_record:
            yield f"spool.topics.{name}.max_bytes: a record of publish.max_record never fits"


def _spool(config: Config) -> Iterator[str]:
    spool, publish = config.spool, config.publish
    topics = publish.topics if publish is not None else {}
    if spool.dir is not None and not any(t.outage in model.SPOOLING for t in topics.values()):
        yield "spool.dir: only replays what is left there; no topic of publish spools anything"
    if spool.dir is not None and publish is None:
        yield "spool.dir: has no effect without publish"
    for name, topic in spool.topics.items():
        if topic.max_bytes > spool.max_bytes:
            yield f"spool.topics.{name}.max_bytes: spool.max_bytes is less, and ends it first"


def _breaker(breaker: Breaker) -> Iterator[str]:
    at = f"breakers.{breaker.name}"
    auto = breaker.auto_threshold
    if breaker.failure_threshold != "auto" and auto != model.AutoThreshold():
        yield f"{at}.auto_threshold: has no effect without failure_threshold: auto"
    key, least = (
        ("auto_threshold.floor", auto.floor)
        if breaker.failure_threshold == "auto"
        else ("failure_threshold", breaker.failure_threshold)
    )
    if least < _FEW:
        yield (
            f"{at}.{key}: {least} may be below the number of"
            " reporters; a single failure of a few of them rejects all traffic"
        )
    missing = breaker.signals.missing
    if missing is not None and _FEW <= least < (missing.min_consumers or 0):
        yield (
            f"{at}.{key}: {least} is below the number of reporters, at least"
            f" {missing.min_consumers} by signals.missing.min_consumers; a single failure of each"
            " rejects all traffic"
        )
    if breaker.report_interval_s > 3 * breaker.evaluation_interval_s:
        yield (
            f"{at}.report_interval: {dur(breaker.report_interval_s)} is more than three times"
            f" evaluation_interval ({dur(breaker.evaluation_interval_s)}); most rounds see"
            " nothing new"
        )
    if breaker.open_duration_s < breaker.report_interval_s:
        yield (
            f"{at}.open_duration: {dur(breaker.open_duration_s)} is shorter than report_interval"
            f" ({dur(breaker.report_interval_s)}); it half-opens before anyone reports again"
        )
    if breaker.half_open.max_s < breaker.report_interval_s:
        yield (
            f"{at}.half_open.max: {dur(breaker.half_open.max_s)} is shorter than report_interval"
            f" ({dur(breaker.report_interval_s)}), so no report can speak for closing"
        )
    if breaker.half_open.initial == 1:
        yield f"{at}.half_open.initial: 1 sends all traffic at once to what has just failed"
    if breaker.signals.delivery is not None and breaker.signals.delivery.local is not None:
        yield from _local(f"{at}.signals.delivery", breaker.signals.delivery)
    yield from _shed(breaker)
    if breaker.on_unknown == "healthy":
        yield f"{at}.on_unknown: healthy closes a breaker on silence, dead consumers included"


def _local(at: str, delivery: Delivery) -> Iterator[str]:
    if delivery.quorum == 1:
        yield (
            f"{at}.local: with {at}.quorum: 1 a producer that is cut off alone can still stop the"
            " fleet; set quorum to 2 or more"
        )


def _lag(breaker: Breaker) -> Iterator[str]:
    lag = breaker.signals.lag
    if lag is not None and lag.window_s < 3 * _COMMIT_S:
        yield (
            f"breakers.{breaker.name}.signals.lag.window: {dur(lag.window_s)} is less than three"
            f" times the {dur(_COMMIT_S)} that consumers leave between two commits by default;"
            " a group may look stalled between them"
        )


def _shed(breaker: Breaker) -> Iterator[str]:
    """A range that is short for how late the consumers' word comes makes the share swing."""
    shed = breaker.shed
    if shed is None:
        return
    lag = breaker.signals.lag
    if lag is not None and lag.for_s < _SETTLING_S:
        yield (
            f"breakers.{breaker.name}.signals.lag.for: {dur(lag.for_s)} is too short beside shed:"
            " the backlog grows until the share has settled, and it opens before; set it to 2m"
        )
    needed_s = -math.log(shed.least) * _SETTLES * breaker.report_interval_s
    if shed.full_s - shed.start_s < needed_s:
        yield (
            f"breakers.{breaker.name}.shed: from start ({dur(shed.start_s)}) to full"
            f" ({dur(shed.full_s)}) is short for report_interval"
            f" ({dur(breaker.report_interval_s)}), and the share may swing; leave"
            f" {dur(float(math.ceil(needed_s)))} between the two"
        )


def _prefixes(config: Config) -> Iterator[str]:
    for one, other in combinations(config.breakers.values(), 2):
        mine, theirs = one.consul_key_prefix, other.consul_key_prefix
        unsaid = config.store == "memory" and mine == theirs == Breaker().consul_key_prefix
        if mine == theirs and not unsaid:
            yield (
                f"breakers.{other.name}.consul_key_prefix: is also that of {one.name};"
                " each sees the other's reports"
            )
        elif mine != theirs and overlap(mine, theirs):
            inner, outer = (one, other) if len(mine) > len(theirs) else (other, one)
            yield (
                f"breakers.{inner.name}.consul_key_prefix: lies in that of {outer.name}"
                f" ({outer.consul_key_prefix}), where these reports count as bad ones"
            )
