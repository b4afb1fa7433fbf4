"""The durable spool as the rest of the sidecar sees it: records, backlogs, budgets, and the ports.

A spool is a set of logs, one for each topic and partition. What `append` has taken is synced to
this node's disk, keeps its place, and stays until `done` says that it is in Kafka, or until a
budget or its age drops it (which is counted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

TOPIC_MAX: Final = 249
"""Bytes of a topic's name, as Kafka bounds it."""
KEY_MAX: Final = 255
"""Bytes of an idempotency key in UTF-8."""
IDEMPOTENT_FOR_S: Final = 86_400.0
"""How long an idempotency key is remembered …"""
IDEMPOTENT_KEYS: Final = 1_000_000
"""… or until so many younger ones of its topic have come."""

CLUSTERS: Final = ("first", "second")
"""What the two clusters of `outage: dual` are called."""

Headers = tuple[tuple[str, bytes | None], ...]


class Idempotency(NamedTuple):
    """What makes a record one that is accepted once: the client's key, and what it came with."""

    key: str
    fingerprint: bytes
    """A digest of the request's content (8 to 64 bytes); another one under the same key is a
    mistake of the client's."""


class NewRecord(NamedTuple):
    """A record on its way into the spool, everything that its delivery needs. Immutable.

    A tuple and no dataclass: tens of thousands are made in a second.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    """As they go to Kafka, in order; the id by which consumers drop duplicates is among them."""
    timestamp_ms: int
    """Kafka's timestamp: epoch milliseconds."""
    accepted_at: float
    """Epoch seconds: what its age is counted from."""
    idempotency: Idempotency | None = None


