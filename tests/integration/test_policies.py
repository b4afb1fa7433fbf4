"""The committed ACL policies on a Consul with access control: enough, and no more than enough."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.errors import CheckLost, StoreDenied, StoreError
from sidecar.core.ports import Committed, Fence, Put, Service, Session
from sidecar.store.checks import SERVICE
from sidecar.store.consul import ConsulSettings, ConsulStore
from tests.integration.fleet import Fleet, events, metric, stays, view
from tests.servers import ROOT, ConsulServer, poll_until_sync
from tests.telemetry import RecordedTelemetry

pytestmark = [pytest.mark.consul, pytest.mark.slow]  # each right is taken away in turn

POLICIES = ROOT / "policies"
RULE = re.compile(r'^(\w+) "([^"]*)" \{[^}]*policy = "(\w+)"\s*\}', re.MULTILINE)
LESS = {"write": "read", "list": "read"}
SOON_S = 15.0


@pytest.fixture(scope="module")
def guarded() -> Iterator[ConsulServer]:
    """A Consul where nobody may anything without a token."""
    with ConsulServer(acl=True) as server:
        yield server


def policy(name: str, prefix: str) -> str:
    """A committed policy for a fleet's own keys."""
    text = Path(POLICIES / f"{name}.hcl").read_text("utf-8")
    text = re.sub(r"(?m)#.*$", "", text)
    text = text.replace('"breaker/', f'"{prefix}/')
    for beside in ("history", "normal"):
        text = text.replace(f'"breaker-{beside}/', f'"{prefix}-{beside}/')
    return text.replace('"service-metrics/kafka-consumer/', f'"{prefix}-reports/')


def weakened(rules: str) -> dict[str, str]:
    """The policy with one right less, in each possible way, by what was taken."""
    found = {}
    for rule in RULE.finditer(rules):
        kind, name, right = rule.groups()
        without = rules.replace(rule.group(0), "")
        found[f'no {kind} "{name}"'] = without
        if right in LESS and kind not in {"session_prefix", "service"}:
            less = rule.group(0).replace(f'"{right}"', f'"{LESS[right]}"')
            found[f'{kind} "{name}" only {LESS[right]}'] = rules.replace(rule.group(0), less)
    return found


# --- what each of them does, in the store's words ----------------------------------------------


async def evaluating(store: ConsulStore, prefix: str) -> None:
    """Everything that a sidecar of role auto does, once. Raises StoreError or AssertionError."""
    page = await store.watch(f"{prefix}/", 0, 1.0)
    assert f"{prefix}/orders/state" in {entry.key for entry in page.entries}
    assert (await store.watch(f"{prefix}-reports/", 0, 1.0)).entries
    check = f"breaker-sidecar-{uuid.uuid4().hex[:8]}"
    await store.register_check(check, 10.0)
    session = await _bound(store, check)
    found = Service(
        id=f"breaker-sidecar-{prefix}",
        name="breaker-sidecar",
        address="",
        port=9100,
        tags=(),
        check="http://127.0.0.1:9/readyz",
        check_every_s=60.0,
    )
    await store.register_service(found)
    assert await store.has_service(found.id)
    lock = f"{prefix}/leader"
    try:
        assert await store.acquire(lock, b"me", session.id) is not None
        await store.renew_session(session.id)
        written = [Put(f"{prefix}/state", b"{}"), Put(f"{prefix}-history/default", b"[]")]
        done = await store.commit(Fence(lock, session.id), written)
        assert isinstance(done, Committed)
        assert await store.read(f"{prefix}-history/default") is not None
        learned = [Put(f"{prefix}-normal/default", b"{}")]
        assert isinstance(await store.commit(Fence(lock, session.id), learned), Committed)
        assert await store.swap(
            f"{prefix}/override", uuid.uuid4().bytes, await _index(store, prefix)
        )
        assert await store.delete(f"{prefix}/override", await _index(store, prefix))
        await store.put(f"{prefix}-reports/c-2", b"{}")
        await store.delete(f"{prefix}-reports/c-2")
        assert await store.release(lock, b"bye", session.id)
    finally:
        await store.destroy_session(session.id)
        await store.deregister_check(check)
        await store.deregister_service(found.id)


