"""What becomes of records that the spool gives up while they are on their way to Kafka.

Room is made, or age ends them, in the spool's thread, while a batch of these very records may be
sent. Those that Kafka confirms all the same are not lost, and are not counted as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sidecar.core.spooling import GivenUp, Stored

Sequences = range | frozenset[int]


class UnderWay:
    """The batch of one replay that is on its way, and the one before.

    Args:
        apart: sequences that are in Kafka, though the batch that they were in isn't; those that are
            given up leave it.
        lose: is told how many were given up and not delivered, and the reason.
    """

    def __init__(self, apart: set[int], lose: Callable[[int, str], None]) -> None:
        self._apart = apart
        self._lose = lose
        self._sending: Sequences = range(0)
        self._arrived: Sequences = range(0)
        """The batch before: word of what was given up comes a moment later than it happens."""
        self._unsure: list[GivenUp] = []
        """What was given up of the one on its way."""

    @contextmanager
    def of(self, batch: Sequence[Stored]) -> Iterator[None]:
        """The batch is on its way until this ends: with an exception, it has not arrived."""
        self._sending = _sequences(batch)
        try:
            yield
        except BaseException:
            for given in self._unsure:
                there = self._apart.intersection(self._sending)
                self._told(_among(self._sending, given) - self._leave(there, given), given.reason)
            raise
        else:
            self._arrived = self._sending
        finally:
            self._sending = range(0)
            self._unsure.clear()

    def given_up(self, given: GivenUp) -> None:
        """The spool has given them up."""
        here = _among(self._sending, given)
        if here:
            self._unsure.append(given)
        there = _among(self._arrived, given)
        there += self._leave(self._apart.difference(self._sending), given)
        self._told(given.records - here - there, given.reason)

    def _leave(self, apart: set[int], given: GivenUp) -> int:
        """Forget those that were given up; how many."""
        gone = {seq for seq in apart if given.first <= seq <= given.last}
        self._apart.difference_update(gone)
        return len(gone)

    def _told(self, lost: int, reason: str) -> None:
        if lost > 0:
            self._lose(lost, reason)


def _sequences(batch: Sequence[Stored]) -> Sequences:
    if batch and batch[-1].seq - batch[0].seq + 1 == len(batch):
        return range(batch[0].seq, batch[-1].seq + 1)
    return frozenset(stored.seq for stored in batch)


def _among(sequences: Sequences, given: GivenUp) -> int:
    """How many of them were given up."""
    if isinstance(sequences, range):
        return max(0, min(sequences.stop - 1, given.last) - max(sequences.start, given.first) + 1)
    return sum(given.first <= seq <= given.last for seq in sequences)
