"""Folders and files that the configuration names: are they there, usable, ours, and big enough?"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.doctor.findings import Finding, fault, fine, warning

LEAST_FREE = 16 << 20
LITTLE_FREE = 256 << 20
"""Bytes of disk: below the first it is a fault, below the second a warning."""
TOKEN_BYTES = 64 * 1024
_MIB = 1 << 20


def data_dir(path: str, *, ours: bool) -> Iterator[Finding]:
    """The folder that keeps the identity.

    Args:
        ours: a sidecar of this configuration runs, so that its lock on the folder is expected.
    """
    check = key = "data_dir"
    folder = Path(path)
    if folder.is_symlink():
        said = f"is a symlink to {folder.readlink()}; whoever owns it decides where data goes"
        yield warning(check, said, "name the folder itself", key, path)
    if not folder.exists():
        yield from to_be_made(folder, check, key)
        return
    if not folder.is_dir():
        yield fault(check, "is no folder", f"move {path} away, or name a folder", key, path)
        return
    if not writable(folder):
        yield fault(check, "this user can't write into it", own_it(folder), key, path)
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        said = f"others may write into it (mode {mode:04o})"
        yield warning(check, said, f"chmod 0700 {path}", key, path)
    yield from _lock(folder / "lock", path, ours=ours)
    yield from _space(folder, check, key)


def to_be_made(folder: Path, check: str, key: str) -> Iterator[Finding]:
    """Of a folder that isn't there: whether the daemon can make it."""
    parent = next(above for above in folder.parents if above.exists())
    if parent.is_dir() and writable(parent):
        yield fine(check, "isn't there yet; the daemon makes it", key, folder)
        return
    yield fault(
        check,
        f"isn't there, and this user can't make it in {parent}",
        f"install -d -m 0700 -o {_user()} {folder}, or name another folder",
        key,
        folder,
    )


def _lock(path: Path, folder: str, *, ours: bool) -> Iterator[Finding]:
    check = key = "data_dir"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield fine(check, "nobody uses it", key, folder)
        return
    except OSError as error:
        said = f"its file `lock` can't be opened: {error.strerror}"
        yield fault(check, said, f"remove {path}; the daemon makes it anew", key, folder)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if ours:
            yield fine(check, "the running sidecar uses it", key, folder)
            return
        said = f"is in use by another sidecar{_holder(os.fstat(descriptor))}"
        mend = "give each sidecar a data_dir of its own, or stop the other one"
        yield fault(check, said, mend, key, folder)
    else:
        yield fine(check, "nobody uses it", key, folder)
    finally:
        os.close(descriptor)


def _holder(lock: os.stat_result) -> str:
    """Which process holds a lock, as far as the kernel tells."""
    try:
        table = Path("/proc/locks").read_text("utf-8")
    except OSError:
        return ""
    found = re.search(rf"FLOCK +ADVISORY +WRITE +([0-9]+) \S+:{lock.st_ino} ", table)
    return f" (process {found[1]})" if found else ""


def _space(folder: Path, check: str, key: str) -> Iterator[Finding]:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    said = f"{free / _MIB:.0f} MiB are free on its disk"
    mend = "make room there, or name a folder on another disk"
    if free < LEAST_FREE or (disk.f_files and not disk.f_favail):
        said += "" if free < LEAST_FREE else ", and no more files fit onto it"
        yield fault(check, said, mend, key, folder)
    elif free < LITTLE_FREE:
        yield warning(check, said, mend, key, folder)
    else:
        yield fine(check, said, key, folder)


def state_file(path: str) -> Iterator[Finding]:
    """The file that readers without HTTP go by: the daemon replaces it, and makes no folder."""
    check = key = "listen.state_file"
    file = Path(path)
    if not file.parent.is_dir():
        said = f"its folder {file.parent} isn't there, and the daemon doesn't make it"
        yield fault(check, said, f"install -d -o {_user()} {file.parent}", key, path)
    elif not writable(file.parent):
        said = f"this user can't write into its folder {file.parent}"
        yield fault(check, said, own_it(file.parent), key, path)
    elif _kind(file) not in {None, "a file"}:
        said = f"{_kind(file)} lies there, and the daemon replaces files only"
        yield fault(check, said, f"remove {path}, or name another file", key, path)
    else:
        yield fine(check, "can be written", key, path)
        yield from _space(file.parent, check, key)


def listening_socket(path: str, *, ours: bool) -> Iterator[Finding]:
    """The unix socket that the daemon answers on."""
    check = key = "listen.socket"
    file = Path(path)
    kind = _kind(file)
    if not file.parent.is_dir() or not writable(file.parent):
        there = file.parent.is_dir()
        said = f"its folder {file.parent} " + (
            "isn't writable for this user"
            if there
            else "isn't there, and the daemon doesn't make it"
        )
        mend = own_it(file.parent) if there else f"install -d -o {_user()} {file.parent}"
        yield fault(check, said, mend, key, path)
    elif kind not in {None, "a socket"}:
        said = f"{kind} lies there, and the daemon removes dead sockets only"
        yield fault(check, said, f"remove {path}, or name another path", key, path)
    elif kind and answers(path) and not ours:
        yield fault(
            check, "another process answers on it", "stop it, or name another path", key, path
        )
    else:
        yield fine(check, "can be bound" if not kind else "is there", key, path)


def secret(key: str, path: str) -> Iterator[Finding]:
    """A file with a token in it: readable for us, for nobody else, and holding one line."""
    check = "token file"
    try:
        with Path(path).open("rb") as file:
            text = file.read(TOKEN_BYTES).strip()
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        said = f"can't be read: {error.strerror}"
        mend = f"write the token there and let {_user()} read it, or name another file"
        yield fault(check, said, mend, key, path)
        return
    if not text:
        yield fault(check, "is empty", "write the token into it, on one line", key, path)
    elif len(text.split()) > 1:
        said = "holds more than one word; a token is one"
        yield fault(check, said, "keep the token alone in it, on one line", key, path)
    elif mode & stat.S_IROTH:
        said = f"every user of this machine can read it (mode {mode:04o})"
        yield warning(check, said, f"chmod 0600 {path}", key, path)
    else:
        yield fine(check, f"can be read (mode {mode:04o})", key, path)


def answers(path: str) -> bool:
    """Whether a process takes connections on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _kind(path: Path) -> str | None:
    """What lies there; None where nothing does."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    for test, name in (
        (stat.S_ISLNK, "a symlink"),
        (stat.S_ISREG, "a file"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    ):
        if test(mode):
            return name
    return "something that is no file"


def writable(folder: Path) -> bool:
    """Whether files can be made in it: also not where the file system is read-only."""
    return os.access(folder, os.W_OK | os.X_OK)


def own_it(folder: Path) -> str:
    """What to do about a folder that this user can't write into."""
    return f"chown {_user()} {folder} (and mount it for writing), or name another folder"


def _user() -> str:
    """This user, as commands take it. By number: the name may not be known in a container."""
    return str(os.geteuid())
