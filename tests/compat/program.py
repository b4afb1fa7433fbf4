"""The source system's services as processes that a test starts, follows and stops."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

STOP_DEADLINE_S = 5.0


class Service:
    """One consumer or producer of the source system. A context manager.

    Args:
        binary: the built program.
        mode: `consumer` or `producer`.
        flags: its flags by name, without the dash; True for one without a value.
    """

    def __init__(self, binary: Path, mode: str, **flags: object) -> None:
        self._command = [str(binary), mode]
        for name, value in flags.items():
            flag = "-" + name.replace("_", "-")
            self._command.append(flag if value is True else f"{flag}={value}")
        self._process: subprocess.Popen[str] | None = None
        self._events: list[dict[str, Any]] = []
        self._errors: list[str] = []
        self._threads: list[threading.Thread] = []

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What it said of one kind so far, `at` as epoch seconds."""
        return [event for event in list(self._events) if event["event"] == kind]

    @property
    def states(self) -> list[str]:
        """Every state it took over or moved to, in order."""
        return [event["state"] for event in self.events("state")]

    @property
    def admits(self) -> bool:
        """What it tells its callers now."""
        seen = self.events("state")
        return bool(seen[-1]["allowed"]) if seen else True

    @property
    def key(self) -> str:
        """A consumer's key; empty before it has started."""
        started = self.events("started")
        return str(started[0]["key"]) if started else ""

    def stop(self) -> int:
        """SIGTERM; returns its exit status when all it said has been read."""
        if self._process is None:
            raise AssertionError("not started")
        self._process.terminate()
        status = self._process.wait(STOP_DEADLINE_S)
        self._join()
        return status

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(STOP_DEADLINE_S)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            event: dict[str, Any] = json.loads(line)
            event["at"] = datetime.fromisoformat(event["at"]).timestamp()
            self._events.append(event)

    def _read_errors(self, stream: IO[str]) -> None:
        self._errors.extend(stream)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if self._process.stdout is None or self._process.stderr is None:
            raise AssertionError("no pipes")
        for target, stream in (
            (self._read, self._process.stdout),
            (self._read_errors, self._process.stderr),
        ):
            thread = threading.Thread(target=target, args=(stream,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_DEADLINE_S)
        self._join()
        for stream in (self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError, AttributeError):
                stream.close()  # type: ignore[union-attr]
        if fault is not None:
            lines = [json.dumps(event) for event in self._events[-40:]]
            sys.stderr.write("\n".join([" ".join(self._command), *lines, *self._errors]) + "\n")
