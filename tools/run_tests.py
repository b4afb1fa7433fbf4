"""Run the tests with the real servers this machine can have, and say plainly what was left out.

`fast` needs no server. `test` is a newcomer's: without a Consul it leaves those tests out and its
last line says so. `all` is `test` and then everything else. It, and anything under CI=true, fails
where something is missing: nothing goes untested unnoticed, and a skip is a failure
(tests/noskip.py).
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from tools import get_kafka, get_tools, shelf
from tools.programs import CONSUL, GATEWAYS, NOMAD, ROOT, TOXIPROXY, GoProgram, cni_plugins

REMEDIES = {
    "browser": "Chromium on PATH (on Debian: chromium)",
    "consul": "a Consul 1.20 or newer on PATH, or Go (https://go.dev/dl) to build one",
    "gateways": "nginx and HAProxy (on Debian: nginx-light and haproxy); Go builds the others",
    "go": "Go on PATH (https://go.dev/dl)",
    "java": "a JDK and Maven on PATH (on Debian: default-jdk-headless and maven)",
    "kafka": "a JDK and Maven on PATH (on Debian: default-jdk-headless and maven), and Go to build"
    " Toxiproxy",
    "node": "Node.js on PATH (on Debian: nodejs)",
    "nomad": "root; Nomad 1.8 or newer on PATH, or Go and a C compiler to build one; CNI plugins,"
    " iptables, ip and nsenter (on Debian: containernetworking-plugins, iptables, iproute2,"
    " util-linux)",
    "packages": "binutils, strace, systemd and util-linux (Debian's packages of these names)",
    "promtool": "Prometheus with promtool on PATH (on Debian: prometheus)",
    "rust": "rustc on PATH (on Debian: rustc)",
}
"""What each marker for tests with an outside need asks of the machine; setup.cfg names them too."""


TOOLCHAINS = {
    "browser": ("chromium",),
    "go": ("go",),
    "java": ("java", "javac", "mvn"),
    "node": ("node",),
    "nomad": ("iptables", "ip", "nsenter"),
    "packages": ("objdump", "readelf", "strace", "strip", "systemd-analyze", "unshare"),
    "promtool": ("promtool", "prometheus"),
    "rust": ("rustc",),
}
"""The programs that a marker's tests start, all of them on PATH."""

ONLY_IN_ALL = (
    "browser",
    "gateways",
    "go",
    "java",
    "kafka",
    "node",
    "nomad",
    "packages",
    "promtool",
    "rust",
    "slow",
)
"""Markers that `test` leaves to `all`: other languages and servers, and what takes long by nature,
such as waiting for a session to expire. A newcomer's tests are over in a few minutes."""

SHARED = ("-p", "tests.shares", "-n", "2", "--no-loadscope-reorder")
"""Two processes share them out, since most wait for something. `-n 0` behind it undoes it."""


def missing_needs(*, everything: bool) -> list[str]:
    """The markers this machine can't serve. Links `.tools/bin/…`, building what it must.

    Raises BuildFailedError: with Go here a failed build is a fault, not a reason to test less.
    """
    missing = []
    if not _brought(CONSUL):
        missing.append("consul")
    if everything and (get_tools.missing_packages() or not _brought(*GATEWAYS)):
        missing.append("gateways")
    if everything:
        missing += [
            marker
            for marker, programs in TOOLCHAINS.items()
            if any(shutil.which(program) is None for program in programs)
        ]
        if not _kafka_runs():
            missing.append("kafka")
        if "nomad" not in missing and not _nomad_runs():
            missing.append("nomad")
    return missing


def _kafka_runs() -> bool:
    try:
        get_kafka.ensure()
    except shelf.ToolMissingError:
        return False
    return _brought(TOXIPROXY)


def _nomad_runs() -> bool:
    """Whether its tests can: they make networks of their own."""
    return os.geteuid() == 0 and cni_plugins() is not None and _brought(NOMAD)


def _brought(*programs: GoProgram) -> bool:
    try:
        for program in programs:
            get_tools.ensure(program)
    except shelf.ToolMissingError:
        return False
    return True


def without(markers: Iterable[str]) -> str:
    """The marker expression that leaves these out; empty if there are none."""
    return " and ".join(f"not {marker}" for marker in markers)


def describe(left_out: list[str]) -> str:
    """One line: what was left out and what would bring it in."""
    parts = "; ".join(f"those that need {name} (get {REMEDIES[name]})" for name in left_out)
    return f"LEFT OUT: tests of other programs: {parts}, then run `make test` again."


def run_pytest(expression: str, extra: list[str], *, no_skip: bool) -> int:
    """Run the tests that a marker expression selects, all for an empty one.

    From the root of the checkout, with `.tools/bin` first on PATH.
    """
    path = os.pathsep.join([str(get_tools.BIN), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "pytest", "-p", "tests.noskip"]
    done = subprocess.run(
        [*command, *(["-m", expression] if expression else []), *extra],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "BREAKER_TEST_NO_SKIP": "1" if no_skip else ""},
        check=False,
    )
    return done.returncode


def main(argv: list[str] | None = None) -> int:
    """Run one of the three; what stands behind its name goes to pytest."""
    parser = argparse.ArgumentParser(prog="run_tests", description=__doc__.partition("\n")[0])
    parser.add_argument("which", choices=("fast", "test", "all"))
    chosen, extra = parser.parse_known_args(argv)
    in_ci = os.environ.get("CI", "").lower() in {"true", "1"}
    no_skip = chosen.which == "all" or in_ci
    if chosen.which == "fast":
        return run_pytest(without([*REMEDIES, "slow"]), extra, no_skip=no_skip)
    try:
        left_out = missing_needs(everything=chosen.which == "all")
    except shelf.BuildFailedError as fault:
        print(f"{fault}. `make test-fast` needs no servers.", file=sys.stderr)
        return 1
    if left_out and no_skip:
        print(describe(left_out), file=sys.stderr)
        return 1
    extra = [*SHARED, *extra]
    code = run_pytest(without([*left_out, *ONLY_IN_ALL]), extra, no_skip=no_skip)
    if chosen.which == "all" and code == 0:
        code = run_pytest(" or ".join(ONLY_IN_ALL), extra, no_skip=no_skip)
    if left_out:
        print(describe(left_out), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
