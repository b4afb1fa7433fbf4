"""The answer of `/allowed`: rendered when a decision changes, picked when somebody asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion11

from sidecar.core.admission import UNIT
from sidecar.core.board import Board, Cell
from sidecar.core.decision import Decision
from sidecar.core.ports import Backend
from sidecar.core.wire import decision_to_dict
from sidecar.http import door
from sidecar.http.explain import explain
from sidecar.http.problems import Problem, find, shown
from sidecar.http.settings import LiveSettings, Transport

DENY_STATUSES = (401, 403, 429, 503)
ENVOY_DENY_STATUS = 429
"""Envoy may be told to let calls through when an authorizer answers 5xx, so it never does."""
_TOKEN = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer but for what HTTP itself adds (`Content-Length`, `Date`)."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Page:
    """The answers for one decision. `Retry-After` is the only part that time changes."""

    __slots__ = ("_rejections", "admission", "decision", "free", "millionths", "shadow_millionths")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.millionths = round(decision.admit_ratio * UNIT)
        self.shadow_millionths = round(decision.shadow_ratio * UNIT)
        self.free = self.millionths >= UNIT and self.shadow_millionths >= UNIT
        """Everything is admitted, and nothing is spent on it."""
        self.admission = _render(decision, 200, None)
        self._rejections: dict[int, tuple[int, Answer]] = {}

    def rejection(self, status: int, now: float) -> Answer:
        """The rejection for now, rendered anew when its whole second has changed."""
        retry_after_s = self.decision.retry_after(now)
        known = self._rejections.get(status)
        if known is not None and known[0] == retry_after_s:
            return known[1]
        answer = _render(self.decision, status, retry_after_s)
        self._rejections[status] = (retry_after_s, answer)
        return answer


class Answers:
    """Picks the answer for a call: decides, counts, and hands out bytes that are already there.

    No waiting, no I/O, and no rendering but once for each new decision object of a cell. One
    `Answers` may serve any number of listeners; all of it belongs to the event loop.
    """

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}

    def page(self, cell: Cell) -> Page:
        """The answers for the decision that is in force now."""
        decision = cell.decision
        page = self._pages.get(decision.breaker)
        if page is None or page.decision is not decision:
            page = self._pages[decision.breaker] = Page(decision)
        return page

    def pick(self, cell: Cell, now: float, *, deny_status: int | None, peek: bool) -> Answer:
        """What a call gets.

        Args:
            now: monotonic seconds.
            deny_status: what a rejection is to be; None: as the breaker's setting says.
            peek: only look: the spread is not spent and nothing is counted.
        """
        page = self.page(cell)
        if _peek(cell, page.millionths) if peek else admit(cell, page):
            return page.admission
        return page.rejection(cell.policy.deny_status if deny_status is None else deny_status, now)


def admit(cell: Cell, page: Page) -> bool:
    """Decide one call, spend what it costs, and count it."""
    millionths = page.millionths
    if millionths < UNIT and (millionths <= 0 or not cell.spread.spend(millionths)):
        cell.rejected += 1
        return False
    cell.admitted += 1
    shadowed = page.shadow_millionths
    # Shadow admits all; what would have been done without it is worth a number all the same.
    if shadowed < UNIT and (shadowed <= 0 or not cell.spread.spend(shadowed)):
        cell.shadow_rejected += 1
    return True


def _peek(cell: Cell, millionths: int) -> bool:
    return millionths >= UNIT or (millionths > 0 and cell.spread.peek(millionths))


def _render(decision: Decision, status: int, retry_after_s: int | None) -> Answer:
    """An admission, or (with a time to come back) a rejection.

    The detail stays out of the headers: it is free text out of the store.
    """
    body: dict[str, object] = {
        "allowed": retry_after_s is None,
        "breaker": decision.breaker,
        **decision_to_dict(decision),
    }
    headers = [
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("X-Breaker", decision.breaker),
        ("X-Breaker-State", decision.state.value),
        ("X-Breaker-Reason", _token(decision.reason)),
        ("X-Breaker-Seq", str(decision.seq)),
        ("X-Breaker-Stale", "true" if decision.stale else "false"),
    ]
    if retry_after_s is not None:
        seconds = "1 second" if retry_after_s == 1 else f"{retry_after_s} seconds"
        body["error"] = f"Nothing more can be accepted right now; try again in {seconds}."
        body["retry_after"] = retry_after_s
        headers.append(("Retry-After", str(retry_after_s)))
    return Answer(status, tuple(headers), msgspec.json.encode(body))


def _token(reason: str) -> str:
    """A reason as a header value. It may come out of a record that something newer wrote."""
    return _TOKEN.sub("_", str(reason))[:64] or "unknown"


class Decisions:
    """The handlers of `/allowed` and `/ext_authz`."""

    def __init__(
        self,
        backend: Backend,
        answers: Answers,
        now: Callable[[], float],
        settings: LiveSettings,
        transport: Transport,
    ) -> None:
        self._backend = backend
        self._answers = answers
        self._now = now
        self._settings = settings
        self._transport: Transport = transport

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.get("/allowed", self.allowed, expect_handler=_lenient_expect),
            web.get("/allowed/{name}", self.allowed, expect_handler=_lenient_expect),
            web.route("*", "/ext_authz/{name}", self.ext_authz, expect_handler=_lenient_expect),
            web.route(
                "*", "/ext_authz/{name}/{path:.*}", self.ext_authz, expect_handler=_lenient_expect
            ),
        ]

    async def allowed(self, request: web.Request) -> web.Response:
        """`GET|HEAD /allowed[/{name}]`."""
        cell = find(self._board, request.match_info.get("name"))
        deny_status, peek, wants_why = _parameters(request)
        now = self._now()
        answer = self._answers.pick(cell, now, deny_status=deny_status, peek=peek)
        if wants_why:
            why = self._why(request, cell, now, counted=not peek)
            answer = replace(answer, body=answer.body[:-1] + b',"explain":' + why + b"}")
        return _response(answer)

    def _why(self, request: web.Request, cell: Cell, now: float, *, counted: bool) -> bytes:
        """The explanation in JSON. The decision is for all; what `/v1/*` guards stays guarded."""
        try:
            door.check(request, self._settings.current.allowed_hosts, self._transport)
        except Problem as problem:
            return msgspec.json.encode({"withheld": problem.detail})
        return msgspec.json.encode(explain(cell, self._board, now, counted=counted))

    async def ext_authz(self, request: web.Request) -> web.Response:
        """`ANY /ext_authz/{name}/{path}`: Envoy asks with its client's method, path and headers.

        An unknown name is a 404 like everywhere: a mistake in Envoy's configuration that must not
        look like a breaker's word.
        """
        cell = find(self._board, request.match_info["name"])
        answer = self._answers.pick(cell, self._now(), deny_status=ENVOY_DENY_STATUS, peek=False)
        return _response(answer)

    @property
    def _board(self) -> Board:
        return self._backend.board


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def _parameters(request: web.Request) -> tuple[int | None, bool, bool]:
    """(deny_status, peek, explain). Unknown parameters are a gateway's own: nothing to us."""
    if not request.query_string:
        return None, False, False
    query = request.query
    peek, wants_why = query.get("peek") == "1", query.get("explain") == "1"
    given = query.get("deny_status")
    if given is None:
        return None, peek, wants_why
    for status in DENY_STATUSES:
        if given == str(status):
            return status, peek, wants_why
    raise Problem(
        400,
        "bad-parameter",
        f"deny_status is {shown(given)}; it may be {', '.join(map(str, DENY_STATUSES))}",
    )


async def _lenient_expect(request: web.Request) -> None:
    """Answer `100-continue`, and let any other expectation of a gateway's client pass."""
    if request.version == HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp counts this as output, and would take the real answer for a second one.
        request.writer.output_size = 0
