"""A disk that forgets, when its power is cut, what wasn't synced: some of it, at random."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from sidecar.spool.files import Files


class PowerCut(BaseException):
    """The machine is off: nobody handles that."""


class Forgetful(Files):
    """Files whose unsynced content, names and deletions are undecided until `restore`.

    Args:
        shadow: a folder for what may come back.
    """

    def __init__(self, draw: Random, shadow: Path) -> None:
        self._draw, self._shadow = draw, shadow
        self.left: int | None = None
        """Operations until the power is cut; None: it never is."""
        self._fds: dict[int, Path] = {}
        self._synced: dict[Path, int] = {}
        """Bytes of a file that are safe; of others all are."""
        self._created: set[Path] = set()
        self._removed: dict[Path, Path] = {}
        self._renamed: list[tuple[Path, Path]] = []

    def _step(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise PowerCut

    def create(self, path: Path) -> int:
        """Its name is undecided."""
        self._step()
        fd = super().create(path)
        self._fds[fd] = path
        self._created.add(path)
        self._synced[path] = 0
        return fd

    def open(self, path: Path) -> int:
        """What is in it already is safe."""
        fd = super().open(path)
        self._fds[fd] = path
        self._synced.setdefault(path, path.stat().st_size)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """The power may go in the middle of it."""
        try:
            self._step()
        except PowerCut:
            super().write(fd, data[: self._draw.randint(0, len(data))], offset)
            raise
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        """All that is written is safe."""
        self._step()
        if fd in self._fds:
            self._synced[self._fds[fd]] = os.fstat(fd).st_size
        self._step()

    def truncate(self, fd: int, size: int) -> None:
        """Takes effect at once."""
        super().truncate(fd, size)
        path = self._fds[fd]
        self._synced[path] = min(size, self._synced.get(path, size))

    def close(self, fd: int) -> None:
        """Makes nothing safe."""
        self._fds.pop(fd, None)
        super().close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Undecided until the new folder is synced."""
        self._step()
        super().rename(old, new)
        self._renamed.append((old, new))
        if old in self._synced:
            self._synced[new] = self._synced.pop(old)

    def remove(self, path: Path) -> None:
        """It may come back."""
        self._step()
        kept = self._shadow / f"{len(self._removed)}-{path.name}"
        kept.hardlink_to(path)
        self._removed[path] = kept
        super().remove(path)
        self._created.discard(path)

    def sync_folder(self, path: Path) -> None:
        """The names in it are decided."""
        self._step()
        self._created = {p for p in self._created if p.parent != path}
        self._removed = {p: kept for p, kept in self._removed.items() if p.parent != path}
        self._renamed = [(old, new) for old, new in self._renamed if new.parent != path]
        self._step()

    def restore(self, ledger: Path) -> None:
        """The power is back: decide what had been undecided."""
        self.left = None
        for path in self._created:
            if self._draw.random() < 0.5:
                path.unlink(missing_ok=True)
        for path, kept in self._removed.items():
            if self._draw.random() < 0.5 and path.parent.is_dir():
                kept.rename(path)
        for old, new in reversed(self._renamed):
            if self._draw.random() < 0.5 and new.exists() and old.parent.is_dir():
                new.rename(old)
        for path, safe in self._synced.items():
            if path.exists():
                self._forget(path, safe)
        wal = ledger.with_name(ledger.name + "-wal")
        if wal.exists():
            # SQLite promises no more of what wasn't moved to the main file.
            os.truncate(wal, self._draw.randint(0, wal.stat().st_size))
        self._fds, self._synced, self._created = {}, {}, set()
        self._removed, self._renamed = {}, []

    def _forget(self, path: Path, safe: int) -> None:
        """Behind what is safe anything may be: as written, cut off, or zeros."""
        size = path.stat().st_size
        if size <= safe:
            return
        os.truncate(path, end := self._draw.randint(safe, size))
        if end > safe and self._draw.random() < 0.5:
            start = self._draw.randint(safe, end)
            with path.open("r+b") as file:
                file.seek(start)
                file.write(bytes(end - start))
