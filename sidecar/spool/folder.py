"""A spool's folder: its lock, its format, and where things are in it.

<spool.dir>/<instance>/
    lock         held for as long as a process uses the folder
    format       the version of what else is here
    ledger.db    SQLite: progress, idempotency keys, flags
    logs/<topic>/<partition>/<segment>
    quarantine/  damaged bytes, for people to look at
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, unquote

from sidecar.core.errors import SpoolFault, SpoolFormat, SpoolTaken
from sidecar.core.spooling import TOPIC_MAX
from sidecar.spool.files import Files

FORMAT: Final = 1
_LAST = ("format.new", "format", "lock")
_PATH_MAX = 255
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A folder that this process has locked."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def take(cls, path: Path, files: Files) -> Self:
        """Lock a folder, making it if need be.

        Raises:
            SpoolTaken: another process has it.
            SpoolFormat: it holds something else, or comes from a newer version.
            OSError: it can't be made or written.
        """
        if path.is_symlink():
            raise SpoolFormat(f"{path} is a symlink; name the folder itself")
        files.make_folder(path)
        found = cls(path, _locked(path))
        try:
            found._check_format(files)
        except BaseException:
            found.release()
            raise
        return found

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.path / "ledger.db"

    @property
    def quarantine(self) -> Path:
        """Where damaged bytes are set aside."""
        return self.path / "quarantine"

    def log(self, topic: str, partition: int) -> Path:
        """Where the segments of a topic's partition are. Raises ValueError."""
        return self.path / "logs" / encoded(topic) / str(partition)

    def logs(self) -> Iterator[tuple[str, int, Path]]:
        """Topic, partition and folder of each log here; what else is there is left alone."""
        yield from logs_in(self.path)

    def release(self) -> None:
        """Let another process have it. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Delete the folder with all there is in it, and let go of it.

        Until the end it looks like a spool, so that an interrupted removal is gone on with; and the
        ledger outlives the segments that it says are done.
        """
        shutil.rmtree(self.path / "logs", ignore_errors=True)
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in _LAST:
                path.unlink()
        for name in _LAST:
            (self.path / name).unlink(missing_ok=True)
        self.path.rmdir()
        self.release()

    def _check_format(self, files: Files) -> None:
        kept = self.path / "format"
        if not kept.exists():
            if others := [p.name for p in self.path.iterdir() if p.name not in _LAST]:
                raise SpoolFormat(f"{self.path} is no spool: {others[0]} is there, and no format")
            made = self.path / "format.new"
            fd = os.open(made, _OPEN | os.O_TRUNC, 0o600)
            files.write(fd, json.dumps({"spool": FORMAT}).encode() + b"\n", 0)
            files.sync(fd)
            files.close(fd)
            files.rename(made, kept)
            files.sync_folder(self.path)
        check_format(self.path)


def check_format(path: Path) -> None:
    """Raises SpoolFormat where a folder isn't a spool of a version that this code knows."""
    try:
        said = json.loads((path / "format").read_text("utf-8"))["spool"]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise SpoolFormat(f"{path} is no spool: its file `format` can't be read") from fault
    if said != FORMAT:
        raise SpoolFormat(f"{path} has format {said}; this version knows {FORMAT} and leaves it")


def is_spool(path: Path) -> bool:
    """Whether a folder looks like a spool, of whatever version; hidden ones are being made."""
    return not path.name.startswith(".") and not path.is_symlink() and (path / "format").is_file()


def _locked(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = os.open(path / "lock", _OPEN, 0o600)
        except FileNotFoundError:
            continue  # somebody has just deleted it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever adopted the folder deleted it with its lock, maybe just now.
            if os.fstat(lock).st_nlink:
                return lock
        except BlockingIOError as fault:
            os.close(lock)
            raise SpoolTaken(f"the spool {path} is in use by another process") from fault
        os.close(lock)


def encoded(name: str) -> str:
    """A topic's or instance's name as a file name.

    Raises:
        ValueError: it can't be one.
    """
    raw = quote(name, safe="")
    if name in {".", ".."}:
        raw = name.replace(".", "%2E")
    if not name or len(name.encode()) > TOPIC_MAX or len(raw) > _PATH_MAX:
        raise ValueError(f"{name!r} is too long, or empty: no folder can have such a name")
    return raw


def logs_in(path: Path) -> Iterator[tuple[str, int, Path]]:
    """Topic, partition and folder of each log in a spool's folder."""
    logs = path / "logs"
    for topic in sorted(logs.iterdir()) if logs.is_dir() else ():
        for partition in sorted(topic.iterdir()) if topic.is_dir() else ():
            if partition.name.isdecimal() and partition.is_dir():
                yield unquote(topic.name), int(partition.name), partition


def others_beside(own: Path) -> list[Path]:
    """The other spools in the folder that `own` is in, by name.

    Raises:
        SpoolFault: it can't be read.
    """
    try:
        found = sorted(own.parent.iterdir())
    except OSError as fault:
        raise SpoolFault(f"{own.parent}: {fault.strerror}") from fault
    return [path for path in found if path != own and (is_spool(path) or _barely_begun(path))]


def _barely_begun(path: Path) -> bool:
    """Whether its making, or its removal, was interrupted: nothing but our own files is there."""
    if path.name.startswith(".") or path.is_symlink() or not path.is_dir():
        return False
    names = {p.name for p in path.iterdir()}
    return "lock" in names and names <= set(_LAST)
