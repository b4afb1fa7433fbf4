"""The programs the tests run beside the daemon: which, how old they may be, how each is got."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that Go can build from `tools/<name>/go.mod`, which pins it.

    Args:
        name: of the program, and of the folder with its go.mod.
        title: what people call it.
        module: the path that go.mod requires; the package to build is at or below it.
        package: below the module; empty for the module itself.
        ask: the argument that makes it tell its version.
        answer: what it then says; the groups are major and minor.
        oldest: the oldest release the tests are meant for.
        home: where people get it.
        flags: of `go build`; `{version}` is the pinned one.
        cgo: whether it has to be built with a C compiler.
    """

    name: str
    title: str
    module: str
    package: str
    ask: str
    answer: str
    oldest: tuple[int, int]
    home: str
    flags: tuple[str, ...] = ()
    cgo: bool = False

    @property
    def folder(self) -> Path:
        """Where its go.mod lies."""
        return ROOT / "tools" / self.name

    def pinned_version(self) -> str:
        """The version that go.mod pins: what the cache holds and a build makes.

        Raises ValueError if it pins none.
        """
        text = (self.folder / "go.mod").read_text("utf-8")
        found = re.search(rf"{re.escape(self.module)} v(\S+)", text)
        if found is None:
            raise ValueError(f"{self.folder / 'go.mod'} pins no {self.module}")
        return found.group(1)

    def parse_version(self, text: str) -> tuple[int, int] | None:
        """Major and minor out of what it says of itself; None if that isn't its answer."""
        found = re.search(self.answer, text)
        return (int(found.group(1)), int(found.group(2))) if found else None


CONSUL = GoProgram(
    name="consul",
    title="Consul",
    module="github.com/hashicorp/consul",
    package="",
    ask="version",
    answer=r"\AConsul v(\d+)\.(\d+)\.",
    oldest=(1, 20),
    home="https://developer.hashicorp.com/consul",
)
CADDY = GoProgram(
    name="caddy",
    title="Caddy",
    module="github.com/caddyserver/caddy/v2",
    package="/cmd/caddy",
    ask="version",
    answer=r"\Av(\d+)\.(\d+)\.",
    oldest=(2, 8),
    home="https://caddyserver.com",
    # Built as a dependency it doesn't know its own version.
    flags=(
        "-trimpath",
        "-ldflags=-s -w -X github.com/caddyserver/caddy/v2.CustomVersion=v{version}",
    ),
)
TRAEFIK = GoProgram(
    name="traefik",
    title="Traefik",
    module="github.com/traefik/traefik/v3",
    package="/cmd/traefik",
    ask="version",
    answer=r"Version: +v?(\d+)\.(\d+)\.",
    # statusRewrites of its errors middleware is that young.
    oldest=(3, 4),
    home="https://traefik.io",
    flags=(
        "-trimpath",
        "-ldflags=-s -w -X github.com/traefik/traefik/v3/pkg/version.Version={version}",
    ),
)
NOMAD = GoProgram(
    name="nomad",
    title="Nomad",
    module="github.com/hashicorp/nomad",
    package="",
    ask="version",
    answer=r"\ANomad v(\d+)\.(\d+)\.",
    # Workload identities for Consul are that old, and a Consul block without them is deprecated.
    oldest=(1, 8),
    home="https://developer.hashicorp.com/nomad",
    flags=("-trimpath", "-ldflags=-s -w"),
    cgo=True,
)

TOXIPROXY = GoProgram(
    name="toxiproxy",
    title="Toxiproxy",
    module="github.com/Shopify/toxiproxy/v2",
    package="/cmd/server",
    ask="-version",
    answer=r"\Atoxiproxy-server version (\d+)\.(\d+)\.",
    oldest=(2, 5),
    home="https://github.com/Shopify/toxiproxy",
    # Built as a dependency it doesn't know its own version.
    flags=(
        "-trimpath",
        "-ldflags=-s -w -X github.com/Shopify/toxiproxy/v2.Version={version}",
    ),
)

OPA = GoProgram(
    name="opa",
    title="OPA",
    module="github.com/open-policy-agent/opa",
    package="",
    ask="version",
    answer=r"\AVersion: (\d+)\.(\d+)\.",
    # Policies are written in Rego v1 since then.
    oldest=(1, 0),
    home="https://www.openpolicyagent.org",
    flags=("-trimpath", "-ldflags=-s -w"),
)

PEERS = (OPA,)
"""What `make bench` measures beside us; `make tools` alone doesn't bring what no test needs."""

GATEWAYS = (CADDY, TRAEFIK)
"""The gateways that no Debian release packages; `PACKAGED` has the others."""

PACKAGED = {"nginx": "nginx-light", "haproxy": "haproxy"}
"""Programs that come from the distribution, with the Debian package of each."""

CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
"""Where Nomad's documentation and Debian put the plugins that make bridge networks."""


def cni_plugins() -> Path | None:
    """The folder that has them; None where there is none."""
    return next((folder for folder in CNI_FOLDERS if (folder / "bridge").is_file()), None)
