"""The spool without its thread: logs, budgets, progress. One thread calls it, nothing else."""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from time import perf_counter
from typing import Final, NamedTuple

from sidecar.core.errors import SpoolClosed, SpoolDiskFull, SpoolFault, SpoolFull
from sidecar.core.ports import Telemetry
from sidecar.core.spooling import Backlog, GivenUp, SpoolSettings, Stored
from sidecar.spool.aside import set_aside
from sidecar.spool.files import Files
from sidecar.spool.folder import Folder
from sidecar.spool.frames import Packed, size_of
from sidecar.spool.ledger import SpooledKey, digest
from sidecar.spool.log import Log, Spoiled
from sidecar.spool.notebook import Notebook
from sidecar.spool.recovery import Found
from sidecar.spool.room import Space, segment_bytes
from sidecar.telemetry import names

OPEN_FILES: Final = 64
"""Active segments kept open; the others are opened again when their next record comes."""
SYNCERS: Final = 4
"""Threads that sync, where several partitions' records are to be synced together."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Append(NamedTuple):
    """Records for one topic and partition, all or none."""

    topic: str
    partition: int
    records: Sequence[Packed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a vault works with.

    Args:
        telemetry: may be called from any thread.
        gave_up: is told of what left undelivered, by topic and partition, and has it counted.
        wall: epoch seconds.
    """

    folder: Folder
    files: Files
    settings: SpoolSettings
    telemetry: Telemetry
    gave_up: Callable[[str, int, GivenUp], None]
    wall: Callable[[], float]


