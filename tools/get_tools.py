"""Bring real servers to `.tools/bin`: from PATH, else from a cache, else built by Go.

The cache lies outside the checkout, so that a clean checkout does not build again. Needs nothing
but the standard library, because it runs before any virtual environment has to exist.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools import get_kafka, shelf
from tools.programs import CONSUL, GATEWAYS, NOMAD, PACKAGED, PEERS, ROOT, TOXIPROXY, GoProgram
from tools.shelf import BuildFailedError, ToolMissingError, cache_folder, only_one_build

BIN = ROOT / ".tools" / "bin"

BUILD_DEADLINE_S = 3600.0
VERSION_DEADLINE_S = 20.0
DAEMON_FOLDERS = ("/usr/local/sbin", "/usr/sbin")
"""Where distributions put daemons, and where PATH need not look for an ordinary user."""


def cached_binary(program: GoProgram) -> Path:
    """Where a built program is kept, shared by every checkout of this user."""
    return cache_folder(f"{program.name}-{program.pinned_version()}") / program.name


def is_new_enough(program: GoProgram, binary: Path) -> bool:
    """Whether this file runs, is that program, and is not too old."""
    try:
        answer = subprocess.run(
            [binary, program.ask],
            capture_output=True,
            check=True,
            text=True,
            timeout=VERSION_DEADLINE_S,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    version = program.parse_version(answer.stdout)
    return version is not None and version >= program.oldest


def find(program: GoProgram) -> Path | None:
    """A usable one that is already on this machine: PATH first, then the cache."""
    own = str(BIN)
    elsewhere = [part for part in os.get_exec_path() if part != own]
    on_path = shutil.which(program.name, path=os.pathsep.join(elsewhere))
    candidates = [Path(on_path)] if on_path else []
    candidates.append(cached_binary(program))
    return next((binary for binary in candidates if is_new_enough(program, binary)), None)


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not on this machine."""
    path = os.pathsep.join([*os.get_exec_path(), *DAEMON_FOLDERS])
    return [package for name, package in PACKAGED.items() if shutil.which(name, path=path) is None]


def build(program: GoProgram) -> Path:
    """Build the pinned version into the cache. It appears there whole or not at all.

    Raises ToolMissingError without Go, BuildFailedError where Go fails.
    """
    go = shutil.which("go")
    if go is None:
        oldest = f"{program.oldest[0]}.{program.oldest[1]}"
        raise ToolMissingError(
            f"no {program.title} {oldest} or newer on PATH, none at {cached_binary(program)}, and"
            f" no `go` on PATH to build one. Install {program.title} ({program.home})"
            " or Go (https://go.dev/dl), then run `make tools`"
        )
    target = cached_binary(program)
    with only_one_build(target.parent):
        if is_new_enough(program, target):  # the build we waited for made it
            return target
        version = program.pinned_version()
        print(
            f"Building {program.title} {version} with {go}: some minutes, once on this machine.",
            file=sys.stderr,
        )
        unfinished = target.with_name(f"{program.name}.{os.getpid()}")
        try:
            _go_build(go, program, unfinished)
            unfinished.replace(target)
        except (OSError, subprocess.SubprocessError) as fault:
            raise BuildFailedError(
                f"{fault}. The build needs the Go that {program.folder / 'go.mod'} names (Go 1.21"
                " or newer fetches it by itself), Go's module proxy or a filled module cache, and"
                " about 4 GiB of disk" + (", and a C compiler" if program.cgo else "")
            ) from fault
        finally:
            unfinished.unlink(missing_ok=True)
    return target


def _go_build(go: str, program: GoProgram, output: Path) -> None:
    flags = [flag.format(version=program.pinned_version()) for flag in program.flags]
    subprocess.run(
        [go, "build", "-o", output, *flags, program.module + program.package],
        cwd=program.folder,
        env={**os.environ, "CGO_ENABLED": str(int(program.cgo))},
        check=True,
        timeout=BUILD_DEADLINE_S,
    )


def link(program: GoProgram, binary: Path) -> Path:
    """Point `.tools/bin/<name>` at this binary, in one step."""
    return shelf.link(BIN / program.name, binary)


def ensure(program: GoProgram) -> Path:
    """Find or build a program and link it. Raises ToolMissingError, BuildFailedError."""
    return link(program, find(program) or build(program))


def main(argv: list[str] | None = None) -> int:
    """Bring the named programs, or all that tests need; say what is missing. 0 or 1."""
    ways: dict[str, tuple[str, Callable[[], Path]]] = {
        program.name: (program.title, partial(ensure, program))
        for program in (CONSUL, NOMAD, TOXIPROXY, *GATEWAYS, *PEERS)
    }
    ways["kafka"] = (get_kafka.TITLE, get_kafka.ensure)
    peers = {program.name for program in PEERS}
    parser = argparse.ArgumentParser(prog="get_tools", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ways)}")
    names = parser.parse_args(argv).names
    if unknown := [name for name in names if name not in ways]:
        parser.error(f"no such program: {', '.join(unknown)}")
    failed = False
    for name in names or [name for name in ways if name not in peers]:
        title, bring = ways[name]
        try:
            linked = bring()
        except (ToolMissingError, BuildFailedError) as fault:
            print(f"{title}: {fault}.", file=sys.stderr)
            failed = True
        else:
            print(f"{linked.relative_to(ROOT)} -> {linked.resolve()}")
    if not names and (packages := missing_packages()):
        print(f"Not on this machine: apt-get install {' '.join(packages)}", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
