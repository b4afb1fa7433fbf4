"""The configuration in the words of each part that it configures, and the parts made of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import structs

from sidecar import __version__
from sidecar.config import model
from sidecar.config.model import Config, default_breaker
from sidecar.core.board import Board
from sidecar.core.decision import Contact, OnLoss, poll_wait, stale_after
from sidecar.core.outage import Outage
from sidecar.core.pacing import Pace
from sidecar.core.ports import Backend, Service, Store, Telemetry
from sidecar.core.publishing import (
    ANY_TOPIC,
    Carrier,
    Publishing,
    PublishPolicy,
    TopicPolicy,
)
from sidecar.core.spooling import Budget, Spool, SpoolSettings
from sidecar.http.events import Feed
from sidecar.http.listeners import Endpoint
from sidecar.http.publish import Held
from sidecar.http.server import build_app, build_diagnostics
from sidecar.http.settings import HttpSettings, Transport
from sidecar.loops.around import Around
from sidecar.loops.elect import Candidate
from sidecar.loops.register import Registrar
from sidecar.policies import policies

if TYPE_CHECKING:
    from sidecar.kafka.connection import Connection
    from sidecar.publish.desk import Desk, Starter
    from sidecar.publish.pair import Pair
    from sidecar.store.transport import ConsulSettings


def board(config: Config, instance: str, *, now: float) -> Board:
    """The snapshot, before anything is known."""
    return Board(instance, policies(config), default_breaker(config), contact(config), now=now)


def contact(config: Config) -> Contact:
    """How the store's silence is to be understood; nothing has been heard yet."""
    return Contact(
        synced=None,
        stale_after_s=stale_after(poll_wait(config.consul.max_stale_s)),
        max_stale_s=config.consul.max_stale_s,
        on_loss=OnLoss(config.consul.on_loss),
    )


def kafka(config: Config) -> Connection | None:
    """How Kafka is reached; None where nobody says where it is."""
    return _connection("kafka", config.kafka)


def kafka_second(config: Config) -> Connection | None:
    """How the second cluster is reached; None where there is none."""
    return _connection("kafka_second", config.kafka_second)


def _connection(section: str, given: model.Kafka | None) -> Connection | None:
    if given is None or not given.bootstrap_servers:
        return None
    from sidecar.kafka.connection import Connection  # here: most daemons don't speak to Kafka

    tls, sasl = given.tls, given.sasl
    return Connection(
        section=section,
        bootstrap_servers=given.bootstrap_servers,
        client_id=given.client_id,
        request_timeout_s=given.request_timeout_s,
        tls=tls.enabled,
        ca_file=tls.ca_file,
        client_cert=tls.client_cert,
        client_key=tls.client_key,
        tls_verify=tls.verify,
        mechanism=sasl.mechanism,
        username=sasl.username,
        password=sasl.password,
        password_file=sasl.password_file,
    )


KAFKA_TASKS = ("lag", "probe")
"""What `kafka_tasks` may bring."""


def kafka_tasks(
    config: Config,
    board: Board,
    telemetry: Telemetry,
    *,
    news: Callable[[str], None],
    now: Callable[[], float],
    draw: Callable[[], float],
) -> dict[str, Callable[[], Awaitable[None]]]:
    """What reads lag and what sends canaries, each where some breaker asks for it."""
    connection = kafka(config)
    tasks: dict[str, Callable[[], Awaitable[None]]] = {}
    if connection is None:
        return tasks
    if any(each.lag_read is not None for each in policies(config)):
        from sidecar.kafka.lag import LagReader

        tasks["lag"] = LagReader(board, connection, telemetry, news=news, now=now, draw=draw).run
    if any(each.signals.probe is not None for each in config.breakers.values()):
        from sidecar.kafka.probe import Prober

        tasks["probe"] = Prober(board, connection, telemetry, news=news, now=now, draw=draw).run
    return tasks


