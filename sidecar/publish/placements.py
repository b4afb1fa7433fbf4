"""How many partitions topics were taken to have, kept over restarts; and a count of the restarts.

What waits in the spool was placed by that number; a grown topic must not have newer records of a
key overtake it on another partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FILE: Final = "placements.json"
INCARNATION_FILE: Final = "incarnation"


class Placements:
    """Numbers by topic.

    Args:
        folder: where they are kept; None: nowhere, since nothing waits over a restart.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._path = folder / FILE if folder is not None else None
        self._known: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._written: dict[str, int] = {}
        if self._path is not None:
            self._known = _read(self._path)
            self._written = dict(self._known)

    def known(self, topic: str) -> int | None:
        """What a topic was taken to have."""
        return self._known.get(topic)

    def keep(self, topic: str, partitions: int) -> None:
        """Remember a number; written aside where it is news."""
        if self._known.get(topic) == partitions:
            return
        self._known[topic] = partitions
        if self._path is not None and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(
                self._write(self._path), name="write placements"
            )

    async def _write(self, path: Path) -> None:
        while self._written != self._known:
            now = dict(self._known)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_add, path, now)
            self._written = now

    async def incarnation(self, wall: float) -> int:
        """A number for this start, higher than each before: epoch milliseconds, as a rule."""
        told = int(wall * 1000)
        return told if self._folder is None else await asyncio.to_thread(_next, self._folder, told)

    async def close(self) -> None:
        """Finish writing."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=1.0)


def _read(path: Path) -> dict[str, int]:
    """Lost numbers are asked for again; only a topic that grew meanwhile could tell."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads(path.read_text("utf-8"))
        return {
            str(topic): number
            for topic, number in found.items()
            if isinstance(number, int) and number > 0
        }
    return {}


def _add(path: Path, known: Mapping[str, int]) -> None:
    """Other sidecars share the folder: what they know of other topics stays."""
    _replace(path, json.dumps({**_read(path), **known}))


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.stem}-{os.urandom(4).hex()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _next(folder: Path, at_least: int) -> int:
    """At least that, and more than the last one, which is kept against clocks that are set back."""
    path, number = folder / INCARNATION_FILE, at_least
    with contextlib.suppress(OSError, ValueError):
        number = max(at_least, int(path.read_text("ascii")) + 1)
    with contextlib.suppress(OSError):  # then the clock alone has to do
        _replace(path, str(number))
    return number
