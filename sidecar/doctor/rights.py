"""What the token may do, tried out on the real keys without leaving a trace on any.

Writes are tried in transactions that can't go through: their last operation checks for an index
that no key has. Consul looks at the rights to every operation first and tells those that are
lacking; then it undoes everything, so that no index moves and nobody's watch is woken. Only a
session is really made, and destroyed again.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.config.model import Breaker, Config
from sidecar.config.units import format_duration
from sidecar.core.errors import StoreUnreachable
from sidecar.doctor.agent import Agent
from sidecar.doctor.findings import Finding, fault, fine, warning
from sidecar.store.answers import fault_of
from sidecar.store.checks import SERVICE
from sidecar.store.codec import Keys
from sidecar.store.transport import Answer

Rule = tuple[str, str]
"""What a policy's rule is about: `key` or `key_prefix`, and which."""
PROBE = "doctor-never-written"
"""A report key of nobody's: it stands for all below its prefix."""
_NO_INDEX = 2**62
_DENIED = re.compile(r"lacks permission '([a-z]+:[a-z]+)' on \\?\"([^\"\\]*)")
_BOUNDS = re.compile(r"must be between \[([^=]+)=([^]]+)\]")


@dataclass(slots=True)
class Lacking:
    """The rights that were refused: of each area, what is lacking on which key or prefix."""

    areas: dict[str, dict[Rule, set[str]]] = field(default_factory=dict)

    def add(self, area: str, rule: Rule, right: str) -> None:
        """Note one. A prefix that can't be read covers what can't be read below it."""
        self.areas.setdefault(area, {}).setdefault(rule, set()).add(right)

    def unread(self, area: str) -> bool:
        """Whether an area as a whole may not be read."""
        return any(
            resource == "key_prefix" and rights & {"read", "list"}
            for (resource, _), rights in self.areas.get(area, {}).items()
        )


def areas(config: Config) -> dict[str, str]:
    """Every prefix that the sidecar uses, with the configuration key that names it."""
    found = {
        f"{config.consul.state_prefix}/": "consul.state_prefix",
        f"{config.consul.history_prefix}/": "consul.state_prefix",
    }
    if any(breaker.failure_threshold == "auto" for breaker in config.breakers.values()):
        found[f"{config.consul.normal_prefix}/"] = "consul.state_prefix"
    for name, breaker in config.breakers.items():
        found.setdefault(f"{breaker.consul_key_prefix}/", f"breakers.{name}.consul_key_prefix")
    return found


async def reading(agent: Agent, config: Config, lacking: Lacking) -> None:
    """Read each history, and list what is watched.

    A list without the right to it is empty, or what may be seen of it: only reading a single key
    tells a lack from emptiness.
    """
    keys = Keys(config.consul.state_prefix)
    for name in config.breakers:
        key = keys.history(name)
        if _told(await agent.get(f"/v1/kv/{key}")).status == 403:
            lacking.add(f"{config.consul.history_prefix}/", ("key", key), "read")
    watched = [keys.watched]
    if config.role != "follower":
        watched += [f"{b.consul_key_prefix}/" for b in config.breakers.values()]
    for prefix in watched:
        one = _told(await agent.get(f"/v1/kv/{prefix}{PROBE}"))
        listed = _told(await agent.get(f"/v1/kv/{prefix}", recurse=""))
        if one.status == 403 or listed.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            lacking.add(prefix, ("key_prefix", prefix), "read")
        elif listed.status == 403:
            lacking.add(prefix, ("key_prefix", prefix), "list")


async def session(agent: Agent, config: Config) -> tuple[str | None, list[Finding]]:
    """Make a session as an evaluator does. The caller destroys it."""
    ttl_s, key = config.consul.session_ttl_s, "consul.session_ttl"
    answer = await agent.put(
        "/v1/session/create",
        {
            "Name": "breaker-sidecar doctor",
            "Checks": [],
            "Behavior": "release",
            "TTL": f"{ttl_s:g}s",
            "LockDelay": "0s",
        },
    )
    if answer.status == 200:
        made: str = json.loads(answer.body)["ID"]
        return made, [fine("session", "can be made", key, format_duration(ttl_s))]
    said = answer.body[:300].decode("utf-8", "replace").strip()
    bounds = _BOUNDS.search(said)
    if bounds:
        problem = f"Consul takes session TTLs from {bounds[1]} to {bounds[2]} only"
        mend = f"set consul.session_ttl: {bounds[1]} (or lower session_ttl_min of the servers)"
        return None, [fault("session", problem, mend, key, format_duration(ttl_s))]
    if answer.status == 403:
        denied = _DENIED.search(said)
        node = denied[2] if denied else ""
        mend = f"{_grant(config)} {_rule('session_prefix', node, 'write')}, or set role: follower"
        problem = "the token may make no session, so this sidecar can never evaluate"
        return None, [fault("rights", problem, mend, "role", config.role)]
    mend = "see the log of Consul's servers"
    return None, [fault("session", f"none can be made: {answer.status} {said}", mend, key)]


async def fast_takeover(agent: Agent, config: Config) -> list[Finding]:
    """The right to register the check that a session is bound to; without it all works, slower.

    It can't be tried out: a registration would show in the catalog.
    """
    check_s, key = config.consul.fast_takeover_s, "consul.fast_takeover"
    if check_s is None or config.role == "follower":
        return []
    if await agent.allows("service", SERVICE, "write") is not False:
        return []
    said = "the token may register no check, so a dead evaluator is replaced only by session_ttl"
    mend = f"{_grant(config)} {_rule('service', SERVICE, 'write')}"
    return [warning("rights", said, mend, key, format_duration(check_s))]