def restart_needed(old: Config, new: Config) -> list[str]:
    """Keys that differ from what holds since the start, and take effect at the next one."""
    found = [
        key
        for key in ("store", "data_dir", "kafka_second")
        if getattr(old, key) != getattr(new, key)
    ]
    if old.publish is not None and old.kafka != new.kafka:
        found.append("kafka")  # what reads lag and sends canaries asks the new one at once
    if old.spool != new.spool:
        found.append("spool")
    if (old.publish is None) != (new.publish is None):
        found.append("publish")
    found += [
        f"listen.{key}"
        for key in ("address", "socket", "socket_mode", "diagnostics", "allow_remote")
        if getattr(old.listen, key) != getattr(new.listen, key)
    ]
    live = {"session_ttl_s", "lock_delay_s", "fast_takeover_s", "on_loss", "max_stale_s"}
    found += [
        f"consul.{key.removesuffix('_s')}"
        for key in old.consul.__struct_fields__
        if key not in live and getattr(old.consul, key) != getattr(new.consul, key)
    ]
    found += [
        f"register.{key.removesuffix('_s')}"
        for key in old.register.__struct_fields__
        if getattr(old.register, key) != getattr(new.register, key)
    ]
    return found


def effective(start: Config, read: Config) -> Config:
    """What was read anew, but for what others go by and only a restart changes.

    Who may give orders follows from the store that is there, and the lock says where we listen.
    """
    listen = structs.replace(read.listen, address=start.listen.address)
    return structs.replace(read, store=start.store, listen=listen)


def store(config: Config, now: Callable[[], float], telemetry: Telemetry) -> Store:
    """The store, imported only when it is the one configured."""
    if config.store == "memory":
        from sidecar.store.memory import MemoryStore

        return MemoryStore(now)
    from sidecar.store.consul import ConsulStore

    return ConsulStore(consul_settings(config), telemetry)


def consul_settings(config: Config) -> ConsulSettings:
    """Where Consul is, and as whom to speak to it."""
    from sidecar.store.transport import ConsulSettings

    consul, endpoint = config.consul, model.consul_endpoint(config.consul)
    return ConsulSettings(
        scheme=endpoint.scheme,
        host=endpoint.host,
        port=endpoint.port,
        unix_path=endpoint.socket,
        path_prefix=endpoint.path,
        token=consul.token,
        token_file=consul.token_file,
        ca_file=consul.ca_file,
        client_cert=consul.client_cert,
        client_key=consul.client_key,
        tls_verify=consul.tls_verify,
        namespace=consul.namespace,
    )


def registrar(config: Config, around: Around) -> Registrar | None:
    """What keeps a service in Consul's catalog; None where none is asked for."""
    wanted = config.register
    if wanted.name is None:
        return None
    from sidecar.store.consul import ConsulStore

    if not isinstance(around.store, ConsulStore):
        return None  # which `check` and the start refuse
    service = Service(
        id=f"{wanted.name}-{around.instance}",
        name=wanted.name,
        address=wanted.address or "",
        port=model.registered_port(config),
        tags=wanted.tags,
        check=model.registered_check(config),
        check_every_s=wanted.check_interval_s,
    )
    return Registrar(around, around.store, service)


def candidate(config: Config, instance: str) -> Candidate:
    """How this sidecar stands for election."""
    return Candidate(
        instance=instance,
        address=config.listen.address,
        ttl_s=config.consul.session_ttl_s,
        lock_delay_s=config.consul.lock_delay_s,
        follower=config.role == "follower",
        eager=config.store == "memory",
        fast_s=config.consul.fast_takeover_s if config.store == "consul" else None,
    )


def publish_policy(publish: model.Publish) -> PublishPolicy:
    """How records are handled, as the rules need it."""
    return PublishPolicy(
        timeout_s=publish.timeout_s,
        delivery_timeout_s=publish.delivery_timeout_s,
        max_record_bytes=publish.max_record,
        max_request_bytes=publish.max_request,
        max_outstanding_bytes=publish.max_outstanding,
        replay_rate=float(publish.replay_rate),
        missing_topic_after_s=publish.missing_topic_after_s,
        topics={
            name: TopicPolicy(
                outage=Outage(topic.outage),
                breaker=topic.breaker,
                max_outstanding=topic.max_outstanding,
            )
            for name, topic in publish.topics.items()
        },
    )


