"""The spool on the event loop: hands over to a thread of its own, which alone touches the disk.

Whatever waits while a sync runs is taken together with the next one: one sync serves all.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, Self, TypeVar

from sidecar.core.errors import SpoolClosed, SpoolFault, SpoolFormat, SpoolFull
from sidecar.core.ports import Telemetry
from sidecar.core.spooling import Adopted, Backlog, NewRecord, SpoolSettings, Stored
from sidecar.core.types import Scalar
from sidecar.spool.adopt import Adoption
from sidecar.spool.files import Files
from sidecar.spool.folder import Folder, encoded, is_spool
from sidecar.spool.frames import pack
from sidecar.spool.keys import SpoolKeys
from sidecar.spool.ledger import SpooledKey
from sidecar.spool.losses import Hear, Losses, at_once
from sidecar.spool.recovery import recover
from sidecar.spool.room import segment_bytes
from sidecar.spool.vault import Append, Surroundings, Vault, fault_of

T = TypeVar("T")

GROUP_BYTES: Final = 8 * 1024 * 1024
"""Appended together at most, about: it is held in memory twice meanwhile."""
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Waiting for the disk at most; beyond, the disk is too slow for what comes, and we say so."""
OVERHEAD: Final = 100
"""Bytes of a record beside its key and value, about."""
TICK_S: Final = 1.0


class Unpacked(NamedTuple):
    """Records for one topic and partition, as they came."""

    topic: str
    partition: int
    records: Sequence[NewRecord]


@dataclass(slots=True)
class _Job:
    """Something for the thread; one of the three is set."""

    future: asyncio.Future[Any]
    append: Unpacked | None = None
    done: tuple[str, int, int] | None = None
    call: Callable[[], object] | None = None
    size: int = 0