async def registering(agent: Agent, config: Config) -> list[Finding]:
    """The right to the service that is to be registered; tried out, it would be found."""
    name, key = config.register.name, "register.name"
    if name is None or await agent.allows("service", name, "write") is not False:
        return []
    said = "the token may not register it, so nobody finds it in the catalog"
    return [fault("rights", said, f"{_grant(config)} {_rule('service', name, 'write')}", key, name)]


async def writing(
    agent: Agent, config: Config, made: str | None, lacking: Lacking
) -> list[Finding]:
    """Try what an evaluator writes, and what reports need, in transactions that are undone."""
    found: list[Finding] = []
    for breaker in config.breakers.values():
        operations = _operations(config, breaker, made)
        if not operations:
            continue
        doomed = [*operations, *_doom(str(operations[-1]["Key"]))]
        answer = _told(await agent.put("/v1/txn", [{"KV": each} for each in doomed]))
        for right, key in _denied(answer):
            area = next((area for area in areas(config) if key.startswith(area)), key)
            probe = key.endswith(f"/{PROBE}")
            rule = ("key_prefix", area) if probe else ("key", key)
            lacking.add(area, rule, right)
        if answer.status not in {403, 409}:
            said = f"a transaction was answered {answer.status}, not refused as it had to be"
            found.append(fault("rights", said, "see the log of Consul's servers"))
    return found


def _told(answer: Answer) -> Answer:
    """The answer, if it tells of rights. Raises StoreError where Consul couldn't say."""
    problem = fault_of(answer)
    if isinstance(problem, StoreUnreachable):
        raise problem
    return answer


def _operations(config: Config, breaker: Breaker, made: str | None) -> list[dict[str, object]]:
    """What is written for a breaker in this role."""
    keys, name = Keys(config.consul.state_prefix), breaker.name
    evaluates = config.role != "follower"
    operations = []
    if evaluates:
        operations += [_set(keys.state(name)), _set(keys.history(name)), _set(keys.override(name))]
        if breaker.failure_threshold == "auto":
            operations.append(_set(keys.normal(name)))
        lock = keys.leader(name)
        operations.append(_set(lock) if made is None else _lock(lock, made))
    if config.reports != "off" or (evaluates and breaker.report_gc_s):
        operations.append(_set(f"{breaker.consul_key_prefix}/{PROBE}"))
    return operations


def _set(key: str) -> dict[str, object]:
    return {"Verb": "set", "Key": key, "Value": base64.b64encode(b"{}").decode()}


def _lock(key: str, made: str) -> dict[str, object]:
    return {**_set(key), "Verb": "lock", "Session": made}


def _doom(key: str) -> Iterator[dict[str, object]]:
    """What no transaction survives: an index, and a lock, that no key has."""
    yield {"Verb": "check-index", "Key": key, "Index": _NO_INDEX}
    yield {"Verb": "check-session", "Key": key, "Session": "00000000-0000-0000-0000-000000000000"}


def _denied(answer: Answer) -> Iterator[tuple[str, str]]:
    """The rights that were refused, with the key of each."""
    try:
        body = json.loads(answer.body)
        texts = [str(error["What"]) for error in body["Errors"] or ()]
    except (ValueError, KeyError, TypeError):
        texts = [answer.body.decode("utf-8", "replace")]
    for text in texts:
        if denied := _DENIED.search(text):
            yield denied[1].removeprefix("key:"), denied[2]


def verdicts(lacking: Lacking, config: Config) -> Iterator[Finding]:
    """One finding for each area that lacks something, or one that all is there."""
    if not lacking.areas:
        can = (
            "read, write and lock all that an evaluator" if config.role == "auto" else "read all it"
        )
        yield fine("rights", f"the token may {can} needs")
        return
    for area, rules in sorted(lacking.areas.items()):
        rights = sorted({f"key:{right}" for each in rules.values() for right in each})
        said = (
            f"the token lacks {', '.join(rights)} on {', '.join(name for _, name in sorted(rules))}"
        )
        granted = (_rule(*rule, _policy(each)) for rule, each in sorted(rules.items()))
        mend = f"{_grant(config)} {' '.join(granted)}"
        key, value = areas(config).get(area, "consul.state_prefix"), area.rstrip("/")
        if area == f"{config.consul.normal_prefix}/":
            said += ", so what auto has learned is lost with its evaluator"
            yield warning("rights", said, mend, key, value)
        elif config.role == "auto" or area == f"{config.consul.state_prefix}/":
            yield fault("rights", said, mend, key, value)
        elif area == f"{config.consul.history_prefix}/":
            yield warning("rights", f"{said}: histories can't be shown", mend, key, value)
        else:
            said += ", so reports through this sidecar are lost"
            yield warning("rights", said, f"{mend}, or set reports: off", key, value)


def _grant(config: Config) -> str:
    if config.consul.token or config.consul.token_file:
        return "add to the token's policy:"
    return "set consul.token_file (CONSUL_HTTP_TOKEN_FILE) to a token whose policy has"


def _rule(resource: str, name: str, policy: str) -> str:
    return f'{resource} "{name}" {{ policy = "{policy}" }}'


def _policy(rights: set[str]) -> str:
    """The least policy with these rights."""
    return next(policy for policy in ("write", "list", "read") if policy in rights)
