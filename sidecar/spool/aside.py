"""Damaged bytes, set aside for people to look at."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

QUARANTINE_BYTES: Final = 64 * 1024 * 1024
"""Beyond, damage is counted and told of, and not kept."""


def set_aside(quarantine: Path, segment: Path, start: int, end: int) -> bool:
    """Copy part of a segment to the quarantine; False when that part is there already.

    What can't be kept (a full disk) is news all the same.
    """
    topic, partition = segment.parent.parent.name, segment.parent.name
    kept = quarantine / f"{topic[:100]}.{partition}.{segment.name}.{start}"
    if kept.exists():
        return False
    with contextlib.suppress(OSError):
        quarantine.mkdir(mode=0o700, exist_ok=True)
        size = min(end - start, max(0, QUARANTINE_BYTES - _size(quarantine)))
        fd = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as copy, segment.open("rb") as source:
            source.seek(start)
            copy.write(source.read(size))
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
