"""The fast lane for reports: a plain one is taken in without a task, a request or a response.

Nobody who asks for a decision waits for more than a few of them: connections that report stand in
line, and only some have their turn between two looks at the network.

Only what can be taken in at once and in whole is answered here, with 202. A report with a fault,
for a breaker that isn't there, from whom the door wouldn't let in, or that must be waited for (a
store in this process judges it first) goes to `Reporting`, which says so or does so.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sidecar.core.intake import IntakeFull
from sidecar.core.ports import Backend
from sidecar.http import framing
from sidecar.http.door import trusted
from sidecar.http.posts import parse
from sidecar.http.problems import Problem, find
from sidecar.http.replies import JSON_HEADERS
from sidecar.http.reports import accepted, refusal
from sidecar.http.settings import HttpSettings, LiveSettings, Transport
from sidecar.http.turns import MORE, Turns, Waiting

MAX_REMEMBERED = 512
"""Heads known by their bytes. Past it all are forgotten: clients with ever new headers."""
MAX_REMEMBERED_BYTES = 512
POST = b"POST /v1/report"
"""How every report begins."""
_REPORT = re.compile(
    POST + rb"(?:/([A-Za-z0-9][A-Za-z0-9_.-]{0,63}))? HTTP/1\.1\r\n" + framing.HEADERS
)
_JSON = re.compile(rb"application/json(?: ?; ?charset=utf-8)?", re.IGNORECASE)
_DOORS = frozenset({b"content-encoding", b"origin", b"sec-fetch-site"})
"""Headers that need a closer look."""


class _Form(NamedTuple):
    """What a head says: of which breaker the body speaks, and how long it is."""

    name: str | None
    length: int


class ReportLane:
    """Recognizes reports and takes them in.

    Args:
        transport: how they come; hosts are looked at on TCP alone.
    """

    __slots__ = (
        "_backend",
        "_forms",
        "_heads",
        "_live",
        "_settings",
        "_transport",
        "_turns",
    )

    def __init__(self, backend: Backend, live: LiveSettings, transport: Transport) -> None:
        self._backend = backend
        self._live = live
        self._transport: Transport = transport
        self._settings: HttpSettings | None = None
        """Those that the forms were read under."""
        self._forms: dict[bytes, _Form] = {}
        self._heads = framing.Heads(JSON_HEADERS)
        self._turns: Turns[Waiting] = Turns(lambda connection: connection.resume(self.reply))

    def queue(self, connection: Waiting) -> None:
        """Let it have its turn soon."""
        self._turns.add(connection)

    def reply(self, data: bytes) -> bytes | None:
        """The whole answer: the report is taken in. None: it is for aiohttp, nothing has happened.

        `MORE`: it may become a report once its body is there; nothing has happened.
        """
        if self._settings is not self._live.current:
            self._settings = self._live.current
            self._forms.clear()
        end = data.find(b"\r\n\r\n") + 4
        form = self._forms.get(data[:end]) or self._read(data[:end])
        if form is None:
            return None
        left = end + form.length - len(data)
        try:
            cell = find(self._backend.board, form.name)
            if left:
                return MORE if left > 0 else None
            post = parse(data[end:])
            if not self._backend.take(cell, post):
                return None
        except (Problem, IntakeFull):
            return None
        body = accepted(cell, post)
        return self._heads.of(202, len(body)) + body

    def _read(self, head: bytes) -> _Form | None:
        if len(head) > framing.MAX_HEAD:
            return None
        found = _REPORT.fullmatch(head)
        if found is None or refusal(self._live.current, self._transport) is not None:
            return None
        headers = framing.headers(found.group(2))
        if headers is None or not _DOORS.isdisjoint(headers):
            return None
        length = framing.length(headers)
        if not length or _JSON.fullmatch(headers.get(b"content-type", b"")) is None:
            return None
        hosts = self._live.current.allowed_hosts
        if self._transport == "tcp" and not trusted(headers[b"host"].decode(), hosts):
            return None
        name = found.group(1)
        form = _Form(name.decode() if name is not None else None, length)
        if len(head) <= MAX_REMEMBERED_BYTES:
            if len(self._forms) >= MAX_REMEMBERED:
                self._forms.clear()
            self._forms[bytes(head)] = form
        return form