class DiskSpool:
    """The port `Spool`. Made by `open`."""

    def __init__(
        self, vault: Vault, relay: _Relay, losses: Losses, settings: SpoolSettings
    ) -> None:
        self._vault, self._relay, self._losses = vault, relay, losses
        self._loop = relay.loop
        self._adoption = Adoption(vault, partial(segment_bytes, settings))
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._queued = 0
        self._closed: asyncio.Future[None] | None = None
        self._keys = SpoolKeys(self._spooled_keys)
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        root: Path,
        instance: str,
        settings: SpoolSettings,
        telemetry: Telemetry,
        *,
        files: Files | None = None,
        wall: Callable[[], float] = time.time,
    ) -> Self:
        """Open the spool of this instance below `spool.dir`, as its last process left it.

        Raises:
            SpoolTaken, SpoolFormat: the folder isn't ours to use.
            SpoolFault: it can't be made, read or written.
        """
        relay = _Relay(telemetry, asyncio.get_running_loop())
        losses = Losses(telemetry, relay.soon)
        path, files = root / encoded(instance), files or Files()
        vault = await asyncio.to_thread(
            partial(open_vault, path, settings, relay, files, wall, losses=losses)
        )
        return cls(vault, relay, losses, settings)

    # --- the port --------------------------------------------------------------------------

    @property
    def keys(self) -> SpoolKeys:
        """See the port `Spool`."""
        return self._keys

    @property
    def fault(self) -> str | None:
        """See the port `Spool`."""
        return self._vault.fault

    @property
    def orphans(self) -> int:
        """See the port `Spool`."""
        return self._adoption.orphans

    async def append(self, topic: str, partition: int, records: Sequence[NewRecord]) -> range:
        """See the port `Spool`."""
        if self._vault.fault is not None:
            raise SpoolClosed(self._vault.fault)
        encoded(topic)
        if not records:
            return range(0)
        size = sum([len(one.key or b"") + len(one.value or b"") for one in records])
        size += OVERHEAD * len(records)
        if self._queued and self._queued + size > QUEUE_BYTES:
            raise SpoolFull(f"{self._queued} bytes wait for the disk already; it is too slow")
        sequences: range = await self._hand_over(
            append=Unpacked(topic, partition, records), size=size
        )
        for record in records:
            if record.idempotency is not None:
                self._keys.abandon(topic, record.idempotency.key)
        return sequences

    async def read(
        self,
        topic: str,
        partition: int,
        *,
        after: int = 0,
        max_records: int = 500,
        max_bytes: int = 1024 * 1024,
    ) -> Sequence[Stored]:
        """See the port `Spool`."""
        return await self._call(
            partial(
                self._vault.read,
                topic,
                partition,
                after=after,
                max_records=max_records,
                max_bytes=max_bytes,
            )
        )

    async def done(self, topic: str, partition: int, seq: int) -> None:
        """See the port `Spool`."""
        await self._hand_over(done=(topic, partition, seq))

    def hear(self, topic: str, partition: int, hear: Hear | None) -> None:
        """See the port `Spool`."""
        self._losses.hear(topic, partition, hear)

    def backlog(self, topic: str, partition: int) -> Backlog:
        """See the port `Spool`."""
        return self._vault.backlog(topic, partition)

    def backlogs(self) -> Sequence[Backlog]:
        """See the port `Spool`."""
        return [log.view for log in list(self._vault.logs.values())]

    async def pause(self, topic: str, paused: bool) -> None:
        """See the port `Spool`."""
        await self._call(partial(self._vault.notebook.pause, topic, paused=paused))

    def paused(self, topic: str) -> bool:
        """See the port `Spool`."""
        return topic in self._vault.notebook.paused

    async def adopt(self) -> Sequence[Adopted]:
        """See the port `Spool`."""
        return await self._call(self._adoption.run)

    async def close(self) -> None:
        """See the port `Spool`."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            self._jobs.put(None)
        await asyncio.shield(self._closed)

    # --- between the loop and the thread ---------------------------------------------------

    async def _spooled_keys(
        self, topic: str, keys: Sequence[bytes], since_at: float
    ) -> list[SpooledKey | None]:
        if topic not in self._vault.notebook.key_topics:
            return [None] * len(keys)
        look = self._vault.notebook.key
        return await self._call(lambda: [look(topic, key, since_at) for key in keys])

    async def _call(self, what: Callable[[], T]) -> T:
        result: T = await self._hand_over(call=what)
        return result

    def _hand_over(
        self,
        *,
        append: Unpacked | None = None,
        done: tuple[str, int, int] | None = None,
        call: Callable[[], object] | None = None,
        size: int = 0,
    ) -> asyncio.Future[Any]:
        if self._closed is not None:
            raise SpoolClosed("the spool is closed")
        job = _Job(self._loop.create_future(), append, done, call, size)
        self._queued += size
        self._jobs.put(job)
        return job.future

    def _settle(self, outcomes: Sequence[tuple[_Job, object]]) -> None:
        for job, outcome in outcomes:
            self._queued -= job.size
            if job.future.done():
                continue  # whoever asked has gone
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _run(self) -> None:
        """The thread."""
        due, ended = time.monotonic() + TICK_S, False
        while not ended:
            jobs, ended = self._next(max(0.0, due - time.monotonic()))
            self._serve(jobs)
            if time.monotonic() >= due:
                self._vault.tick()
                due = time.monotonic() + TICK_S
        self._vault.close()
        self._relay.soon(self._ended)

    def _ended(self) -> None:
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def _next(self, wait_s: float) -> tuple[list[_Job], bool]:
        """What is to be done together; True: and then it is over."""
        jobs: list[_Job] = []
        size = 0
        with contextlib.suppress(Empty):
            job = self._jobs.get(timeout=wait_s)
            while job is not None:
                jobs.append(job)
                size += job.size
                if size >= GROUP_BYTES:
                    return jobs, False
                job = self._jobs.get_nowait()
            return jobs, True
        return jobs, False

    def _serve(self, jobs: Sequence[_Job]) -> None:
        """Do it: first what is quick, then what waits for a sync."""
        for job in jobs:
            if job.call is not None:
                self._post([(job, _outcome(job.call))])
        dones = [job for job in jobs if job.done is not None]
        if dones:
            calls = [job.done for job in dones if job.done is not None]
            outcome = _outcome(partial(self._vault.done, calls))
            self._post([(job, outcome) for job in dones])
        appends: list[_Job] = []
        batch: list[Append] = []
        for job in jobs:
            if job.append is not None:
                packed = _outcome(partial(_packed, job.append))
                if isinstance(packed, Append):
                    appends.append(job)
                    batch.append(packed)
                else:
                    self._post([(job, packed)])
        if appends:
            outcomes = _outcome(partial(self._vault.append, batch))
            each = outcomes if isinstance(outcomes, list) else [outcomes] * len(appends)
            self._post(list(zip(appends, each, strict=True)))

    def _post(self, outcomes: Sequence[tuple[_Job, object]]) -> None:
        self._relay.soon(self._settle, outcomes)


class _Relay:
    """The port `Telemetry` for other threads; what it is told is said on the loop."""

    def __init__(self, telemetry: Telemetry, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._telemetry = telemetry
        self._calls: deque[Callable[[], object]] = deque()
        self._waking = False
        """The loop has been told that there are calls, and hasn't begun with them."""

    def soon(self, what: Callable[..., object], *args: object) -> None:
        """Have it called on the loop, in order; nothing happens where that is closed."""
        self._calls.append(partial(what, *args))
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        self._waking = False  # before the first: one that comes behind the last must wake us again
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:  # one that failed must not keep the others
                self.loop.call_soon(self._call)

    def count(self, metric: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter."""
        self.soon(partial(self._telemetry.count, metric, amount, **labels))

    def observe(self, metric: str, value: float, /, **labels: str) -> None:
        """Record a duration in seconds."""
        self.soon(partial(self._telemetry.observe, metric, value, **labels))

    def event(self, name: str, /, *, level: str = "info", **fields: Scalar | Sequence[str]) -> None:
        """One log line."""
        self.soon(partial(self._telemetry.event, name, level=level, **fields))


def _packed(given: Unpacked) -> Append:
    """Raises ValueError where the format can't hold one of them."""
    return Append(given.topic, given.partition, [pack(record) for record in given.records])


def _outcome(call: Callable[[], object]) -> object:
    """What it returns, or the exception."""
    try:
        return call()
    except OSError as error:
        return fault_of(error)
    except sqlite3.Error as error:
        return SpoolFault(f"the ledger fails: {error}")
    except Exception as error:  # noqa: BLE001 - raised again where it was asked for
        return error


def open_vault(
    path: Path,
    settings: SpoolSettings,
    telemetry: Telemetry,
    files: Files,
    wall: Callable[[], float] = time.time,
    *,
    losses: Losses | None = None,
) -> Vault:
    """Open a spool's folder; the calling thread, or one other, uses what is returned.

    Args:
        telemetry: may be called from any thread.
        losses: is told what is given up; None: it is only counted.

    Raises:
        SpoolTaken, SpoolFormat: the folder isn't ours to use.
        SpoolFault: it can't be made, read or written.
    """
    losses = losses or Losses(telemetry, at_once)
    try:
        if is_spool(path.parent):
            # Whoever adopts that one deletes it, with what would be in here.
            raise SpoolFormat(f"{path.parent} is a spool itself: name the folder that it is in")
        folder = Folder.take(path, files)
        try:
            found = recover(folder, files, partial(segment_bytes, settings))
            around = Surroundings(
                folder=folder,
                files=files,
                settings=settings,
                telemetry=telemetry,
                gave_up=losses.gave_up,
                wall=wall,
            )
            return Vault(around, found)
        except BaseException:
            folder.release()
            raise
    except OSError as error:
        raise fault_of(error) from error
    except sqlite3.Error as error:
        raise SpoolFault(f"{path}: the ledger can't be used: {error}") from error
