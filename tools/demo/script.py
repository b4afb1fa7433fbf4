"""What both runs of the demo have in common: how long the acts are, and everybody's settings.

They are those that a careful team would choose for a service of this size, and the same with and
without the breaker: without it, the API doesn't ask and the workers don't report, nothing else.
"""

from __future__ import annotations

from typing import Any

RATE = 120
"""Requests a second."""
KEYS = 400
PARTITIONS = 6
WORKERS = 3
SIDECARS = 3
BREAKER = "tasks"

HEALTHY_S = 8.0
DOWN_S = 20.0
SETTLED_S = 2.0
RECOVER_WITHIN_S = 60.0
LAG_FACTOR = 1.5
DRAIN_WITHIN_S = 60.0
"""After the last request: every accepted event must have been handled by then."""

CLIENT_TIMEOUT_S = 3.0
CLIENT_OUTSTANDING = 300
"""Of the load: more open requests than this, and the next isn't even sent (it counts as failed)."""

API: dict[str, Any] = {"max_outstanding": 500, "send_timeout_s": 2.0}
DATABASE: dict[str, Any] = {"pool": 10, "write_s": 0.04}
WORKER: dict[str, Any] = {
    "concurrency": 8,
    "handler_s": 2.0,
    "brake_most_s": 1.0,
    "retry_delays_s": [3.0, 10.0, 30.0],
    "commit_every_s": 0.5,
    "report_interval_s": 3.0,
    # Tasks are jobs, not states: an older one of a key is to be done as well.
    "newest_only": False,
}
FLOW: dict[str, Any] = {
    "consul_key_prefix": "service-metrics/tasks",
    "evaluation_interval": "1s",
    "report_interval": "3s",
    "failure_threshold": 20,
    "signals": {"failures": {"for": "2s"}},  # not for a blip
    "open_duration": "8s",
    "max_open_duration": "10s",
    "half_open": {"initial": 0.05, "ramp": "8s", "max": "30s"},
}


def told() -> list[str]:
    """All of that for the person at the terminal."""
    capacity = DATABASE["pool"] / DATABASE["write_s"]
    retries = ", ".join(f"{seconds:g}" for seconds in WORKER["retry_delays_s"])
    said = {
        "load": f"{RATE} requests/s, {KEYS} keys, each sent once, timeout {CLIENT_TIMEOUT_S:g} s",
        "API": f"202 once Kafka has it on all replicas; at most {API['max_outstanding']} events on"
        f" their way, {API['send_timeout_s']:g} s for each",
        "workers": f"{WORKERS}, each {WORKER['concurrency']} handlers of at most"
        f" {WORKER['handler_s']:g} s; retries after {retries} s; a pause of up to"
        f" {WORKER['brake_most_s']:g} s while all fail",
        "database": f"takes about {capacity:.0f} writes/s; is down for {DOWN_S:g} s",
        "breaker": f"{FLOW['failure_threshold']} failures in {FLOW['report_interval']}, for"
        f" {FLOW['signals']['failures']['for']}; open for {FLOW['open_duration']}, at most"
        f" {FLOW['max_open_duration']}; ramp {FLOW['half_open']['ramp']}",
    }
    lines = [f"  {who:9} {what}" for who, what in said.items()]
    return [
        *lines,
        "Without the breaker the API doesn't ask and workers don't report; that is all.",
    ]
