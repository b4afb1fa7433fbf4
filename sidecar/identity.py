"""Who this sidecar is: Nomad's allocation, or the host and a random part."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_MAX = 1024


class DataDirTaken(Exception):
    """Another sidecar uses the same `data_dir`."""


class DataDir:
    """A folder of this sidecar's own, locked for as long as the process lives."""

    def __init__(self, path: str) -> None:
        """Lock the folder, making it if need be.

        Raises:
            DataDirTaken: another process holds the lock.
            OSError: it can't be made or written, or it or the lock is a symlink: what is kept here
                goes nowhere else.
        """
        self._path = Path(path)
        if self._path.is_symlink():
            raise OSError(f"data_dir {path} is a symlink; name the folder itself")
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _open(self._path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise DataDirTaken(
                f"data_dir {path} is in use by another sidecar; give each its own"
            ) from error

    def instance(self) -> str:
        """The identity kept here; made on the first start."""
        kept = self._path / "instance"
        try:
            with os.fdopen(_open(kept, os.O_RDONLY)) as file:
                name = file.read(_NAME_MAX).strip()
        except FileNotFoundError:
            name = ""
        if not name or _UNFIT.search(name):
            name = random_instance()
            made = kept.with_suffix(".new")
            with os.fdopen(_open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
                file.write(name + "\n")
            made.replace(kept)
        return name


def _open(path: Path, flags: int) -> int:
    """Open a file of ours, which nobody else may read and which is no symlink."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def random_instance() -> str:
    """Host name and a random part: two daemons on one host are two instances."""
    host = _UNFIT.sub("-", socket.gethostname())[:100].strip("-.") or "host"
    return f"{host}-{secrets.token_hex(4)}"


def instance(environ: Mapping[str, str], data_dir: DataDir | None) -> str:
    """This sidecar's identity."""
    allocation = _UNFIT.sub("-", environ.get("NOMAD_ALLOC_ID", "")).lstrip("-_.")[:128]
    if allocation:
        return allocation
    return data_dir.instance() if data_dir is not None else random_instance()
