"""The fast lane: a plain request for a decision is answered from bytes that are already there.

Whatever comes over a connection is shown to the lane first, whole as it arrived. It answers what
is beyond doubt: one complete `GET` or `HEAD` of `/allowed`, in ordinary spelling, with nothing in
its headers that has a meaning to HTTP itself (`framing` says what that is). What is sent by POST
is shown to `ReportLane` or `PublishLane`. Everything else gets no answer here and goes to aiohttp's
own path, which gives the same answers some ten times slower.

A connection keeps the route of its last request, and answers the same bytes from it by itself
(`connection.Protocol`): that is what costs next to nothing. Here is the way to a route.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import web

from sidecar.core.board import Board
from sidecar.http import framing, publishlane, reportlane
from sidecar.http.allowed import DENY_STATUSES, Answers
from sidecar.http.publishlane import PublishLane
from sidecar.http.reportlane import ReportLane
from sidecar.http.route import CallLater, Route, on_the_loop
from sidecar.http.turns import Waiting

MAX_REMEMBERED = 256
"""Requests known by their bytes. Past it all are forgotten: clients with ever new headers."""
MAX_REMEMBERED_BYTES = 512
_DECISION = re.compile(
    rb"(GET|HEAD) /allowed(?:/([A-Za-z0-9][A-Za-z0-9_.-]{0,63}))?"
    rb"(?:\?deny_status=(" + "|".join(map(str, DENY_STATUSES)).encode() + rb"))?"
    rb" HTTP/1\.1\r\n" + framing.HEADERS
)


class Lane:
    """Recognizes the requests of one application and answers them.

    Args:
        answers: what the application's own handlers use too, so that a page is rendered once.
        now: monotonic seconds.
        reports: takes reports; None: aiohttp does.
        records: takes records; None: aiohttp does.
        later: calls back when the answers' time is over.
    """

    __slots__ = (
        "_answers",
        "_board",
        "_later",
        "_now",
        "_records",
        "_remembered",
        "_reports",
        "_routes",
    )

    def __init__(
        self,
        board: Board,
        answers: Answers,
        now: Callable[[], float],
        reports: ReportLane | None = None,
        records: PublishLane | None = None,
        *,
        later: CallLater = on_the_loop,
    ) -> None:
        self._board = board
        self._answers = answers
        self._now = now
        self._reports = reports
        self._records = records
        self._later = later
        self._routes: dict[tuple[bytes, ...], Route] = {}
        self._remembered: dict[bytes, Route] = {}

    def route(self, data: bytes) -> Route | None:
        """How this request is answered, with answers that hold now; nothing is decided by that.

        None: it is no plain question for a decision.
        """
        route = self._remembered.get(data)
        if route is None:
            route = self._read(data)
            if route is None:
                return None
        if route.cell.decision is not route.decision:
            return route if route.refresh(self._board, self._now()) else None
        return route

    def queue(self, begun: bytes, asker: Waiting) -> bool:
        """What begins so may be a report or a record: it will be the asker's turn soon.

        False: it is for aiohttp, and nothing has happened.
        """
        if self._reports is not None and begun.startswith(reportlane.POST):
            self._reports.queue(asker)
        elif self._records is not None and begun.startswith(publishlane.POST):
            self._records.queue(asker)
        else:
            return False
        return True

    def _read(self, data: bytes) -> Route | None:
        if len(data) > framing.MAX_HEAD or data.startswith(b"POST "):  # that is no question
            return None
        found = _DECISION.fullmatch(data)
        if found is None:
            return None
        headers = framing.headers(found.group(4))
        if headers is None or b"content-length" in headers:
            return None
        asked = found.group(1, 2, 3)
        route = self._routes.get(asked)
        if route is None:
            route = self._route(*asked)
            if route is None:
                return None
            self._routes[asked] = route
        if len(data) <= MAX_REMEMBERED_BYTES:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[bytes(data)] = route
        return route

    def _route(self, method: bytes, name: bytes | None, deny: bytes | None) -> Route | None:
        route = Route(
            self._answers,
            self._later,
            name=name.decode() if name is not None else None,
            deny_status=int(deny) if deny is not None else None,
            bare=method == b"HEAD",
        )
        # Only breakers that exist have a route: names are made up without end.
        return route if route.refresh(self._board, self._now()) else None


LANE: web.AppKey[Lane] = web.AppKey("lane", Lane)
"""An application that has one is asked through it; see `connection.Protocol`."""
