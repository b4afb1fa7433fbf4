"""The bundle on a host with glibc and nothing else: what is in it, and that it does its work."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema_rs
import pytest
from PyInstaller.archive.readers import CArchiveReader

from sidecar import __version__
from tests.daemon import Daemon
from tests.packages import minimal
from tests.servers import ROOT, ConsulServer, poll_until_sync
from tools import bundle, frozen

pytestmark = pytest.mark.packages

LARGEST = 25_000_000
"""Bytes of the tarball: every host of a fleet fetches it."""
DEADLINE_S = 60.0
LOADED = """
import importlib, json, pkgutil, sys, sidecar
from sidecar import lean
lean.begin()
for found in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print(json.dumps([name for name, module in sys.modules.items() if getattr(module, "__file__", 0)]))
"""
"""What the daemon loads at most, however it comes to load it."""
INTERPRETERS_OWN = {
    *("_distutils_hack", "_frozen_importlib", "_frozen_importlib_external", "_sitebuiltins"),
    *("os.path", "site", "sitecustomize"),
}


@pytest.fixture(scope="module")
def root(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal root with the bundle unpacked in /opt, where nobody may write."""
    folder = tmp_path_factory.mktemp("root")
    minimal.make(folder)
    with tarfile.open(tarball) as tar:
        tar.extractall(folder / "opt", filter="data")
    return folder


@pytest.fixture(scope="module")
def unpacked(root: Path) -> Path:
    return root / "opt" / "breaker-sidecar"


@pytest.fixture(scope="module")
def program(root: Path) -> tuple[str, ...]:
    return minimal.inside(root, "/opt/breaker-sidecar/bin/breaker-sidecar")


