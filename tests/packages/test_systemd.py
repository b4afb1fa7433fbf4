"""The unit file: systemd takes it, finds it tight, and the daemon lives with what it forbids."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.servers import ROOT, ConsulServer, free_port, poll_until_sync

pytestmark = pytest.mark.packages

UNIT = ROOT / "packaging" / "breaker-sidecar.service"
INSTALLED = "/opt/breaker-sidecar/bin/breaker-sidecar"
EXPOSURE = 1.5
"""The most that systemd's own assessment (0 best, 10 worst) may say."""
DEADLINE_S = 60.0
REFUSE_EXEC_GAIN = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit("the kernel (6.3 or newer) refuses MDWE")
os.execv(sys.argv[1], sys.argv[1:])
"""


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    """Of the unit as it is, but for the place of the program, which must be there."""
    program = Path(sys.executable).with_name("breaker-sidecar")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace(INSTALLED, str(program)), "utf-8")
    told = systemd_analyze("verify", "--man=no", str(unit))
    assert (told.returncode, told.stderr) == (0, "")
    unit.write_text(unit.read_text("utf-8") + "\n[Service]\nProtectSytem=strict\n", "utf-8")
    assert "ProtectSytem" in systemd_analyze("verify", "--man=no", str(unit)).stderr


def test_systemd_finds_it_tight() -> None:
    told = systemd_analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", str(UNIT)
    )
    assert told.returncode == 0, told.stdout


def test_its_commands_are_the_programs_own() -> None:
    for key in ("ExecStart", "ExecStartPost", "ExecReload"):
        for line in settings(key):
            words = line.split()
            assert words[0] in {INSTALLED, "/bin/kill"}, line
            if words[0] == INSTALLED:
                help_ = [sys.executable, "-m", "sidecar", words[1], "--help"]
                told = subprocess.run(help_, capture_output=True, text=True, check=True, cwd=ROOT)
                assert all(w in told.stdout for w in words[2:] if w.startswith("-")), line


def system_calls(name: str, groups: dict[str, list[str]]) -> set[str]:
    """A group of system calls with all the groups in it."""
    if not name.startswith("@"):
        return {name}
    return set[str]().union(*(system_calls(part, groups) for part in groups[name]))


def allowed_calls() -> set[str]:
    """What the unit's SystemCallFilter leaves."""
    groups: dict[str, list[str]] = {}
    name = ""
    for line in systemd_analyze("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = []
        elif line.startswith("    ") and "#" not in line and name:
            groups[name].append(line.strip())
    allowed: set[str] = set()
    for line in settings("SystemCallFilter"):
        for group in line.removeprefix("~").split():
            calls = system_calls(group, groups)
            allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


def test_its_process_can_be_measured() -> None:
    """prometheus-client dates a process by /proc/stat, which `ProcSubset=pid` would hide.

    Without it there is no `process_start_time_seconds`, and an alert rests on that.
    """
    assert settings("ProcSubset") == []


def test_the_daemon_lives_with_what_is_forbidden(
    consul: ConsulServer, prefix: str, tmp_path: Path
) -> None:
    """No memory that is writable and executable, and no system call beyond the filter.

    With everything that it may be told to do on disk, and Kafka away.
    """
    trace = tmp_path / "trace"
    program = ("strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", REFUSE_EXEC_GAIN)
    token = tmp_path / "token"
    token.write_text("let-me-in")
    config = {
        "data_dir": str(tmp_path / "data"),
        "listen": {"socket": str(tmp_path / "socket"), "state_file": str(tmp_path / "state.json")},
        "consul": {"address": consul.address, "state_prefix": prefix},
        "breakers": {"default": {"consul_key_prefix": f"{prefix}-reports"}},
        "admin": {"token_file": str(token)},
        "kafka": {"bootstrap_servers": [f"127.0.0.1:{free_port()}"]},
        "spool": {"dir": str(tmp_path / "data" / "spool")},
        "publish": {"topics": {"orders": {"outage": "spool_all"}}},
    }
    with Daemon(config, program=(*program, sys.executable, "-m", "sidecar")) as daemon:
        daemon.wait_ready(DEADLINE_S)
        began = trace.read_text("utf-8", "replace")
        traced = int(began.split(maxsplit=1)[0])
        try:
            daemon.post("/v1/report", {"instance": "c-1", "count_fail": 25})

            def rejected() -> bool:
                return daemon.allowed(peek=True).status == 503

            poll_until_sync(rejected, DEADLINE_S, "the breaker opens")
            assert (tmp_path / "state.json").exists()
            record = {"value": {"type": "JSON", "data": 1}}
            bearer = {"Authorization": "Bearer let-me-in"}
            assert daemon.post("/v1/publish/orders", record, bearer).body["status"] == "spooled"
        finally:  # a strace that is killed would leave it behind
            subprocess.run(["kill", "-TERM", str(traced)], check=True)
        assert daemon.wait(DEADLINE_S) == 0
    made = re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text("utf-8", "replace"), re.MULTILINE)
    allowed = allowed_calls()
    assert {"epoll_ctl", "accept4", "flock"} <= allowed
    assert allowed.isdisjoint({"mount", "ptrace", "chroot", "setrlimit"})
    assert {"bind", "flock"} <= set(made)
    # SQLite gives its files their folder's owner, as root alone; the unit's user isn't root.
    of_root = {"fchown"} if os.geteuid() == 0 else set()
    assert set(made) - allowed - of_root == set()