async def _bound(store: ConsulStore, check: str) -> Session:
    for _ in range(100):
        try:
            return await store.create_session("rights", 10.0, 0.0, check)
        except CheckLost:
            await asyncio.sleep(0.05)
    raise AssertionError("the servers never heard of the check")


async def _index(store: ConsulStore, prefix: str) -> int:
    entry = await store.read(f"{prefix}/override")
    return entry.modify_index if entry is not None else 0


async def following(store: ConsulStore, prefix: str) -> None:
    """Everything that a follower does."""
    page = await store.watch(f"{prefix}/", 0, 1.0)
    assert f"{prefix}/orders/state" in {entry.key for entry in page.entries}
    assert await store.read(f"{prefix}-history/orders") is not None


async def ordering(store: ConsulStore, prefix: str) -> None:
    """Everything that a person's orders do."""
    assert await store.swap(f"{prefix}/override", uuid.uuid4().bytes, await _index(store, prefix))
    await store.read(f"{prefix}/leader")
    entry = await store.read(f"{prefix}/state")
    await store.swap(f"{prefix}/state", b"{}", entry.modify_index if entry is not None else 0)
    for key in ("override", "state", "leader"):
        await store.delete(f"{prefix}/{key}")
    await store.delete(f"{prefix}-history/default")
    await store.delete(f"{prefix}-normal/default")


WORK: dict[str, Callable[[ConsulStore, str], Awaitable[None]]] = {
    "auto": evaluating,
    "follower": following,
    "operator": ordering,
}


async def as_token(
    server: ConsulServer, rules: str, work: Callable[[ConsulStore], Awaitable[Any]]
) -> Any:
    """Do something with a token that has these rules."""
    settings = ConsulSettings(port=server.port, token=server.make_token(rules).secret)
    store = ConsulStore(settings, RecordedTelemetry())
    try:
        return await work(store)
    finally:
        await store.close()


def furnish(server: ConsulServer, prefix: str) -> None:
    """Another breaker, and a report."""
    server.kv_put(f"{prefix}/orders/state", b"{}")
    server.kv_put(f"{prefix}-history/orders", b"[]")
    server.kv_put(f"{prefix}-reports/c-1", b"{}")
    server.kv_put(f"{prefix}-elsewhere/a", b"1")


@pytest.mark.parametrize("name", WORK)
async def test_a_policy_is_enough(guarded: ConsulServer, prefix: str, name: str) -> None:
    furnish(guarded, prefix)
    await as_token(guarded, policy(name, prefix), lambda store: WORK[name](store, prefix))


@pytest.mark.parametrize("name", WORK)
async def test_each_right_is_needed(guarded: ConsulServer, prefix: str, name: str) -> None:
    """Without any one of them, or with less of it, something does not work."""
    furnish(guarded, prefix)
    rules = policy(name, prefix)
    ways = weakened(rules)
    assert len(ways) >= len(RULE.findall(rules)) >= 2
    assert rules.count("policy =") == len(RULE.findall(rules)), "every rule is understood here"
    for taken, less in ways.items():
        assert not await does_it_all(guarded, less, name, prefix), f"nobody misses it: {taken}"


async def does_it_all(server: ConsulServer, rules: str, name: str, prefix: str) -> bool:
    try:
        await as_token(server, rules, lambda store: WORK[name](store, prefix))
    except (StoreError, AssertionError):
        return False
    return True


