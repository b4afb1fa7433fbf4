"""Keeps `listen.state_file` current: the decisions as one small JSON file that anybody can read.

The file is replaced whole by a rename, so that a reader sees the old one or the new one, never
half of one. Writing happens in a thread, ten times a second at most: a disk that hangs holds up
nobody but the file. What it says is only as good as it is young, which is why it is written anew
every few seconds, changed or not.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from sidecar.core.board import Cell
from sidecar.core.wire import decision_to_dict, rfc3339
from sidecar.loops.around import Around
from sidecar.telemetry import names

SCHEMA = 1
EVERY_S = 5.0
"""The longest time between two writings. Three times as old: its writer has died."""
LEAST_S = 0.1
MODE = 0o644


class _InTheWay(OSError):
    """Something else lies at the path."""


class StateFile:
    """Writes one file until it is stopped, then takes it away.

    Args:
        path: where; its folder must be there and writable.
    """

    def __init__(self, around: Around, path: str) -> None:
        self._around = around
        self._path = Path(path)
        self._spare = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        self._wake = asyncio.Event()
        self._written: tuple[int, int] | None = None
        """Device and inode of the file that we put there last."""
        self._ended = False
        self._failing = False

    async def run(self) -> None:
        """Write at every change and every few seconds; on the way out, remove it."""
        unlisten = self._around.board.listen(self._changed)
        self._ended = False
        try:
            while True:
                self._wake.clear()
                await self._write()
                await asyncio.sleep(LEAST_S)
                try:
                    async with asyncio.timeout(EVERY_S - LEAST_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue  # nothing has changed; its age has
        finally:
            unlisten()
            self._ended = True
            self._remove()

    def _changed(self, _breaker: str) -> None:
        self._wake.set()

    def render(self) -> bytes:
        """The file's content now."""
        board, clock = self._around.board, self._around.clock
        wall_at = clock.wall_at()
        body = {
            "schema": SCHEMA,
            "instance": board.instance,
            "written_at": rfc3339(wall_at),
            "default": board.default,
            "breakers": {
                name: _shown(cell, clock.now(), wall_at)
                for name, cell in sorted(board.cells.items())
            },
        }
        return msgspec.json.encode(body) + b"\n"

    async def _write(self) -> None:
        try:
            await asyncio.to_thread(self._replace, self.render())
        except OSError as fault:
            if not self._failing:
                self._around.telemetry.event(
                    names.STATE_FILE_FAILED,
                    level="error",
                    path=str(self._path),
                    error=fault.strerror or str(fault),
                )
            self._failing = True
        else:
            self._failing = False

    def _replace(self, content: bytes) -> None:
        """In a thread: write beside it, then rename."""
        with suppress(FileNotFoundError):
            found = os.lstat(self._path).st_mode
            if not stat.S_ISREG(found):
                what = "a symlink" if stat.S_ISLNK(found) else "no ordinary file"
                raise _InTheWay(f"{what} is there; remove it or change `listen.state_file`")
        # What a predecessor with our process id left behind.
        self._spare.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._spare, flags, MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, MODE)  # whatever the umask says
                file.write(content)
                found_now = os.fstat(descriptor)
            self._spare.replace(self._path)
        except BaseException:
            self._spare.unlink(missing_ok=True)
            raise
        self._written = found_now.st_dev, found_now.st_ino
        if self._ended:  # it took so long that nobody waited for it
            self._remove()

    def _remove(self) -> None:
        """Take it away, unless it is a successor's by now."""
        with suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._written:
                self._path.unlink()


def _shown(cell: Cell, now: float, wall_at: float) -> dict[str, object]:
    decision = cell.decision
    free = decision.admit_ratio >= 1.0
    back_at = None
    if not free and decision.retry_from is not None:
        back_at = rfc3339(wall_at + decision.retry_after(now))
    return {
        "allowed": decision.admit_ratio > 0.0,
        **decision_to_dict(decision),
        "retry_at": back_at,
    }
