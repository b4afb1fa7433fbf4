"""The measurements: followers at rest and at transitions, ever more of them; then pollers."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import time
from collections.abc import Callable
from http.client import HTTPConnection

from bench.fleet.crew import Crew
from bench.fleet.figures import Measured, Plan, Rest, Trip
from bench.fleet.worker import Totals
from bench.host import BenchError, cpu_s, rss_mb, wait_until
from bench.reporters import instances, report, write_all
from bench.wire import DEADLINE_S, Connection
from sidecar.core.decision import poll_wait
from tests.daemon import Daemon
from tests.servers import ConsulServer

PREFIX = "service-metrics/kafka-consumer"
THRESHOLD = 20
LIMITS = "limits {{ http_max_conns_per_client = {connections} }}"
"""All clients come from one address here; by default an agent takes 200 connections from one, and
it doesn't start where that is more than it may have open files."""
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
        self._evaluator = f"evaluator-{number}"
        names = ["default", *(f"flow-{number:03}" for number in range(1, breakers))]
        self._daemon = stack.enter_context(
            Daemon(self._config(names), env={"NOMAD_ALLOC_ID": self._evaluator})
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
        return at_rest(self._consul, self._crew, seconds, self._sessions)

    def _sessions(self) -> int:
        """The evaluator's and any follower's; one that an earlier fleet left behind is neither."""
        held = [str(session["Name"]).split()[-1] for session in self._consul.sessions()]
        return sum(name == self._evaluator or name.startswith("follower-") for name in held)

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
            sessions=self._sessions(),
            did=did,
            consul_cpu_s=consul_cpu_s,
        )


class Meter:
    """What a crew did, and what it cost Consul, since this was made."""

    def __init__(self, consul: ConsulServer, crew: Crew) -> None:
        self._consul = consul
        self._crew = crew
        self._before = crew.totals()
        self._cpu_s = cpu_s(consul.pid)

    def read(self) -> tuple[Totals, float]:
        """Both. Raises BenchError where something went wrong that would falsify them."""
        consul_cpu_s = cpu_s(self._consul.pid) - self._cpu_s
        did = self._crew.totals() - self._before
        if did.faults or did.elected:
            raise BenchError(f"faults {did.faults}, elected {did.elected}: Consul was overloaded")
        return did, consul_cpu_s


def at_rest(consul: ConsulServer, crew: Crew, seconds: float, sessions: Callable[[], int]) -> Rest:
    """What they do while nothing happens."""
    meter = Meter(consul, crew)
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    did, consul_cpu_s = meter.read()
    return Rest(
        followers=crew.size,
        seconds=took_s,
        did=did,
        consul_cpu_s=consul_cpu_s,
        sessions=sessions(),
    )


def polled(consul: ConsulServer, plan: Plan) -> tuple[Rest, Trip]:
    """The source system's producers at rest; then one transition."""
    prefix, state = "source-metrics/kafka-consumer", "source/state"
    names = instances(plan.reporters)
    arguments = [str(consul.port), prefix, state, f"{plan.interval_s:g}", str(THRESHOLD)]
    consul.kv_put(state, {"current_state": "CLOSED", "last_changed": "2026-01-01T00:00:00Z"})
    plain = HTTPConnection("127.0.0.1", consul.port, timeout=DEADLINE_S)
    with contextlib.closing(plain):
        write_all(plain, prefix, names)
    with Crew() as crew:
        crew.add("bench.fleet.source", arguments, plan.pollers, plan.processes)
        time.sleep(plan.interval_s)  # until the last has begun to tick
        rest = at_rest(consul, crew, plan.interval_s, lambda: 0)
        crew.expect("OPEN")
        meter, began = Meter(consul, crew), time.clock_gettime(time.CLOCK_BOOTTIME)
        consul.kv_put(f"{prefix}/{names[0]}", report(THRESHOLD + 5))
        known = crew.times()
        did, consul_cpu_s = meter.read()
    trip = Trip(
        followers=crew.size,
        breakers=1,
        first_s=known[0] - began,
        last_s=known[-1] - began,
        writes=did.writes,
        sessions=0,
        did=did,
        consul_cpu_s=consul_cpu_s,
    )
    return rest, trip


def _growing(consul: ConsulServer, plan: Plan) -> tuple[list[Rest], list[Trip], list[float]]:
    """One breaker, ever more followers: at rest, then its transitions, and Consul's MiB."""
    rests, trips, memory = [], [], []
    with contextlib.ExitStack() as stack:
        fleet = Fleet(consul, plan, 1, stack)
        for size in plan.sizes:
            fleet.grow(size)
            fleet.close()
            memory.append(rss_mb(consul.pid))
            if size in {plan.sizes[0], plan.sizes[-1]}:  # enough for a slope
                rests.append(fleet.rest())
            trips += [fleet.trip() for _ in range(plan.trips)]
    return rests, trips, memory


def _paged(consul: ConsulServer, plan: Plan, breakers: int) -> list[Trip]:
    """The same followers with so many breakers under their prefix."""
    with contextlib.ExitStack() as stack:
        fleet = Fleet(consul, plan, breakers, stack)
        fleet.grow(plan.page_followers)
        return [fleet.trip() for _ in range(plan.page_trips)]


def _room_for(files: int) -> None:
    """Raise this process's limit of open files, and so its children's. Raises BenchError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise BenchError(f"{files} open files are needed, `ulimit -Hn` is {hard}")
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def measure(plan: Plan, tell: Callable[[str], None]) -> Measured:
    """All of it on one Consul of its own; `tell` hears what comes next. Raises BenchError."""
    # Consul has a socket for each follower and two for each poller.
    connections = 2 * max(*plan.sizes, plan.pollers) + 100
    _room_for(connections + 400)
    pages: list[Trip] = []
    with ConsulServer(config=LIMITS.format(connections=connections)) as consul:
        tell(f"followers, ever more of them: {', '.join(map(str, plan.sizes))}")
        rests, trips, memory = _growing(consul, plan)
        tell(f"{plan.pollers} of the source system's producers")
        polls, poll_trip = polled(consul, plan)
        for count in plan.pages:
            tell(f"{plan.page_followers} followers, {count} breakers")
            pages += _paged(consul, plan, count)
    return Measured(
        plan=plan,
        rests=tuple(rests),
        trips=tuple(trips),
        pages=tuple(pages),
        polled=polls,
        polled_trip=poll_trip,
        consul_rss_mb=tuple(zip(plan.sizes, memory, strict=True)),
    )
