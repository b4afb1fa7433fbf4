"""`make demo` as CI runs it: both runs on real servers, and the promise of the breaker."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, poll_until_sync

pytestmark = [pytest.mark.kafka, pytest.mark.consul, pytest.mark.slow]

ENDS_WITHIN_S = 360.0
STARTS_WITHIN_S = 90.0
STOPS_WITHIN_S = 30.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The demo without a terminal, leaving what it leaves in this folder."""
    with (folder.parent / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tools.demo"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tmp"
    made.mkdir()
    return made


def test_the_breaker_keeps_its_promise(folder: Path) -> None:
    demo = start(folder)
    try:
        code = demo.wait(ENDS_WITHIN_S)
    finally:
        demo.kill()
    text = (folder.parent / "said").read_text("utf-8")
    assert code == 0, text[-6000:]
    told = json.loads(text.splitlines()[-1])
    assert told["ok"]
    one, other = told["with_breaker"], told["without_breaker"]
    assert one["lost"] == 0
    assert one["peak_lag"] <= 1.5 * one["lag_at_open"]
    assert one["recovered_after_s"] <= 60
    assert one["refused"] > 0
    assert other["refused"] == 0
    assert other["peak_lag"] > one["peak_lag"], "what the breaker is for"
    assert told["settings"]["api"]["max_outstanding"] > 0
    assert "with breaker       without" in text
    assert not list(folder.iterdir()), "it leaves nothing"


def test_it_ends_in_order_when_it_is_told_to(folder: Path) -> None:
    """As Ctrl-C does it: everybody in the terminal's group hears it."""
    demo = start(folder)
    said = folder.parent / "said"
    try:
        poll_until_sync(
            lambda: "with breaker, curtain" in said.read_text("utf-8"), STARTS_WITHIN_S, "it plays"
        )
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(STOPS_WITHIN_S) == 130, said.read_text("utf-8")[-3000:]
    finally:
        demo.kill()
    assert said.read_text("utf-8").endswith("Stopped.\n")
    assert not list(folder.iterdir())
    assert not still_running(folder)


def test_keys_steer_it(folder: Path) -> None:
    """In a terminal: `n` ends an act that would not end by itself, `q` the demo."""
    ours, theirs = pty.openpty()
    demo = subprocess.Popen(
        [sys.executable, "-m", "tools.demo", "--steer"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""

    def shows(what: bytes) -> bool:
        nonlocal seen
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while select.select([ours], [], [], 0)[0]:
                seen += os.read(ours, 65536)
        return what in seen

    try:
        poll_until_sync(lambda: shows(b"with breaker: healthy"), STARTS_WITHIN_S, "it plays")
        os.write(ours, b"n")
        poll_until_sync(lambda: shows(b"database down"), STOPS_WITHIN_S, "the next act")
        os.write(ours, b"q")
        # Whoever leaves what it writes unread holds it up.
        poll_until_sync(lambda: shows(b"Stopped."), STOPS_WITHIN_S, "it says so")
        assert demo.wait(STOPS_WITHIN_S) == 0
    finally:
        demo.kill()
        os.close(ours)
    assert not list(folder.iterdir())
    assert not still_running(folder)


def still_running(folder: Path) -> list[str]:
    """The command lines of processes that have something to do with this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
