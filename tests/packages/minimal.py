"""A root folder with glibc and nothing else, and how a program is run in it.

The strictest host there is: no shell, no Python, no libraries but glibc's. Only /proc is lent to
it, without which the loader finds no library that lies beside a program.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

GLIBC = ("libc", "libdl", "libm", "libpthread", "libresolv", "librt", "libutil")
_ENTER = 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"'


def make(root: Path) -> None:
    """Fill `root` with this machine's glibc, at the paths that programs look for it."""
    asked = [str(path) for name in GLIBC for path in _found(name)]
    loader = _loader()
    for path in [*asked, loader]:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755)
    for folder in ("proc", "tmp", "opt"):
        (root / folder).mkdir()


def _found(name: str) -> list[str]:
    cache = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    of_this_machine = [line for line in cache.splitlines() if "x86-64" in line or "AArch64" in line]
    return [
        found[2]
        for line in of_this_machine
        if (found := re.match(r"\s*(\S+)\.so\.[0-9]+ .* => (\S+)", line)) and found[1] == name
    ]


def _loader() -> str:
    told = subprocess.run(
        ["ldd", shutil.which("env") or "/usr/bin/env"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    found = re.search(r"^\s*(/\S*ld-linux\S*)", told, re.MULTILINE)
    assert found is not None, told
    return found[1]


def inside(root: Path, *program: str) -> tuple[str, ...]:
    """The command that runs a program with `root` as its whole file system, as the same process."""
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", _ENTER, str(root), *program)
