"""Hands records over to a daemon by wrk, which costs the machine little itself."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.host import BenchError, on_core
from bench.wrk import CLIENT_CORE, Load, command, parse, same, wrk
from tests.servers import ROOT

RAW = {"Content-Type": "application/octet-stream", "Kafka-Partition": "0"}
LINES = {"Content-Type": "application/x-ndjson"}
BATCH_CALLERS = 2
"""One request is on its way while the other one is worked on."""


def lines(records: int, size: int) -> bytes:
    """A batch as lines of JSON."""
    value = base64.b64encode(os.urandom(size)).decode()
    line = f'{{"partition_id":0,"value":{{"type":"BINARY","data":"{value}"}}}}\n'
    return line.encode() * records


class Sender:
    """Sends the same request again and again.

    Args:
        url: of the daemon.
        folder: for scripts and bodies.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder

    def script(self, records: int, size: int) -> Path:
        """What wrk is to send: a raw record, or a batch."""
        body = os.urandom(size) if records == 1 else lines(records, size)
        name = f"{records}-{size}"
        return same(self._folder, name, body, RAW if records == 1 else LINES)

    def send(self, topic: str, records: int, size: int, callers: int, seconds: int) -> Load:
        """As fast as it goes; its figures are of requests."""
        url = f"{self._url}/v1/publish/{topic}"
        return wrk(url, callers, seconds, script=self.script(records, size))

    @contextlib.contextmanager
    def sending(
        self, topic: str, records: int, size: int, callers: int, seconds: int
    ) -> Iterator[list[Load]]:
        """The same beside the block, giving way to it; the list has its figures afterwards."""
        loads: list[Load] = []
        with self._begun(topic, records, size, callers, seconds) as process:
            yield loads
            said, _ = process.communicate(timeout=seconds + 30)
            loads.append(parse(said))

    @contextlib.contextmanager
    def endless(
        self, topic: str, records: int, size: int, callers: int, seconds: int
    ) -> Iterator[None]:
        """The same until the block ends; so many seconds at most."""
        with self._begun(topic, records, size, callers, seconds) as process:
            yield
            if process.poll() is not None:
                raise BenchError("whoever hands records over has ended too early")

    @contextlib.contextmanager
    def _begun(
        self, topic: str, records: int, size: int, callers: int, seconds: int
    ) -> Iterator[subprocess.Popen[str]]:
        script = self.script(records, size)
        arguments = command(f"{self._url}/v1/publish/{topic}", callers, seconds, script)
        with on_core(CLIENT_CORE):
            process = subprocess.Popen(
                ["nice", "-n", "10", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
        with process:
            try:
                yield process
            finally:
                process.kill()
