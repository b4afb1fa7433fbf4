"""What the acceptance tests share: a fleet on one Consul, reporters that only PUT, and witnesses.

Nothing here looks into a daemon: all goes over HTTP to the daemons and to Consul.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tests.daemon import Answer, Daemon
from tests.servers import ConsulServer

REQUEST_S = 5.0
Record = dict[str, Any]
_serial = itertools.count(1)


def timing(**settings: object) -> dict[str, object]:
    """A breaker's settings with seconds where production has half minutes."""
    return {
        "evaluation_interval": "500ms",
        "report_interval": "1s",
        "failure_threshold": 20,
        "open_duration": "1s",
        "max_open_duration": "3s",
        "half_open": {"initial": 0.05, "ramp": "2s", "max": "20s"},
        **settings,
    }


@dataclass(frozen=True)
class Place:
    """The keys of one fleet: below a prefix that no other test uses."""

    consul: ConsulServer
    prefix: str

    @property
    def state_prefix(self) -> str:
        """Where states and locks are."""
        return f"{self.prefix}/breaker"

    def reports(self, breaker: str = "default") -> str:
        """Where a breaker's reports are."""
        return f"{self.prefix}/reports/{breaker}"

    def config(
        self,
        breakers: Mapping[str, Mapping[str, object]] | None = None,
        consul: Mapping[str, object] | None = None,
        **more: object,
    ) -> dict[str, object]:
        """A configuration for a sidecar of this fleet."""
        named = breakers if breakers is not None else {"default": timing()}
        return {
            "consul": {
                "address": self.consul.address,
                "state_prefix": self.state_prefix,
                **(consul or {}),
            },
            "breakers": {
                name: {"consul_key_prefix": self.reports(name), **settings}
                for name, settings in named.items()
            },
            **more,
        }

    def key(self, last: str, breaker: str = "default") -> str:
        """A key of the state; only the literal default has the short ones."""
        middle = "" if breaker == "default" else f"{breaker}/"
        return f"{self.state_prefix}/{middle}{last}"

    def record(self, breaker: str = "default") -> Record:
        """The state record; empty when there is none."""
        value = self.consul.kv_get(self.key("state", breaker))
        record: Record = json.loads(value) if value else {}
        return record

    def state(self, breaker: str = "default") -> str:
        """The state in force by the record; empty when there is none."""
        return str(self.record(breaker).get("current_state", ""))

    def history(self, breaker: str = "default") -> list[Record]:
        """The transitions so far, oldest first."""
        value = self.consul.kv_get(f"{self.state_prefix}-history/{breaker}")
        entries: list[Record] = json.loads(value) if value else []
        return entries

    def report(
        self, instance: str, *, fail: int = 0, ok: float = 100.0, breaker: str = "default"
    ) -> float:
        """One consumer's report by a plain PUT. Returns when it was sent (monotonic)."""
        sent = time.monotonic()
        self.consul.kv_put(f"{self.reports(breaker)}/{instance}", body(fail=fail, ok=ok))
        return sent


def body(*, fail: int = 0, ok: float = 100.0) -> str:
    """The source system's three fields; the value differs from every one before."""
    stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rate = ok + next(_serial) / 1e6
    return json.dumps({"timestamp": stamp, "rate_ok": rate, "count_fail": fail})


@contextlib.contextmanager
def fleet(config: Mapping[str, object], size: int = 3) -> Iterator[list[Daemon]]:
    """Daemons of the same configuration, started together, all ready."""
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(Daemon(config, wait=False)) for _ in range(size)]
        yield [daemon.wait_ready() for daemon in daemons]


def all_answer(
    daemons: Sequence[Daemon], status: int, name: str | None = None
) -> Callable[[], bool]:
    """Whether every one of them answers so; asks without spending anything."""
    return lambda: all(d.allowed(name, peek=True).status == status for d in daemons)


def holds(fn: Callable[[], bool], for_s: float, what: str) -> None:
    """Something stays true for a while; fails saying `what` ended."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        if not fn():
            raise AssertionError(f"did not hold for {for_s} s: {what}")
        time.sleep(0.05)


def measured(what: str, seconds: Sequence[float]) -> str:
    """Says durations on stdout (pytest shows it with -rP) and returns what it said."""
    said = f"{what}, in ms: " + ", ".join(f"{one * 1000:.1f}" for one in seconds)
    sys.stdout.write(said + "\n")
    return said


def at(text: str) -> float:
    """Epoch seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def series(metrics: Answer) -> dict[str, float]:
    """Every sample of an exposition, by its name and labels as they are written."""
    lines = metrics.content.decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[:1] not in {"#", ""})
    }


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    """The daemon's log lines of that event."""
    return [line for line in daemon.logs() if line.get("event") == name]


class Caller:
    """A keep-alive connection to a daemon, as a busy producer has it."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=REQUEST_S)

    def ask(self, path: str = "/allowed?peek=1", method: str = "GET") -> int:
        """The status of one call."""
        self._connection.request(method, path)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class Background(abc.ABC):
    """A thread that repeats `_turn` until the block is left; its fault is raised there."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abc.abstractmethod
    def _turn(self) -> None:
        """What is repeated."""

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._turn()
        except BaseException as fault:  # noqa: BLE001 - raised again where the block is left
            self._fault = fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(REQUEST_S + 2)
        if fault is None and self._fault is not None:
            raise self._fault


class Consumers(Background):
    """Consumers that report all the time, each interval, by plain PUTs.

    Args:
        fail: what each reports as failed; may be changed at any time.
    """

    def __init__(
        self, place: Place, count: int = 3, *, every_s: float = 0.25, breaker: str = "default"
    ) -> None:
        super().__init__()
        self._place = place
        self._names = [f"c-{number}" for number in range(1, count + 1)]
        self._every_s = every_s
        self._breaker = breaker
        self.fail = 0

    def _turn(self) -> None:
        for name in self._names:
            self._place.report(name, fail=self.fail, breaker=self._breaker)
        self._ended.wait(self._every_s)


class Witness(Background):
    """Writes down every record that Consul holds, and when (monotonic), by a blocking query."""

    def __init__(self, place: Place, breaker: str = "default") -> None:
        super().__init__()
        self.seen: list[tuple[float, Record]] = []
        self._path = f"/v1/kv/{place.key('state', breaker)}"
        self._consul = place.consul
        self._index = 0

    def _turn(self) -> None:
        query = f"?index={self._index}&wait=500ms" if self._index else ""
        status, _, content = self._consul.request("GET", self._path + query)
        if status != 200:
            self._ended.wait(0.02)
            return
        entry = json.loads(content)[0]
        if entry["ModifyIndex"] != self._index:
            self._index = entry["ModifyIndex"]
            record = json.loads(base64.b64decode(entry["Value"] or ""))
            self.seen.append((time.monotonic(), record))

    @property
    def records(self) -> list[Record]:
        """All records seen, oldest first."""
        return [record for _, record in self.seen]

    def last(self, state: str) -> tuple[float, Record] | None:
        """The newest record if it is in this state."""
        newest = self.seen[-1] if self.seen else None
        return newest if newest is not None and newest[1]["current_state"] == state else None