def ask(program: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


def members(tarball: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(tarball) as tar:
        yield from tar


def test_it_is_called_as_promised_and_small(tarball: Path) -> None:
    assert tarball.name == f"breaker-sidecar-{__version__}-linux-{bundle.architecture()}.tar.gz"
    assert tarball.stat().st_size < LARGEST
    digest, _, name = (tarball.parent / f"{tarball.name}.sha256").read_text().split(" ")
    assert name.strip() == tarball.name
    assert digest == hashlib.sha256(tarball.read_bytes()).hexdigest()


def test_it_holds_plain_files_of_root_that_nobody_may_change(tarball: Path) -> None:
    found = list(members(tarball))
    names = [member.name for member in found]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert {"LICENSE", "README.txt", "breaker-sidecar.service", "sbom.cdx.json", "bin"} == {
        name.split("/")[1] for name in names if "/" in name
    }
    for member in found:
        assert member.isfile() or member.isdir(), member.name  # a link would arrive empty
        assert (member.uid, member.gid, member.mtime) == (0, 0, bundle.EPOCH)
        runs = member.isdir() or member.name == "breaker-sidecar/bin/breaker-sidecar"
        assert member.mode == (0o755 if runs else 0o644), member.name


def test_nothing_of_this_machine_is_told(unpacked: Path) -> None:
    here = str(ROOT).encode()
    for path in unpacked.rglob("*"):
        assert path.is_dir() or here not in path.read_bytes(), path
    launcher = unpacked / "bin" / "breaker-sidecar"
    modules = CArchiveReader(str(launcher)).open_embedded_archive("PYZ.pyz")
    for name in modules.toc:
        code = modules.extract(name)
        assert code is None or not code.co_filename.startswith("/"), name


def test_no_tests_and_no_tools_are_shipped(unpacked: Path) -> None:
    shipped = {n.split(".")[0] for n in frozen.modules(unpacked / "bin" / "breaker-sidecar")}
    shipped |= {path.name.split(".")[0] for path in (unpacked / "bin" / "lib").iterdir()}
    unwanted = {"pip", "setuptools", "idlelib", "tkinter", "test", "tests", "tools", "pytest"}
    assert not shipped & {*unwanted, "hypothesis", "mypy", "PyInstaller", "requests", "rich"}


def test_all_that_the_daemon_ever_loads_is_in_it(unpacked: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, check=True, timeout=DEADLINE_S
    )
    launcher, lib = unpacked / "bin" / "breaker-sidecar", unpacked / "bin" / "lib"
    here = frozen.modules(launcher) | set(CArchiveReader(str(launcher)).toc)
    libraries = [path.relative_to(lib) for path in lib.rglob("*.so*")]
    here |= {".".join(path.parts).partition(".cpython")[0] for path in libraries}
    here |= {path.name.partition(".cpython")[0] for path in libraries}  # of the standard library
    with zipfile.ZipFile(lib / "base_library.zip") as archive:
        names = [name.removesuffix(".pyc").replace("/", ".") for name in archive.namelist()]
    here |= {name.removesuffix(".__init__") for name in names}
    missing = set(json.loads(told.stdout)) - here
    # Of the interpreter itself, and of how this checkout is installed.
    assert {name for name in missing if not name.startswith("__editable__")} <= INTERPRETERS_OWN


def test_every_library_finds_every_other_with_glibc_alone(root: Path, unpacked: Path) -> None:
    loader = next(path for path in root.rglob("ld-linux*"))
    within = "/" + str(loader.relative_to(root))
    beside = "/opt/breaker-sidecar/bin/lib"
    for path in sorted(unpacked.rglob("*.so*")):
        file = "/" + str(path.relative_to(root))
        command = minimal.inside(root, within, "--library-path", beside, "--list", file)
        told = ask(command)
        assert told.returncode == 0, told.stderr
        assert "not found" not in told.stdout, f"{file}: {told.stdout}"


def test_the_root_has_neither_python_nor_a_shell(root: Path) -> None:
    outside = [p for p in root.rglob("*") if p.is_file() and "opt" not in p.parts[-9:]]
    for name in ("python*", "sh", "bash", "libz*", "libssl*"):
        assert not [path for path in outside if path.match(name)]
    assert not (root / "usr/bin/python3").exists()


def test_it_answers_from_any_folder(program: tuple[str, ...], unpacked: Path) -> None:
    assert ask(program, "--version").stdout == f"breaker-sidecar {__version__}\n"
    elsewhere = subprocess.run(
        [unpacked / "bin" / "breaker-sidecar", "config", "schema"],
        capture_output=True,
        check=True,
        cwd="/",
        env={},
        timeout=DEADLINE_S,
    )
    assert json.loads(elsewhere.stdout)["title"] == "breaker-sidecar"


def test_the_spools_checksums_are_the_compiled_ones(unpacked: Path, tmp_path: Path) -> None:
    """Without its library the checksum's module would fall back to Python, and only warn."""
    line = {"topic": "t", "partition": 0, "timestamp_ms": 1, "accepted_at": 1.0}
    line |= {"key": None, "value": "eA==", "headers": []}
    command = [str(unpacked / "bin" / "breaker-sidecar"), "spool"]
    for arguments, said in (
        (["import", str(tmp_path / "spool")], "1 records are in "),
        (["verify", str(tmp_path / "spool")], "1 records in 1 segments: all of it is whole\n"),
    ):
        done = subprocess.run(
            [*command, *arguments],
            input=json.dumps(line),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr.startswith(said)


def test_doctor_tells_that_nobody_is_trusted_here(root: Path) -> None:
    """OpenSSL looks for authorities where the machine that made the bundle has them."""
    env = {"BREAKER_SIDECAR__STORE": "consul", "CONSUL_HTTP_ADDR": "https://127.0.0.1:1"}
    told = subprocess.run(
        minimal.inside(root, "/opt/breaker-sidecar/bin/breaker-sidecar", "doctor", "-o", "json"),
        capture_output=True,
        check=False,
        env={**os.environ, **env},
        timeout=DEADLINE_S,
    )
    assert told.returncode == 1, told.stderr
    findings = json.loads(told.stdout)["findings"]
    (found,) = [finding for finding in findings if finding["check"] == "tls"]
    assert (found["level"], found["key"]) == ("fault", "consul.ca_file")
    assert "no certificate authorities" in found["said"]


def test_it_works_against_a_real_consul(
    program: tuple[str, ...], consul: ConsulServer, prefix: str
) -> None:
    env = {
        "BREAKER_SIDECAR__STORE": "consul",
        "BREAKER_SIDECAR__CONSUL__STATE_PREFIX": prefix,
        "BREAKER_SIDECAR__BREAKERS__DEFAULT__CONSUL_KEY_PREFIX": f"{prefix}-reports",
        "CONSUL_HTTP_ADDR": consul.address,
    }
    with Daemon(env=env, program=program) as daemon:
        address = f"{daemon.host}:{daemon.port}"
        assert ask(program, "wait", "--timeout", "30s", "--address", address).returncode == 0
        poll_until_sync(lambda: consul.kv_get(f"{prefix}/state"), DEADLINE_S, "a state record")
        told = ask(program, "report", "--fail", "25", "--address", address)
        assert told.returncode == 0, told.stderr

        def rejected() -> bool:
            return ask(program, "allowed", "--peek", "--address", address).returncode == 1

        poll_until_sync(rejected, DEADLINE_S, "the breaker opens")
        daemon.send_signal(signal.SIGHUP)

        def reloaded() -> bool:
            return any(line.get("event") == "config_reloaded" for line in daemon.logs())

        poll_until_sync(reloaded, DEADLINE_S, "SIGHUP is heard")
        assert daemon.stop(within_s=DEADLINE_S) == 0


def bill(tarball: Path) -> dict[str, Any]:
    beside = tarball.with_name(tarball.name.replace(".tar.gz", ".cdx.json"))
    found: dict[str, Any] = json.loads(beside.read_text())
    return found


def test_the_bill_is_valid_and_in_the_bundle(tarball: Path, unpacked: Path) -> None:
    schemas = Path(cyclonedx.schema.__file__).parent / "_res"
    registry = jsonschema_rs.Registry(
        [
            (f"http://cyclonedx.org/schema/{path.name}", json.loads(path.read_text()))
            for path in schemas.glob("*.schema.json")
        ]
    )
    schema = json.loads((schemas / "bom-1.6.SNAPSHOT.schema.json").read_text())
    validator = jsonschema_rs.validator_for(schema, registry=registry)
    made = bill(tarball)
    assert [str(error) for error in validator.iter_errors(made)] == []
    assert list(validator.iter_errors({**made, "components": [{"name": "x"}]}))
    assert json.loads((unpacked / "sbom.cdx.json").read_text()) == made
    assert made["metadata"]["component"]["version"] == __version__


def test_the_bill_lists_what_is_there_and_nothing_else(tarball: Path, unpacked: Path) -> None:
    lib = unpacked / "bin" / "lib"
    components = bill(tarball)["components"]
    hashes = {
        one["properties"][0]["value"]: one["hashes"][0]["content"]
        for one in components
        if one["bom-ref"].startswith("file:")
    }
    there = [path for path in lib.rglob("*") if path.is_file() and ".so" in path.name]
    assert hashes == {
        str(path.relative_to(lib)): hashlib.sha256(path.read_bytes()).hexdigest() for path in there
    }
    listed = {one["purl"] for one in components if one.get("purl", "").startswith("pkg:pypi/")}
    kept = {path.name.removesuffix(".dist-info") for path in lib.glob("*.dist-info")}
    assert listed == {
        f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        for name, _, version in (one.rpartition("-") for one in kept)
        if name != "breaker_sidecar"
    }
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    assert all(purl.removeprefix("pkg:pypi/").replace("@", "==") in pins for purl in listed)
    names = {one["name"]: one for one in components}
    assert names["cpython"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert names["openssl"]["cpe"].startswith("cpe:2.3:a:openssl:openssl:")


def test_every_module_belongs_to_something_on_the_bill(tarball: Path, unpacked: Path) -> None:
    """What is shipped is ours, Python's own, or of a distribution with its metadata kept."""
    launcher = unpacked / "bin" / "breaker-sidecar"
    packages = {name.split(".")[0] for name in frozen.modules(launcher)}
    known = {one["purl"].partition("@")[0] for one in bill(tarball)["components"] if "purl" in one}
    for package in packages - set(sys.stdlib_module_names) - {"sidecar"}:
        owners = frozen.owners(package)
        assert owners, package
        assert {f"pkg:pypi/{owner}" for owner in owners} & known, package


def test_each_distribution_comes_with_its_licence(unpacked: Path) -> None:
    lib = unpacked / "bin" / "lib"
    bare = [
        folder.name
        for folder in lib.glob("*.dist-info")
        if not [file for file in folder.rglob("*") if file.is_file() and file.name != "METADATA"]
    ]
    assert bare == []
    assert (unpacked / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_version_that_is_not_pinned_is_refused() -> None:
    found = [frozen.installed()["click"]]  # type: ignore[index] # a plain name is canonical
    bundle.check_pins(found, f"click=={found[0].version}\n")
    with pytest.raises(frozen.FreezeError, match=r"click .* \(pinned: 1\.2\)"):
        bundle.check_pins(found, "click==1.2\n")
    with pytest.raises(frozen.FreezeError, match=r"pinned: None"):
        bundle.check_pins(found, "")


@pytest.mark.slow
def test_made_again_it_is_the_same(tarball: Path, tmp_path: Path) -> None:
    assert bundle.build(tmp_path).read_bytes() == tarball.read_bytes()
