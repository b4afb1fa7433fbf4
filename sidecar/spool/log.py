"""One topic's partition: its segments, what waits in them, and what is delivered.

Used by the spool's own thread alone, but for `view`, which is replaced whole and may be read from
anywhere.
"""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.core.spooling import Backlog, NewRecord, Stored
from sidecar.spool.files import Files
from sidecar.spool.frames import HEADER, Damage, Frame, Packed, frame, unpack
from sidecar.spool.segments import Segment, frames_in

HANDED_MAX: Final = 100_000
"""Places kept of records that were read and aren't done; those beyond are found by reading."""
PIECE: Final = 256 * 1024
"""Bytes written at once: many small records in one call, and no large copy of large ones."""
MARK_BYTES: Final = 8 * 1024 * 1024
"""After a crash this much of each log has to be read again, at most about."""
DRAINED_BYTES: Final = 1024 * 1024
"""An active segment of this size is given back as soon as all in it is done."""


class Spoiled(NamedTuple):
    """Damage that was met, and where."""

    segment: Segment
    start: int
    end: int


class Reading(NamedTuple):
    """What a read has found."""

    records: list[Stored]
    spoiled: list[Spoiled]


class _Handed(NamedTuple):
    seq: int
    segment: Segment
    end: int
    accepted_at: float


@dataclass(slots=True)
class _Staged:
    """What is written to the active segment and not synced yet."""

    records: int
    end: int
    first_at: float
    last_at: float


