"""The bill of materials of a bundle, as CycloneDX: what is in it, of which version, by whom.

Made from what lies in the bundle (the metadata of its distributions, its shared libraries), so
that it tells of what is shipped and of nothing else.
"""

import hashlib
import platform
import shutil
import ssl
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from tools import frozen

PLACE = "breaker-sidecar:path"
"""The property that says where in the bundle a library lies."""
_DPKG_DEADLINE_S = 60.0


def render(
    distributions: list[Distribution],
    contents: Path,
    libraries: Mapping[str, Path],
    epoch: int,
) -> str:
    """The bill as JSON.

    Args:
        distributions: those that are in the bundle; the daemon's own is what the bill is of.
        contents: the folder that holds the libraries.
        libraries: the place of each in `contents`, and which file of this machine it was.
        epoch: seconds; when it was made, as far as it tells.
    """
    of_dist = {canonicalize_name(dist.name): _of_distribution(dist) for dist in distributions}
    daemon = of_dist[canonicalize_name(frozen.NAME)]
    daemon.type = ComponentType.APPLICATION
    packages = _packages(libraries)
    native = [_of_library(place, contents / place, packages.get(place)) for place in libraries]
    others = [*(one for one in of_dist.values() if one is not daemon), *_runtime()]
    bom = Bom(
        components=[*others, *native],
        metadata=BomMetaData(component=daemon, timestamp=datetime.fromtimestamp(epoch, UTC)),
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, _identity(daemon, others, native)),
    )
    for dist in distributions:
        wanted = [of_dist[name] for name in sorted(frozen.requires(dist)) if name in of_dist]
        bom.register_dependency(of_dist[canonicalize_name(dist.name)], wanted)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _identity(daemon: Component, others: list[Component], native: list[Component]) -> str:
    """The same for the same content, so that the bill's serial number is, too."""
    parts = [str(one.bom_ref) for one in (daemon, *others)]
    parts += [h.content for one in native for h in one.hashes]
    return "\n".join(sorted(parts))


def _of_distribution(dist: Distribution) -> Component:
    meta = dist.metadata.json
    licence = meta.get("license_expression") or meta.get("license")
    purl = PackageURL("pypi", None, canonicalize_name(dist.name), dist.version)
    return Component(
        name=dist.name,
        version=dist.version,
        purl=purl,
        bom_ref=str(purl),
        description=_text(meta.get("summary")),
        licenses=[LicenseFactory().make_from_string(str(licence))] if licence else None,
    )


def _text(value: str | list[str] | None) -> str | None:
    return value if isinstance(value, str) else None


def _runtime() -> Iterator[Component]:
    """What is no distribution: the interpreter, the launcher, and the TLS library's version."""
    python, tls = platform.python_version(), ssl.OPENSSL_VERSION.split()[1]
    launcher = distribution("pyinstaller").version
    for name, version, licence, cpe in (
        ("cpython", python, "PSF-2.0", f"cpe:2.3:a:python:python:{python}:*:*:*:*:*:*:*"),
        ("openssl", tls, "Apache-2.0", f"cpe:2.3:a:openssl:openssl:{tls}:*:*:*:*:*:*:*"),
        ("pyinstaller-bootloader", launcher, "GPL-2.0-or-later WITH Bootloader-exception", None),
    ):
        purl = PackageURL("generic", None, name, version)
        yield Component(
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            cpe=cpe,
            licenses=[LicenseFactory().make_from_string(licence)],
        )


def _of_library(place: str, file: Path, package: tuple[str, PackageURL] | None) -> Component:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Component(
        name=file.name,
        version=package[0] if package else None,
        purl=package[1] if package else None,
        bom_ref=f"file:{place}",
        type=ComponentType.LIBRARY if package else ComponentType.FILE,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        properties=[Property(name=PLACE, value=place)],
    )


def _packages(libraries: Mapping[str, Path]) -> dict[str, tuple[str, PackageURL]]:
    """Version and identity of the Debian package that each library of the system came from."""
    files = {place: source.resolve() for place, source in libraries.items()}
    of_system = {place: file for place, file in files.items() if file.is_relative_to("/usr/lib")}
    if not of_system:
        return {}
    # By name: the package may know the file below /lib that we know below /usr/lib.
    told = _dpkg("--search", *(f"*/{file.name}" for file in of_system.values()))
    owners = dict(line.rpartition(": ")[::-2] for line in told.splitlines() if "," not in line)
    found = {}
    for place, file in of_system.items():
        owner = owners.get(str(file)) or owners.get(str(file).removeprefix("/usr"))
        if owner:
            name, _, arch = owner.partition(":")
            version = _dpkg("--show", "--showformat", "${Version}", owner)
            qualifiers = {"arch": arch} if arch else None
            found[place] = version, PackageURL("deb", "debian", name, version, qualifiers)
    return found


def _dpkg(*arguments: str) -> str:
    """What dpkg-query says; nothing where there is none."""
    program = shutil.which("dpkg-query")
    if program is None:
        return ""
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=_DPKG_DEADLINE_S,
    )
    return done.stdout
