"""The key layout, and all wire formats as one object.

Values come from anybody who may write to the store, so nothing here raises on what it reads:
a value that can't be used comes back as `Unreadable`, `BadReport`, None or a flag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sidecar.core.naming import BREAKER_NAME, DEFAULT_NAME, RESERVED_NAMES
from sidecar.core.normal import Kept
from sidecar.core.override import BadOverride, Override
from sidecar.core.types import BadReport, LockHolder, Record, Report, Stored, Transition
from sidecar.store.normals import decode_normal, encode_normal
from sidecar.store.overrides import decode_override, encode_override
from sidecar.store.records import (
    append_history,
    decode_history,
    decode_holder,
    decode_state,
    encode_holder,
    encode_state,
)
from sidecar.store.reports import decode_report, encode_report

KeyKind = Literal["state", "override", "leader"]
_NAME = re.compile(BREAKER_NAME)

_KINDS: tuple[KeyKind, ...] = ("state", "override", "leader")


class Keys:
    """Where things are kept. Only the literal name `default` uses the short keys."""

    def __init__(self, state_prefix: str) -> None:
        self._prefix = state_prefix.strip("/")

    @property
    def watched(self) -> str:
        """The prefix, with its slash, of every state, override and lock."""
        return f"{self._prefix}/"

    def state(self, name: str) -> str:
        """The key of a breaker's state record."""
        return self._key(name, "state")

    def override(self, name: str) -> str:
        """The key of a breaker's override."""
        return self._key(name, "override")

    def leader(self, name: str) -> str:
        """The key of a breaker's lock."""
        return self._key(name, "leader")

    def history(self, name: str) -> str:
        """The key of a breaker's history, outside the watched prefix."""
        return f"{self._prefix}-history/{name}"

    def normal(self, name: str) -> str:
        """The key of what was learned for `failure_threshold: auto`, outside it likewise."""
        return f"{self._prefix}-normal/{name}"

    def parse(self, key: str) -> tuple[str, KeyKind] | None:
        """Which breaker a watched key belongs to and what it is; None when it is none of ours."""
        if not key.startswith(self.watched):
            return None
        name, slash, last = key.removeprefix(self.watched).rpartition("/")
        kind = next((kind for kind in _KINDS if kind == last), None)
        if kind is None:
            return None
        if not slash:
            return DEFAULT_NAME, kind
        ours = _NAME.fullmatch(name) and name not in RESERVED_NAMES and name != DEFAULT_NAME
        return (name, kind) if ours else None

    def _key(self, name: str, kind: KeyKind) -> str:
        return f"{self.watched}{kind}" if name == DEFAULT_NAME else f"{self.watched}{name}/{kind}"


class JsonWire(Keys):
    """The port `Wire`: this module's layout and formats as one object."""

    def decode_state(self, value: bytes) -> Stored:
        """What a state key holds."""
        return decode_state(value)

    def encode_state(self, record: Record) -> bytes:
        """A record as it is written."""
        return encode_state(record)

    def decode_holder(self, value: bytes) -> LockHolder | None:
        """A lock's value; None when it is junk."""
        return decode_holder(value)

    def encode_holder(self, holder: LockHolder) -> bytes:
        """A lock's value as it is written."""
        return encode_holder(holder)

    def decode_override(self, value: bytes) -> Override | BadOverride:
        """An override, or why it can't be used."""
        return decode_override(value)

    def encode_override(self, override: Override) -> bytes:
        """An override as it is written."""
        return encode_override(override)

    def decode_history(self, value: bytes | None) -> tuple[list[Transition], bool]:
        """The transitions, newest last, and whether there was junk among them."""
        return decode_history(value)

    def append_history(self, entries: Sequence[Transition], entry: Transition) -> bytes:
        """The history's value with one more entry, bounded."""
        return append_history(entries, entry)

    def decode_normal(self, value: bytes) -> Kept | None:
        """What an evaluator had learned; None when it is junk."""
        return decode_normal(value)

    def encode_normal(self, kept: Kept) -> bytes:
        """What was learned as it is written."""
        return encode_normal(kept)

    def decode_report(self, value: bytes) -> Report | BadReport:
        """A report, or what is wrong with it."""
        return decode_report(value)

    def encode_report(self, report: Report) -> bytes:
        """A report as it is written."""
        return encode_report(report)