class Log:
    """The log of one topic and partition.

    Args:
        segments: those that are there, oldest first, all sealed.
        done_seq, next_seq: how far it was delivered, and the sequence of the next record.
        head: the segment's name and the byte where the first waiting frame begins, as far as known.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        topic: str,
        partition: int,
        *,
        segment_bytes: int,
        segments: Sequence[Segment] = (),
        done_seq: int = 0,
        next_seq: int = 1,
        head: tuple[str, int] = ("", 0),
    ) -> None:
        self.folder, self.topic, self.partition = folder, topic, partition
        self.segment_bytes = segment_bytes
        self._files = files
        self._segments = list(segments)
        last = max([segment.last_seq for segment in segments], default=0)
        self.next_seq = max(next_seq, last + 1, done_seq + 1)
        self.done_seq = done_seq
        self.fd: int | None = None
        """The active segment, open for writing; None: none is, or its file is closed for now."""
        self.fresh = False
        """The active segment's name isn't durable yet."""
        self.torn = False
        """Something that was refused may be on the disk all the same: append nothing more."""
        self.unmarked: dict[str, Segment] = {}
        """Segments of which the ledger should know that they are whole so far, by name."""
        self._staged: _Staged | None = None
        self._handed: deque[_Handed] = deque(maxlen=HANDED_MAX)
        self._lost: dict[int, int] = {}
        """Sequences that are gone, first to last, and not yet done."""
        self._head = self._first_place(head)
        self._head_seq = done_seq + 1
        """The sequence of the frame that begins at the head; what is done may be further on."""
        first = self._head[0]
        self.lost_ever = 0
        """Records found to be lost to damage so far."""
        self._oldest_at: float | None = first.first_at if first is not None else None
        self.view = self._look()

    @property
    def segments(self) -> Sequence[Segment]:
        """Those that are there, oldest first."""
        return self._segments

    @property
    def head(self) -> tuple[str, int]:
        """The segment's name and the byte where the first waiting frame begins."""
        segment, offset = self._head
        return (segment.path.name, offset) if segment is not None else ("", 0)

    def _first_place(self, head: tuple[str, int]) -> tuple[Segment | None, int]:
        for segment in self._segments:
            if segment.last_seq > self.done_seq:
                known = segment.path.name == head[0] and 0 <= head[1] <= segment.end
                return segment, head[1] if known else 0
        last = self._segments[-1] if self._segments else None
        return last, last.end if last is not None else 0

    # --- appending -------------------------------------------------------------------------

    def stage(self, records: Sequence[Packed]) -> range:
        """Write records behind all others; `commit` or `unstage` follows.

        Raises:
            OSError: nothing of them is there.
        """
        active, fd = self._active()
        staged = self._staged or _Staged(0, active.end, records[0].accepted_at, 0.0)
        ordinal = active.last_ordinal + staged.records
        parts: list[bytes] = []
        end, size = staged.end, 0
        try:
            for packed in records:
                ordinal += 1
                parts += (frame(packed, active.marker, ordinal), packed.head, packed.value)
                size += HEADER + len(packed.head) + len(packed.value)
                if size >= PIECE:
                    self._files.write(fd, b"".join(parts), end)
                    end, size, parts = end + size, 0, []
            self._files.write(fd, b"".join(parts), end)
        except OSError:
            self._cut(fd, staged.end)
            raise
        first = self.next_seq + staged.records
        staged.records += len(records)
        staged.end = end + size
        staged.last_at = records[-1].accepted_at
        self._staged = staged
        return range(first, first + len(records))

    def _active(self) -> tuple[Segment, int]:
        """The segment to append to, open."""
        segment = self._segments[-1] if self._segments else None
        if self._staged is None and segment is not None and segment.end >= self.segment_bytes:
            self.seal()
        if segment is None or segment.sealed:
            segment = Segment.fresh(self.folder, self.next_seq)
            self._files.make_folder(self.folder)
            self.fd = self._files.create(segment.path)
            self.fresh = True
            self._segments.append(segment)
        if self.fd is None:
            self.fd = self._files.open(segment.path)
        return segment, self.fd

    def commit(self) -> None:
        """What was staged is synced: it is part of the log."""
        staged, self._staged = self._staged, None
        if staged is None:
            return
        active = self._segments[-1]
        if not active.end:
            active.first_at = staged.first_at
        if staged.end // MARK_BYTES > active.end // MARK_BYTES:
            self.unmarked[active.path.name] = active
            self._forget(active.end // MARK_BYTES * MARK_BYTES, staged.end)
        active.end, active.last_at = staged.end, staged.last_at
        active.last_ordinal += staged.records
        self.next_seq += staged.records
        if self._head[0] is None:
            self._head = (active, 0)
        if self._oldest_at is None:
            self._oldest_at = staged.first_at
        self.view = self._look()

    def _forget(self, start: int, end: int) -> None:
        """Don't keep in memory what nobody reads for long: the cache of gigabytes that wait counts
        as ours where memory is limited, and gets its pages at a price."""
        reads = self._handed[-1].segment if self._handed else self._head[0]
        if self.fd is not None and reads is not None and reads not in self._segments[-2:]:
            with contextlib.suppress(OSError):  # a hint
                self._files.forget(self.fd, start, end - start)

    def unstage(self) -> None:
        """Take what was staged back out, as far as the disk lets us."""
        self._staged = None
        if self.fd is not None:
            self._cut(self.fd, self._segments[-1].end)

    def _cut(self, fd: int, size: int) -> None:
        try:
            self._files.truncate(fd, size)
        except OSError:
            self.torn = True

    def mark_all(self) -> None:
        """The ledger should know all segments as they are."""
        self.unmarked = {segment.path.name: segment for segment in self._segments}

    def seal(self) -> None:
        """End the active segment, if there is one: the next append begins another."""
        self.close()
        if self._segments and not self._segments[-1].sealed:
            self._segments[-1].sealed = True
            self.unmarked[self._segments[-1].path.name] = self._segments[-1]

    def adopt(self, segment: Segment, path: Path, skip: int) -> None:
        """A sealed segment of another log lies at `path` now; frames before `skip` don't count."""
        active = self._segments[-1] if self._segments else None
        moved = replace(segment, path=path, first_seq=self.next_seq, skip=skip)
        self._segments.append(moved)
        self.unmarked[path.name] = moved
        self.next_seq = moved.last_seq + 1
        if active is None or self._head[0] is None:
            self._head = moved, 0
        if self._oldest_at is None:
            self._oldest_at = moved.first_at
        self.view = self._look()

    def close(self) -> None:
        """Let go of the active segment's file; the next append opens it again."""
        if self.fd is not None:
            self._files.close(self.fd)
            self.fd = None

    # --- reading ---------------------------------------------------------------------------

    def read(self, after: int, max_records: int, max_bytes: int) -> Reading:
        """The oldest waiting records past `after`. Raises OSError."""
        after = max(after, self.done_seq)
        while self._handed and self._handed[-1].seq > after:
            self._handed.pop()
        found, size, expected = Reading([], []), 0, after + 1
        for segment, item in self._walk(expected):
            record = _record(item)
            if record is None:
                found.spoiled.append(Spoiled(segment, item.start, item.end))
                continue
            seq = segment.seq(item.ordinal) if isinstance(item, Frame) else 0
            if seq < expected:
                continue
            size += item.end - item.start
            if found.records and size > max_bytes:
                break
            self._lose(expected, seq - 1)
            expected = seq + 1
            found.records.append(Stored(seq, record))
            self._handed.append(_Handed(seq, segment, item.end, record.accepted_at))
            if len(found.records) >= max_records:
                break
        else:
            self._lose(expected, self.next_seq - 1)
        if after == self.done_seq:
            # What is lost before the first record found needs nobody's word to be done.
            first = found.records[0].seq if found.records else self.next_seq
            self._advance(first - 1, None)
        return found

    def _walk(self, expected: int) -> Iterator[tuple[Segment, Frame | Damage]]:
        """Everything from about a sequence on; frames before it may come first."""
        start, offset = self._place(expected)
        begun = start is None
        for segment in list(self._segments):
            begun = begun or segment is start
            if begun and segment.end:
                at = offset if segment is start else 0
                for item in frames_in(segment.path, segment.marker, at, segment.end):
                    if isinstance(item, Damage) or item.ordinal >= segment.skip:
                        yield segment, item

    def _place(self, seq: int) -> tuple[Segment | None, int]:
        """Where a sequence's frame begins, or a place before it."""
        if self._handed and self._handed[-1].seq == seq - 1:
            return self._handed[-1].segment, self._handed[-1].end
        if seq == self.done_seq + 1:
            return self._head
        for segment in self._segments:
            if segment.last_seq >= seq:
                return segment, self._head[1] if segment is self._head[0] else 0
        return self._segments[-1] if self._segments else None, 0

    # --- what is done ----------------------------------------------------------------------

    def done(self, seq: int) -> None:
        """Everything up to there is delivered."""
        self._advance(min(seq, self.next_seq - 1), None)

    def drop_before(self, at: float) -> int:
        """Give up the oldest records, those accepted before then; how many. Raises OSError."""
        before = self.waiting
        for segment in self._segments[:-1]:
            if segment.last_at >= at:
                break
            self._advance(segment.last_seq, None)
        self._drop(lambda item: item.accepted_at >= at)
        return before - self.waiting

    def drop_bytes(self, size: int, until_at: float) -> int:
        """Give up the oldest records; how many. Raises OSError.

        So many bytes at least, unless all records left were accepted later than `until_at`; one
        goes in any case.
        """
        before, dropped = self.waiting, 0

        def enough(item: Frame) -> bool:
            nonlocal dropped
            stop = dropped >= size or (dropped > 0 and item.accepted_at > until_at)
            dropped += item.end - item.start
            return stop

        self._drop(enough)
        return before - self.waiting

    def _drop(self, stop: Callable[[Frame], bool]) -> None:
        last, place, oldest_at = self.done_seq, None, None
        for segment, item in self._walk(self.done_seq + 1):
            if isinstance(item, Damage) or segment.seq(item.ordinal) <= last:
                continue
            if stop(item):
                oldest_at = item.accepted_at
                break
            last, place = segment.seq(item.ordinal), (segment, item.end)
        else:
            last = self.next_seq - 1
        self._advance(last, place)
        if oldest_at is not None:
            self._oldest_at = oldest_at
            self.view = self._look()

    def take_drained(self, *, idle: bool) -> list[Segment]:
        """The segments in which nothing waits: the log knows them no more, delete them.

        Args:
            idle: the active one too, however small.
        """
        if not self.waiting and self._staged is None and self._segments:
            active = self._segments[-1]
            if active.end >= DRAINED_BYTES or (idle and active.end):
                self.seal()
        drained: list[Segment] = []
        while self._segments and self._segments[0].sealed:
            if self._segments[0].last_seq > self.done_seq:
                break
            drained.append(self._segments.pop(0))
        self._settle_head()
        return drained

    def _advance(self, seq: int, place: tuple[Segment, int] | None) -> None:
        if seq <= self.done_seq:
            return
        last = None
        while self._handed and self._handed[0].seq <= seq:
            last = self._handed.popleft()
        self.done_seq = seq
        if place is None and last is not None:
            place, seq = (last.segment, last.end), last.seq
        if place is not None:
            self._head, self._head_seq = place, seq + 1
        self._settle_head()
        seq = self.done_seq
        self._lost = {a: b for a, b in self._lost.items() if b > seq}
        if not self.waiting:
            self._oldest_at = None
        elif self._handed:
            self._oldest_at = self._handed[0].accepted_at
        elif self._head[0] is not None and not self._head[1]:
            self._oldest_at = self._head[0].first_at
        elif last is not None:
            self._oldest_at = last.accepted_at
        self.view = self._look()

    def _settle_head(self) -> None:
        """The head is in the segment of the first waiting record, or at the end of everything."""
        kept = self._head[0]
        if kept is not None and kept in self._segments and kept.last_seq > self.done_seq:
            return
        for segment in self._segments:
            if segment.last_seq > self.done_seq:
                self._head, self._head_seq = (segment, 0), segment.first_seq
                return
        self._head_seq = self.next_seq
        active = self._segments[-1] if self._segments else None
        self._head = active, active.end if active is not None else 0

    def _lose(self, first: int, last: int) -> None:
        """Note sequences whose records are gone."""
        if first > last:
            return
        known = 0
        for a, b in list(self._lost.items()):
            if a <= last + 1 and b >= first - 1:
                first, last, known = min(first, a), max(last, b), known + b - a + 1
                del self._lost[a]
        self._lost[first] = last
        self.lost_ever += last - first + 1 - known
        self.view = self._look()

    @property
    def lost(self) -> int:
        """How many sequences that aren't done are known to have no record any more."""
        return sum(b - max(a, self.done_seq + 1) + 1 for a, b in self._lost.items())

    @property
    def waiting(self) -> int:
        """How many records wait."""
        return self.next_seq - 1 - self.done_seq - self.lost

    def _look(self) -> Backlog:
        waiting, size, behind = self.waiting, 0, False
        head, offset = self._head
        for segment in self._segments if waiting else ():
            if behind:
                size += segment.end
            elif segment is head:
                behind = True
                size += segment.end - offset
                # Done beyond the head without having been read: about so much of it.
                records = segment.last_seq - self._head_seq + 1
                if records > 0 and self.done_seq >= self._head_seq:
                    size = size * (segment.last_seq - self.done_seq) // records
        return Backlog(
            topic=self.topic,
            partition=self.partition,
            records=waiting,
            bytes=size,
            oldest_at=self._oldest_at if waiting else None,
            done_seq=self.done_seq,
            last_seq=self.next_seq - 1,
        )


def _record(item: Frame | Damage) -> NewRecord | None:
    """The record in a frame; None in damage, and in what only looks whole."""
    if isinstance(item, Damage):
        return None
    try:
        return unpack(item.payload, item.accepted_at)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
