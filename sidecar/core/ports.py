"""What the core's surroundings must offer: a key-value store with locks, and telemetry.

The store is Consul's model reduced to what a breaker needs. Every method has a deadline of its
own and raises one of `errors`; none returns a fault as a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.core.board import Board, Cell
from sidecar.core.intake import Post
from sidecar.core.normal import Kept
from sidecar.core.override import BadOverride, Override
from sidecar.core.types import (
    BadReport,
    LockHolder,
    Record,
    Report,
    Scalar,
    Stored,
    Transition,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key as the store holds it. Indexes are the store's logical clock."""

    key: str
    value: bytes
    modify_index: int
    lock_index: int = 0
    """How often the key has been locked (a plain PUT resets it to 0)."""
    session: str | None = None
    """The session that holds the key as a lock."""


@dataclass(frozen=True, slots=True)
class Page:
    """A completed read of a prefix: what is there, and how far the reader now is."""

    index: int
    """Pass it to the next `watch`; it may go backwards (a restored snapshot)."""
    entries: tuple[Entry, ...]
    known_leader: bool
    """False when the answer came from a server that knows of no leader: it proves nothing."""
    spent_s: float = 0.0
    """Time that reading and decoding took once the answer began: what a reader paces itself by."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A transaction goes through only while `session` holds the lock `key`."""

    key: str
    session: str


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key inside a transaction; `cas` is the index that was read (0: must not exist)."""

    key: str
    value: bytes
    cas: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """All writes were applied; `indexes` holds the new modify index of each written key."""

    indexes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was applied: the lock isn't held or an index differed. `conflicts` says which."""

    conflicts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """A session and the time to live that the server really gave it (it may be larger)."""

    id: str
    ttl_s: float


class Store(Protocol):
    """A key-value store with blocking reads, sessions, locks and fenced transactions."""

    exclusive: bool
    """True when no other sidecar can share this store (in memory): election needs no caution."""

    async def read(self, key: str) -> Entry | None:
        """The key now, or None when absent.

        Raises:
            StoreError: as `errors` says; every method raises these.
        """

    async def watch(self, prefix: str, index: int, wait_s: float) -> Page:
        """All keys below `prefix` (which ends in a slash), once something past `index` happened.

        Index 0 answers at once. After `wait_s` it answers with what there is; a return does not
        mean a change. A prefix the token may not read looks empty.
        """

    async def put(self, key: str, value: bytes) -> None:
        """Set a key, unconditionally."""

    async def swap(self, key: str, value: bytes, cas: int) -> bool:
        """Set a key only at the index that was read (0: absent). False when it differed."""

    async def delete(self, key: str, cas: int | None = None) -> bool:
        """Delete a key; with `cas` only at that index. False when the index differed.

        Deleting an absent key without `cas` succeeds.
        """

    async def commit(self, fence: Fence, writes: Sequence[Put]) -> Committed | Refused:
        """Apply all writes or none, in one transaction behind the fence."""

    async def create_session(
        self, name: str, ttl_s: float, lock_delay_s: float, check: str | None = None
    ) -> Session:
        """A new session, behaviour `release`; with `check` it ends too when that turns critical.

        Raises:
            CheckLost: the store doesn't know that check (yet), or it is critical.
        """

    async def renew_session(self, session: str) -> Session:
        """Extend the session's life.

        Raises:
            SessionLost: it is gone, and with it every lock.
        """

    async def destroy_session(self, session: str) -> None:
        """End a session; an absent one is fine. Locks it still held get a lock-delay."""

    async def register_check(self, check: str, ttl_s: float) -> None:
        """A check at the local agent that turns critical `ttl_s` after its last pass.

        It is passing now, also where it was registered before. What nobody passes for a minute or
        so goes away by itself.
        """

    async def pass_check(self, check: str) -> None:
        """Let the check live for another `ttl_s`.

        Raises:
            CheckLost: the agent knows it no more.
        """

    async def deregister_check(self, check: str) -> None:
        """Take a check away; an absent one is fine. Locks bound to it get a lock-delay."""

    async def acquire(self, key: str, value: bytes, session: str) -> Entry | None:
        """Take the lock (or refresh its value when already held by `session`).

        Returns the locked key, or None when somebody else holds it or a lock-delay runs.
        Raises SessionLost when the session does not exist.
        """

    async def release(self, key: str, value: bytes, session: str) -> bool:
        """Give the lock back and leave `value` there; False when it wasn't held by `session`."""

    async def close(self) -> None:
        """Let go of connections. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service as others are to find it in the catalog.

    Args:
        id: of this one among all of its name; the local agent's own.
        address: where it is reached; empty: the agent's own address.
        check: the URL that the local agent GETs; 2xx is passing.
        check_every_s: between two of these.
    """

    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    check: str
    check_every_s: float


