"""A fleet of real daemons on one Consul under keys of its own, and what a test asks that Consul."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.daemon import Daemon
from tests.servers import POLL_S, ConsulServer, poll_until_sync

T = TypeVar("T")

QUICK: Mapping[str, object] = {
    "evaluation_interval": "500ms",
    "report_interval": "1s",
    "failure_threshold": 20,
    "open_duration": "1s",
    "half_open": {"initial": 0.05, "ramp": "1s", "max": "20s"},
}
"""A breaker whose seconds are a thirtieth of the usual ones."""


def stays(fn: Callable[[], object], for_s: float, what: str) -> None:
    """Fail as soon as `fn` is false: for what must not happen, and so can't be waited for."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert fn(), what
        time.sleep(POLL_S)


def stamp(at: float | None = None) -> str:
    """A wall time as reports carry it; now by default."""
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def seconds(text: str) -> float:
    """The epoch seconds of such a time."""
    return datetime.fromisoformat(text).timestamp()


class Fleet:
    """Daemons that share one breaker, `default`. A context manager, which ends them all.

    Args:
        address: where the daemons find Consul; the server itself by default.
        token: what they show it.
        settings: of the breaker, over `QUICK`.
    """

    def __init__(
        self,
        consul: ConsulServer,
        prefix: str,
        *,
        address: str | None = None,
        token: str | None = None,
        **settings: object,
    ) -> None:
        self.consul = consul
        self.prefix = prefix
        self.reports = f"{prefix}-reports"
        self._address = address or consul.address
        self._token = token
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self.daemons: list[Daemon] = []

    # --- daemons ---------------------------------------------------------------------------

    def config(self, **top: object) -> dict[str, object]:
        """The configuration, with more of the top level."""
        at: dict[str, object] = {"address": self._address, "state_prefix": self.prefix}
        if self._token is not None:
            at["token"] = self._token
        breaker = {**QUICK, **self._settings, "consul_key_prefix": self.reports}
        return {"consul": at, "breakers": {"default": breaker}, **top}

    def start(self, size: int = 1, **top: object) -> list[Daemon]:
        """That many more daemons, started together and all ready."""
        fresh = []
        for _ in range(size):
            name = f"{self.prefix}-{len(self.daemons)}"
            daemon = Daemon(self.config(**top), env={"NOMAD_ALLOC_ID": name}, wait=False)
            self.daemons.append(daemon)
            fresh.append(self._stack.enter_context(daemon))
        for daemon in fresh:
            daemon.wait_ready()
        return fresh

    def name(self, daemon: Daemon) -> str:
        """Its instance."""
        return f"{self.prefix}-{self.daemons.index(daemon)}"

    def evaluator(self) -> Daemon:
        """The daemon that holds the lock and has begun to evaluate."""
        return poll_until_sync(self._evaluating, 5, "somebody evaluates")

    def _evaluating(self) -> Daemon | None:
        named = [daemon for daemon in self.daemons if self.name(daemon) == self.holder()]
        if not named or not view(named[0])["evaluating"]:
            return None
        return named[0]

    def statuses(self) -> list[int]:
        """What each answers a producer, spending nothing."""
        return [daemon.allowed(peek=True).status for daemon in self.daemons]

    def all_answer(self, status: int, within_s: float = 5.0) -> None:
        """Wait until every daemon answers so."""
        poll_until_sync(lambda: set(self.statuses()) == {status}, within_s, f"all answer {status}")

    # --- what stands in Consul ---------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """The state record; empty when there is none, or none of ours."""
        with contextlib.suppress(ValueError):
            found = json.loads(self.consul.kv_get(f"{self.prefix}/state") or b"{}")
            if isinstance(found, dict) and {"seq", "current_state"} <= found.keys():
                return found
        return {}

    def put_state(self, value: bytes | str | dict[str, object]) -> None:
        """Write the state key as anybody may."""
        self.consul.kv_put(f"{self.prefix}/state", value)

    def wait_for(self, state: str, within_s: float = 5.0, **fields: object) -> dict[str, Any]:
        """The record, once it is one of ours in this state and with these fields."""
        wanted = {"current_state": state, **fields}

        def look() -> dict[str, Any]:
            record = self.record()
            return record if wanted.items() <= record.items() else {}

        try:
            return poll_until_sync(look, within_s, f"a record with {wanted}")
        except AssertionError as fault:
            raise AssertionError(f"{fault}; there is {self.record()}") from None

    def history(self) -> list[dict[str, Any]]:
        """The transitions, newest last."""
        value = self.consul.kv_get(f"{self.prefix}-history/default")
        entries: list[dict[str, Any]] = json.loads(value) if value else []
        return entries

    def edges(self) -> list[tuple[str, str]]:
        """The history as edges."""
        return [(entry["from"], entry["to"]) for entry in self.history()]

    @property
    def lock(self) -> str:
        """The lock's key."""
        return f"{self.prefix}/leader"

    def holder(self) -> str | None:
        """The instance that holds the lock; None when nobody does or its value is junk."""
        entry = self.consul.kv_entry(self.lock)
        if entry is None or not entry.get("Session"):
            return None
        with contextlib.suppress(ValueError):
            value = json.loads(self.consul.kv_get(self.lock) or b"null")
            if isinstance(value, dict):
                return str(value["instance"])
        return None

    def sessions(self) -> list[str]:
        """The names of this fleet's sessions."""
        names = [str(session["Name"]) for session in self.consul.sessions()]
        return [name for name in names if f" {self.prefix}-" in name]

    # --- reporters ---------------------------------------------------------------------------

    def report(
        self,
        instance: str = "c-1",
        *,
        fail: float = 0,
        ok: float = 0,
        at: float | None = None,
    ) -> None:
        """A report by plain HTTP, `at` a wall time other than now."""
        body: dict[str, object] = {"timestamp": stamp(at), "rate_ok": ok, "count_fail": fail}
        self.consul.kv_put(f"{self.reports}/{instance}", body)

    def report_all(self, count: int, *, fail: float) -> None:
        """As many reporters at the same moment."""
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda n: self.report(f"c-{n}", fail=fail), range(count)))

    def trip(self, within_s: float = 5.0, **fields: object) -> dict[str, Any]:
        """A report that reaches the threshold, and the OPEN that follows."""
        self.report(fail=25)
        return self.wait_for("OPEN", within_s, **fields)

    def with_reports(
        self,
        fn: Callable[[], T | None],
        within_s: float,
        what: str,
        *,
        fail: float = 0,
        ok: float = 50,
        instance: str = "c-1",
    ) -> T:
        """Wait for `fn` while a consumer reports five times a second."""
        last = 0.0

        def look() -> T | None:
            nonlocal last
            if time.monotonic() - last > 0.2:
                self.report(instance, fail=fail, ok=ok)
                last = time.monotonic()
            return fn()

        return poll_until_sync(look, within_s, what)

    def heal(self, within_s: float = 10.0) -> dict[str, Any]:
        """Healthy reports until it is closed."""

        def closed() -> dict[str, Any]:
            record = self.record()
            return record if record.get("current_state") == "CLOSED" else {}

        return self.with_reports(closed, within_s, "it heals")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, fault, trace)


def view(daemon: Daemon, name: str = "default") -> dict[str, Any]:
    """What a daemon knows of a breaker."""
    body: dict[str, Any] = daemon.get(f"/v1/breakers/{name}").body
    return body


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    """What it has logged under one name."""
    return [line for line in daemon.logs() if line.get("event") == name]


def metric(daemon: Daemon, name: str, **labels: str) -> float:
    """A series' value, added up over the labels that aren't given; 0 where there is none."""
    total = 0.0
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    for line in daemon.get("/metrics").content.decode().splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(label in series for label in wanted):
            total += float(value)
    return total
