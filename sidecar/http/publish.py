"""`/v1/publish/{topic}`: hand a record over, and it is in Kafka or safely on disk when answered."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
from aiohttp import web

from sidecar.core.errors import SpoolFault, SpoolUnknown
from sidecar.core.idempotency import MAX_KEY
from sidecar.core.naming import TOPIC_NAME
from sidecar.core.ports import Backend
from sidecar.core.publishing import (
    ANY_TOPIC,
    Delivered,
    Draft,
    Dropped,
    Outcome,
    Publishing,
    PublishPolicy,
    Refusal,
    Refused,
    Spooled,
    TopicPolicy,
)
from sidecar.http import admin, bodies, drafts
from sidecar.http.allowed import Answers
from sidecar.http.problems import Problem, find, shown
from sidecar.http.replies import json
from sidecar.http.resting import LARGE_BYTES, Rest
from sidecar.http.settings import LiveSettings, Transport

TOPIC: Final = re.compile(TOPIC_NAME)
STATUS: Final[dict[Refusal, int]] = {
    Refusal.INVALID: 400,
    Refusal.TOO_LARGE: 413,
    Refusal.UNKNOWN_TOPIC: 404,
    Refusal.UNKNOWN_PARTITION: 400,
    Refusal.REFUSED: 422,
    Refusal.UNAVAILABLE: 503,
    Refusal.OVERLOADED: 503,
    Refusal.UNKNOWN_OUTCOME: 504,
    Refusal.SPOOL_FULL: 507,
    Refusal.DISK_FULL: 507,
    Refusal.SPOOL_FAILED: 503,
    Refusal.IN_PROGRESS: 409,
    Refusal.OTHER_CONTENT: 422,
}
"""What a client should make of a refusal: 4xx is its own to mend, 5xx may be tried again."""
AGAIN_S: Final = "1"
CLOSED: Final = (
    "over TCP publishing and orders to the spool need a bearer token: configure admin.token_file, "
    "or use listen.socket"
)
PIECE: Final = 200
"""Outcomes that are written down at once."""
TOPICS: Final = 20
"""Topics that are described at once: half a millisecond."""
LET_GO: Final = 2_000
"""Records that are forgotten at once."""
DIGESTED_BYTES: Final = 512 * 1024
"""Of a body, at once: half a millisecond."""


class Held:
    """Bytes of requests that are being answered, all listeners together."""

    def __init__(self) -> None:
        self.bytes = 0
        self.rest = Rest()

    def more(self, held: int, wanted: int, most: int) -> int:
        """Have so many bytes counted for a request, where it had `held`; what it has then.

        Raises:
            Problem: 503 where all requests together would have more than `most`.
        """
        if wanted <= held:
            return held
        if self.bytes + wanted - held > most:
            raise _again("too-much-outstanding", "too many bytes are on their way; try again")
        self.bytes += wanted - held
        return wanted


class Publish:
    """The handlers.

    Args:
        publishing: None where `publish` isn't configured.
    """

    def __init__(
        self,
        publishing: Publishing | None,
        backend: Backend,
        *,
        answers: Answers,
        held: Held,
        now: Callable[[], float],
        tokens: admin.Tokens,
        settings: LiveSettings,
        transport: Transport,
    ) -> None:
        self._publishing = publishing
        self._backend = backend
        self._answers = answers
        self._held = held
        self._now = now
        self._settings = settings
        self._transport: Transport = transport
        self._tokens = tokens

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handlers are to be found."""
        return [
            web.post("/v1/publish/{topic}", self.publish),
            web.get("/v1/spool", self.spool),
            web.post("/v1/spool/{topic}/pause", self.pause),
            web.post("/v1/spool/{topic}/resume", self.resume),
        ]

    async def publish(self, request: web.Request) -> web.Response:
        """`POST /v1/publish/{topic}`."""
        await self._may(request)
        publishing = self._there()
        policy = _policy(publishing, request.match_info["topic"])
        delivered = _ack(request)
        limits = publishing.policy
        most = limits.max_outstanding_bytes
        bodies.check_framing(request, _largest(limits))
        self._ask(policy)
        held = self._held.more(0, request.content_length or 0, most)

        def arrived(size: int) -> None:
            nonlocal held
            held = self._held.more(held, size, most)

        try:
            with self._held.rest.during(request.content_length or 0):
                # What it takes is gone when that returns, and the collector doesn't see it.
                return await self._take(request, publishing, delivered, arrived)
        finally:
            self._held.bytes -= held

    async def _take(
        self,
        request: web.Request,
        publishing: Publishing,
        delivered: bool,
        arrived: Callable[[int], None],
    ) -> web.Response:
        topic = request.match_info["topic"]
        body = await _body(request, publishing.policy, arrived)
        # It stays to the end: room that is given back here has to be asked for anew for the next
        # one, page by page, which costs more than all else that is done with a large one.
        pieces, single = drafts.read(request, body, publishing.policy.max_record_bytes)
        found, once = await _all(pieces), await _once(request, body)
        outcomes = await self._outcomes(publishing, topic, found, delivered, once)
        if single:
            return _one(topic, outcomes[0])
        await _let_go(found)
        return await _many(topic, outcomes)

    async def _outcomes(
        self,
        publishing: Publishing,
        topic: str,
        found: Sequence[drafts.Drafted],
        delivered: bool,
        idempotency: tuple[str, bytes] | None,
    ) -> list[Outcome]:
        records = [draft for draft in found if isinstance(draft, Draft)]
        answered: list[Outcome] = []
        if records:
            answered = await publishing.publish(
                topic, records, delivered=delivered, idempotency=idempotency
            )
        if len(records) == len(found):
            return answered
        outcomes = iter(answered)
        return [next(outcomes) if isinstance(one, Draft) else one for one in found]

    def _ask(self, policy: TopicPolicy) -> None:
        """The consumers' breaker, where the topic wants it asked."""
        if policy.breaker is None:
            return
        cell = find(self._backend.board, policy.breaker)
        answer = self._answers.pick(cell, self._now(), deny_status=503, peek=False)
        if answer.status != 200:
            retry_after = dict(answer.headers)["Retry-After"]
            raise Problem(
                503,
                "breaker-open",
                f"the breaker {policy.breaker} rejects: {cell.decision.detail}",
                headers={"Retry-After": retry_after},
            )

    # --- the spool -------------------------------------------------------------------------

    async def spool(self, _request: web.Request) -> web.Response:
        """`GET /v1/spool`: what waits, and how it goes on; decisions have a turn in between."""
        described = await self._there().describe()
        topics: list[bytes] = []
        while piece := list(islice(described.topics, TOPICS)):
            if topics:
                await asyncio.sleep(0)
            topics.append(msgspec.json.encode(piece)[1:-1])
        return json({**described.whole, "topics": _listed(topics)})

    async def pause(self, request: web.Request) -> web.Response:
        """`POST /v1/spool/{topic}/pause`: its replay stands still until `resume`."""
        return await self._let(request, paused=True)

    async def resume(self, request: web.Request) -> web.Response:
        """`POST /v1/spool/{topic}/resume`."""
        return await self._let(request, paused=False)

    async def _let(self, request: web.Request, *, paused: bool) -> web.Response:
        await self._may(request)
        publishing = self._there()
        topic = request.match_info["topic"]
        if TOPIC.fullmatch(topic) is None:
            raise Problem(404, "unknown-topic", f"{shown(topic)} is no topic's name")
        try:
            await publishing.pause(topic, paused)
        except SpoolUnknown as fault:
            raise Problem(404, "unknown-topic", str(fault)) from fault
        except SpoolFault as fault:
            raise _again("spool-unusable", f"the spool can't be told: {fault}") from fault
        return json({"topic": topic, "paused": paused})

    async def _may(self, request: web.Request) -> None:
        settings = self._settings.current
        await admin.check(request, settings, self._transport, self._tokens, closed=CLOSED)

    def _there(self) -> Publishing:
        if self._publishing is None:
            raise Problem(404, "publish-off", "nothing is published here: configure `publish`")
        return self._publishing