class Catalog(Protocol):
    """Where services are found by others, by way of the local agent. Errors are the store's."""

    async def has_service(self, id_: str) -> bool:
        """Whether the local agent knows a service of this id."""

    async def register_service(self, service: Service) -> None:
        """Have it found, as critical until its check has passed once."""

    async def deregister_service(self, id_: str) -> None:
        """Have it found no more; an absent one is fine."""


class Telemetry(Protocol):
    """Counts and log events. Names come from the list in `telemetry.names`."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Record a duration in seconds."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """One structured log line; never raises, never blocks."""


class Wire(Protocol):
    """The key layout and the formats of everything in the store."""

    @property
    def watched(self) -> str:
        """The prefix, with its slash, of every state, override and lock."""

    def state(self, name: str) -> str:
        """The key of a breaker's state record."""

    def override(self, name: str) -> str:
        """The key of a breaker's override."""

    def leader(self, name: str) -> str:
        """The key of a breaker's lock."""

    def history(self, name: str) -> str:
        """The key of a breaker's history."""

    def normal(self, name: str) -> str:
        """The key of what was learned for `failure_threshold: auto`."""

    def decode_state(self, value: bytes) -> Stored:
        """What a state key holds."""

    def encode_state(self, record: Record) -> bytes:
        """A record as it is written."""

    def decode_holder(self, value: bytes) -> LockHolder | None:
        """A lock's value; None when it is junk."""

    def encode_holder(self, holder: LockHolder) -> bytes:
        """A lock's value as it is written."""

    def decode_override(self, value: bytes) -> Override | BadOverride:
        """An override, or why it can't be used."""

    def encode_override(self, override: Override) -> bytes:
        """An override as it is written."""

    def decode_history(self, value: bytes | None) -> tuple[list[Transition], bool]:
        """The transitions, newest last, and whether there was junk among them."""

    def append_history(self, entries: Sequence[Transition], entry: Transition) -> bytes:
        """The history's value with one more entry, bounded."""

    def decode_normal(self, value: bytes) -> Kept | None:
        """What an evaluator had learned; None when it is junk."""

    def encode_normal(self, kept: Kept) -> bytes:
        """What was learned as it is written."""

    def decode_report(self, value: bytes) -> Report | BadReport:
        """A report, or what is wrong with it."""

    def encode_report(self, report: Report) -> bytes:
        """A report as it is written."""


class Backend(Protocol):
    """What the HTTP layer asks of the rest of the daemon."""

    board: Board

    def take(self, cell: Cell, post: Post) -> bool:
        """Take a local report in where that needs no waiting.

        False: it does need some (a store in this process), and nothing has happened.

        Raises:
            IntakeFull: as for `report`.
        """

    async def report(self, cell: Cell, post: Post) -> None:
        """Take a local report in; with a store in this process it counts before this returns.

        Raises:
            IntakeFull: too many instances report through this sidecar.
        """

    async def withdraw(self, cell: Cell, instance: str) -> bool:
        """A reporter says goodbye: its key is deleted. False when it never reported here.

        Raises:
            StoreError: the key could not be deleted now.
        """

    async def force(self, cell: Cell, override: Override, *, replace: bool) -> None:
        """Put an override in force, fleet-wide; here it holds before this returns.

        Raises:
            Contradicted: it would lift a live `open`, and `replace` doesn't say so.
            StoreError: it could not be written.
        """

    async def release(self, cell: Cell) -> None:
        """End the override, fleet-wide; none being there is fine.

        Raises:
            StoreError: it could not be deleted.
        """

    async def forget(self, cell: Cell) -> None:
        """Close a breaker and delete its keys; here it is followed, not evaluated, from now on.

        Raises:
            StillEvaluated: another sidecar holds its lock or has written it again.
            StoreError: not everything could be deleted.
        """

    async def history(self, cell: Cell) -> Sequence[Transition]:
        """The last transitions, newest last; bounded by a deadline.

        Raises:
            StoreError: it could not be read.
        """

    def describe(self) -> Mapping[str, object]:
        """What `/v1/status` says of the daemon itself: role, store, version, uptime."""
