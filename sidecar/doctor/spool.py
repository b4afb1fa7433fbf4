"""The spool's folder: can it be written and synced, is there room, and will it outlive us?"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from sidecar.doctor.files import own_it, to_be_made, writable
from sidecar.doctor.findings import Finding, fault, fine, warning
from sidecar.publish.deadletters import FILE, MAX_BYTES
from sidecar.spool.folder import is_spool

CHECK = "spool.dir"
SLOW_S = 0.1
"""A sync that takes longer makes every producer wait."""
_MIB = 1 << 20
_FLEETING = ("tmpfs", "ramfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse", "9p")


def folder(path: str, max_bytes: int, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What can be said of it without changing anything there.

    Args:
        max_bytes: what may wait in it at most.
    """
    place = Path(path)
    if not place.exists():
        yield from to_be_made(place, CHECK, CHECK)
        return
    if not place.is_dir():
        yield fault(CHECK, "is no folder", f"move {path} away, or name a folder", CHECK, path)
        return
    if is_spool(place):
        yield fault(CHECK, "is a spool itself", "name the folder that it is in", CHECK, path)
        return
    if not writable(place):
        yield fault(CHECK, "this user can't write into it", own_it(place), CHECK, path)
        return
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        said = f"others may write into it (mode {mode:04o}), and take records away"
        yield warning(CHECK, said, f"chmod 0700 {path}", CHECK, path)
    yield from _lasting(place, environ)
    yield from _room(place, max_bytes)
    yield from _sync(place)
    yield from _letters(place)


def _lasting(place: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    real = place.resolve()
    kind = _file_system(real)
    mend = "name a folder on a disk of this machine: see docs/spool.md"
    if kind in _FLEETING:
        said = f"lies in memory ({kind}): what waits there is gone when the machine is"
        yield warning(CHECK, said, mend, CHECK, place)
    elif kind in _REMOTE:
        said = f"lies on {kind}, where a sync may promise more than it keeps, or hang"
        yield warning(CHECK, said, mend, CHECK, place)
    allocation = environ.get("NOMAD_ALLOC_DIR") or environ.get("NOMAD_TASK_DIR")
    if allocation and real.is_relative_to(Path(allocation).resolve().parent):
        said = "goes away with this allocation, and with it what waits"
        mend = "a host volume stays, and the next allocation adopts what is in it: docs/spool.md"
        yield warning(CHECK, said, mend, CHECK, place)


def _file_system(real: Path) -> str:
    """The kind of file system a path is on, as the kernel names it; empty where it doesn't tell."""
    try:
        table = Path("/proc/self/mounts").read_text("utf-8")
    except OSError:
        return ""
    mounts = [line.split(" ")[1:3] for line in table.splitlines()]
    over = [(where, kind) for where, kind in mounts if real.is_relative_to(where)]
    # Of two on one place the later one is seen.
    return max(enumerate(over), key=lambda one: (len(one[1][0]), one[0]))[1][1] if over else ""


def _room(place: Path, max_bytes: int) -> Iterator[Finding]:
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    said = f"{free / _MIB:.0f} MiB are free on its disk"
    if free < max_bytes:
        said += f", and spool.max_bytes is {max_bytes / _MIB:.0f} MiB"
        mend = "make room there, or make spool.max_bytes smaller"
        yield warning(CHECK, said, mend, CHECK, place)
    else:
        yield fine(CHECK, said, CHECK, place)


def _letters(place: Path) -> Iterator[Finding]:
    """What Kafka would never take, and somebody should look at."""
    file = place / FILE
    if file.is_file() and (size := file.stat().st_size):
        said = f"has {size / _MIB:.1f} MiB of dead letters, of {MAX_BYTES / _MIB:.0f} at most"
        mend = f"breaker-sidecar spool dead-letters ls {place}"
        yield warning(CHECK, said, mend, CHECK, place)


def _sync(place: Path) -> Iterator[Finding]:
    """Write and sync a file that never has a name, so that nothing is left."""
    try:
        fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # not every file system can do that, and it proves nothing
    try:
        os.write(fd, bytes(4096))
        began = time.perf_counter()
        os.fdatasync(fd)
        took_s = time.perf_counter() - began
    except OSError as error:
        said = f"can't be synced: {error.strerror}"
        yield fault(CHECK, said, "look at this disk (dmesg), or name another", CHECK, place)
        return
    finally:
        os.close(fd)
    said = f"a sync took {took_s * 1000:.1f} ms"
    if took_s > SLOW_S:
        yield warning(CHECK, said, "producers wait for it; a faster disk helps", CHECK, place)
    else:
        yield fine(CHECK, said, CHECK, place)
