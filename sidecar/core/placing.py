"""Which partition a record goes to: Kafka's own default rules, applied when it is accepted.

The choice is made once and kept, so that records of one key stay in order whatever happens to the
number of partitions while they wait.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Final

UNPLACED: Final = 2**31 - 1
"""Stands for a partition in the spool while nobody has ever told how many the topic has."""
STICK_BYTES: Final = 16 * 1024
"""So much goes to one partition before keyless records move on, as Kafka's producers do it."""
_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def placed(partition: int) -> int | None:
    """The partition as it is told to people: None while nobody knows it."""
    return None if partition == UNPLACED else partition


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it, as an unsigned number of 32 bits."""
    length = len(data)
    whole = length & ~3
    h = _SEED ^ length
    for word in unpack_from(f"<{whole >> 2}I", data):
        k = (word * _M) & _MASK
        k ^= k >> 24
        h = ((h * _M) & _MASK) ^ ((k * _M) & _MASK)
    if length > whole:
        h ^= int.from_bytes(data[whole:], "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's producers send a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Spread:
    """Keyless records of one topic: they stick to a partition for a while, then move on.

    Partitions that can't be delivered to now are passed over while there is another.
    """

    def __init__(self, start: int = 0) -> None:
        self._at = start
        self._left = STICK_BYTES

    def next(self, size: int, partitions: int, reachable: Callable[[int], bool]) -> int:
        """The partition of the next record of `size` bytes."""
        if self._left <= 0 or self._at >= partitions or not reachable(self._at):
            self._move(partitions, reachable)
        self._left -= size
        return self._at

    def _move(self, partitions: int, reachable: Callable[[int], bool]) -> None:
        self._left = STICK_BYTES
        start = self._at % partitions
        for step in range(1, partitions + 1):
            self._at = (start + step) % partitions
            if reachable(self._at):
                return


class Placement:
    """How many partitions a topic is taken to have, for all that is placed.

    A grown topic moves keys to other partitions. So the number changes only when nothing that was
    placed by the old one is still on its way.
    """

    def __init__(self, known: int | None = None) -> None:
        self.partitions = known
        """None: nobody has ever told."""

    def learn(self, partitions: int, *, waiting: bool) -> bool:
        """Kafka tells a number. True where it is news and was taken.

        Args:
            waiting: something placed before is neither delivered nor given up.
        """
        if partitions == self.partitions or (waiting and self.partitions is not None):
            return False
        self.partitions = partitions
        return True
