"""What a daemon costs while nothing happens, and what its start costs."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

from bench.host import cpu_s, rss_mb, wait_until
from bench.table import Row
from bench.wire import Connection
from tests.daemon import Daemon
from tests.servers import ConsulServer

RSS_LIMIT_MB = 56.0
START_LIMIT_S = 0.5
REST_LIMIT_PERCENT = 0.5
BREAKERS = 10
SETTLE_S = 5.0

Config = dict[str, object]


def _on(consul: ConsulServer, breakers: int) -> Config:
    names = ["default", *(f"flow-{number}" for number in range(1, breakers))]
    return {
        "consul": {"address": consul.address},
        "breakers": {name: {"consul_key_prefix": f"service-metrics/{name}"} for name in names},
    }


def _first_answer(config: Config) -> float:
    """CPU seconds until /allowed answered; the looking costs it next to nothing."""
    daemon = Daemon(config).start()

    def answered() -> bool:
        with contextlib.suppress(OSError), Connection(daemon.port) as connection:
            return connection.request("GET", "/allowed")[0] == 200
        return False

    try:
        wait_until(answered, 15, "a first answer", 0.01)
        return cpu_s(daemon.pid)
    finally:
        daemon.close()


def _at_rest(config: Config) -> float:
    """Resident MiB once it has done nothing for a while."""
    with Daemon(config) as daemon:
        time.sleep(SETTLE_S)
        return rss_mb(daemon.pid)


def _idle_percent(config: Config, seconds: float) -> float:
    """Share of a core over a while of rest, in percent."""
    with Daemon(config) as daemon:
        time.sleep(SETTLE_S)  # elections are over
        began, used_s = time.monotonic(), cpu_s(daemon.pid)
        time.sleep(seconds)
        return 100 * (cpu_s(daemon.pid) - used_s) / (time.monotonic() - began)


def _median(measurement: Callable[[Config], float], config: Config, times: int) -> float:
    return statistics.median(measurement(config) for _ in range(times))


def measure(*, quick: bool) -> Iterator[Row]:
    """Memory and CPU, with the memory store and with Consul."""
    times, rest_s = (1, 10.0) if quick else (5, 60.0)
    memory: Config = {"store": "memory"}
    with ConsulServer() as consul:
        single = _on(consul, 1)
        for where, config in (("memory store", memory), ("Consul", single)):
            yield Row(
                section="Footprint",
                what=f"RSS at rest, {where}",
                value=_median(_at_rest, config, min(times, 3)),
                unit="MiB",
                target=f"≤ {RSS_LIMIT_MB:g} MiB",
                limit=RSS_LIMIT_MB,
            )
            yield Row(
                section="Footprint",
                what=f"CPU from start to first answer, {where}",
                value=_median(_first_answer, config, times),
                unit="s",
                target=f"< {START_LIMIT_S:g} s",
                limit=START_LIMIT_S,
            )
        yield Row(
            section="Footprint",
            what=f"CPU at rest, {BREAKERS} breakers on Consul, over {rest_s:g} s",
            value=_idle_percent(_on(consul, BREAKERS), rest_s),
            unit="%",
            target=f"< {REST_LIMIT_PERCENT:g} % of a core",
            limit=REST_LIMIT_PERCENT,
        )
