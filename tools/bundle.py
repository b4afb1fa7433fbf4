"""Make the self-contained tarball for hosts without Python, and its bill of materials.

It unpacks to `breaker-sidecar/bin/breaker-sidecar`, which runs from any folder. Made twice from
the same source on the same machine it is the same, byte by byte. No link is in it: Nomad's
`artifact` would leave an empty file in its place.
"""

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from packaging.utils import canonicalize_name

from sidecar import __version__
from tools import frozen, sbom
from tools.programs import ROOT

DIST = ROOT / "dist"
EPOCH = 1_767_225_600
"""2026-01-01: the time of every file in there, unless SOURCE_DATE_EPOCH says otherwise."""
_UNIT = ROOT / "packaging" / f"{frozen.NAME}.service"
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
_README = """\
breaker-sidecar {version} for Linux on {arch}, with everything it needs but glibc {glibc} or newer.

    bin/breaker-sidecar run -c FILE

bin/lib holds interpreter, modules and shared libraries, with the licence of each; sbom.cdx.json
lists them (CycloneDX). Keep bin together; it may lie anywhere, and nothing is written into it.
{unit} is for systemd, and has all this in /opt.
"""


def architecture() -> str:
    """This machine's, as Nomad's `${attr.cpu.arch}` and Go call it."""
    return _ARCHES.get(platform.machine(), platform.machine())


def title() -> str:
    """The tarball's name without its ending."""
    return f"{frozen.NAME}-{__version__}-linux-{architecture()}"


def build(dist: Path) -> Path:
    """Make the tarball, its checksum and its bill of materials in `dist`; returns the tarball.

    Raises:
        FreezeError: it can't be made here; the text says why.
    """
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=dist) as work:
        root = Path(work) / frozen.NAME
        bill = _assemble(root, Path(work), epoch)
        tarball = Path(work) / f"{title()}.tar.gz"
        _pack(root, tarball, epoch)
        digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
        (dist / f"{title()}.cdx.json").write_text(bill, "utf-8")
        (dist / f"{tarball.name}.sha256").write_text(f"{digest}  {tarball.name}\n", "utf-8")
        return tarball.replace(dist / tarball.name)


def _assemble(root: Path, work: Path, epoch: int) -> str:
    """Lay the tree out as it is to be unpacked; returns the bill of materials."""
    launcher = frozen.freeze(work, epoch)
    contents = launcher.parent / frozen.CONTENTS
    found = frozen.distributions(launcher)
    check_pins(found, (ROOT / "constraints.txt").read_text("utf-8"))
    frozen.keep_metadata(found, contents)
    bill = sbom.render(found, contents, frozen.sources(work), epoch)
    root.mkdir()
    launcher.parent.rename(root / "bin")
    glibc = frozen.oldest_glibc(root)
    said = _README.format(version=__version__, arch=architecture(), glibc=glibc, unit=_UNIT.name)
    (root / "README.txt").write_text(said, "utf-8")
    (root / "sbom.cdx.json").write_text(bill, "utf-8")
    for file in (ROOT / "LICENSE", _UNIT):
        shutil.copyfile(file, root / file.name)
    return bill


def check_pins(found: list[Distribution], constraints: str) -> None:
    """Refuse what another version than the pinned one would go into."""
    pinned = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^(\S+)==(\S+)$", constraints, re.MULTILINE)
    }
    pinned[canonicalize_name(frozen.NAME)] = __version__
    wrong = [
        f"{dist.name} {dist.version} (pinned: {pinned.get(canonicalize_name(dist.name))})"
        for dist in found
        if pinned.get(canonicalize_name(dist.name)) != dist.version
    ]
    if wrong:
        raise frozen.FreezeError(f"not as in constraints.txt: {', '.join(wrong)}; `make venv`")


def _pack(root: Path, target: Path, epoch: int) -> None:
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in (root, *sorted(root.rglob("*"))):
            _add(tar, path, str(path.relative_to(root.parent)), epoch)


def _add(tar: tarfile.TarFile, path: Path, name: str, epoch: int) -> None:
    if path.is_symlink():
        raise frozen.FreezeError(f"{name} is a link; Nomad would unpack an empty file")
    entry = tar.gettarinfo(path, name)
    entry.type = tarfile.DIRTYPE if path.is_dir() else tarfile.REGTYPE  # never a hard link
    runs = path.is_dir() or path.name == frozen.NAME
    entry.mode = 0o755 if runs else 0o644
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = epoch
    if path.is_dir():
        tar.addfile(entry)
        return
    entry.size = path.stat().st_size
    with path.open("rb") as content:
        tar.addfile(entry, content)


def described(tarball: Path) -> Iterator[str]:
    """What a person wants to know of it."""
    yield f"{tarball}: {tarball.stat().st_size / 1e6:.1f} MB"
    with tarfile.open(tarball) as tar:
        file = tar.extractfile(f"{frozen.NAME}/README.txt")
        if file is not None:
            yield file.readline().decode().strip()


def main(argv: list[str] | None = None) -> int:
    """Make it; 0 or 1."""
    parser = argparse.ArgumentParser(prog="bundle", description=__doc__.partition("\n")[0])
    parser.add_argument("--dist", type=Path, default=DIST, help="the folder to put it into")
    try:
        tarball = build(parser.parse_args(argv).dist)
    except frozen.FreezeError as fault:
        print(fault, file=sys.stderr)
        return 1
    for line in described(tarball):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
