"""What only the thread-based client does: start by itself, and survive a fork."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from aiohttp.test_utils import TestServer

from sidecar.client import Breaker, Source
from tests.servers import ROOT, poll_until
from tests.unit.client.fake import FakeSidecar, breaker

SOON_S = 5.0

FORKING = """
import os, sys
from sidecar.client import Breaker
client = Breaker(address=sys.argv[1], on_no_answer=True)
print("parent", client.allowed(), client.source, flush=True)
if (child := os.fork()) == 0:
    print("child", client.allowed(), client.source, flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print("after", client.allowed(), client.source, flush=True)
client.close()
"""


async def test_the_first_decision_starts_it_and_waits_for_the_first_word(
    sidecar: FakeSidecar, server: TestServer
) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    client = Breaker(address=f"127.0.0.1:{server.port}", on_no_answer=True)
    assert client.fault == "not started"
    first = await asyncio.gather(*(asyncio.to_thread(client.allowed) for _ in range(4)))
    assert first == [False] * 4
    assert client.source is Source.WATCH
    assert sidecar.watched == 1
    await asyncio.to_thread(client.close)


def test_it_waits_once_for_a_sidecar_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Breaker(
            address=f"127.0.0.1:{silent.getsockname()[1]}", on_no_answer=True, timeout_s=1.0
        )
        took_s = []
        for _ in range(2):
            began = time.monotonic()
            assert client.allowed()
            took_s.append(time.monotonic() - began)
        client.close()
    assert took_s[0] >= 1.0 > 2 * took_s[1]


async def test_without_a_thread_left_it_falls_to_the_default_and_comes_back(
    sidecar: FakeSidecar, server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    sidecar.breakers = [breaker(state="OPEN")]
    client = Breaker(address=f"127.0.0.1:{server.port}", on_no_answer=True, keep_s=0)
    await asyncio.to_thread(client.start)
    assert not client.allowed()
    with monkeypatch.context() as less:
        less.setattr(threading.Timer, "start", none_left)
        sidecar.hang_up()
        await poll_until(lambda: client.source is Source.DEFAULT, SOON_S, "it falls")
        assert client.allowed()
    await poll_until(lambda: not client.allowed(), SOON_S, "it is back")
    await asyncio.to_thread(client.close)


async def test_a_child_process_follows_on_its_own(sidecar: FakeSidecar, server: TestServer) -> None:
    sidecar.breakers = [breaker(state="OPEN")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, f"127.0.0.1:{server.port}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert out.decode().splitlines() == [
        "parent False watch",
        "child False watch",
        "after False watch",
    ]
    assert sidecar.watched == 2


def test_importing_it_brings_neither_aiohttp_nor_anything_of_the_daemon() -> None:
    script = (
        "import sys, sidecar.client, sidecar.client.wsgi\n"
        "print(*sorted(m for m in sys.modules if m.partition('.')[0] not in sys.stdlib_module_names"
        " and not m.startswith('_')))"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    others = [name for name in run.stdout.split() if not name.startswith("sidecar.client")]
    assert others == ["sidecar"]
