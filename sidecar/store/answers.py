"""What Consul's answers mean: which error a status is, and what the bodies hold."""

from __future__ import annotations

import re
import time
from typing import Final, TypeVar

import msgspec

from sidecar.core.errors import (
    CheckLost,
    SessionLost,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreThrottled,
    StoreUnreachable,
)
from sidecar.core.ports import Entry, Page, Session
from sidecar.store.transport import Answer

T = TypeVar("T")

_SHOWN: Final = 200
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|us|µs|ns|m|s)")
_DURATION: Final = re.compile(f"(?:{_PART.pattern})+")


class _Pair(msgspec.Struct, rename="pascal"):
    key: str
    modify_index: int
    lock_index: int = 0
    value: bytes | None = None  # msgspec undoes the base64
    session: str | None = None


class _Operation(msgspec.Struct, rename="pascal"):
    kv: _Pair | None = msgspec.field(default=None, name="KV")


class _OperationError(msgspec.Struct, rename="pascal"):
    op_index: int
    what: str


class _Transaction(msgspec.Struct, rename="pascal"):
    results: list[_Operation] | None = None
    errors: list[_OperationError] | None = None


class _SessionBody(msgspec.Struct):
    id: str = msgspec.field(name="ID")
    ttl: str = msgspec.field(default="", name="TTL")


_PAIRS: msgspec.json.Decoder[list[_Pair]] = msgspec.json.Decoder(list[_Pair])
_TRANSACTION = msgspec.json.Decoder(_Transaction)
_SESSION = msgspec.json.Decoder(_SessionBody)
_SESSIONS = msgspec.json.Decoder(list[_SessionBody])
_BOOL = msgspec.json.Decoder(bool)


def fault_of(answer: Answer) -> StoreError | None:
    """The error an answer stands for; None for 200. What is special to a call it checks first."""
    status = answer.status
    if status == 200:
        return None
    said = f"{status} {answer.body[:_SHOWN].decode('utf-8', 'replace').strip()}"
    if status == 429 or (status >= 500 and b"rate limit" in answer.body[:_SHOWN].lower()):
        return StoreThrottled(said)
    if status in (401, 403):
        return StoreDenied(said)
    if status >= 500 or status < 200:
        return StoreUnreachable(said)
    if 300 <= status < 400:
        target = answer.headers.get("Location", "")
        return StoreRejected(f"{status}, a redirect, not followed: {target[:_SHOWN]}")
    return StoreRejected(said)


def expect(answer: Answer) -> Answer:
    """The answer itself when it is a 200. Raises what `fault_of` says."""
    if (fault := fault_of(answer)) is not None:
        raise fault
    return answer


def decoded(decoder: msgspec.json.Decoder[T], answer: Answer) -> T:
    """The body. Raises StoreUnreachable where it is not what Consul would send."""
    try:
        return decoder.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise StoreUnreachable(f"no usable answer: {fault}") from fault


def page(answer: Answer) -> Page:
    """A listing. None below the prefix, or no right to read any, is a 404: an empty page."""
    entries: tuple[Entry, ...] = ()
    if answer.status != 404:
        entries = tuple([entry_of(pair) for pair in decoded(_PAIRS, expect(answer))])
    try:
        index = int(answer.headers["X-Consul-Index"])
    except (KeyError, ValueError) as fault:
        raise StoreUnreachable("an answer without an index: no Consul's") from fault
    known_leader = answer.headers.get("X-Consul-KnownLeader", "").lower() == "true"
    return Page(index, entries, known_leader, time.perf_counter() - answer.began)


def single(answer: Answer) -> Entry | None:
    """One key; None when it is absent."""
    if answer.status == 404:
        return None
    pairs = decoded(_PAIRS, expect(answer))
    return entry_of(pairs[0]) if pairs else None


def entry_of(pair: _Pair) -> Entry:
    """A key in the port's form; an empty value is null on the wire."""
    return Entry(
        key=pair.key,
        value=pair.value or b"",
        modify_index=pair.modify_index,
        lock_index=pair.lock_index,
        session=pair.session,
    )


def truth(answer: Answer) -> bool:
    """A plain true or false."""
    return decoded(_BOOL, expect(answer))


def written(answer: Answer) -> None:
    """The answer to an unconditional write, which nothing may refuse."""
    if not truth(answer):
        raise StoreUnreachable("no usable answer: an unconditional write was refused")


def transacted(answer: Answer, keys: list[str]) -> list[Entry] | tuple[str, ...]:
    """The keys as a transaction left them, or its conflicts (then nothing was applied).

    Args:
        keys: what each operation was about, for the text of the conflicts.

    Raises:
        StoreDenied: a right is lacking, which Consul also tells as a conflict.
        SessionLost: a lock was asked for with a session that doesn't exist.
    """
    if answer.status != 409:
        done = decoded(_TRANSACTION, expect(answer))
        return [entry_of(each.kv) for each in done.results or [] if each.kv is not None]
    errors = decoded(_TRANSACTION, answer).errors or []
    for error in errors:
        if "permission denied" in error.what.lower():
            raise StoreDenied(error.what[:_SHOWN])
        if error.what.startswith("invalid session"):
            raise SessionLost(error.what[:_SHOWN])
    return tuple(
        f"{keys[e.op_index] if 0 <= e.op_index < len(keys) else '?'}: {e.what[:_SHOWN]}"
        for e in errors
    )


def created_session(answer: Answer) -> str:
    """The id of a new session."""
    return decoded(_SESSION, expect(answer)).id


def session_made(answer: Answer) -> str:
    """The same of one that is to be bound to a check. Raises CheckLost where that can't be."""
    said = answer.body[:_SHOWN]
    if answer.status >= 400 and (b"Missing check" in said or b"in critical state" in said):
        raise CheckLost(said.decode("utf-8", "replace").strip())
    return created_session(answer)


def passed(answer: Answer) -> None:
    """A check was passed. Raises CheckLost where the agent doesn't know it."""
    if answer.status == 404:
        raise CheckLost(answer.body[:_SHOWN].decode("utf-8", "replace").strip())
    expect(answer)


def known(answer: Answer) -> bool:
    """Whether the agent has what was asked for; 404 says that it hasn't."""
    if answer.status == 404:
        return False
    expect(answer)
    return True


def deregistered(answer: Answer) -> None:
    """A service was taken away, or had not been there."""
    if answer.status != 404:
        expect(answer)


def renewed_session(answer: Answer) -> Session:
    """A renewed session with the time to live it has. Raises SessionLost on 404."""
    if answer.status == 404:
        raise SessionLost(answer.body[:_SHOWN].decode("utf-8", "replace"))
    sessions = decoded(_SESSIONS, expect(answer))
    ttl_s = duration_s(sessions[0].ttl) if sessions else None
    if ttl_s is None:
        raise StoreUnreachable("no usable answer: a renewal without a time to live")
    return Session(sessions[0].id, ttl_s)


def duration_s(text: str) -> float | None:
    """Seconds of a duration as Go prints it (`1m30s`); None when it is none."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
