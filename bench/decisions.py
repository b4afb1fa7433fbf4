"""Requests per second and latency of /allowed, beside nginx, a Consul KV read and OPA, by wrk."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import opa
from bench.host import missing, on_core, wait_until
from bench.table import Row
from bench.wire import Connection
from bench.wrk import SERVER_CORE, Load, wrk
from tests.daemon import Daemon
from tests.servers import ConsulServer, free_port

SECTION = "Decisions: wrk on one core, the server on another"

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
def daemon() -> Iterator[int]:
    """One breaker in each state; yields the port."""
    with on_core(SERVER_CORE):
        daemon = Daemon(_CONFIG).start()
    try:
        port = daemon.wait_ready().port
        for name in ("open", "half"):
            daemon.post(f"/v1/report/{name}", {"instance": "c-1", "count_fail": 1})
        wanted = {"default": "CLOSED", "open": "OPEN", "half": "HALF_OPEN"}

        def settled() -> bool:
            return all(
                daemon.allowed(name, peek=True).body["state"] == state
                for name, state in wanted.items()
            )

        wait_until(settled, 10, "every breaker is in its state", 0.05)
        yield port
    finally:
        daemon.close()


def _rounds(rounds: int, seconds: int, connections: int) -> dict[str, list[Load]]:
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(daemon())
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
        for _ in range(rounds):
            for name, url in urls.items():
                rejections = name in STATES and name != "closed"
                loads[name].append(wrk(url, connections, seconds, rejections=rejections))
    return loads


def _target(connections: int, said: str, peer: str) -> tuple[str, float | None, float | None]:
    """How the target reads, and what our figure over the peer's must be: at least, at most."""
    if said == "requests" and connections > 1:
        least = {"nginx": LEAST_OF_NGINX, "opa": LEAST_OF_OPA}.get(peer)
        return (f"≥ {least:g}×", least, None) if least is not None else ("", None, None)
    if peer == "nginx" and connections == 1 and said in MOST_OF_NGINX:
        return f"≤ {MOST_OF_NGINX[said]:g}×", None, MOST_OF_NGINX[said]
    return "", None, None


def _row(connections: int, ours: str, peer: str, loads: dict[str, list[Load]]) -> Iterator[Row]:
    """One of our states beside one peer, in every figure."""
    many = f"{connections} connection" + ("s" if connections > 1 else "")
    for unit, said, figure in FIGURES:
        target, least, most = _target(connections, said, peer)
        yield Row(
            section=SECTION,
            what=f"/allowed {ours}, {many}, {said}",
            value=statistics.median(map(figure, loads[ours])),
            unit=unit,
            peer=PEERS[peer],
            peer_value=statistics.median(map(figure, loads[peer])),
            target=target,
            least_ratio=least,
            most_ratio=most,
        )


def measure(*, quick: bool) -> Iterator[Row]:
    """Rate and latency at 32 connections and at one."""
    if absent := missing("wrk", "nginx"):
        yield Row(section=SECTION, what="/allowed", note=absent)
        return
    rounds, seconds = (1, 2) if quick else (5, 3)
    for connections in (32, 1):
        loads = _rounds(rounds, seconds, connections)
        for ours, peer in [*((state, "nginx") for state in STATES), *BESIDE]:
            if peer in loads:
                yield from _row(connections, ours, peer, loads)
    if opa.binary() is None:
        yield Row(section=SECTION, what="/allowed beside OPA", note="no OPA: `make tools ARGS=opa`")
