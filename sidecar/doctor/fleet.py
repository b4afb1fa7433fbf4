"""What the fleet left in Consul: records, locks and reports, judged without having watched them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.config.model import Breaker, Config, policy_hash
from sidecar.core.ports import Entry
from sidecar.core.reports import Item, Reports
from sidecar.core.types import SCHEMA, Policy, Record, State, Unreadable
from sidecar.doctor.findings import Finding, fine, warning
from sidecar.doctor.running import mismatch
from sidecar.store.codec import JsonWire

_SHOWN = 5


def breakers(config: Config, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The record, the lock and the override of each breaker.

    Args:
        entries: all keys below the state prefix.
    """
    wire = JsonWire(config.consul.state_prefix)
    by_key = {entry.key: entry for entry in entries}
    for name, breaker in config.breakers.items():
        state, lock = by_key.get(wire.state(name)), by_key.get(wire.leader(name))
        yield _record(wire, breaker, state)
        yield from _evaluator(wire, name, state, lock)
        yield from _policy(wire, breaker, state)
        if wire.override(name) in by_key:
            said = f"somebody overrides it ({wire.override(name)})"
            mend = f"`breaker-sidecar status` says for how long; `release {name}` ends it"
            yield warning("breaker", said, mend, f"breakers.{name}")


def _record(wire: JsonWire, breaker: Breaker, state: Entry | None) -> Finding:
    name, key = breaker.name, f"breakers.{breaker.name}"
    if state is None:
        return fine("breaker", "no sidecar has evaluated it yet", key)
    stored = wire.decode_state(state.value)
    if isinstance(stored, Unreadable):
        said = f"its record ({state.key}) can't be read: {stored.fault}"
        mend = "start a sidecar with `role: auto`: its evaluator replaces the record"
        return warning("breaker", said, mend, key)
    if not isinstance(stored, Record):
        said = f"is {stored.state}, by a record of the source system"
        return fine("breaker", said, key)
    if stored.schema > SCHEMA:
        said = (
            f"its record has schema {stored.schema}; this version writes {SCHEMA} and only follows"
        )
        return warning("breaker", said, "upgrade this sidecar", key)
    if stored.current_state is not State.CLOSED or stored.admit_ratio < 1:
        share = f" at {stored.admit_ratio:.0%}" if 0 < stored.admit_ratio < 1 else ""
        said = f"is {stored.current_state}{share} ({stored.reason}: {stored.detail})"
        mend = f"that may be right: `breaker-sidecar history {name}` says how it came to it"
        return warning("breaker", said, mend, key)
    return fine("breaker", f"is {stored.current_state} ({stored.reason})", key)


def _evaluator(
    wire: JsonWire, name: str, state: Entry | None, lock: Entry | None
) -> Iterator[Finding]:
    holder = wire.decode_holder(lock.value) if lock is not None else None
    if lock is not None and lock.session is not None:
        who = holder.instance if holder is not None else "a session that left no name"
        yield fine("evaluator", f"is {who}", f"breakers.{name}")
    elif state is not None:
        last = f"; {holder.instance} was the last" if holder is not None else ""
        said = f"nobody holds its lock{last}, so that its state isn't evaluated"
        mend = "start a sidecar that knows this breaker, with role: auto and the rights for it"
        yield warning("evaluator", said, mend, f"breakers.{name}")


def _policy(wire: JsonWire, breaker: Breaker, state: Entry | None) -> Iterator[Finding]:
    stored = wire.decode_state(state.value) if state is not None else None
    if isinstance(stored, Record) and stored.policy not in {"", policy_hash(breaker)}:
        yield mismatch(breaker.name, f"{stored.evaluator}, who wrote its record")


def reporters(policy: Policy, entries: Sequence[Entry], wall_at: float) -> Iterator[Finding]:
    """Who reports to one breaker, and whether its threshold fits their number.

    Without having watched, how old a report is can be told by its own timestamp alone.

    Args:
        entries: all keys below its reports' prefix.
    """
    key, prefix = f"breakers.{policy.name}", f"{policy.reports_prefix}/"
    known = Reports(JsonWire("breaker").decode_report)
    items = [Item(entry.key.removeprefix(prefix), entry.value, 1) for entry in entries]
    bad = known.update(items, 1, policy, now=0.0, wall_at=wall_at)
    tally = known.tally(0, policy, now=0.0)
    if bad:
        first = "; ".join(f"{instance}: {why}" for instance, why, _ in bad[:_SHOWN])
        said = f"{len(bad)} reports can't be used ({first})"
        mend = "have these write the report format: timestamp, rate_ok, count_fail"
        yield warning("reports", said, mend, f"{key}.consul_key_prefix", policy.reports_prefix)
    yield _freshness(policy, key, tally.fresh, tally.stale)
    # A learned threshold stands above what is normal, whatever their number.
    if policy.auto is None and tally.fresh > policy.failure_threshold:
        said = f"is below the number of reporters ({tally.fresh}): one failure of each opens it"
        mend = f"set it well above {tally.fresh}"
        yield warning("reports", said, mend, f"{key}.failure_threshold", policy.failure_threshold)


def _freshness(policy: Policy, key: str, fresh: int, stale: int) -> Finding:
    where, prefix = f"{key}.consul_key_prefix", policy.reports_prefix
    if fresh:
        said = f"{fresh} reporters are fresh, {stale} stale"
        return fine("reports", said, where, prefix)
    verdict = "healthy" if policy.unknown_is_healthy else "unknown"
    if stale:
        said = (
            f"all {stale} reporters are stale (silent for {policy.fresh_for_s:g} s or more), so"
            f" the verdict is {verdict}"
        )
        mend = "see whether the consumers run, reach Consul, and that their clocks are right"
    else:
        said = f"nobody reports there, so the verdict is {verdict}"
        mend = "start the consumers, or correct the prefix: it is the consumers' consul_key_prefix"
    return warning("reports", said, mend, where, prefix)
