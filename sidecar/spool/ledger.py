"""The ledger: what a spool must remember beside its records, in one SQLite file.

Progress, flags, idempotency keys of spooled records, and how far each segment was known to be whole
(so that a start needn't read everything again). Losing it loses no record: what was delivered is
delivered again, and keys and marks are found in the segments. SQLite notices no flipped bit in a
number, so rows that could hide a record have a checksum, and count as absent where it is wrong.

A commit outlives a killed process at once. A power cut may take the last ones back, in order.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

from sidecar.core.spooling import IDEMPOTENT_FOR_S, IDEMPOTENT_KEYS
from sidecar.spool.segments import Segment

_SCHEMA = """
CREATE TABLE IF NOT EXISTS progress (
    topic TEXT, partition INTEGER, done_seq INTEGER, next_seq INTEGER, segment TEXT, offset INTEGER,
    crc INTEGER, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    topic TEXT, partition INTEGER, segment TEXT, last_ordinal INTEGER, end INTEGER,
    first_at REAL, last_at REAL, crc INTEGER,
    PRIMARY KEY (topic, partition, segment)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paused (topic TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    topic TEXT, key BLOB, fingerprint BLOB, at REAL, partition INTEGER, seq INTEGER,
    PRIMARY KEY (topic, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_age ON keys (topic, at);
"""
# The first record with a key has it, for as long as keys are kept.
_KEY = """
INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (topic, key) DO UPDATE
SET fingerprint = excluded.fingerprint, at = excluded.at, partition = excluded.partition,
    seq = excluded.seq
WHERE excluded.at - keys.at > ?
"""
_PAGES = 1000
_KEYS = 10_000


class Progress(NamedTuple):
    """How far a log is delivered, and where in which segment that is."""

    topic: str
    partition: int
    done_seq: int
    next_seq: int
    segment: str
    offset: int


class Mark(NamedTuple):
    """How far a segment was whole when this was noted."""

    last_ordinal: int
    end: int
    first_at: float
    last_at: float


class SpooledKey(NamedTuple):
    """An idempotency key of a spooled record; `key` is its digest."""

    topic: str
    key: bytes
    fingerprint: bytes
    at: float
    partition: int
    seq: int | None


@dataclass(slots=True)
class Notes:
    """What is to be written down together."""

    progress: Sequence[Progress]
    marks: Sequence[tuple[str, int, Segment]]
    keys: Sequence[SpooledKey]


def digest(key: str) -> bytes:
    """What is kept of a key: 16 bytes, whatever its length."""
    return blake2b(key.encode(), digest_size=16).digest()


def _checked(row: tuple[object, ...]) -> tuple[object, ...]:
    return (*row, crc32c(repr(tuple(row)).encode()))


def _whole(row: tuple[object, ...]) -> bool:
    return _checked(row[:-1]) == row


class Ledger:
    """One connection, used by one thread. Every method raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        # SQLite makes its other files as accessible as this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA cache_size = {_PAGES}")
            self._db.executescript(_SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def progress(self) -> dict[tuple[str, int], Progress]:
        """How far each log is."""
        rows = self._db.execute("SELECT * FROM progress")
        return {(row[0], row[1]): Progress(*row[:-1]) for row in rows if _whole(row)}

    def marks(self) -> dict[tuple[str, int, str], Mark]:
        """What is known of segments, by topic, partition and file name."""
        rows = self._db.execute("SELECT * FROM marks")
        return {(row[0], row[1], row[2]): Mark(*row[3:-1]) for row in rows if _whole(row)}

    def paused(self) -> set[str]:
        """The topics whose replay is to stand still."""
        return {topic for (topic,) in self._db.execute("SELECT topic FROM paused")}

    def pause(self, topic: str, *, paused: bool) -> None:
        """Set or take away a topic's flag."""
        if paused:
            self._db.execute("INSERT OR IGNORE INTO paused VALUES (?)", (topic,))
        else:
            self._db.execute("DELETE FROM paused WHERE topic = ?", (topic,))

    def write(self, notes: Notes) -> None:
        """All of it in one transaction, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT OR REPLACE INTO progress VALUES (?, ?, ?, ?, ?, ?, ?)",
                [_checked(row) for row in notes.progress],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    _checked(
                        (
                            where,
                            partition,
                            s.path.name,
                            s.last_ordinal,
                            s.end,
                            s.first_at,
                            s.last_at,
                        )
                    )
                    for where, partition, s in notes.marks
                ],
            )
            self._db.executemany(_KEY, [(*key, IDEMPOTENT_FOR_S) for key in notes.keys])
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk has rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def forget(self, gone: Iterable[tuple[str, int, str]]) -> None:
        """Drop the marks of segments that are deleted."""
        self._db.executemany(
            "DELETE FROM marks WHERE topic = ? AND partition = ? AND segment = ?", list(gone)
        )

    def sync(self) -> None:
        """What was committed outlives a power cut too."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def key(self, topic: str, key: bytes, since_at: float) -> SpooledKey | None:
        """The spooled record that a key stands for, if it isn't older than that."""
        row = self._db.execute(
            "SELECT * FROM keys WHERE topic = ? AND key = ? AND at >= ?", (topic, key, since_at)
        ).fetchone()
        return SpooledKey(*row) if row is not None else None

    def all_keys(self) -> Iterator[list[SpooledKey]]:
        """All of them, many at a time."""
        rows = self._db.execute("SELECT * FROM keys")
        while some := rows.fetchmany(_KEYS):
            yield [SpooledKey(*row) for row in some]

    def write_keys(self, keys: Sequence[SpooledKey]) -> None:
        """Keep some more keys."""
        self.write(Notes([], [], keys))

    def key_topics(self) -> set[str]:
        """The topics that have keys."""
        return {topic for (topic,) in self._db.execute("SELECT DISTINCT topic FROM keys")}

    def trim(self, topic: str, now_at: float) -> None:
        """Drop the keys of a topic that are too old, and the oldest beyond the number kept."""
        self._db.execute(
            "DELETE FROM keys WHERE topic = ? AND at < ?", (topic, now_at - IDEMPOTENT_FOR_S)
        )
        (count,) = self._db.execute(
            "SELECT count(*) FROM keys WHERE topic = ?", (topic,)
        ).fetchone()
        if count > IDEMPOTENT_KEYS:
            self._db.execute(
                "DELETE FROM keys WHERE topic = ? AND key IN "
                "(SELECT key FROM keys WHERE topic = ? ORDER BY at LIMIT ?)",
                (topic, topic, count - IDEMPOTENT_KEYS),
            )

    def close(self) -> None:
        """Write everything to the main file, and close it."""
        self._db.close()
