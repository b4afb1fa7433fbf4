"""Our fleet: a daemon that evaluates, and simulated followers around it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import signal
import time

from bench.fleet.crew import Crew
from bench.fleet.figures import Handover, Plan, Rest, Trip
from bench.fleet.meter import Meter, at_rest
from bench.host import BenchError, wait_until
from bench.reporters import report
from bench.wire import Connection
from sidecar.core.decision import poll_wait
from tests.daemon import Daemon
from tests.servers import ConsulServer

PREFIX = "service-metrics/kafka-consumer"
THRESHOLD = 20
SETTLE_S = 0.5
"""After a change: until the next polls are with Consul and it has come to rest."""
STATE_DEADLINE_S = 30.0
_serial = itertools.count(1)


class Fleet:
    """A daemon that evaluates, the followers beside it, and the consumer that trips them all."""

    def __init__(
        self, consul: ConsulServer, plan: Plan, breakers: int, stack: contextlib.ExitStack
    ) -> None:
        self._consul = consul
        self._plan = plan
        self._breakers = breakers
        number = next(_serial)
        self._prefix = f"fleet-{number}"
        self._reports = f"{PREFIX}-{number}"
        names = ["default", *(f"flow-{number:03}" for number in range(1, breakers))]
        self._daemon = stack.enter_context(
            Daemon(self._config(names), env={"NOMAD_ALLOC_ID": f"{self._prefix}-evaluator"})
        )
        stack.callback(self._daemon.stop)  # in good order, so that its session ends with it
        self._crew = stack.enter_context(Crew())
        self._http = stack.enter_context(Connection(consul.port))
        wait_until(lambda: self._evaluates(names), 60, "the daemon evaluates every breaker", 0.1)

    def _config(self, names: list[str]) -> dict[str, object]:
        quiet = {
            "failure_threshold": THRESHOLD,
            "report_interval": "10m",
            "open_duration": "5m",
        }
        return {
            "consul": {
                "address": self._consul.address,
                "state_prefix": self._prefix,
                "max_stale": f"{self._plan.max_stale_s:g}s",
            },
            "breakers": {
                name: {
                    **quiet,
                    "consul_key_prefix": self._reports if name == "default" else f"idle/{name}",
                }
                for name in names
            },
        }

    def _evaluates(self, names: list[str]) -> bool:
        views = self._daemon.get("/v1/breakers").body["breakers"]
        ready = [view for view in views if view["evaluating"] and view["seq"] > 0]
        return len(ready) == len(names)

    def grow(self, size: int) -> None:
        """Up to so many followers, each of which knows a state."""
        more = size - self._crew.size
        processes = max(1, round(self._plan.processes * more / size))
        self._crew.add("bench.fleet.follower", [str(self._daemon.file)], more, processes)

    def rest(self) -> Rest:
        """As long as a poll waits when nothing happens."""
        seconds = poll_wait(self._plan.max_stale_s) * 33 / 32
        time.sleep(SETTLE_S)
        return at_rest(self._consul, self._crew, seconds, self._held)

    def _sessions(self) -> int:
        """This fleet's; an earlier one may have left some behind, which end by their ttl."""
        names = [str(session["Name"]) for session in self._consul.sessions()]
        return sum(f" {self._prefix}-" in name for name in names)

    def _held(self) -> tuple[int, int]:
        """Sessions, and sidecars that hold a lock."""
        status, _, body = self._consul.request("GET", f"/v1/kv/{self._prefix}/?recurse=")
        pairs: list[dict[str, object]] = json.loads(body) if status == 200 else []
        return self._sessions(), len({pair["Session"] for pair in pairs if pair.get("Session")})

    def _put(self, path: str, value: bytes) -> None:
        status, _ = self._http.request("PUT", path, value)
        if status != 200:
            raise BenchError(f"PUT {path}: {status}")

    def _record(self) -> dict[str, object]:
        status, body = self._http.request("GET", f"/v1/kv/{self._prefix}/state?raw")
        found: dict[str, object] = json.loads(body) if status == 200 else {}
        return found

    def _seq(self) -> int:
        return int(str(self._record().get("seq", 0)))

    def close(self) -> None:
        """Closed by hand, as the source system's scripts do it, and our own record again."""
        self._put(f"/v1/kv/{self._reports}/c-1", report())
        if self._record().get("current_state") == "CLOSED":
            return
        self._crew.expect("CLOSED")
        state = {"current_state": "CLOSED", "last_changed": "2026-01-01T00:00:00Z"}
        self._put(f"/v1/kv/{self._prefix}/state", json.dumps(state).encode())
        self._crew.times()
        wait_until(lambda: self._seq() > 0, STATE_DEADLINE_S, "the record is ours again", 0.02)
        time.sleep(SETTLE_S)

    def trip(self) -> Trip:
        """One transition, from a fleet at rest."""
        self.close()
        self._crew.expect("OPEN")
        meter, seq, value = Meter(self._consul, self._crew), self._seq(), report(THRESHOLD + 5)
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._put(f"/v1/kv/{self._reports}/c-1", value)
        known = self._crew.times()
        time.sleep(SETTLE_S)
        did, consul_cpu_s = meter.read()
        return Trip(
            followers=self._crew.size,
            breakers=self._breakers,
            first_s=known[0] - began,
            last_s=known[-1] - began,
            writes=self._seq() - seq,
            did=did,
            consul_cpu_s=consul_cpu_s,
        )

    def handover(self) -> Handover:
        """The end of the evaluator; what follows is a fleet of followers alone."""
        began, most = time.monotonic(), 0
        self._daemon.send_signal(signal.SIGTERM)
        while not self._led_by_a_follower():
            most = max(most, self._sessions())
            if time.monotonic() > began + STATE_DEADLINE_S:
                raise BenchError("nobody took the lock over")
        took_s = time.monotonic() - began
        return Handover(
            followers=self._crew.size,
            seconds=took_s,
            most_sessions=max(most, self._sessions()),
        )

    def _led_by_a_follower(self) -> bool:
        lock = self._consul.kv_entry(f"{self._prefix}/leader") or {}
        value = base64.b64decode(str(lock.get("Value") or ""))
        return bool(lock.get("Session")) and b"-follower-" in value