class Stored(NamedTuple):
    """A record in the spool and its place there."""

    seq: int
    """Grows with every record of its topic and partition; damage leaves gaps."""
    record: NewRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for delivery in one topic and partition."""

    topic: str
    partition: int
    records: int
    """Damaged ones that nobody has met yet are counted too."""
    bytes: int
    """On disk, of the records that wait; what is delivered already and not given back isn't in."""
    oldest_at: float | None
    """When the oldest was accepted (epoch seconds, at latest this); None when nothing waits."""
    done_seq: int
    """Everything up to here is delivered or dropped; 0 before the first."""
    last_seq: int
    """The last one appended; 0 before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one topic may keep in the spool."""

    max_bytes: int = 256 * 1024 * 1024
    max_age_s: float | None = None
    """Older ones are dropped; None keeps them whatever their age."""
    drop_oldest: bool = False
    """At `max_bytes`: the oldest records of the topic make room, else new ones are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Bounds of a whole spool. Bytes are those of waiting records; each partition keeps at most
    one segment of delivered ones beside them."""

    max_bytes: int = 1024 * 1024 * 1024
    segment_bytes: int = 64 * 1024 * 1024
    """Smaller where a topic's budget is small (a sixteenth of it)."""
    topics: Mapping[str, Budget] = field(default_factory=dict)
    others: Budget = field(default_factory=Budget)
    """The budget of each topic that has none of its own."""

    def budget(self, topic: str) -> Budget:
        """What that topic may keep."""
        return self.topics.get(topic, self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What has become of the record that an idempotency key stands for.

    `seq` where it went through the spool (None: through another's, which was adopted), `offset`
    where it went straight to Kafka (None: its answer didn't say), `cluster` which of two clusters'
    that is.
    """

    partition: int
    offset: int | None = None
    seq: int | None = None
    cluster: str | None = None
    spooled: bool = False


class Claim(StrEnum):
    """What else a key can be."""

    YOURS = "yours"
    """New: go on, and then `settle`, `abandon`, or hand the record to the spool."""
    IN_PROGRESS = "in_progress"
    """Another request with this key hasn't been answered yet."""
    OTHER_CONTENT = "other_content"
    """The key was used for a record with another fingerprint."""


class Keys(Protocol):
    """Idempotency keys, per topic; see IDEMPOTENT_FOR_S and IDEMPOTENT_KEYS."""

    async def claim(
        self, topic: str, whats: Sequence[Idempotency], now_at: float
    ) -> list[Claim | Accepted]:
        """Take each of several keys, or learn what became of the record that had it first.

        Two concurrent claims of one key never both get YOURS. Spooled records' keys outlive a
        restart; those of directly delivered ones don't.

        Raises:
            SpoolFault: spooled keys can't be looked up now; none is taken.
        """

    def settle(self, topic: str, what: Idempotency, outcome: Accepted, now_at: float) -> None:
        """The claimed record was delivered directly: remember that, in memory.

        A spooled record's key is settled by `Spool.append`.
        """

    def abandon(self, topic: str, key: str) -> None:
        """The claimed record was not accepted: the key is free again. Unknown keys are fine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Records that came from a spool whose daemon is gone."""

    topic: str
    partition: int
    records: int


class GivenUp(NamedTuple):
    """Records that left the spool before it was told that they are delivered."""

    first: int
    """The first sequence …"""
    last: int
    """… and the last one: all between are done."""
    records: int
    """How many of these had a record."""
    reason: str
    """`full` or `expired`."""


class Spool(Protocol):
    """An open spool; one daemon holds its folder. All methods belong to one event loop.

    Nothing here waits on that loop for the disk: `async` methods hand over to the spool's own
    thread. Each can raise SpoolClosed after `close`.
    """

    @property
    def keys(self) -> Keys:
        """The idempotency keys that are kept with this spool."""

    @property
    def fault(self) -> str | None:
        """Why the spool takes nothing more until a restart (a failed sync); None while it does."""

    async def append(self, topic: str, partition: int, records: Sequence[NewRecord]) -> range:
        """Take records in, all or none; their sequences, in the order given.

        Returns once they are synced. Calls for one partition keep the order they were made in, also
        when they wait together; concurrent calls share their syncs. A call that is cancelled may
        still have taken its records in.

        Raises:
            SpoolFull: a budget is used up and its rule is to refuse.
            SpoolDiskFull: the disk is; nothing of this call was kept.
            SpoolClosed: an earlier sync failed, or this one: then it is unknown what was kept.
            SpoolFault: another error of the disk's; nothing was kept.
            ValueError: a record the format can't hold (a header's or key's length).
        """

    async def read(
        self,
        topic: str,
        partition: int,
        *,
        after: int = 0,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
    ) -> Sequence[Stored]:
        """The oldest waiting records past `after`, in order; at least one where there is any.

        A reader that has some under way passes the last one's sequence. Damaged records are left
        out, counted and set aside; expired ones are left out.

        Raises:
            SpoolFault: the disk can't be read.
        """

    async def done(self, topic: str, partition: int, seq: int) -> None:
        """Everything up to `seq` is delivered. Returns once a killed daemon would know it too.

        Room is given back some time later. A lower `seq` than before changes nothing.

        Raises:
            SpoolFault: it counts in memory, and can't be written down.
        """

    def hear(self, topic: str, partition: int, hear: Callable[[GivenUp], None] | None) -> None:
        """Have whoever replays a partition hear what is given up of it, and count it; None: nobody
        does any more, and the spool counts.

        It is told soon after `backlog` shows it, and before a read that begins behind it returns.
        """

    def backlog(self, topic: str, partition: int) -> Backlog:
        """What waits there, from memory; an empty one where there never was any."""

    def backlogs(self) -> Sequence[Backlog]:
        """Every topic and partition that this spool knows, from memory."""

    async def pause(self, topic: str, paused: bool) -> None:
        """Keep a topic's replay from going on (or let it); remembered over restarts.

        The spool only keeps the flag: whoever replays looks at it.
        """

    def paused(self, topic: str) -> bool:
        """Whether a topic's replay is to stand still."""

    async def adopt(self) -> Sequence[Adopted]:
        """Take over what daemons that are gone have left in folders beside this one.

        Their records come behind those already here, in their order, partition by partition. What
        can't be taken over now stays where it is, and `orphans` counts it. An interrupted call
        leaves nothing lost and nothing twice; call it again.
        """

    @property
    def orphans(self) -> int:
        """Folders beside this one that hold records, are nobody's and could not be adopted."""

    async def close(self) -> None:
        """Finish what was handed over, and let go of the folder. Idempotent."""
