"""The fast lane for records: a plain one is handed over without aiohttp, a task or a response.

Nobody who asks for a decision waits for more than a few of them: connections that publish stand in
line, and only some have their turn between two looks at the network; so do the answers.

Only one raw record, in plain framing, that can have its place at once is taken here. Batches,
idempotency keys, `?ack=`, topics that ask a breaker, what has to be refused and what must wait
before it is placed go to `Publish`, whose answers are the same.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Final, NamedTuple

from sidecar.core.publishing import Draft, Outcome, Publishing, Refused
from sidecar.core.spooling import Headers
from sidecar.http import admin, drafts, framing
from sidecar.http.door import trusted
from sidecar.http.publish import Held, refusal, told
from sidecar.http.replies import JSON_HEADERS
from sidecar.http.settings import HttpSettings, LiveSettings, Transport
from sidecar.http.turns import LATER, MORE, Later, Turns, Waiting

MAX_REMEMBERED: Final = 256
"""Heads known by their bytes. Past it all are forgotten: each record has a key of its own, say."""
MAX_REMEMBERED_BYTES: Final = 512
POST: Final = b"POST /v1/publish/"
"""How every record begins."""
_RECORD = re.compile(POST + rb"([A-Za-z0-9._-]{1,249}) HTTP/1\.1\r\n" + framing.HEADERS)
_ELSEWHERE: Final = frozenset(
    {b"content-encoding", b"idempotency-key", b"origin", b"sec-fetch-site"}
)
"""Headers that need a closer look."""
_RAW: Final = b"application/octet-stream"


class _Form(NamedTuple):
    """What a head says."""

    topic: str
    length: int
    record: Draft
    """All but its value."""
    size: int
    """Bytes of the record without its value."""
    host: bytes
    authorization: bytes | None


class PublishLane:
    """Recognizes records and hands them over.

    Args:
        held: bytes that are being published, all listeners together.
        tokens: those that `Publish` keeps.
        transport: how they come; hosts are looked at on TCP alone.
    """

    __slots__ = (
        "_answers",
        "_forms",
        "_heads",
        "_held",
        "_live",
        "_publishing",
        "_tokens",
        "_transport",
        "_trusted",
        "_turns",
    )

    def __init__(
        self,
        publishing: Publishing,
        held: Held,
        tokens: admin.Tokens,
        live: LiveSettings,
        transport: Transport,
    ) -> None:
        self._publishing = publishing
        self._held = held
        self._tokens = tokens
        self._live = live
        self._transport: Transport = transport
        self._trusted: tuple[bytes, HttpSettings] | None = None
        """The host that was let in last, and the settings it was let in under."""
        self._forms: dict[bytes, _Form] = {}
        self._heads = framing.Heads(JSON_HEADERS)
        self._turns: Turns[Waiting] = Turns(self._turn)
        self._answers: Turns[tuple[_Request, Outcome]] = Turns(self._answer)

    def queue(self, connection: Waiting) -> None:
        """Let it have its turn soon."""
        self._turns.add(connection)

    def _turn(self, connection: Waiting) -> None:
        connection.resume(partial(self.take, asker=connection))

    def take(self, data: bytes, asker: Waiting) -> bytes | Later | None:
        """`LATER`: the record is handed over. None: it is for aiohttp, nothing has happened.

        `MORE`: it may become a record once its body is there; nothing has happened.
        """
        end = data.find(b"\r\n\r\n") + 4
        form = self._read(data[:end])
        if form is None:
            return None
        left = end + form.length - len(data)
        if left:
            return MORE if left > 0 else None
        limits = self._publishing.policy
        if (
            self._held.bytes + form.length > limits.max_outstanding_bytes
            or form.length > limits.max_request_bytes
            or form.size + form.length > limits.max_record_bytes
        ):
            return None
        key, _, headers, partition, _ = form.record
        draft = Draft(key, data[end:], headers, partition)
        request = _Request(self, asker, form.topic, form.length)
        if not self._publishing.hand_over(form.topic, draft, request.answered):
            return None
        self._held.bytes += form.length
        return LATER

    def _read(self, head: bytes) -> _Form | None:
        form = self._forms.get(head)
        if form is None:
            form = _form(head)
            if form is None:
                return None
            if len(head) <= MAX_REMEMBERED_BYTES:
                if len(self._forms) >= MAX_REMEMBERED:
                    self._forms.clear()
                self._forms[head] = form
        policy = self._publishing.policy.topic(form.topic)
        if policy is None or policy.breaker is not None or not self._may(form):
            return None
        return form

    def _may(self, form: _Form) -> bool:
        """Whether they come from someone who may publish; where that isn't plain, no."""
        if self._transport == "unix":
            return True
        settings = self._live.current
        if self._trusted != (form.host, settings):
            if not trusted(form.host.decode(), settings.allowed_hosts):
                return False
            self._trusted = form.host, settings
        if settings.admin_token_file is None:
            return settings.open_orders
        return self._tokens.right(settings.admin_token_file, form.authorization)

    # --- answers ---------------------------------------------------------------------------

    def done(self, request: _Request, outcome: Outcome) -> None:
        """Have it answered soon."""
        self._held.bytes -= request.length
        self._answers.add((request, outcome))

    def _answer(self, one: tuple[_Request, Outcome]) -> None:
        request, outcome = one
        if isinstance(outcome, Refused):
            reply = framing.whole(refusal(outcome).response())
        else:
            status, body = told(request.topic, outcome)
            reply = self._heads.of(status, len(body)) + body
        request.asker.answer(reply)


class _Request:
    """A record that was handed over, and who waits for its outcome."""

    __slots__ = ("_lane", "asker", "length", "topic")

    def __init__(self, lane: PublishLane, asker: Waiting, topic: str, length: int) -> None:
        self._lane = lane
        self.asker = asker
        self.topic = topic
        self.length = length

    def answered(self, outcome: Outcome) -> None:
        """The outcome is there."""
        self._lane.done(self, outcome)


def _form(head: bytes) -> _Form | None:
    """What a plain head says; None: it isn't plain."""
    found = _RECORD.fullmatch(head) if len(head) <= framing.MAX_HEAD else None
    headers = framing.headers(found.group(2)) if found is not None else None
    if found is None or headers is None or not _ELSEWHERE.isdisjoint(headers):
        return None
    length, topic = framing.length(headers), found.group(1).decode()
    if not length or headers.get(b"content-type", _RAW) != _RAW or topic in {".", ".."}:
        return None
    if not all(map(drafts.means, headers)):
        return None
    partition = headers.get(drafts.PARTITION)
    if partition is not None and (not partition.isdigit() or len(partition) > 5):
        return None
    record = Draft(
        headers.get(drafts.KEY),
        b"",
        _own(found.group(2)) if drafts.HEADER in found.group(2).lower() else (),
        int(partition) if partition is not None else None,
    )
    if drafts.fault_of(record) is not None:
        return None
    return _Form(
        topic,
        length,
        record,
        drafts.size_of(record),
        headers[b"host"],
        headers.get(b"authorization"),
    )


def _own(block: bytes) -> Headers:
    """The record's headers, in their order and spelling."""
    found: list[tuple[str, bytes | None]] = []
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name[: len(drafts.HEADER)].lower() == drafts.HEADER:
            found.append((name[len(drafts.HEADER) :].decode("ascii"), value.strip(b" \t")))
    return tuple(found)
