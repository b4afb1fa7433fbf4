"""Records to feed to the kit, without Kafka."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rec:
    """One record; by default a plain one on `orders`."""

    offset: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "orders"
    partition: int = 0
    timestamp: int = 1_795_000_000_000
