"""What a folder holds: its logs as they were left, a crash and damage included."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.spool.files import Files
from sidecar.spool.folder import Folder
from sidecar.spool.frames import Damage, idempotency_of
from sidecar.spool.ledger import Ledger, Mark, Progress, SpooledKey, digest
from sidecar.spool.log import Log, Spoiled
from sidecar.spool.segments import Segment, frames_in, segments_in

_KEYS = 10_000
_NO_MARK = Mark(last_ordinal=-1, end=0, first_at=0.0, last_at=0.0)


@dataclass(slots=True)
class Found:
    """What was in a folder."""

    ledger: Ledger
    progress: Mapping[tuple[str, int], Progress]
    marks: Mapping[tuple[str, int, str], Mark]
    lost: str | None = None
    """Why a new ledger had to be begun; None where the old one was good."""
    logs: dict[tuple[str, int], Log] = field(default_factory=dict)
    keys: list[SpooledKey] = field(default_factory=list)
    """Some of the keys met in frames; the ledger may know them or not."""
    spoiled: list[Spoiled] = field(default_factory=list)

    def keep(self, key: SpooledKey) -> None:
        """Note a key; many are written at once."""
        self.keys.append(key)
        if len(self.keys) >= _KEYS:
            self.ledger.write_keys(self.keys)
            self.keys.clear()


def recover(folder: Folder, files: Files, segment_bytes: Callable[[str], int]) -> Found:
    """Open the ledger and all logs.

    Args:
        segment_bytes: how large a topic's segments get.

    Raises:
        OSError, sqlite3.Error: it can't be read or written.
    """
    found = _ledger(folder, files)
    try:
        found.ledger.forget(
            (topic, partition, name)
            for topic, partition, name in found.marks
            if not (folder.log(topic, partition) / name).exists()
        )
        for topic, partition, path in folder.logs():
            at = found.progress.get((topic, partition), Progress(topic, partition, 0, 1, "", 0))
            segments = _segments(found, files, topic, partition, path)
            # Segments go only when they are done, whatever a power cut has left of the ledger.
            gone = segments[0].first_seq - 1 if segments else 0
            found.logs[topic, partition] = Log(
                files,
                path,
                topic,
                partition,
                segment_bytes=segment_bytes(topic),
                segments=segments,
                done_seq=max(at.done_seq, gone),
                next_seq=at.next_seq,
                head=(at.segment, at.offset),
            )
    except BaseException:
        found.ledger.close()
        raise
    return found


def _ledger(folder: Folder, files: Files) -> Found:
    try:
        return _read(folder)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as fault:
        # It is no database any more.
        files.make_folder(folder.quarantine)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                name = folder.ledger.name + suffix
                files.rename(folder.path / name, folder.quarantine / name)
        found = _read(folder)
        found.lost = str(fault)
        return found


def _read(folder: Folder) -> Found:
    ledger = Ledger(folder.ledger)
    try:
        return Found(ledger, ledger.progress(), ledger.marks())
    except BaseException:
        ledger.close()
        raise


def _segments(
    found: Found,
    files: Files,
    topic: str,
    partition: int,
    path: Path,
) -> list[Segment]:
    segments = []
    for segment in segments_in(path):
        if not segment.path.stat().st_size:
            files.remove(segment.path)  # its first append never came
            continue
        segments.append(segment)
        mark = found.marks.get((topic, partition, segment.path.name), _NO_MARK)
        _look_through(found, topic, partition, segment, mark)
    # One that never got a whole frame gave its place to the next.
    segments.sort(key=lambda segment: (segment.first_seq, segment.last_seq))
    for segment, following in itertools.pairwise(segments):
        # What should be there and isn't will be missed when it is read.
        segment.last_ordinal = max(segment.last_ordinal, segment.ordinal(following.first_seq - 1))
    return segments


def _look_through(found: Found, topic: str, partition: int, segment: Segment, mark: Mark) -> None:
    """Read what the ledger doesn't know of a segment."""
    size = segment.path.stat().st_size
    known = mark if size >= mark.end else _NO_MARK
    segment.end, segment.first_at, segment.last_at = known.end, known.first_at, known.last_at
    segment.last_ordinal = max(segment.last_ordinal, mark.last_ordinal)
    for item in frames_in(segment.path, segment.marker, known.end, size):
        if isinstance(item, Damage):
            found.spoiled.append(Spoiled(segment, item.start, item.end))
            continue
        segment.last_ordinal = max(segment.last_ordinal, item.ordinal)
        segment.first_at = item.accepted_at if not segment.end else segment.first_at
        segment.end, segment.last_at = item.end, item.accepted_at
        once = idempotency_of(item.payload)
        if once is not None and item.ordinal >= segment.skip:
            seq = segment.seq(item.ordinal)
            found.keep(
                SpooledKey(
                    topic, digest(once.key), once.fingerprint, item.accepted_at, partition, seq
                )
            )
