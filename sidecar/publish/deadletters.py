"""Records that were accepted and that Kafka will never take: kept in a file, with the reason.

All sidecars of a spool's folder share the file, and the command line changes it beside them.
Whoever writes holds its lock; what is taken out goes by a new file in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sidecar.publish.letters import Letter, NoLetter, from_line, id_of, to_line

FILE: Final = "dead-letters.ndjson"
MAX_BYTES: Final = 256 * 1024 * 1024
"""Past this nothing more is set aside: the partition waits, and says so."""
LOCK_S: Final = 5.0
"""How long the lock is waited for; who holds it longer is stuck."""
_LOOK_S: Final = 0.02


class DeadLetters:
    """One JSON line a record, in the shape that `POST /v1/publish` reads; synced to the disk.

    Args:
        folder: where the file lies; it must be there.
        max_bytes: how large the file may get.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / FILE
        self.max_bytes = max_bytes
        self.bytes = 0
        """How large it was at the last look or letter of ours."""

    async def add(self, letters: Sequence[Letter]) -> None:
        """Set records aside, with one sync for all of them.

        Raises:
            OSError: they can't be written, or the file is full. The first of them may be there.
        """
        await asyncio.to_thread(self._write, [to_line(letter) for letter in letters])

    async def look(self) -> None:
        """See how large the file is now; others write there too."""
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            self.bytes = self.path.stat().st_size if self.path.exists() else 0

    def _write(self, lines: Sequence[bytes]) -> None:
        """As many as fit; that the rest doesn't is raised when those are safe."""
        with _locked(self.path) as descriptor:
            size = before = os.fstat(descriptor).st_size
            fitting = []
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                fitting.append(b"\n")  # a power cut has torn the last line: it ends here
                size += 1
            for line in lines:
                if size + len(line) > self.max_bytes:
                    break
                fitting.append(line)
                size += len(line)
            _append(descriptor, b"".join(fitting), before, self.path)
            if before == 0:
                _sync_folder(self.path.parent)
            self.bytes = size
            if fitting[-1:] != list(lines[-1:]):
                raise OSError(f"{self.path} is full: put its letters back, or delete some")


def _append(descriptor: int, data: bytes, before: int, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
        os.fdatasync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, before)  # half a line would spoil the next one
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


# --- without the daemon, and beside it ----------------------------------------------------------


@dataclass(slots=True)
class Walked:
    """What a walk through the file met; complete at its end."""

    letters: int = 0
    unreadable: int = 0
    """Lines that are no letters: torn by a power cut, or written by somebody else."""


def walk(folder: Path, walked: Walked) -> Iterator[tuple[str, Letter]]:
    """Each letter with its id, oldest first; one at a time is in memory.

    Raises:
        OSError: the file can't be read. One that isn't there holds nothing.
    """
    try:
        file = (folder / FILE).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                letter = from_line(line)
            except NoLetter:
                walked.unreadable += 1
                continue
            walked.letters += 1
            yield id_of(line), letter


def take_out(
    folder: Path,
    wanted: Callable[[str, Letter], bool],
    first: Callable[[], object] = lambda: None,
    *,
    unreadable: bool = False,
) -> int:
    """Delete letters; the others stay as they are. Returns how many went.

    Args:
        wanted: which go, by id and letter.
        first: called with the file locked, before any of them goes; nothing does where it raises.
        unreadable: lines that are no letters go too, and count.

    Raises:
        OSError: the file can't be read or replaced; then all of it stays.
    """
    path = folder / FILE
    if not path.exists():
        first()
        return 0
    beside = path.with_suffix(".new")
    with _locked(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        first()
        try:
            with _create(beside, os.fstat(descriptor)) as kept:
                gone = _sift(file, kept, wanted, unreadable)
                kept.flush()
                os.fsync(kept.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    return gone


def _sift(
    file: IO[bytes], kept: IO[bytes], wanted: Callable[[str, Letter], bool], unreadable: bool
) -> int:
    gone = 0
    file.seek(0)
    for line in file:
        try:
            goes = wanted(id_of(line), from_line(line))
        except NoLetter:
            goes = unreadable
        if goes:
            gone += 1
        else:
            kept.write(line)
    return gone


def _create(path: Path, like: os.stat_result) -> IO[bytes]:
    """A new file of the same owner: root's hand must not take it from the sidecars."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o600), "wb")
    with contextlib.suppress(PermissionError):
        os.fchown(file.fileno(), like.st_uid, like.st_gid)
    return file


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, open to read and to append, that nobody else changes meanwhile.

    Raises:
        OSError: it can't be opened, or somebody has held it for too long.
    """
    until = time.monotonic() + LOCK_S
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            _lock(descriptor, path, until)
            # Whoever had it may have put another file in its place.
            if os.fstat(descriptor).st_nlink:
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, until: float) -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > until:
            raise OSError(f"{path} has been in use for {LOCK_S:g} s")
        time.sleep(_LOOK_S)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
