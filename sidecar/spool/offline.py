"""Looking at spools without their daemon: what waits, what is damaged, and carrying records away.

Each function takes `spool.dir`, or one spool in it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import chain, groupby, islice, zip_longest
from pathlib import Path
from typing import Final

from sidecar.core.errors import SpoolFault, SpoolFormat, SpoolTaken
from sidecar.core.spooling import Backlog, Budget, NewRecord, SpoolSettings, Stored
from sidecar.core.types import Scalar
from sidecar.spool.files import Files
from sidecar.spool.folder import Folder, check_format, encoded, is_spool, logs_in
from sidecar.spool.frames import Damage, Packed, pack, size_of
from sidecar.spool.recovery import Found, recover
from sidecar.spool.room import segment_bytes
from sidecar.spool.segments import Segment, frames_in, segments_in
from sidecar.spool.spool import open_vault
from sidecar.spool.vault import Append, Vault, fault_of

_ENDLESS: Final = 1 << 62
_SETTINGS = SpoolSettings(max_bytes=_ENDLESS, others=Budget(max_bytes=_ENDLESS))
_TOGETHER: Final = 500
_TOGETHER_BYTES: Final = 8 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One spool, and what waits in it; None where a daemon uses it and knows better."""

    name: str
    backlogs: Sequence[Backlog] | None
    fault: str | None = None
    """Why it can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What one segment holds. Delivered records count too: they are there until room is wanted."""

    spool: str
    topic: str
    partition: int
    segment: str
    records: int
    bytes: int
    damaged: Sequence[tuple[int, int]]
    """Bytes, first to last but one, that are no frame."""
    missing: int
    """Records that must have been between those that are there."""
    unfinished: bool
    """The log ends with a piece of a record: one that is being written, or was never acknowledged,
    or has been cut off."""

    @property
    def whole(self) -> bool:
        """Nothing is wrong with it."""
        return not self.damaged and not self.missing


@dataclass(slots=True)
class Exported:
    """How an export went; complete when all was read."""

    records: int = 0
    lost: int = 0
    spools: list[str] = field(default_factory=list)


class NoRecords(Exception):
    """There is nothing to import."""


class _Silent:
    """Telemetry of nobody's; what matters is raised or returned."""

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Nobody reads it."""

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Nobody reads it."""

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """Nobody reads it."""


def spools_at(path: Path) -> list[Path]:
    """The spools that are meant.

    Raises:
        SpoolFormat: there is none.
    """
    if is_spool(path):
        return [path]
    found = [p for p in sorted(path.iterdir()) if is_spool(p)] if path.is_dir() else []
    if not found:
        raise SpoolFormat(f"{path} is no spool, and holds none")
    return found


def kept_at(path: Path) -> Iterator[Kept]:
    """What waits in each spool, also beside one that can't be read.

    Raises:
        SpoolFault: the only one that is meant can't be read.
    """
    for one in spools_at(path):
        try:
            with _opened(one) as found:
                views = [log.view for _, log in sorted(found.logs.items())]
                yield Kept(name=one.name, backlogs=[view for view in views if view.records])
        except SpoolTaken:
            yield Kept(name=one.name, backlogs=None)
        except SpoolFault as fault:
            if one == path:
                raise
            yield Kept(name=one.name, backlogs=(), fault=str(fault))


def verify(path: Path) -> Iterator[Verified]:
    """Read every frame there is, changing nothing, also beside a running daemon.

    Raises:
        SpoolFault: one can't be read.
    """
    for one in spools_at(path):
        check_format(one)
        with _faults():
            for topic, partition, folder in logs_in(one):
                segments = segments_in(folder)
                for segment, after in zip_longest(segments, segments[1:]):
                    with suppress(FileNotFoundError):  # just given back
                        yield _verified(one.name, topic, partition, segment, after)


def _verified(
    spool: str, topic: str, partition: int, segment: Segment, after: Segment | None
) -> Verified:
    size = segment.path.stat().st_size
    records, missing, expected = 0, 0, segment.skip
    damaged: list[tuple[int, int]] = []
    for item in frames_in(segment.path, segment.marker, 0, size):
        if isinstance(item, Damage):
            damaged.append((item.start, item.end))
        elif item.ordinal >= segment.skip:
            records += 1
            missing += item.ordinal - expected
            expected = item.ordinal + 1
    if after is not None:
        missing += max(0, segment.ordinal(after.first_seq) - expected)
    unfinished = after is None and bool(damaged) and damaged[-1][1] == size
    if unfinished:
        damaged.pop()
    return Verified(
        spool=spool,
        topic=topic,
        partition=partition,
        segment=segment.path.name,
        records=records,
        bytes=size,
        damaged=damaged,
        missing=missing,
        unfinished=unfinished,
    )


