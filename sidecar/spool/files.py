"""Every operation by which a spool changes the disk, in one place.

Tests put a disk here that fills up, fails its syncs, or forgets at a power cut what wasn't synced.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Files:
    """The real thing. Every method raises OSError."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that only its owner may enter, durably; one that is there is fine."""
        if path.is_dir():
            return
        if path.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        self.make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(path.parent)

    def create(self, path: Path) -> int:
        """A new file that only its owner may read; its name is durable after `sync_folder`."""
        return os.open(path, _CREATE, 0o600)

    def open(self, path: Path) -> int:
        """A file that is there, to write on."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it there; after an error some of it may be there."""
        written = os.pwrite(fd, data, offset)
        while written < len(data):
            written += os.pwrite(fd, data[written:], offset + written)

    def sync(self, fd: int) -> None:
        """What was written is on the disk. After an error it is unknown what is, for ever: the
        kernel may have thrown it away and will not say so again. A file that was deleted meanwhile
        is an error, too: it ends with this process."""
        os.fdatasync(fd)
        if not os.fstat(fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the file was deleted")

    def forget(self, fd: int, offset: int, size: int) -> None:
        """Let the kernel drop its copy in memory of bytes that are synced."""
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file off."""
        os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Let go of a file that is synced."""
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name; whole or not at all."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Delete a file; an absent one is fine."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """The names in a folder are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
