"""Where real servers are kept between checkouts, and how each gets there: whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ToolMissingError(Exception):
    """Neither a program nor what is needed to get it is here; the text says how to get either."""


class BuildFailedError(Exception):
    """What gets the program is here, yet it failed; the text says what it needs."""


def cache_folder(name: str) -> Path:
    """The folder of one version of one program, shared by every checkout of this user."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "breaker-sidecar" / "tools" / name


@contextmanager
def only_one_build(folder: Path) -> Iterator[None]:
    """Let a second build on this machine wait for the first one's result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def link(place: Path, target: Path) -> Path:
    """Point the link at `place` to `target`, in one step."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.resolve())
    return fresh.replace(place)
