"""Store and catalog on Consul, by py-consul's endpoints: requests go out, `errors` come back."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from sidecar.core.decision import stale_after
from sidecar.core.errors import (
    CheckLost,
    SessionLost,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreThrottled,
    StoreUnreachable,
)
from sidecar.core.ports import (
    Committed,
    Entry,
    Fence,
    Page,
    Put,
    Refused,
    Service,
    Session,
    Telemetry,
)
from sidecar.store import answers, checks
from sidecar.store.slim import base
from sidecar.store.transport import Answer, ConsulSettings, Transport
from sidecar.telemetry import names

__all__ = ["ConsulSettings", "ConsulStore"]

T = TypeVar("T")

MIN_TTL_S: Final = 10.0
MAX_TTL_S: Final = 86400.0
"""Consul's own bounds for a session."""
MAX_LOCK_DELAY_S: Final = 60.0

# The closest kind first: a throttled store is also an unreachable one.
_OUTCOMES: Final = (
    (StoreThrottled, "throttled"),
    (StoreUnreachable, "unreachable"),
    (StoreDenied, "denied"),
    (StoreRejected, "rejected"),
    (SessionLost, "lost"),
    (CheckLost, "lost"),
)


class _Client(base.Consul):  # type: ignore[misc] # py-consul is untyped
    """py-consul's client on our transport, which alone knows address and token."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # All given, so that it looks up none of them in the environment …
        super().__init__(host="", port=0, scheme="http", verify=True)
        self.token = None  # … but the token, which it takes from there whatever is given

    def http_connect(self, *_args: object, **_options: object) -> Transport:
        """The transport that is there already."""
        return self._transport


class ConsulStore:
    """The ports `Store` and `Catalog` on a Consul agent. Reads use Consul's default consistency.

    Args:
        telemetry: gets a count for every request and its duration, blocking queries excepted.
    """

    exclusive = False

    def __init__(self, settings: ConsulSettings, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._transport = Transport(settings)
        self._client: Any = _Client(self._transport)

    async def read(self, key: str) -> Entry | None:
        """See `Store.read`."""
        return await self._call("read", lambda: self._client.kv.get(_key(key)), answers.single)

    async def watch(self, prefix: str, index: int, wait_s: float) -> Page:
        """See `Store.watch`. The deadline is past the longest that Consul may take."""
        blocking = index >= 1
        wait = f"{max(1, round(wait_s * 1000))}ms"

        def ask() -> Awaitable[Answer]:
            options: dict[str, object] = {"recurse": True}
            if blocking:
                options |= {
                    "index": index,
                    "wait": wait,
                    "connections_timeout": stale_after(wait_s),
                }
            answer: Awaitable[Answer] = self._client.kv.get(_key(prefix), **options)
            return answer

        return await self._call("watch", ask, answers.page, timed=not blocking)

    async def put(self, key: str, value: bytes) -> None:
        """See `Store.put`."""
        await self._call("put", lambda: self._client.kv.put(_key(key), value), answers.written)

    async def swap(self, key: str, value: bytes, cas: int) -> bool:
        """See `Store.swap`."""
        return await self._call(
            "swap",
            lambda: self._client.kv.put(_key(key), value, cas=cas),
            answers.truth,
            bool,
        )

    async def delete(self, key: str, cas: int | None = None) -> bool:
        """See `Store.delete`."""
        if cas is not None and cas < 1:
            return False  # Consul would answer true and delete nothing
        return await self._call(
            "delete", lambda: self._client.kv.delete(_key(key), cas=cas), answers.truth, bool
        )

    async def commit(self, fence: Fence, writes: Sequence[Put]) -> Committed | Refused:
        """See `Store.commit`."""
        operations = [_operation("check-session", fence.key, Session=fence.session)]
        operations += [_write(put) for put in writes]
        done = await self._transact("commit", operations)
        if isinstance(done, tuple):
            return Refused(done)
        written = {put.key for put in writes}
        return Committed({e.key: e.modify_index for e in done if e.key in written})

    async def create_session(
        self, name: str, ttl_s: float, lock_delay_s: float, check: str | None = None
    ) -> Session:
        """See `Store.create_session`; times outside of Consul's bounds are brought within."""
        ttl_s = min(max(ttl_s, MIN_TTL_S), MAX_TTL_S)
        delay_s = min(max(lock_delay_s, 0.0), MAX_LOCK_DELAY_S)
        session = await self._call(
            "session_create",
            lambda: self._put("/v1/session/create", checks.session(name, ttl_s, delay_s, check)),
            answers.session_made if check else answers.created_session,
        )
        return Session(session, ttl_s)

    async def renew_session(self, session: str) -> Session:
        """See `Store.renew_session`."""
        return await self._call(
            "session_renew",
            lambda: self._client.session.renew(session),
            answers.renewed_session,
        )

    async def destroy_session(self, session: str) -> None:
        """See `Store.destroy_session`."""
        await self._call(
            "session_destroy", lambda: self._client.session.destroy(session), answers.truth
        )

    async def register_check(self, check: str, ttl_s: float) -> None:
        """See `Store.register_check`."""
        await self._call(
            "check_register",
            lambda: self._put("/v1/agent/service/register", checks.service(check, ttl_s)),
            answers.expect,
        )
        await self.pass_check(check)  # one that is there already stays as critical as it was

    async def pass_check(self, check: str) -> None:
        """See `Store.pass_check`."""
        await self._call(
            "check_pass", lambda: self._client.agent.check.ttl_pass(check), answers.passed
        )

    async def deregister_check(self, check: str) -> None:
        """See `Store.deregister_check`."""
        await self._call(
            "check_deregister",
            lambda: self._client.agent.service.deregister(check),
            answers.deregistered,
        )

    async def has_service(self, id_: str) -> bool:
        """See `Catalog.has_service`."""
        return await self._call(
            "service_look",
            lambda: self._get(f"/v1/agent/service/{id_}"),
            answers.known,
        )

    async def register_service(self, service: Service) -> None:
        """See `Catalog.register_service`. A check of a former registration goes with it."""
        body, anew = checks.listed(service), ("replace-existing-checks", "true")
        await self._call(
            "service_register",
            lambda: self._put("/v1/agent/service/register", body, anew),
            answers.expect,
        )

    async def deregister_service(self, id_: str) -> None:
        """See `Catalog.deregister_service`."""
        await self._call(
            "service_deregister",
            lambda: self._client.agent.service.deregister(id_),
            answers.deregistered,
        )

    async def acquire(self, key: str, value: bytes, session: str) -> Entry | None:
        """See `Store.acquire`. A transaction of one, because that tells the indexes as well."""
        done = await self._transact("acquire", [_operation("lock", key, value, Session=session)])
        if isinstance(done, tuple):
            return None
        if not done:
            raise StoreUnreachable("no usable answer: a lock without its key")
        # A transaction's results come without values.
        taken = done[0]
        return Entry(
            key=taken.key,
            value=value,
            modify_index=taken.modify_index,
            lock_index=taken.lock_index,
            session=taken.session,
        )

    async def release(self, key: str, value: bytes, session: str) -> bool:
        """See `Store.release`."""
        return await self._call(
            "release",
            lambda: self._client.kv.put(_key(key), value, release=session),
            answers.truth,
            bool,
        )

    def _put(
        self, path: str, body: dict[str, object], *params: tuple[str, str]
    ) -> Awaitable[Answer]:
        """What py-consul's own methods can't say."""
        answer: Awaitable[Answer] = self._transport.put(  # type: ignore[assignment]
            None, path, params, data=msgspec.json.encode(body)
        )
        return answer

    def _get(self, path: str) -> Awaitable[Answer]:
        """Likewise."""
        answer: Awaitable[Answer] = self._transport.get(None, path)  # type: ignore[assignment]
        return answer

    async def close(self) -> None:
        """See `Store.close`."""
        await self._transport.close()

    async def _transact(
        self, op: str, operations: list[dict[str, dict[str, object]]]
    ) -> list[Entry] | tuple[str, ...]:
        keys = [str(operation["KV"]["Key"]) for operation in operations]
        return await self._call(
            op,
            lambda: self._client.txn.put(operations),
            lambda answer: answers.transacted(answer, keys),
            lambda done: isinstance(done, list),
        )

    async def _call(
        self,
        op: str,
        ask: Callable[[], Awaitable[Answer]],
        understand: Callable[[Answer], T],
        granted: Callable[[T], bool] = lambda _result: True,
        *,
        timed: bool = True,
    ) -> T:
        """Ask, understand the answer, and count what came of it."""
        started = time.monotonic()
        outcome = "unreachable"
        try:
            result = understand(await ask())
        except StoreError as fault:
            outcome = next(word for kind, word in _OUTCOMES if isinstance(fault, kind))
            if isinstance(fault, StoreDenied):
                self._transport.tokens.doubt()
            self._count(op, outcome, started if timed else None)
            raise
        outcome = "ok" if granted(result) else "refused"
        self._count(op, outcome, started if timed else None)
        return result

    def _count(self, op: str, outcome: str, started: float | None) -> None:
        self._telemetry.count(names.CONSUL_REQUESTS, op=op, outcome=outcome)
        if started is not None:
            self._telemetry.observe(names.CONSUL_DURATION, time.monotonic() - started, op=op)


def _key(key: str) -> str:
    if not key or key.startswith("/"):
        raise StoreRejected(f"no key for Consul: {key[:80]!r}")
    return key


def _operation(
    verb: str, key: str, value: bytes | None = None, **more: object
) -> dict[str, dict[str, object]]:
    fields: dict[str, object] = {"Verb": verb, "Key": _key(key), **more}
    if value is not None:
        fields["Value"] = base64.b64encode(value).decode()
    return {"KV": fields}


def _write(put: Put) -> dict[str, dict[str, object]]:
    if put.cas is None:
        return _operation("set", put.key, put.value)
    return _operation("cas", put.key, put.value, Index=put.cas)
