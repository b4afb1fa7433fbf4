"""Segments: the files that a log consists of, their names, and reading them frame by frame."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sidecar.spool.frames import HEADER, PAYLOAD_MAX, Damage, Frame, scan

_NAME = re.compile(r"(\d{20})\.(\d{10})\.([0-9a-f]{8})\.seg")
CHUNK: Final = 256 * 1024
"""Bytes read at once; more only for a record that is larger."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of a log. Its name says all that its frames' places depend on.

    A segment that was adopted from another spool keeps its content: its name says from which
    ordinal on it counts here (`skip`), and which sequence that frame has.
    """

    path: Path
    first_seq: int
    """The sequence of the frame whose ordinal is `skip`."""
    skip: int
    marker: bytes
    last_ordinal: int
    """Of the last frame; `skip` - 1 while there is none that counts."""
    end: int = 0
    """Bytes of whole frames; what lies behind them is damage that was set aside."""
    first_at: float = 0.0
    last_at: float = 0.0
    sealed: bool = True
    """Nothing is appended any more."""

    @property
    def last_seq(self) -> int:
        """The last sequence in it; `first_seq` - 1 while it is empty."""
        return self.seq(self.last_ordinal)

    def seq(self, ordinal: int) -> int:
        """The sequence of a frame."""
        return self.first_seq + ordinal - self.skip

    def ordinal(self, seq: int) -> int:
        """The ordinal of a sequence."""
        return seq - self.first_seq + self.skip

    @classmethod
    def fresh(cls, folder: Path, first_seq: int) -> Self:
        """A segment yet to be made, with a marker of its own."""
        marker = secrets.token_bytes(4)
        path = folder / segment_name(first_seq, 0, marker)
        return cls(path, first_seq, 0, marker, last_ordinal=-1, sealed=False)

    @classmethod
    def named(cls, path: Path) -> Self | None:
        """The segment that a file is by its name, with its content unknown; None: it is none."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            return None
        skip = int(match[2])
        return cls(path, int(match[1]), skip, bytes.fromhex(match[3]), last_ordinal=skip - 1)


def segment_name(first_seq: int, skip: int, marker: bytes) -> str:
    """A segment's file name; names sort as their sequences do."""
    return f"{first_seq:020d}.{skip:010d}.{marker.hex()}.seg"


def segments_in(folder: Path) -> list[Segment]:
    """The segments in a folder, oldest first; anything else there is left alone."""
    found = [
        segment
        for path in folder.iterdir()
        if (segment := Segment.named(path)) is not None and path.is_file()
    ]
    return sorted(found, key=lambda segment: (segment.first_seq, segment.path.name))


def frames_in(path: Path, marker: bytes, start: int, end: int) -> Iterator[Frame | Damage]:
    """What lies in a file from `start` (where a frame begins) to before `end`.

    A file that is shorter ends where it ends. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        chunk = CHUNK
        while start < end:
            wanted = min(chunk, end - start)
            data = os.pread(fd, wanted, start)
            last = len(data) < wanted or start + len(data) >= end
            begun = start
            for item in scan(data, marker, start, last=last):
                start = item.end
                yield item
            if last:
                return
            # No whole frame in it: the next is larger, at most as large as frames get.
            chunk = CHUNK if start > begun else min(2 * chunk, HEADER + PAYLOAD_MAX)
    finally:
        os.close(fd)
