"""Records, vaults and disks that fail, for the spool's tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from sidecar.core.errors import SpoolFault
from sidecar.core.spooling import Budget, Idempotency, NewRecord, SpoolSettings
from sidecar.spool.files import Files
from sidecar.spool.frames import pack
from sidecar.spool.spool import open_vault
from sidecar.spool.vault import Append, Vault
from tests.telemetry import RecordedTelemetry

AT = 1_700_000_000.0


def record(
    number: int = 0, *, size: int = 20, at: float = AT, once: Idempotency | None = None
) -> NewRecord:
    """A record that can be told from others by its key."""
    value = (b"%d." % number).ljust(size, b"x")
    return NewRecord(b"key-%d" % number, value, (("id", b"%d" % number),), 7, at, once)


def records(numbers: Iterable[int], *, size: int = 20) -> list[NewRecord]:
    """Several of them."""
    return [record(number, size=size) for number in numbers]


class Clock:
    """A wall clock that stands."""

    def __init__(self) -> None:
        self.at = AT

    def __call__(self) -> float:
        """Now."""
        return self.at


class Hasty(Files):
    """A disk that syncs nothing: for tests that make many spools, and cut no power."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_folder(self, path: Path) -> None:
        """Nothing."""


class BadDisk(Files):
    """A disk with faults to switch on."""

    def __init__(self) -> None:
        self.room: int | None = None
        """Bytes that still fit; None: as many as one likes."""
        self.sync_fails = False
        self.truncate_fails = False
        self.syncs = 0

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """As far as there is room."""
        if self.room is not None and len(data) > self.room:
            super().write(fd, data[: self.room], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, data, offset)
        if self.room is not None:
            self.room -= len(data)

    def sync(self, fd: int) -> None:
        """Fails when told to."""
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Fails when told to."""
        if self.truncate_fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().truncate(fd, size)


class Box:
    """A vault below a folder, that can be left and opened again."""

    def __init__(
        self,
        root: Path,
        settings: SpoolSettings | None = None,
        files: Files | None = None,
        name: str = "me",
    ) -> None:
        self.path, self.files, self.clock = root / name, files or Files(), Clock()
        self.settings = settings or SpoolSettings()
        self.telemetry = RecordedTelemetry()
        self.vault = self.open()

    def open(self) -> Vault:
        """Open it as its last process left it."""
        self.vault = open_vault(self.path, self.settings, self.telemetry, self.files, self.clock)
        return self.vault

    def kill(self) -> None:
        """The process is gone, and has written nothing down."""
        self.vault.notebook.close()
        for log in self.vault.logs.values():
            log.close()
        self.vault.around.folder.release()

    def crash(self) -> Vault:
        """The process is gone, and another opens the folder."""
        self.kill()
        return self.open()

    def restart(self) -> Vault:
        """Close it in good order and open it again."""
        self.vault.close()
        return self.open()

    def append(self, *new: NewRecord, topic: str = "t", partition: int = 0) -> range:
        """Take records in; raises what the spool says."""
        (outcome,) = self.vault.append([Append(topic, partition, [pack(one) for one in new])])
        if isinstance(outcome, SpoolFault):
            raise outcome
        return outcome

    def waiting(self, topic: str = "t", partition: int = 0) -> list[NewRecord]:
        """All that waits, as a reader in small steps sees it."""
        found: list[NewRecord] = []
        after = 0
        while some := self.vault.read(
            topic, partition, after=after, max_records=7, max_bytes=100_000
        ):
            found += [stored.record for stored in some]
            after = some[-1].seq
        return found

    def segments(self, topic: str = "t", partition: int = 0) -> list[Path]:
        """The files of a log, oldest first."""
        return sorted(self.vault.around.folder.log(topic, partition).glob("*.seg"))


def small(
    *, max_bytes: int = 1 << 20, max_age_s: float | None = None, drop_oldest: bool = False
) -> SpoolSettings:
    """Settings with the smallest segments there are."""
    return SpoolSettings(
        segment_bytes=65_536,
        others=Budget(max_bytes=max_bytes, max_age_s=max_age_s, drop_oldest=drop_oldest),
    )