def _largest(limits: PublishPolicy) -> int:
    """Bytes of a request; what is larger would never be taken."""
    return min(limits.max_request_bytes, limits.max_outstanding_bytes)


async def _body(
    request: web.Request, limits: PublishPolicy, arrived: Callable[[int], None]
) -> bytes:
    body = await bodies.any_body(request, _largest(limits), arrived)
    if len(body) >= LARGE_BYTES:
        await asyncio.sleep(0)  # it was put together now
    return body


async def _all(pieces: Iterator[list[drafts.Drafted]]) -> list[drafts.Drafted]:
    """All of them; decisions have a turn in between."""
    found: list[drafts.Drafted] = []
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(0)
        found += piece
    return found


async def _let_go(found: list[drafts.Drafted]) -> None:
    """Forget records; all at once that would take as long as many decisions."""
    while len(found) > LET_GO:
        del found[-LET_GO:]
        await asyncio.sleep(0)


def _policy(publishing: Publishing, topic: str) -> TopicPolicy:
    if TOPIC.fullmatch(topic) is None:
        raise Problem(404, "unknown-topic", f"{shown(topic)} can't be a topic's name")
    policy = publishing.policy.topic(topic)
    if policy is None:
        topics = sorted(set(publishing.policy.topics) - {ANY_TOPIC})
        raise Problem(
            404,
            "unknown-topic",
            f"{shown(topic)} is not among `publish.topics`: {', '.join(topics) or 'there is none'}",
            extra={"topics": topics},
        )
    return policy


