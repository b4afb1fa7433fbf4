"""Idempotency keys in memory: a request that is sent twice is accepted once.

The rules are those of `spooling.Keys`; a spool keeps the keys of what it holds beside its records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from sidecar.core.spooling import (
    IDEMPOTENT_FOR_S,
    IDEMPOTENT_KEYS,
    Accepted,
    Claim,
    Idempotency,
)

SEPARATOR: Final = "\x1f"
"""Between a client's key and a record's number; no HTTP header can hold it."""
MAX_KEY: Final = 200
"""Bytes of a client's key: with a number behind, it still fits the spool's bound."""


def of_record(key: str, fingerprint: bytes, index: int) -> Idempotency:
    """The key of one record of a request."""
    return Idempotency(key if index == 0 else f"{key}{SEPARATOR}{index}", fingerprint)


class MemoryKeys:
    """Keys where there is no spool.

    Args:
        for_s: how long a key is remembered …
        most: … or until so many younger ones of its topic have come.
    """

    def __init__(self, for_s: float = IDEMPOTENT_FOR_S, most: int = IDEMPOTENT_KEYS) -> None:
        self._for_s = for_s
        self._most = most
        self._settled: dict[str, OrderedDict[str, tuple[float, bytes, Accepted]]] = {}
        self._open: dict[tuple[str, str], bytes] = {}

    async def claim(
        self, topic: str, whats: Sequence[Idempotency], now_at: float
    ) -> list[Claim | Accepted]:
        """See `spooling.Keys`."""
        return [self._claim(topic, what, now_at) for what in whats]

    def _claim(self, topic: str, what: Idempotency, now_at: float) -> Claim | Accepted:
        under_way = self._open.get((topic, what.key))
        if under_way is not None:
            return Claim.IN_PROGRESS if under_way == what.fingerprint else Claim.OTHER_CONTENT
        self._forget(topic, now_at)
        keys = self._settled.get(topic)
        known = keys.get(what.key) if keys is not None else None
        if known is None:
            self._open[topic, what.key] = what.fingerprint
            return Claim.YOURS
        _, fingerprint, outcome = known
        return outcome if fingerprint == what.fingerprint else Claim.OTHER_CONTENT

    def settle(self, topic: str, what: Idempotency, outcome: Accepted, now_at: float) -> None:
        """See `spooling.Keys`."""
        self._open.pop((topic, what.key), None)
        keys = self._settled.setdefault(topic, OrderedDict())
        keys[what.key] = (now_at, what.fingerprint, outcome)
        if len(keys) > self._most:
            keys.popitem(last=False)

    def abandon(self, topic: str, key: str) -> None:
        """See `spooling.Keys`."""
        self._open.pop((topic, key), None)

    def _forget(self, topic: str, now_at: float) -> None:
        keys = self._settled.get(topic)
        while keys:
            at = next(iter(keys.values()))[0]
            if now_at - at < self._for_s:
                return
            keys.popitem(last=False)
