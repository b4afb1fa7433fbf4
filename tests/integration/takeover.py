"""Takeovers on a real Consul: how long a dead evaluator keeps its lock, and what it may write."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

from tests.daemon import Daemon
from tests.integration.fleet import Fleet
from tests.servers import ConsulServer, poll_until_sync

WAIT_S = 5.0
"""A blocking query's; shorter than the plain request's own deadline."""


@dataclass(frozen=True, slots=True)
class Reign:
    """One evaluator's time with the lock."""

    daemon: Daemon
    session: str


@dataclass(frozen=True, slots=True)
class Takeover:
    """How long it took, and how many late writes of the old session were let through."""

    seconds: float
    late: int
    accepted: int


def fast(fleet: Fleet, check_ttl: str | None) -> dict[str, object]:
    """The fleet's consul section, with or without the check."""
    section: dict[str, object] = {"address": fleet.consul.address, "state_prefix": fleet.prefix}
    return section if check_ttl is None else {**section, "fast_takeover": check_ttl}


def reign(fleet: Fleet, within_s: float = 30.0) -> Reign:
    """Who of those alive holds the lock now, once there is a record."""

    def look() -> Reign | None:
        lock = fleet.consul.kv_entry(fleet.lock)
        holder = fleet.holder()
        if lock is None or not lock.get("Session"):
            return None
        found = [d for d in fleet.daemons if fleet.name(d) == holder]
        return Reign(found[0], str(lock["Session"])) if found and fleet.record() else None

    return poll_until_sync(look, within_s, "somebody holds the lock")


def until_another(fleet: Fleet, old: Reign, began: float, within_s: float) -> float:
    """Seconds since `began` until another session holds the lock; the server says when."""
    index = 0
    while time.monotonic() < began + within_s:
        path = f"/v1/kv/{fleet.lock}?index={index}&wait={WAIT_S}s"
        status, headers, body = fleet.consul.request("GET", path)
        index = int(headers["x-consul-index"])
        entry = json.loads(body)[0] if status == 200 else {}
        if entry.get("Session") not in (None, old.session):
            return time.monotonic() - began
    raise AssertionError(f"nobody took over within {within_s} s")


def late_write(consul: ConsulServer, fleet: Fleet, session: str) -> bool:
    """Write the state as an evaluator with this session does; True when it was let through."""
    state = consul.kv_entry(f"{fleet.prefix}/state")
    assert state is not None
    value = base64.b64encode(b'{"current_state": "OPEN"}').decode()
    operations = [
        {"KV": {"Verb": "check-session", "Key": fleet.lock, "Session": session}},
        {
            "KV": {
                "Verb": "cas",
                "Key": f"{fleet.prefix}/state",
                "Value": value,
                "Index": state["ModifyIndex"],
            }
        },
    ]
    status, _, said = consul.request("PUT", "/v1/txn", json.dumps(operations).encode())
    assert status in (200, 409), f"{status} {said[:200]!r}"
    return status == 200


def kill(fleet: Fleet, within_s: float) -> Takeover:
    """Kill the evaluator, wait for the next, and try writes with the dead one's session."""
    old = reign(fleet)
    began = time.monotonic()
    old.daemon.kill()
    took_s = until_another(fleet, old, began, within_s)
    accepted = [late_write(fleet.consul, fleet, old.session) for _ in range(5)]
    return Takeover(took_s, len(accepted), sum(accepted))


def until_tripped(fleet: Fleet, within_s: float) -> None:
    """Report failures four times a second, whether or not they can be written, until it opens."""
    last = 0.0

    def opened() -> bool:
        nonlocal last
        try:
            if time.monotonic() - last > 0.25:
                last = time.monotonic()
                fleet.report(fail=25)
            return fleet.record().get("current_state") == "OPEN"
        except (AssertionError, OSError):
            return False  # no leader yet, or asked for less

    poll_until_sync(opened, within_s, "it trips")