def _ack(request: web.Request) -> bool:
    given = request.query.get("ack", "durable")
    if given not in {"durable", "delivered"}:
        raise Problem(
            400, "bad-parameter", f"ack is {shown(given)}; it may be durable or delivered"
        )
    return given == "delivered"


async def _once(request: web.Request, body: bytes) -> tuple[str, bytes] | None:
    """The idempotency key, and a digest of all that makes the records."""
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    key = given[0].strip()
    raw = key.encode("utf-8", "surrogateescape")
    if len(given) > 1 or not 0 < len(raw) <= MAX_KEY or not key.isprintable():
        raise Problem(
            400,
            "bad-parameter",
            f"Idempotency-Key must be there once, with 1 to {MAX_KEY} printable bytes",
        )
    content = hashlib.blake2b(digest_size=16)
    for at in range(0, len(body), DIGESTED_BYTES):
        if at:
            await asyncio.sleep(0)
        content.update(body[at : at + DIGESTED_BYTES])
    content.update(request.content_type.encode())
    for name, value in request.raw_headers:
        if name.lower().startswith(drafts.OURS):
            content.update(b"\0" + name.lower() + b"\0" + value)
    return key, content.digest()


# --- answers -------------------------------------------------------------------------------


def _told(outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, Delivered):
        told = {"status": "delivered", "partition": outcome.partition, "offset": outcome.offset}
        return told if outcome.cluster is None else {**told, "cluster": outcome.cluster}
    if isinstance(outcome, Spooled):
        return {"status": "spooled", "partition": outcome.partition, "sequence": outcome.seq}
    if isinstance(outcome, Dropped):
        return {"status": "dropped", "reason": outcome.reason}
    return {"status": "refused", "problem": _problem_of(outcome)}


def _problem_of(refused: Refused) -> dict[str, object]:
    return {
        "type": f"urn:breaker-sidecar:{refused.why}",
        "title": refused.why.replace("-", " ").capitalize(),
        "status": STATUS[refused.why],
        "detail": refused.detail,
    }


def _one(topic: str, outcome: Outcome) -> web.Response:
    if isinstance(outcome, Refused):
        raise refusal(outcome)
    status, body = told(topic, outcome)
    return json(body, status)


def told(topic: str, outcome: Outcome) -> tuple[int, bytes]:
    """What is said of one record that was not refused: the status, and the body in JSON."""
    status = 202 if isinstance(outcome, Spooled) else 200
    return status, msgspec.json.encode({"topic": topic, **_told(outcome)})


def refusal(refused: Refused, extra: dict[str, object] | None = None) -> Problem:
    """What is said of a record that was refused."""
    status = STATUS[refused.why]
    headers = {"Retry-After": AGAIN_S} if status in {409, 503, 507} else {}
    return Problem(status, str(refused.why), refused.detail, headers=headers, extra=extra)


async def _many(topic: str, outcomes: Sequence[Outcome]) -> web.Response:
    """A batch: 200 all delivered, 202 some of it spooled, 207 some of it refused.

    Where all of it was refused in the same way, that is the answer.
    """
    results: list[bytes] = []
    of: Counter[type[Outcome]] = Counter()
    for at in range(0, len(outcomes), PIECE):
        if at:
            await asyncio.sleep(0)  # decisions have a turn in between
        piece = outcomes[at : at + PIECE]
        of.update(map(type, piece))
        results.append(msgspec.json.encode(list(map(_told, piece)))[1:-1])
    counts = {
        "delivered": of[Delivered],
        "spooled": of[Spooled],
        "dropped": of[Dropped],
        "refused": of[Refused],
    }
    body: dict[str, object] = {"topic": topic, **counts, "results": _listed(results)}
    if of[Refused]:
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        if len(refused) == len(outcomes) and len({outcome.why for outcome in refused}) == 1:
            raise refusal(refused[0], body)
        return json(body, 207)
    return json(body, 202 if counts["spooled"] else 200)


def _listed(pieces: Sequence[bytes]) -> msgspec.Raw:
    """One list of pieces that are written already, without their brackets."""
    return msgspec.Raw(b"[%b]" % b",".join(pieces))


def _again(kind: str, detail: str) -> Problem:
    return Problem(503, kind, detail, headers={"Retry-After": AGAIN_S})
