"""The fast lane: a plain request for a decision is answered from bytes that are already there.

Whatever comes over a connection is shown to the lane first, whole as it arrived. It answers what
is beyond doubt: one complete `GET` or `HEAD` of `/allowed`, in ordinary spelling, with nothing in
its headers that has a meaning to HTTP itself (`framing` says what that is). What is sent by POST
is shown to `ReportLane` or `PublishLane`. Everything else gets no answer here and goes to aiohttp's
own path, which gives the same answers some ten times slower.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from time import time

from aiohttp import web

from sidecar.core.admission import UNIT
from sidecar.core.board import Board, Cell
from sidecar.core.decision import Decision
from sidecar.http import framing, publishlane, reportlane
from sidecar.http.allowed import DENY_STATUSES, Answer, Answers, Page, admit
from sidecar.http.publishlane import PublishLane
from sidecar.http.reportlane import ReportLane
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
    """

    __slots__ = ("_answers", "_board", "_now", "_records", "_remembered", "_reports", "_routes")

    def __init__(
        self,
        board: Board,
        answers: Answers,
        now: Callable[[], float],
        reports: ReportLane | None = None,
        records: PublishLane | None = None,
    ) -> None:
        self._board = board
        self._answers = answers
        self._now = now
        self._reports = reports
        self._records = records
        self._routes: dict[tuple[bytes, ...], _Route] = {}
        self._remembered: dict[bytes, _Route] = {}

    def reply(self, data: bytes, asker: Waiting) -> bytes | None:
        """The whole answer to this request, which is decided and counted by then.

        Empty: it may be a report or a record, and it will be the asker's turn soon. None: it is for
        aiohttp, and nothing has happened.
        """
        route = self._remembered.get(data)
        if route is None:
            if data.startswith(b"POST /v1/") and self._queued(data, asker):
                return b""
            route = self._read(data)
            if route is None:
                return None
        cell, now = route.cell, self._now()
        if (
            now >= route.until
            or cell.decision is not route.decision
            or self._board.cells is not route.cells
        ):
            if not route.refresh(self._board, now):
                return None
            cell = route.cell
        # What follows is `admit`, written out: its calls would cost as much as all the rest.
        if not route.free:
            if route.watched:
                return route.admission if admit(cell, route.page) else route.rejection
            spread = cell.spread
            ahead = spread.ahead + route.millionths
            if ahead < UNIT:
                spread.ahead = ahead
                cell.rejected += 1
                return route.rejection
            spread.ahead = ahead - UNIT
        cell.admitted += 1
        return route.admission

    def again(self, begun: bytes, asker: Waiting) -> None:
        """More has come of what may be a report or a record."""
        self._queued(begun, asker)

    def _queued(self, data: bytes, asker: Waiting) -> bool:
        if self._reports is not None and data.startswith(reportlane.POST):
            self._reports.queue(asker)
        elif self._records is not None and data.startswith(publishlane.POST):
            self._records.queue(asker)
        else:
            return False
        return True

    def _read(self, data: bytes) -> _Route | None:
        if len(data) > framing.MAX_HEAD:
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

    def _route(self, method: bytes, name: bytes | None, deny: bytes | None) -> _Route | None:
        route = _Route(
            self._answers,
            name=name.decode() if name is not None else None,
            deny_status=int(deny) if deny is not None else None,
            bare=method == b"HEAD",
        )
        # Only breakers that exist have a route: names are made up without end.
        return route if route.refresh(self._board, self._now()) else None


class _Route:
    """One way to ask about one breaker, with its answers as they go over the wire."""

    __slots__ = (
        "_answers",
        "_bare",
        "_deny_status",
        "_name",
        "admission",
        "cell",
        "cells",
        "decision",
        "free",
        "millionths",
        "page",
        "rejection",
        "until",
        "watched",
    )

    cell: Cell
    cells: Mapping[str, Cell]
    """The board's cells when the breaker was looked up; a reload makes others."""
    decision: Decision
    """What the answers were written for."""
    page: Page
    free: bool
    millionths: int
    watched: bool
    """What would be rejected without shadow is counted, too."""
    admission: bytes
    rejection: bytes
    """Empty where nothing is rejected."""
    until: float
    """When they say something else, by `Date` or by `Retry-After` (monotonic)."""

    def __init__(
        self, answers: Answers, *, name: str | None, deny_status: int | None, bare: bool
    ) -> None:
        self._answers = answers
        self._name = name
        self._deny_status = deny_status
        self._bare = bare
        self.rejection = b""

    def refresh(self, board: Board, now: float) -> bool:
        """Write the answers down, for as long as they say the same. False: no such breaker."""
        cell = board.find(self._name) if self._name is not None else None
        if cell is None and self._name in {None, "default"}:
            cell = board.find(None)
        if cell is None:
            return False
        page = self._answers.page(cell)
        self.cells, self.cell, self.page, self.decision = board.cells, cell, page, page.decision
        self.free, self.millionths = page.free, page.millionths
        self.watched = page.shadow_millionths < UNIT
        # The end of the second in `Date`. Should somebody set the clock meanwhile, it shows then.
        self.until = now + 1.0 - time() % 1.0
        self.admission = _on_the_wire(page.admission, bare=self._bare)
        if page.millionths < UNIT:
            chosen = self._deny_status
            status = cell.policy.deny_status if chosen is None else chosen
            self.rejection = _on_the_wire(page.rejection(status, now), bare=self._bare)
            self.until = min(self.until, page.decision.retry_until(now))
        return True


def _on_the_wire(answer: Answer, *, bare: bool) -> bytes:
    """The answer as it is sent; without its body for HEAD."""
    head = framing.head(answer.status, answer.headers, len(answer.body))
    return head if bare else head + answer.body


LANE: web.AppKey[Lane] = web.AppKey("lane", Lane)
"""An application that has one is asked through it; see `listeners.Protocol`."""
