"""What the runner reads from: a source of partitions. Kafka is one (`sidecar.consumer.kafka`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """A partition."""

    topic: str
    partition: int


class Record(Protocol):
    """An event as the source has it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class SourceError(Exception):
    """The source can't do it now; it may later."""


class NotOurs(SourceError):
    """The partitions belong to somebody else by now; whatever is left of them is not ours to do."""


class Listener(Protocol):
    """Who is told which partitions are ours. The source waits for both to return."""

    async def assigned(self, places: Collection[Place]) -> None:
        """These are ours from now on; their records begin at what was committed."""

    async def revoked(self, places: Collection[Place], *, lost: bool) -> None:
        """These are no longer ours.

        Args:
            lost: somebody else may have them already, so that nothing may be committed; False:
                what is committed before this returns is still taken.
        """


class Source(Protocol):
    """Partitions that are read and committed. Every call ends within a deadline of its own.

    `poll` must hand its records over in the same step in which it takes them from what it has
    fetched: nothing may be awaited in between, so that a batch is never one of partitions that
    were revoked meanwhile.
    """

    @property
    def misnamed(self) -> int:
        """Records with a header whose name is no UTF-8 text, since the start.

        Such a name is read with its bytes written out, as `\\xff`.
        """

    async def start(self, listener: Listener) -> None:
        """Join, and be told of the partitions. Raises SourceError."""

    async def poll(self, most: int, wait_s: float) -> Mapping[Place, Sequence[Record]]:
        """At most so many records, in order within each partition. Raises SourceError."""

    def pause(self, places: Collection[Place]) -> None:
        """`poll` brings nothing of these until they are resumed."""

    def resume(self, places: Collection[Place]) -> None:
        """They come again."""

    async def commit(self, positions: Mapping[Place, int]) -> None:
        """The offsets to go on from. Raises NotOurs, SourceError."""

    async def ends(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offsets that the next records of these will have. Raises SourceError."""

    async def positions(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The offsets that `poll` goes on from. Raises SourceError."""

    def reached(self, places: Collection[Place]) -> Mapping[Place, int]:
        """The same, at once, of those for which that is known.

        It may be beyond the last record that `poll` brought, where what follows that is none:
        markers of transactions, records of aborted ones, gaps.
        """

    async def stop(self) -> None:
        """Leave. Commits nothing."""
