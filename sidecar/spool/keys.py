"""Idempotency keys: who has one, and what became of its record."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sidecar.core.spooling import (
    CLUSTERS,
    IDEMPOTENT_FOR_S,
    IDEMPOTENT_KEYS,
    Accepted,
    Claim,
    Idempotency,
)
from sidecar.spool.ledger import SpooledKey, digest

_KEPT = struct.Struct("<8sdiqB")
_NAMES: Final = (None, *CLUSTERS)
_SHORT: Final = 8


Lookup = Callable[[str, Sequence[bytes], float], Awaitable[Sequence[SpooledKey | None]]]
"""Finds the spooled records that digests of keys stand for."""


async def _nothing_spooled(
    topic: str, keys: Sequence[bytes], since_at: float
) -> list[SpooledKey | None]:
    del topic, since_at
    return [None] * len(keys)


class SpoolKeys:
    """The port `Keys`. Those of directly delivered records take about 200 bytes of memory each.

    Args:
        lookup: without it nothing is ever spooled.
    """

    def __init__(
        self,
        lookup: Lookup = _nothing_spooled,
        *,
        most: int = IDEMPOTENT_KEYS,
    ) -> None:
        self._lookup = lookup
        self._most = most
        self._open: dict[tuple[str, str], bytes] = {}
        """Claimed and not settled, with the fingerprint."""
        self._direct: dict[str, dict[bytes, bytes]] = {}
        """By topic and the key's digest, oldest first: packed, for there may be a million."""

    async def claim(
        self, topic: str, whats: Sequence[Idempotency], now_at: float
    ) -> list[Claim | Accepted]:
        """See the port `Keys`."""
        claims = [self._known(topic, what, now_at) for what in whats]
        asked = [what for what, claim in zip(whats, claims, strict=True) if claim is Claim.YOURS]
        if not asked:
            return claims
        for what in asked:
            self._open[topic, what.key] = what.fingerprint
        theirs = asked
        try:
            keys = [digest(what.key) for what in asked]
            found = await self._lookup(topic, keys, now_at - IDEMPOTENT_FOR_S)
            spooled = [_of_spooled(*pair) for pair in zip(found, asked, strict=True)]
            theirs = [w for w, one in zip(asked, spooled, strict=True) if one is not Claim.YOURS]
        finally:
            for what in theirs:
                self.abandon(topic, what.key)
        rest = iter(spooled)
        return [next(rest) if claim is Claim.YOURS else claim for claim in claims]

    def _known(self, topic: str, what: Idempotency, now_at: float) -> Claim | Accepted:
        """What is known without a look at the disk; YOURS: nothing is."""
        taken = self._open.get((topic, what.key))
        if taken is not None:
            return Claim.IN_PROGRESS if taken == what.fingerprint else Claim.OTHER_CONTENT
        return self._delivered(topic, what, now_at) or Claim.YOURS

    def settle(self, topic: str, what: Idempotency, outcome: Accepted, now_at: float) -> None:
        """See the port `Keys`."""
        kept = self._direct.setdefault(topic, {})
        offset = -1 if outcome.offset is None else outcome.offset
        name = digest(what.key)
        kept.pop(name, None)
        which = _NAMES.index(outcome.cluster)
        kept[name] = _KEPT.pack(_short(what), now_at, outcome.partition, offset, which)
        while kept:
            oldest = next(iter(kept))
            young = _KEPT.unpack(kept[oldest])[1] >= now_at - IDEMPOTENT_FOR_S
            if young and len(kept) <= self._most:
                break
            del kept[oldest]
        self.abandon(topic, what.key)

    def abandon(self, topic: str, key: str) -> None:
        """See the port `Keys`."""
        self._open.pop((topic, key), None)

    def _delivered(self, topic: str, what: Idempotency, now_at: float) -> Claim | Accepted | None:
        kept = self._direct.get(topic, {}).get(digest(what.key))
        if kept is None:
            return None
        short, at, partition, offset, which = _KEPT.unpack(kept)
        if at < now_at - IDEMPOTENT_FOR_S:
            return None
        if short != _short(what):
            return Claim.OTHER_CONTENT
        return Accepted(
            partition=partition,
            offset=None if offset < 0 else offset,
            cluster=_NAMES[which],
        )


def _of_spooled(found: SpooledKey | None, what: Idempotency) -> Claim | Accepted:
    if found is None:
        return Claim.YOURS
    if found.fingerprint != what.fingerprint:
        return Claim.OTHER_CONTENT
    return Accepted(partition=found.partition, seq=found.seq, spooled=True)


def _short(what: Idempotency) -> bytes:
    return what.fingerprint[:_SHORT].ljust(_SHORT, b"\0")
