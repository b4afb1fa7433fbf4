"""How sessions, the check they may be bound to, and services are written on Consul's wire.

The session's check belongs to a service of its own. A check of the *node* would do as well, until
it turns critical: then every service of that node counts as critical, and disappears from DNS with
it. And only a service's check can be removed by the agent when its owner died.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.ports import Service

SERVICE: Final = "breaker-sidecar-evaluator"
"""The one service under which all evaluators' checks are registered; a token needs its right."""
GONE_AFTER: Final = "1m"
"""The agent removes what has been critical for so long; Consul's least."""
SERVICE_GONE_AFTER: Final = "10m"
"""The same of services that others find: one that is only being restarted stays listed."""
ANSWER_S: Final = 2.0
"""How long a service may take to answer its check."""


def service(check: str, ttl_s: float) -> dict[str, object]:
    """The registration of a check that is passing and has `ttl_s` to live without a pass."""
    return {
        "ID": check,
        "Name": SERVICE,
        "Check": {
            "CheckID": check,
            "Name": "holds locks of breakers",
            "TTL": _duration(ttl_s),
            "Status": "passing",
            "DeregisterCriticalServiceAfter": GONE_AFTER,
        },
    }


def listed(service: Service) -> dict[str, object]:
    """The registration of a service that others find."""
    return {
        "ID": service.id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Tags": list(service.tags),
        "Check": {
            "CheckID": f"{service.id}-http",
            "Name": f"GET {service.check}",
            "HTTP": service.check,
            "Interval": _duration(service.check_every_s),
            "Timeout": _duration(ANSWER_S),
            "DeregisterCriticalServiceAfter": SERVICE_GONE_AFTER,
        },
    }


def session(name: str, ttl_s: float, lock_delay_s: float, check: str | None) -> dict[str, object]:
    """A session; without the default check, which loses locks on a network blip between agents."""
    return {
        "Name": name,
        "NodeChecks": [],
        "ServiceChecks": [{"ID": check}] if check is not None else [],
        "Behavior": "release",
        "TTL": _duration(ttl_s),
        "LockDelay": _duration(lock_delay_s),
    }


def _duration(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