def export(path: Path, outcome: Exported) -> Iterator[tuple[str, int, Stored]]:
    """Topic, partition and record of all that waits, in order; the spools stay as they are.

    Raises:
        SpoolFault: one can't be read, or a daemon uses it.
    """
    for one in spools_at(path):
        with _opened(one) as found:
            for (topic, partition), log in sorted(found.logs.items()):
                after = 0
                while some := log.read(after, _TOGETHER, _READ_BYTES).records:
                    for stored in some:
                        outcome.records += 1
                        yield topic, partition, stored
                    after = some[-1].seq
                outcome.lost += log.lost_ever
        outcome.spools.append(one.name)


def import_into(root: Path, records: Iterable[tuple[str, int, NewRecord]]) -> tuple[str, int]:
    """Make a spool of its own beside those in `spool.dir`, which the next sidecar there adopts.

    It is there whole or not at all. Returns its name and how many records it has.

    Raises:
        NoRecords: there is none; nothing was made.
        SpoolFormat: that is a spool itself. Nobody looks in there, and who adopts it deletes it.
        SpoolFault: the disk doesn't take it, or the very same is there already.
        ValueError: a record can't be kept.
    """
    files = Files()
    if is_spool(root):
        raise SpoolFormat(f"{root} is a spool itself: name spool.dir, the folder that it is in")
    with _faults():
        # Before anything is made: a spool of nothing would look like one that was carried over.
        given = iter(records)
        first = list(islice(given, 1))
        if not first:
            raise NoRecords
        files.make_folder(root)
        _clear(root)
        made = root / f".import-{secrets.token_hex(4)}"
        vault = open_vault(made, _SETTINGS, _Silent(), files, time.time)
        try:
            count, digest = _fill(vault, chain(first, given))
        except BaseException:
            vault.close()
            _clear(root)
            raise
        vault.close()
        name = f"import-{digest}"
        if (root / name).exists():
            _clear(root)
            raise SpoolFault(f"{root / name} is there already: the very same was imported before")
        _give(made, root.stat())
        files.rename(made, root / name)
        files.sync_folder(root)
    return name, count


def _fill(vault: Vault, records: Iterable[tuple[str, int, NewRecord]]) -> tuple[int, str]:
    """Append all of them; how many they are, and a digest of their content."""
    count, content = 0, blake2b(digest_size=8)
    for (topic, partition), some in groupby(records, key=lambda one: one[:2]):
        encoded(topic)
        packed: list[Packed] = []
        held = 0
        for _, _, record in some:
            packed.append(pack(record))
            held += size_of(packed[-1:])
            content.update(b"%d/%b" % (partition, topic.encode()))
            content.update(packed[-1].head + packed[-1].value)
            if len(packed) >= _TOGETHER or held >= _TOGETHER_BYTES:
                _append(vault, topic, partition, packed)
                count, packed, held = count + len(packed), [], 0
        if packed:
            _append(vault, topic, partition, packed)
            count += len(packed)
    return count, content.hexdigest()


def _give(made: Path, like: os.stat_result) -> None:
    """Whose `spool.dir` it is, whose all in it is, also by root's hand: a sidecar is to move it."""
    for path in (made, *made.rglob("*")):
        with suppress(PermissionError):
            os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)


def _append(vault: Vault, topic: str, partition: int, packed: list[Packed]) -> None:
    (outcome,) = vault.append([Append(topic, partition, packed)])
    if isinstance(outcome, SpoolFault):
        raise outcome


def _clear(root: Path) -> None:
    """Delete what interrupted imports have left."""
    for path in root.glob(".import-*"):
        with suppress(SpoolTaken):
            Folder.take(path, Files()).remove()


@contextmanager
def _opened(path: Path) -> Iterator[Found]:
    """A spool that nobody else uses, as its daemon would find it."""
    with _faults():
        folder = Folder.take(path, Files())
        try:
            found = recover(folder, Files(), partial(segment_bytes, _SETTINGS))
            try:
                yield found
            finally:
                found.ledger.close()
        finally:
            folder.release()


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise fault_of(error) from error
    except sqlite3.Error as error:
        raise SpoolFault(f"the ledger can't be used: {error}") from error