class Vault:
    """See the module.

    Args:
        found: what `recover` saw in the folder.
    """

    def __init__(self, around: Surroundings, found: Found) -> None:
        self.around = around
        self.logs = found.logs
        self.fault: str | None = None
        self.notebook = Notebook(
            found.ledger,
            around.files,
            self.logs,
            reserve=around.folder.path / "reserve",
            broken=self._close_for_good,
            wall=around.wall,
        )
        self._open: OrderedDict[Log, None] = OrderedDict()
        self._syncers: ThreadPoolExecutor | None = None
        if found.lost is not None:
            around.telemetry.event(names.SPOOL_LEDGER_LOST, level="error", error=found.lost)
        self.note_spoiled(found.spoiled)
        self.notebook.note_keys(found.keys)
        for log in self.logs.values():
            log.mark_all()
        self.tick()

    # --- appending -------------------------------------------------------------------------

    def append(self, batch: Sequence[Append]) -> list[range | SpoolFault]:
        """Take records in, synced together; for each call its sequences, or why not."""
        outcomes: list[range | SpoolFault] = []
        staged: dict[Log, list[int]] = {}
        space = Space(self.around.settings, [log.view for log in self.logs.values()])
        for number, call in enumerate(batch):
            try:
                log, sequences = self._stage(call, space)
            except SpoolFault as fault:
                outcomes.append(fault)
            except OSError as error:
                outcomes.append(fault_of(error))
            else:
                outcomes.append(sequences)
                staged.setdefault(log, []).append(number)
        failed = self._sync(list(staged))
        for log, numbers in staged.items():
            if log in failed:
                log.unstage()
                for number in numbers:
                    outcomes[number] = SpoolClosed(str(self.fault))
            else:
                log.commit()
                for number in numbers:
                    self._taken(log, batch[number], outcomes[number])
        while len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[0].close()
        return outcomes

    def _stage(self, call: Append, space: Space) -> tuple[Log, range]:
        if self.fault is not None:
            raise SpoolClosed(self.fault)
        size = size_of(call.records)
        over = space.over(call.topic, size)
        if over > 0 and self._room_can_be_made(call.topic, size, space):
            space.add(call.topic, -self._make_room(call.topic, over))
            over = space.over(call.topic, size)
        if over > 0:
            raise SpoolFull(space.words(call.topic, size))
        log = self.log(call.topic, call.partition)
        try:
            sequences = log.stage(call.records)
        finally:
            if log.torn:
                self._close_for_good(f"{log.folder}: a refused record can't be taken back")
        space.add(call.topic, size)
        self._open[log] = None
        self._open.move_to_end(log)
        return log, sequences

    def _room_can_be_made(self, topic: str, size: int, space: Space) -> bool:
        """Whether giving up old records helps: none goes for one that doesn't fit all the same."""
        if not self.around.settings.budget(topic).drop_oldest:
            return False
        waiting = sum(log.view.bytes for log in self.logs.values() if log.topic == topic)
        return space.over(topic, size - waiting) <= 0

    def _make_room(self, topic: str, size: int) -> int:
        """Give up the topic's oldest records; the bytes that are free now."""
        # Somewhat more than asked, or each record would cost a look into the segments.
        size += self.around.settings.budget(topic).max_bytes // 64
        freed = 0
        logs = [log for log in self.logs.values() if log.topic == topic]
        while freed < size:
            logs = sorted([log for log in logs if log.waiting], key=_oldest_at)
            if not logs:
                break
            before = logs[0].view.bytes
            until_at = _oldest_at(logs[1]) if len(logs) > 1 else inf
            self._give_up(logs[0], "full", partial(logs[0].drop_bytes, size - freed, until_at))
            freed += before - logs[0].view.bytes
        return freed

    def _give_up(self, log: Log, reason: str, drop: Callable[[], int]) -> None:
        first = log.done_seq + 1
        count = drop()
        if count:
            given = GivenUp(first, log.done_seq, count, reason)
            self.around.gave_up(log.topic, log.partition, given)
            self.notebook.moved(log)

    def log(self, topic: str, partition: int) -> Log:
        """The log of a topic's partition; a new one where there is none yet."""
        log = self.logs.get((topic, partition))
        if log is None:
            log = self.logs[topic, partition] = Log(
                self.around.files,
                self.around.folder.log(topic, partition),
                topic,
                partition,
                segment_bytes=segment_bytes(self.around.settings, topic),
            )
        return log

    def _sync(self, logs: Sequence[Log]) -> set[Log]:
        """Sync what was staged; those where it failed, which is never tried again."""
        began = perf_counter()
        if len(logs) > 1:
            if self._syncers is None:
                self._syncers = ThreadPoolExecutor(SYNCERS, thread_name_prefix="spool-sync")
            errors = list(self._syncers.map(self._sync_one, logs))
        else:
            errors = [self._sync_one(log) for log in logs]
        if logs:
            self.around.telemetry.observe(names.SPOOL_SYNC_DURATION, perf_counter() - began)
        failed = {log: error for log, error in zip(logs, errors, strict=True) if error is not None}
        for log, error in failed.items():
            self._close_for_good(f"{log.folder}: sync failed: {error.strerror}")
        return set(failed)

    def _sync_one(self, log: Log) -> OSError | None:
        try:
            if log.fd is not None:
                self.around.files.sync(log.fd)
            if log.fresh:
                self.around.files.sync_folder(log.folder)
                log.fresh = False
        except OSError as error:
            return error
        return None

    def _close_for_good(self, why: str) -> None:
        """Take nothing more until a restart: what the disk holds can't be known any more."""
        if self.fault is None:
            self.fault = why
            self.around.telemetry.event(names.SPOOL_CLOSED, level="error", error=why)

    def _taken(self, log: Log, call: Append, outcome: range | SpoolFault) -> None:
        self.around.telemetry.count(names.SPOOL_APPENDED, len(call.records), topic=call.topic)
        self.notebook.used(log)
        if isinstance(outcome, range):
            self.notebook.note_keys(
                SpooledKey(
                    call.topic,
                    digest(packed.idempotency.key),
                    packed.idempotency.fingerprint,
                    packed.accepted_at,
                    call.partition,
                    seq,
                )
                for seq, packed in zip(outcome, call.records, strict=True)
                if packed.idempotency is not None
            )

    # --- reading and progress --------------------------------------------------------------

    def read(
        self, topic: str, partition: int, *, after: int, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """See the port `Spool`. Raises SpoolFault."""
        log = self.logs.get((topic, partition))
        if log is None:
            return []
        done, lost = log.done_seq, log.lost_ever
        try:
            self._expire(log)
            found = log.read(after, max_records, max_bytes)
        except OSError as error:
            raise fault_of(error) from error
        self.note_spoiled(found.spoiled)
        if log.lost_ever > lost:
            self.around.telemetry.count(
                names.SPOOL_DROPPED, log.lost_ever - lost, topic=topic, reason="damaged"
            )
        if log.done_seq > done or log.lost_ever > lost:
            self.notebook.moved(log)
        return found.records

    def done(self, calls: Iterable[tuple[str, int, int]]) -> None:
        """See the port `Spool`; each is a topic, a partition, a sequence. Raises SpoolFault."""
        for topic, partition, seq in calls:
            log = self.logs.get((topic, partition))
            if log is not None and seq > log.done_seq:
                log.done(seq)
                self.notebook.moved(log)
        try:
            self.notebook.write()
        except OSError as error:
            raise fault_of(error) from error

    def backlog(self, topic: str, partition: int) -> Backlog:
        """See the port `Spool`; may be called from any thread."""
        log = self.logs.get((topic, partition))
        if log is not None:
            return log.view
        return Backlog(
            topic=topic,
            partition=partition,
            records=0,
            bytes=0,
            oldest_at=None,
            done_seq=0,
            last_seq=0,
        )

    def _expire(self, log: Log) -> None:
        age_s = self.around.settings.budget(log.topic).max_age_s
        oldest_at = log.view.oldest_at
        if age_s is None or oldest_at is None:
            return
        since_at = self.around.wall() - age_s
        if oldest_at < since_at:
            self._give_up(log, "expired", partial(log.drop_before, since_at))

    # --- housekeeping ----------------------------------------------------------------------

    def tick(self) -> None:
        """What time alone asks for: expiry, room, what isn't written down. Never raises."""
        try:
            for log in list(self.logs.values()):
                self._expire(log)
            self.notebook.tidy()
        except (OSError, SpoolFault) as error:
            self.around.telemetry.event(names.SPOOL_UNTIDY, level="warning", error=str(error))

    def note_spoiled(self, spoiled: Iterable[Spoiled]) -> None:
        """Set damage aside, and tell of what is news."""
        quarantine = self.around.folder.quarantine
        for segment, start, end in spoiled:
            if set_aside(quarantine, segment.path, start, end):
                self.around.telemetry.event(
                    names.SPOOL_DAMAGED,
                    level="error",
                    segment="/".join(segment.path.parts[-3:]),
                    start=start,
                    bytes=end - start,
                )

    def close(self) -> None:
        """Write everything down, and let go of the folder. Never raises."""
        for log in self.logs.values():
            log.seal()
        self.tick()
        if self._syncers is not None:
            self._syncers.shutdown(wait=False)
        self.notebook.close()
        self.around.folder.release()


def _oldest_at(log: Log) -> float:
    return log.view.oldest_at or 0.0


def fault_of(error: OSError) -> SpoolFault:
    """The disk's error in the spool's words."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in _FULL:
        return SpoolDiskFull(f"{where}{error.strerror}; nothing of this was kept")
    return SpoolFault(f"{where}{error.strerror}")