OTHERS: dict[str, Callable[[ConsulStore, str], Awaitable[object]]] = {
    "another breaker's state": lambda s, p: s.put(f"{p}/orders/state", b"1"),
    "another breaker's lock": lambda s, p: s.put(f"{p}/orders/leader", b"1"),
    "another breaker's override": lambda s, p: s.put(f"{p}/orders/override", b"1"),
    "another breaker's history": lambda s, p: s.put(f"{p}-history/orders", b"1"),
    "deleting it": lambda s, p: s.delete(f"{p}/orders/state"),
    "another prefix, reading": lambda s, p: s.read(f"{p}-elsewhere/a"),
    "another prefix, writing": lambda s, p: s.put(f"{p}-elsewhere/a", b"1"),
    "a neighbour of the reports": lambda s, p: s.put(f"{p}-reports-2/c-1", b"1"),
    "a neighbour of the state": lambda s, p: s.put(f"{p}-2/state", b"1"),
}
WRITES: dict[str, Callable[[ConsulStore, str], Awaitable[object]]] = {
    "the state": lambda s, p: s.put(f"{p}/state", b"1"),
    "the override": lambda s, p: s.put(f"{p}/override", b"1"),
    "the lock": lambda s, p: s.delete(f"{p}/leader"),
    "the history": lambda s, p: s.put(f"{p}-history/default", b"1"),
    "a report": lambda s, p: s.put(f"{p}-reports/c-1", b"1"),
    "a session": lambda s, p: s.create_session("mine", 10.0, 0.0),
    "a check": lambda s, p: s.register_check("mine", 5.0),
}
REFUSED = {
    "auto": OTHERS,
    "follower": OTHERS | WRITES,
    "operator": OTHERS | {key: WRITES[key] for key in ("a report", "a session", "a check")},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_everything_else_is_refused(guarded: ConsulServer, prefix: str, name: str) -> None:
    furnish(guarded, prefix)

    async def try_all(store: ConsulStore) -> None:
        for call in REFUSED[name].values():
            with pytest.raises(StoreDenied):
                await call(store, prefix)
        assert not (await store.watch(f"{prefix}-elsewhere/", 0, 1.0)).entries

    await as_token(guarded, policy(name, prefix), try_all)


REQUESTS: list[tuple[str, str, dict[str, object] | None]] = [
    ("PUT", "/v1/session/create", {"Node": "other", "NodeChecks": [], "TTL": "10s"}),
    ("PUT", "/v1/agent/service/register", {"Name": "web"}),
    ("PUT", "/v1/agent/check/register", {"Name": "c", "TTL": "5s"}),
    ("PUT", "/v1/catalog/register", {"Node": "other", "Address": "127.0.0.1"}),
    ("PUT", "/v1/event/fire/e", {}),
    ("PUT", "/v1/agent/leave", None),
    ("GET", "/v1/agent/self", None),
    ("GET", "/v1/operator/raft/configuration", None),
    ("GET", "/v1/acl/tokens", None),
    ("PUT", "/v1/acl/policy", {"Name": "more", "Rules": 'key_prefix "" { policy = "write" }'}),
    ("GET", "/v1/snapshot", None),
]


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_but_keys_and_the_own_session(
    guarded: ConsulServer, prefix: str, name: str
) -> None:
    """With the session's rule narrowed to the node, sessions of others are refused as well."""
    rules = policy(name, prefix).replace('session_prefix ""', 'session "test"')
    token = guarded.make_token(rules).secret
    for method, path, body in REQUESTS:
        data = json.dumps(body).encode() if body is not None else None
        status, _, said = guarded.request(method, path, data, token=token)
        assert status == 403, f"{method} {path}: {status} {said[:200]!r}"
    if name == "auto":
        own = {"NodeChecks": [], "TTL": "10s"}
        status, _, said = guarded.request(
            "PUT", "/v1/session/create", json.dumps(own).encode(), token=token
        )
        assert status == 200
        guarded.destroy_session(json.loads(said)["ID"])


# --- whole daemons -----------------------------------------------------------------------------


def consul_section(fleet: Fleet, token: str, **more: object) -> dict[str, object]:
    return {"address": fleet.consul.address, "state_prefix": fleet.prefix, "token": token, **more}


def test_whole_daemons_with_their_policies(guarded: ConsulServer, prefix: str) -> None:
    """A trip, its healing, reports, dead reporters, an override and its end: nothing is denied."""
    auto = guarded.make_token(policy("auto", prefix)).secret
    read = guarded.make_token(policy("follower", prefix)).secret
    person = guarded.make_token(policy("operator", prefix)).secret
    with Fleet(guarded, prefix, report_interval="500ms", report_gc="1500ms") as fleet:
        (lead,) = fleet.start(1, consul=consul_section(fleet, auto, fast_takeover="8s"))
        (follower,) = fleet.start(1, role="follower", consul=consul_section(fleet, read))
        assert fleet.evaluator() is lead
        session = next(s for s in guarded.sessions() if prefix in str(s["Name"]))
        assert session["ServiceChecks"]
        fleet.trip(SOON_S)
        fleet.all_answer(503)
        fleet.heal(30)
        fleet.all_answer(200)
        assert (
            follower.get("/v1/breakers/default/history").body
            == lead.get("/v1/breakers/default/history").body
        )

        assert lead.post("/v1/report", {"instance": "through", "count_ok": 3}).status == 202
        key = f"{fleet.reports}/through"
        poll_until_sync(lambda: guarded.kv_get(key) is not None, SOON_S, "it is written")
        poll_until_sync(lambda: not guarded.kv_keys(f"{fleet.reports}/"), 30, "the dead are gone")

        order = {"mode": "open", "reason": "a drill", "author": "me", "ttl_s": 6}
        put = f"/v1/kv/{prefix}/override"
        status, _, _ = guarded.request("PUT", put, json.dumps(order).encode(), token=person)
        assert status == 200
        fleet.all_answer(503)
        fleet.all_answer(200, 20)
        poll_until_sync(lambda: guarded.kv_entry(f"{prefix}/override") is None, SOON_S, "deleted")
        assert lead.post("/v1/report", {"instance": "late", "count_ok": 3}).status == 202
        key = f"{fleet.reports}/late"
        poll_until_sync(lambda: guarded.kv_get(key) is not None, SOON_S, "it is written")
        for daemon in (lead, follower):
            assert metric(daemon, "breaker_consul_requests_total", outcome="denied") == 0
            assert not events(daemon, "store_denied")
            assert not events(daemon, "fast_takeover_off")
        assert lead.stop() == 0
        assert fleet.sessions() == []
        assert guarded.kv_entry(key) is None
        services = json.loads(guarded.request("GET", f"/v1/catalog/service/{SERVICE}")[2])
        assert not [s for s in services if prefix in s["ServiceID"]]


def test_a_follower_can_write_nothing(guarded: ConsulServer, prefix: str) -> None:
    """Even a sidecar that was told to stand, and a report that it was given."""
    read = guarded.make_token(policy("follower", prefix)).secret
    with Fleet(guarded, prefix) as fleet:
        (daemon,) = fleet.start(1, consul=consul_section(fleet, read))
        assert daemon.post("/v1/report", {"instance": "c-1", "count_fail": 30}).status == 202
        poll_until_sync(lambda: events(daemon, "report_unwritten"), SOON_S, "it can't be written")
        poll_until_sync(lambda: events(daemon, "store_denied"), SOON_S, "nor can it stand")
        assert guarded.kv_keys(f"{prefix}/") == []
        assert guarded.kv_keys(f"{fleet.reports}/") == []
        guarded.kv_put(f"{prefix}/state", {"current_state": "OPEN"})
        fleet.all_answer(503)
        assert not view(daemon)["evaluating"]


def test_without_the_services_right_takeover_is_as_slow_as_ever(
    guarded: ConsulServer, prefix: str
) -> None:
    """It leads all the same, and says once why."""
    rules = re.sub(r"service [^}]*\}", "", policy("auto", prefix))
    token = guarded.make_token(rules).secret
    with Fleet(guarded, prefix) as fleet:
        (lead,) = fleet.start(1, consul=consul_section(fleet, token, fast_takeover="2s"))
        assert fleet.evaluator() is lead
        poll_until_sync(lambda: events(lead, "fast_takeover_off"), SOON_S, "it says so")
        fleet.trip(SOON_S)
        stays(lambda: fleet.holder() == fleet.name(lead), 4.0, "and it stays")
        (said,) = events(lead, "fast_takeover_off")
        assert "service:write" in said["error"]
        assert metric(lead, "breaker_consul_requests_total", op="check_register") == 1
