"""The measurements: followers at rest and at transitions, ever more of them; then pollers."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from http.client import HTTPConnection

from bench.fleet.crew import Crew
from bench.fleet.figures import Handover, Measured, Plan, Rest, Trip
from bench.fleet.meter import Meter, at_rest
from bench.fleet.ours import THRESHOLD, Fleet
from bench.host import BenchError, rss_mb
from bench.reporters import instances, report, write_all
from bench.wire import DEADLINE_S
from tests.servers import ConsulServer

LIMITS = "limits {{ http_max_conns_per_client = {connections} }}"
"""All clients come from one address here; by default an agent takes 200 connections from one, and
it doesn't start where that is more than it may have open files."""


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
        rest = at_rest(consul, crew, plan.interval_s)
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
        did=did,
        consul_cpu_s=consul_cpu_s,
    )
    return rest, trip


def _growing(
    consul: ConsulServer, plan: Plan
) -> tuple[list[Rest], list[Trip], list[float], Handover]:
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
        return rests, trips, memory, fleet.handover()


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
    # Consul has a socket for each follower and two for each poller, and for a while it counts
    # those that have just gone.
    connections = 4 * max(*plan.sizes, plan.pollers) + 100
    _room_for(connections + 400)
    pages: list[Trip] = []
    with ConsulServer(config=LIMITS.format(connections=connections)) as consul:
        tell(f"followers, ever more of them: {', '.join(map(str, plan.sizes))}")
        rests, trips, memory, handover = _growing(consul, plan)
        tell(f"{plan.pollers} of the source system's producers")
        polls, poll_trip = polled(consul, plan)
        for count in plan.pages:
            tell(f"{plan.page_followers} followers, {count} breakers")
            pages += _paged(consul, plan, count)
    return Measured(
        plan=plan,
        rests=tuple(rests),
        trips=tuple(trips),
        handover=handover,
        pages=tuple(pages),
        polled=polls,
        polled_trip=poll_trip,
        consul_rss_mb=tuple(zip(plan.sizes, memory, strict=True)),
    )
