"""What is to be written to the ledger, and what may be deleted once it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from sidecar.core.errors import SpoolDiskFull, SpoolFault
from sidecar.spool.files import Files
from sidecar.spool.ledger import Ledger, Notes, Progress, SpooledKey
from sidecar.spool.log import Log

TRIM_S: Final = 600.0
IDLE_S: Final = 5.0
"""A partition whose records are all done, and that got none for so long, gives its file back."""

RESERVE_BYTES: Final = 512 * 1024

Where = tuple[str, int]
"""Topic and partition."""


class Notebook:
    """Notes between the logs and the ledger. One thread calls it.

    Args:
        reserve: a file that holds room for the ledger, for when the disk is full.
        broken: told when the ledger fails for another reason than a full disk.
        wall: epoch seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: Files,
        logs: dict[Where, Log],
        *,
        reserve: Path,
        broken: Callable[[str], None],
        wall: Callable[[], float],
    ) -> None:
        self.paused = ledger.paused()
        self.key_topics = ledger.key_topics()
        """Topics of which the ledger, or what is to be written there, has keys."""
        self._ledger, self._files, self._logs = ledger, files, logs
        self._broken, self._wall = broken, wall
        self._dirty: set[Where] = set()
        """Logs whose progress isn't written down."""
        self._keys: dict[tuple[str, bytes], SpooledKey] = {}
        """Keys that aren't written down."""
        self._used: dict[Where, float] = {}
        """When a log last took records."""
        self._trimmed_at = wall()
        self._reserve = reserve
        self._reserve_room()

    def moved(self, log: Log) -> None:
        """A log's progress is to be written down."""
        self._dirty.add((log.topic, log.partition))

    def used(self, log: Log) -> None:
        """A log has taken records."""
        self._used[log.topic, log.partition] = self._wall()

    def note_keys(self, keys: Iterable[SpooledKey]) -> None:
        """Remember keys of spooled records."""
        for key in keys:
            self._keys.setdefault((key.topic, key.key), key)
            self.key_topics.add(key.topic)

    def key(self, topic: str, key: bytes, since_at: float) -> SpooledKey | None:
        """The spooled record that a key stands for. Raises SpoolFault."""
        found = self._keys.get((topic, key))
        if found is not None:
            return found
        try:
            return self._ledger.key(topic, key, since_at)
        except sqlite3.Error as error:
            raise SpoolFault(f"the ledger can't be read: {error}") from error

    def pause(self, topic: str, *, paused: bool) -> None:
        """Set a topic's flag. Raises SpoolFault; it is set here all the same."""
        (self.paused.add if paused else self.paused.discard)(topic)
        try:
            self._ledger.pause(topic, paused=paused)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def write(self) -> None:
        """Write all that is noted, then delete the segments that are done with it.

        Raises:
            SpoolFault: it isn't written, and stays noted.
            OSError: a segment can't be deleted.
        """
        marked = [(log, name) for log in self._logs.values() for name in log.unmarked]
        notes = Notes(
            [self._progress(where, self._logs[where]) for where in self._dirty],
            [(log.topic, log.partition, log.unmarked[name]) for log, name in marked],
            list(self._keys.values()),
        )
        try:
            if notes.progress or notes.marks or notes.keys:
                self._write(notes)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error
        moved, self._dirty = self._dirty, set()
        self._keys.clear()
        for log, name in marked:
            log.unmarked.pop(name, None)
        self._give_back(moved, idle=False)

    def _write(self, notes: Notes) -> None:
        try:
            self._ledger.write(notes)
        except sqlite3.Error as error:
            if not _full(error):
                raise
            # Progress gives room back, so it has some of its own.
            self._reserve.unlink(missing_ok=True)
            self._ledger.write(notes)

    @staticmethod
    def _progress(where: Where, log: Log) -> Progress:
        return Progress(*where, log.done_seq, log.next_seq, *log.head)

    def tidy(self) -> None:
        """What time asks for: see `write`, which it does, and raises the same."""
        self.write()
        self._reserve_room()
        idle_at, now_at = self._wall() - IDLE_S, self._wall()
        self._give_back([w for w in self._logs if self._used.get(w, 0.0) < idle_at], idle=True)
        if now_at - self._trimmed_at < TRIM_S:
            return
        self._trimmed_at = now_at
        try:
            for topic in self.key_topics:
                self._ledger.trim(topic, now_at)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def _reserve_room(self) -> None:
        """As far as the disk lets us."""
        if self._reserve.exists():
            return
        try:
            fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            self._reserve.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def _give_back(self, wheres: Iterable[Where], *, idle: bool) -> None:
        """Delete segments in which nothing waits."""
        gone = [
            (where, segment)
            for where in wheres
            for segment in self._logs[where].take_drained(idle=idle)
        ]
        if not gone:
            return
        try:
            if any(where[0] in self.key_topics for where, _ in gone):
                self._ledger.sync()  # else a power cut could take the last trace of their keys
            for _, segment in gone:
                self._files.remove(segment.path)
            self._ledger.forget((*where, segment.path.name) for where, segment in gone)
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: sqlite3.Error) -> SpoolFault:
        why = f"the ledger can't be written: {error}"
        if _full(error):
            return SpoolDiskFull(why)
        self._broken(why)
        return SpoolFault(why)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


def _full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
