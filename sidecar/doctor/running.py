"""What a running sidecar says of itself, compared with the configuration that it should have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sidecar import __version__
from sidecar.config.model import Config, policy_hash
from sidecar.config.units import format_duration
from sidecar.doctor.findings import Finding, fault, fine, warning

CHECK = "sidecar"


def sidecar(status: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """Findings from the answer to `/v1/status`."""
    yield fine(CHECK, f"{status.get('instance')} answers, version {status.get('version')}")
    if status.get("version") != __version__:
        said = f"it is version {status.get('version')}, this program {__version__}"
        yield warning(CHECK, said, "restart the sidecar with the version that is installed")
    breakers = {str(item.get("name")): item for item in status.get("breakers") or ()}
    yield from _store(status, config)
    yield from _stale(status, breakers)
    yield from _file(breakers, config)
    for name, item in breakers.items():
        if item.get("config_mismatch"):
            yield mismatch(name, f"the evaluator's ({_evaluator(item)})")


def mismatch(name: str, whose: str) -> Finding:
    """A breaker is configured otherwise than by whom the fleet goes."""
    return warning(
        "breaker",
        f"is configured otherwise than {whose}",
        f"give every sidecar the same `breakers.{name}`, then SIGHUP; two configurations at once"
        " are right only while one is being rolled out",
        f"breakers.{name}",
    )


def _store(status: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    store = status.get("store")
    kind = store.get("kind") if isinstance(store, dict) else store
    if kind != config.store:
        said = f"the running sidecar uses store {kind}"
        mend = "restart it: the store isn't changed by SIGHUP; or name its file with -c"
        yield warning(CHECK, said, mend, "store", config.store)


def _stale(status: Mapping[str, Any], breakers: Mapping[str, Any]) -> Iterator[Finding]:
    stale = sorted(name for name, item in breakers.items() if item.get("stale"))
    if not stale:
        return
    sync = status.get("sync")
    age_s = sync.get("age") if isinstance(sync, dict) else None
    when = "never" if age_s is None else f"{format_duration(round(float(age_s)))} ago"
    yield fault(
        CHECK,
        f"its decisions are stale (store read {when}): {', '.join(stale)}",
        "see what is said of Consul here, and the sidecar's log for `store_lost`",
    )


def _file(breakers: Mapping[str, Any], config: Config) -> Iterator[Finding]:
    """Whether the daemon has what the file says now."""
    mend = "send the sidecar SIGHUP, or name the file that it was started with (-c)"
    if breakers.keys() != config.breakers.keys():
        theirs, ours = ", ".join(sorted(breakers)), ", ".join(sorted(config.breakers))
        said = f"the running sidecar knows the breakers {theirs}"
        yield warning(CHECK, said, mend, "breakers", ours)
    for name, breaker in config.breakers.items():
        policy = breakers.get(name, {}).get("policy")
        running = policy.get("fingerprint") if isinstance(policy, dict) else None
        if running and running != policy_hash(breaker):
            said = "the running sidecar has other settings for it"
            yield warning(CHECK, said, mend, f"breakers.{name}")


def _evaluator(item: Mapping[str, Any]) -> str:
    holder = item.get("evaluator")
    return str(holder.get("instance")) if isinstance(holder, dict) else "nobody holds its lock now"