def spool_settings(spool: model.Spool) -> SpoolSettings:
    """The spool's bounds, as it needs them."""
    budgets = {
        name: Budget(
            max_bytes=topic.max_bytes,
            max_age_s=topic.max_age_s,
            drop_oldest=topic.when_full == "drop_oldest",
        )
        for name, topic in spool.topics.items()
    }
    others = budgets.pop(ANY_TOPIC, Budget())
    return SpoolSettings(max_bytes=spool.max_bytes, topics=budgets, others=others)


def _spool_opener(
    config: Config, instance: str, telemetry: Telemetry
) -> Callable[[], Awaitable[Spool]] | None:
    """What opens the spool; None where none is configured."""
    if config.spool.dir is None:
        return None
    root, settings = Path(config.spool.dir), spool_settings(config.spool)

    async def opened() -> Spool:
        from sidecar.spool.spool import DiskSpool

        return await DiskSpool.open(root, instance, settings, telemetry)

    return opened


def desk(
    config: Config,
    instance: str,
    tasks: Starter,
    telemetry: Telemetry,
    *,
    now: Callable[[], float],
    draw: Callable[[], float],
) -> Desk | None:
    """What publishes; nothing of it is imported where nothing is published."""
    reached = kafka(config)
    if config.publish is None or reached is None:
        return None
    from sidecar.kafka.publisher import Publisher
    from sidecar.publish.around import Around as Surroundings
    from sidecar.publish.deadletters import DeadLetters
    from sidecar.publish.desk import Desk
    from sidecar.publish.placements import Placements

    policy = publish_policy(config.publish)
    folder = Path(config.spool.dir) if config.spool.dir is not None else None
    carrier = Publisher(reached.options, now=now, draw=draw)
    around = Surroundings(
        policy=policy,
        carrier=carrier,
        pair=pair(config, instance, telemetry, carrier, now=now, draw=draw),
        spool=None,
        letters=DeadLetters(folder) if folder is not None else None,
        pace=Pace(policy.replay_rate),
        telemetry=telemetry,
        now=now,
        wall=time.time,
        draw=draw,
    )
    opener = _spool_opener(config, instance, telemetry)
    return Desk(around, tasks, Placements(folder), opener)


def pair(
    config: Config,
    instance: str,
    telemetry: Telemetry,
    first: Carrier,
    *,
    now: Callable[[], float],
    draw: Callable[[], float],
) -> Pair | None:
    """Two clusters; None where one is configured."""
    reached = kafka_second(config)
    if reached is None:
        return None
    from sidecar.kafka.publisher import Publisher
    from sidecar.publish.pair import Pair

    second = Publisher(reached.options, now=now, draw=draw)
    return Pair(first, second, producer=instance, telemetry=telemetry)


def http_settings(config: Config) -> HttpSettings:
    """What the HTTP layer is told; a reload tells it anew."""
    return HttpSettings(
        allowed_hosts=frozenset(config.listen.allowed_hosts),
        reports=config.reports,
        admin_token_file=config.admin.token_file,
        open_orders=config.store == "memory",
        version=__version__,
    )


def endpoints(
    config: Config,
    backend: Backend,
    metrics: Callable[[], tuple[Iterable[bytes], str]],
    now: Callable[[], float],
    telemetry: Telemetry,
    *,
    publishing: Publishing | None = None,
) -> list[Endpoint]:
    """The public interface on TCP and perhaps on a unix socket, and perhaps the diagnostics."""
    listen, settings = config.listen, http_settings(config)
    feed, held = Feed(backend.board, now), Held()

    def public(transport: Transport) -> web.Application:
        return build_app(
            backend,
            settings,
            transport=transport,
            metrics=metrics,
            now=now,
            telemetry=telemetry,
            feed=feed,
            publishing=publishing,
            held=held,
        )

    made = [Endpoint(app=public("tcp"), setting="listen.address", tcp=model.listen_targets(listen))]
    if listen.socket is not None:
        made.append(
            Endpoint(
                app=public("unix"),
                setting="listen.socket",
                path=listen.socket,
                mode=listen.socket_mode,
            )
        )
    if listen.diagnostics is not None:
        made.append(
            Endpoint(
                app=build_diagnostics(
                    backend, settings, metrics=metrics, now=now, telemetry=telemetry
                ),
                setting="listen.diagnostics",
                tcp=model.diagnostics_targets(listen),
            )
        )
    return made
