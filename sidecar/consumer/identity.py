"""By what an event is recognised when it comes again, and by what it is old or new. Pure."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from sidecar.consumer.event import Event
from sidecar.consumer.headers import number_of

Identify = Callable[[Event[Any]], bytes | None]
"""The identity of an event; None or an error: it can't be told, which is permanent."""
Versioned = Callable[[Event[Any]], int | None]
"""The version of an event, of at most 64 bits; None: it has none and is never too old. An error, or
more bits, is permanent."""


def by_content(event: Event[Any]) -> bytes:
    """A hash of topic and content. Two events with equal content are one, whatever their keys.

    The topic is the one it first was on, so that a retry or a replay is recognised.
    """
    digest = blake2b(event.origin.topic.encode(), digest_size=20)
    # The length in between: no other topic and content run together to the same bytes.
    digest.update(len(event.origin.topic).to_bytes(4, "big"))
    value = event.record.value
    digest.update(b"\x00" if value is None else b"\x01" + value)
    return digest.digest()


def by_header(name: str) -> Identify:
    """What the producer wrote into this header. Replays and retries keep it."""

    def identify(event: Event[Any]) -> bytes | None:
        return event.header(name) or None

    return identify


def by_field(*path: str) -> Identify:
    """A field of the decoded value: an attribute or a mapping's member, or one further inside."""

    def identify(event: Event[Any]) -> bytes | None:
        found = _field(event.value, path)
        if found is None or found == "":
            return None
        return found if isinstance(found, bytes) else str(found).encode()

    return identify


def version_header(name: str) -> Versioned:
    """The version is this header, a whole number in decimal digits."""

    def version(event: Event[Any]) -> int | None:
        return number_of(event.record.headers, name)

    return version


def version_field(*path: str) -> Versioned:
    """The version is this field of the decoded value, a whole number."""

    def version(event: Event[Any]) -> int | None:
        found = _field(event.value, path)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    return version


def _field(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value
