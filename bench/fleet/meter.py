"""What a crew did in a while, and what that cost Consul."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.fleet.crew import Crew
from bench.fleet.figures import Rest
from bench.fleet.worker import Totals
from bench.host import BenchError, cpu_s
from tests.servers import ConsulServer


class Meter:
    """What a crew did, and what it cost Consul, since this was made."""

    def __init__(self, consul: ConsulServer, crew: Crew) -> None:
        self._consul = consul
        self._crew = crew
        self._before = crew.totals()
        self._cpu_s = cpu_s(consul.pid)

    def read(self) -> tuple[Totals, float]:
        """Both. Raises BenchError where a fault would falsify them."""
        consul_cpu_s = cpu_s(self._consul.pid) - self._cpu_s
        did = self._crew.totals() - self._before
        if did.faults:
            raise BenchError(
                f"requests failed, so Consul or this machine is overloaded: {did.faults}"
            )
        return did, consul_cpu_s


def at_rest(
    consul: ConsulServer,
    crew: Crew,
    seconds: float,
    held: Callable[[], tuple[int, int]] = lambda: (0, 0),
) -> Rest:
    """What they do while nothing happens; `held` counts sessions and evaluators at its end."""
    meter = Meter(consul, crew)
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    did, consul_cpu_s = meter.read()
    sessions, evaluators = held()
    return Rest(
        followers=crew.size,
        seconds=took_s,
        did=did,
        consul_cpu_s=consul_cpu_s,
        sessions=sessions,
        evaluators=evaluators,
    )
