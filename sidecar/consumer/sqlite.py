"""An idempotency store in SQLite: shared by the processes of one host, effects included."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from sidecar.consumer.store import Known, Mark, StoreFailed, Verdict, judged

R = TypeVar("R")

KEEP_S = 7 * 24 * 3600.0
PURGE_EVERY_S = 60.0
PURGE_ROWS = 2000
"""At most so many a time, so that purging never holds a writer up."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS breaker_marks (
    scope TEXT NOT NULL, identity BLOB NOT NULL, at REAL NOT NULL, PRIMARY KEY (scope, identity)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS breaker_marks_at ON breaker_marks (at);
CREATE TABLE IF NOT EXISTS breaker_versions (
    scope TEXT NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS breaker_versions_at ON breaker_versions (at);
"""
_MARK = "INSERT OR IGNORE INTO breaker_marks VALUES (?, ?, ?)"
_VERSION = """
INSERT INTO breaker_versions VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET version = max(version, excluded.version), at = excluded.at
"""
_PURGE_MARKS = """
DELETE FROM breaker_marks WHERE (scope, identity) IN
    (SELECT scope, identity FROM breaker_marks WHERE at < ? LIMIT ?)
"""
_PURGE_VERSIONS = """
DELETE FROM breaker_versions WHERE (scope, key) IN
    (SELECT scope, key FROM breaker_versions WHERE at < ? LIMIT ?)
"""


class SqliteStore:
    """Marks and versions in a file, durable before anything is committed to Kafka.

    Several processes on one host may share the file: they see each other's marks, and of two that
    handle the same event at once (one was paused, and lost its partition) only one gets to write.
    On a network file system SQLite's locks don't hold; don't put it there.

    Args:
        path: the file; made where it isn't there.
        schema: SQL that makes the handler's own tables, `IF NOT EXISTS`.
        keep_s: how long marks and versions are kept. What comes again later is taken for new.
        timeout_s: for one call, waiting for other processes' writing included.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema: str = "",
        keep_s: float = KEEP_S,
        timeout_s: float = 5.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if keep_s <= 0 or timeout_s <= 0:
            raise ValueError("keep_s and timeout_s must be more than 0")
        self._keep_s = keep_s
        self._wall = wall
        self._purged_at = wall()
        self._turn = asyncio.Lock()
        self._writer = _Line(path, _SCHEMA + schema, timeout_s)
        # Looking must not wait for somebody's transaction.
        self._reader = _Line(path, _SCHEMA + schema, timeout_s)

    async def look(self, mark: Mark) -> Verdict:
        """What this event is."""
        return await self._reader.call(lambda db: _look(db, mark))

    async def remember(self, marks: Sequence[Mark]) -> None:
        """These were handled; on return they are on disk."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            for mark in marks:
                self._note(db, mark)
            self._purge(db)
            db.execute("COMMIT")

        if marks:
            async with self._turn:
                await self._writer.call(write)

    @asynccontextmanager
    async def transaction(self, mark: Mark) -> AsyncIterator[sqlite3.Connection]:
        """SQLite's connection in a transaction that also holds the mark.

        Write effects by its `execute`, and leave committing to the kit.
        """

        def begin(db: sqlite3.Connection) -> sqlite3.Connection:
            db.execute("BEGIN IMMEDIATE")
            if (verdict := _look(db, mark)) is not Verdict.NEW:
                raise Known(verdict)
            self._note(db, mark)
            return db

        def commit(db: sqlite3.Connection) -> None:
            self._purge(db)
            db.execute("COMMIT")

        async with self._turn:
            db = await self._writer.call(begin)
            try:
                yield db
            except BaseException:
                self._writer.roll_back()
                raise
            await self._writer.call(commit)

    async def close(self) -> None:
        """Close the file. A second time does nothing."""
        await self._reader.close()
        await self._writer.close()

    def _note(self, db: sqlite3.Connection, mark: Mark) -> None:
        at = self._wall()
        db.execute(_MARK, (mark.scope, mark.identity, at))
        if mark.key is not None and mark.version is not None:
            db.execute(_VERSION, (mark.scope, mark.key, mark.version, at))

    def _purge(self, db: sqlite3.Connection) -> None:
        at = self._wall()
        if abs(at - self._purged_at) < PURGE_EVERY_S:
            return
        self._purged_at = at
        for statement in (_PURGE_MARKS, _PURGE_VERSIONS):
            db.execute(statement, (at - self._keep_s, PURGE_ROWS))


def _look(db: sqlite3.Connection, mark: Mark) -> Verdict:
    known = db.execute(
        "SELECT 1 FROM breaker_marks WHERE scope = ? AND identity = ?", (mark.scope, mark.identity)
    ).fetchone()
    newest = None
    if mark.key is not None and mark.version is not None:
        row = db.execute(
            "SELECT version FROM breaker_versions WHERE scope = ? AND key = ?",
            (mark.scope, mark.key),
        ).fetchone()
        newest = None if row is None else int(row[0])
    return judged(known=known is not None, version=mark.version, newest=newest)


class _Line:
    """One connection and the thread that works on it, one call after the other."""

    def __init__(self, path: str | Path, schema: str, timeout_s: float) -> None:
        self._path = path
        self._schema = schema
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="breaker-sqlite")
        self._db: sqlite3.Connection | None = None

    async def call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Do it in the thread, rolled back where it fails.

        Raises:
            StoreFailed: SQLite failed, or it took too long; then it may yet take place, but for a
                transaction, which is rolled back as soon as the thread gets to it.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await loop.run_in_executor(self._thread, self._do, work)
        except TimeoutError as error:
            self.roll_back()
            raise StoreFailed(f"SQLite took more than {self._timeout_s:g} s") from error
        except sqlite3.Error as error:
            raise StoreFailed(f"SQLite: {error}") from error
        except asyncio.CancelledError:
            self.roll_back()
            raise
        except RuntimeError as error:  # of a thread that was told to end
            raise StoreFailed("the store is closed") from error

    def roll_back(self) -> None:
        """Whatever is begun in the thread, behind what it is at now."""
        with suppress(RuntimeError):  # the thread was told to end, which rolls back as well
            self._thread.submit(self._roll_back)

    def _do(self, work: Callable[[sqlite3.Connection], R]) -> R:
        if self._db is None:
            self._db = self._open()
        try:
            return work(self._db)
        except BaseException:
            self._roll_back()
            raise

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path,
            timeout=self._timeout_s * 0.8,
            isolation_level=None,
            # A handler works on it in the loop's thread, while this one has nothing to do.
            check_same_thread=False,
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # Kafka is told that an event is done: it must be, whatever becomes of this machine.
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(self._schema)
        except BaseException:
            db.close()
            raise
        return db

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.rollback()

    async def close(self) -> None:
        """End the thread. One that is stuck is left behind."""

        def close() -> None:
            self._roll_back()
            if self._db is not None:
                self._db.close()
                self._db = None

        with suppress(RuntimeError):
            ended = self._thread.submit(close)
            self._thread.shutdown(wait=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await asyncio.wrap_future(ended)
