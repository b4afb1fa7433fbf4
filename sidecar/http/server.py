"""Puts the applications together; `Listeners` carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web

from sidecar.core.ports import Backend, Telemetry
from sidecar.core.publishing import Publishing
from sidecar.http import admin, door, problems
from sidecar.http.allowed import Answers, Decisions
from sidecar.http.bodies import MAX_BODY
from sidecar.http.events import Feed, Watching
from sidecar.http.fastlane import LANE, Lane
from sidecar.http.listeners import Endpoint, Listeners
from sidecar.http.openapi import Description
from sidecar.http.overrides import Orders
from sidecar.http.overview import Overview
from sidecar.http.page import StatusPage
from sidecar.http.past import Histories
from sidecar.http.probes import Metrics, Probes
from sidecar.http.publish import Held, Publish
from sidecar.http.publishlane import PublishLane
from sidecar.http.reading import Reading
from sidecar.http.reportlane import ReportLane
from sidecar.http.reports import Reporting
from sidecar.http.settings import HttpSettings, LiveSettings, Transport
from sidecar.http.sockets import ListenFailed, PortTaken
from sidecar.http.waiting import Waiters

__all__ = [
    "Endpoint",
    "Feed",
    "HttpSettings",
    "ListenFailed",
    "Listeners",
    "PortTaken",
    "apply_settings",
    "build_app",
    "build_diagnostics",
]

SETTINGS: web.AppKey[LiveSettings] = web.AppKey("settings", LiveSettings)
WAITERS: web.AppKey[Waiters] = web.AppKey("waiters", Waiters)
FEED: web.AppKey[Feed] = web.AppKey("feed", Feed)


class _Part(Protocol):
    def routes(self) -> Iterable[web.AbstractRouteDef]: ...


def build_app(
    backend: Backend,
    settings: HttpSettings,
    *,
    transport: Transport,
    metrics: Metrics,
    now: Callable[[], float],
    telemetry: Telemetry,
    feed: Feed | None = None,
    publishing: Publishing | None = None,
    held: Held | None = None,
) -> web.Application:
    """The whole interface.

    Args:
        feed: the events of `/v1/watch`, where several applications share them; None: its own.
        publishing: who publishes; None: nobody.
        held: bytes being published, where several applications share them; None: its own.
        now: the monotonic clock, seconds.
        metrics: renders the metrics: (text, content type).
    """
    live, waiters = LiveSettings(settings), Waiters(backend.board)
    guards = [problems.middleware(telemetry), door.middleware(live, transport)]
    app = web.Application(middlewares=guards, client_max_size=MAX_BODY)
    app[SETTINGS], app[WAITERS] = live, waiters
    app[FEED] = feed or Feed(backend.board, now)
    reporting = Reporting(backend, live, transport)
    answers = Answers()
    publish, records = _publish(
        publishing, backend, answers, held or Held(), now=now, live=live, transport=transport
    )
    reports = ReportLane(backend, live, transport)
    app[LANE] = Lane(backend.board, answers, now, reports=reports, records=records)
    histories = Histories(backend, now)
    overview = Overview(backend, histories, now)
    parts: tuple[_Part, ...] = (
        Decisions(backend, answers, now, live, transport),
        Watching(app[FEED]),
        Reading(backend, waiters, overview, now),
        StatusPage(overview, histories),
        Orders(backend, live, transport),
        reporting,
        publish,
        Probes(backend, live, metrics, now),
        Description(settings.version),
    )
    app.add_routes([route for part in parts for route in part.routes()])
    app.on_shutdown.append(_let_go)
    app.on_cleanup.append(reporting.drain)
    return app


def _publish(
    publishing: Publishing | None,
    backend: Backend,
    answers: Answers,
    held: Held,
    *,
    now: Callable[[], float],
    live: LiveSettings,
    transport: Transport,
) -> tuple[Publish, PublishLane | None]:
    """The two ways in for records, which know the same tokens and count the same bytes."""
    tokens = admin.Tokens(now)
    usual = Publish(
        publishing,
        backend,
        answers=answers,
        held=held,
        now=now,
        tokens=tokens,
        settings=live,
        transport=transport,
    )
    lane = PublishLane(publishing, held, tokens, live, transport) if publishing else None
    return usual, lane


def build_diagnostics(
    backend: Backend,
    settings: HttpSettings,
    *,
    metrics: Metrics,
    now: Callable[[], float],
    telemetry: Telemetry,
) -> web.Application:
    """Only `/livez`, `/readyz`, `/metrics` and `/version`, for a network of its own."""
    live = LiveSettings(settings)
    app = web.Application(middlewares=[problems.middleware(telemetry)])
    app[SETTINGS] = live
    app.add_routes(Probes(backend, live, metrics, now).routes())
    return app


def apply_settings(app: web.Application, settings: HttpSettings) -> None:
    """Let a reload take effect, from the next request on. Call it after the board's own.

    Clients that wait for a breaker look again, since it may be gone; who watches all is told.
    """
    app[SETTINGS].current = settings
    waiters = app.get(WAITERS)
    if waiters is not None:
        waiters.wake_all()
        app[FEED].reconfigured()


async def _let_go(app: web.Application) -> None:
    app[WAITERS].close()
    app[FEED].close()
