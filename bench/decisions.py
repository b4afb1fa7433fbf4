"""Requests per second and latency of /allowed, beside nginx, a Consul KV read and OPA, by wrk.

All are asked in turn, a second each, round after round, and compared by their medians over the
rounds: a host that stalls for a moment spoils a second of one of them. The table shows that, too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import opa
from bench.host import missing, on_core, stolen_s, wait_until
from bench.table import Row
from bench.wire import Connection
from bench.wrk import SERVER_CORE, Load, wrk
from tests.daemon import PROGRAM, START_DEADLINE_S, Daemon
from tests.servers import ConsulServer, free_port

SECTION = "Decisions: wrk on one core, the server on another; medians of rounds of a second each"
ROUNDS, QUICK_ROUNDS, SECONDS = 21, 2, 1

FIGURES: tuple[tuple[str, str, Callable[[Load], float]], ...] = (
    ("1/s", "requests", lambda load: load.rate),
    ("µs", "latency p50", lambda load: load.p50_us),
    ("µs", "latency p99", lambda load: load.p99_us),
)
"""Unit, name and how to get it."""


PEERS = {"nginx": "nginx return 200", "consul": "Consul KV read", "opa": "OPA, the same question"}
BESIDE = (("closed", "consul"), ("closed", "opa"))
"""What is compared besides every state with nginx."""
LEAST_OF_NGINX, LEAST_OF_OPA = 0.9, 6.0
"""Of a peer's throughput at many connections."""
MOST_OF_NGINX = {"latency p50": 1.1, "latency p99": 1.5}
"""Of nginx's latency at one connection."""
STATES = {"closed": "default", "open": "open", "half open": "half"}
"""What is measured, and the breaker that is in this state."""
_CONFIG = {
    "breakers": {
        "default": {},
        "open": {"failure_threshold": 1, "open_duration": "1h", "max_open_duration": "1h"},
        # Nobody reports after the first failure, so that it stays at its first ratio.
        "half": {"failure_threshold": 1, "open_duration": "200ms"},
    }
}


def _answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError), Connection(port) as connection:
        return connection.request("GET", path)[0] == 200
    return False


@contextlib.contextmanager
def _nginx() -> Iterator[int]:
    """One worker that answers a fixed text without touching a file; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="breaker-nginx-") as name:
        config = Path(name) / "nginx.conf"
        paths = "".join(
            f"{kind}_temp_path {name}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"daemon off; worker_processes 1; pid {name}/pid; error_log stderr crit;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; {paths}\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 'allowed'; }} }} }}\n",
            "utf-8",
        )
        command = ["nginx", "-p", name, "-c", str(config), "-e", "stderr"]
        with on_core(SERVER_CORE):
            process = subprocess.Popen(command)
        try:
            wait_until(lambda: _answers(port, "/"), 10, "nginx answers", 0.05)
            yield port
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def _consul() -> Iterator[int]:
    with on_core(SERVER_CORE):
        consul = ConsulServer()
        consul.start()
    try:
        consul.kv_put("breaker/state", {"current_state": "CLOSED"})
        yield consul.port
    finally:
        consul.close()


@contextlib.contextmanager
def daemon(
    program: tuple[str, ...] = PROGRAM, within_s: float = START_DEADLINE_S
) -> Iterator[Daemon]:
    """One breaker in each state.

    Args:
        program: see `Daemon`.
        within_s: how long it may take to start.
    """
    with on_core(SERVER_CORE):
        daemon = Daemon(_CONFIG, program=program).start()
    try:
        daemon.wait_ready(within_s)
        for name in ("open", "half"):
            daemon.post(f"/v1/report/{name}", {"instance": "c-1", "count_fail": 1})
        wanted = {"default": "CLOSED", "open": "OPEN", "half": "HALF_OPEN"}

        def settled() -> bool:
            return all(
                daemon.allowed(name, peek=True).body["state"] == state
                for name, state in wanted.items()
            )

        wait_until(settled, 10, "every breaker is in its state", 0.05)
        yield daemon
    finally:
        daemon.close()


def in_turn(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Everybody once a round. Each round begins one further on, so that none has a fixed place."""
    for number in range(rounds):
        begin = number % len(names)
        yield from [*names[begin:], *names[:begin]]


def _rounds(rounds: int, connections: int) -> dict[str, list[Load]]:
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(daemon()).port
        urls = {
            **{
                state: f"http://127.0.0.1:{ours}/allowed/{breaker}"
                for state, breaker in STATES.items()
            },
            "nginx": f"http://127.0.0.1:{stack.enter_context(_nginx())}/",
            "consul": f"http://127.0.0.1:{stack.enter_context(_consul())}/v1/kv/breaker/state",
        }
        if (program := opa.binary()) is not None:
            port = stack.enter_context(opa.serving(program))
            urls["opa"] = f"http://127.0.0.1:{port}{opa.QUESTION}"
        loads: dict[str, list[Load]] = {name: [] for name in urls}
        for name in in_turn(tuple(urls), rounds):
            rejections = name in STATES and name != "closed"
            loads[name].append(wrk(urls[name], connections, SECONDS, rejections=rejections))
    return loads


def _target(connections: int, said: str, peer: str) -> tuple[str, float | None, float | None]:
    """How the target reads, and what our figure over the peer's must be: at least, at most."""
    if said == "requests" and connections > 1:
        least = {"nginx": LEAST_OF_NGINX, "opa": LEAST_OF_OPA}.get(peer)
        return (f"≥ {least:g}×", least, None) if least is not None else ("", None, None)
    if peer == "nginx" and connections == 1 and said in MOST_OF_NGINX:
        return f"≤ {MOST_OF_NGINX[said]:g}×", None, MOST_OF_NGINX[said]
    return "", None, None


def _many(connections: int) -> str:
    return f"{connections} connection" + ("s" if connections > 1 else "")


def _row(connections: int, ours: str, peer: str, loads: dict[str, list[Load]]) -> Iterator[Row]:
    """One of our states beside one peer, in every figure."""
    for unit, said, figure in FIGURES:
        target, least, most = _target(connections, said, peer)
        yield Row.over(
            map(figure, loads[ours]),
            map(figure, loads[peer]),
            section=SECTION,
            what=f"/allowed {ours}, {_many(connections)}, {said}",
            unit=unit,
            peer=PEERS[peer],
            target=target,
            least_ratio=least,
            most_ratio=most,
        )


def _taken_away(connections: int, stolen: float, took_s: float) -> Row:
    """How quiet the host was: what the figures below it are to be read with."""
    return Row(
        section=SECTION,
        what=f"{_many(connections)}: this machine's CPU time that its host gave to others",
        value=100 * stolen / (took_s * (os.cpu_count() or 1)),
        unit="%",
        note=f"in {took_s:.0f} s; 0 where the host doesn't say",
    )


def measure(*, quick: bool) -> Iterator[Row]:
    """Rate and latency at 32 connections and at one."""
    if absent := missing("wrk", "nginx"):
        yield Row(section=SECTION, what="/allowed", note=absent)
        return
    for connections in (32, 1):
        before = stolen_s()
        began = time.monotonic()
        loads = _rounds(QUICK_ROUNDS if quick else ROUNDS, connections)
        yield _taken_away(connections, stolen_s() - before, time.monotonic() - began)
        for ours, peer in [*((state, "nginx") for state in STATES), *BESIDE]:
            if peer in loads:
                yield from _row(connections, ours, peer, loads)
    if opa.binary() is None:
        yield Row(section=SECTION, what="/allowed beside OPA", note="no OPA: `make tools ARGS=opa`")
