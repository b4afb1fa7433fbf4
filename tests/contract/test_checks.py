"""Sessions bound to a check at the local agent, on both stores."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from sidecar.core.errors import CheckLost, SessionLost
from sidecar.core.ports import Committed, Fence, Put, Refused, Session, Store
from tests.servers import poll_until

TTL_S = 1.0
SOON_S = 15.0


@pytest.fixture
def check() -> str:
    return f"breaker-sidecar-{uuid.uuid4().hex[:12]}"


async def bound(store: Store, check: str) -> Session:
    """A session on this check, once the servers know that it passes."""

    async def make() -> Session | None:
        await store.pass_check(check)
        try:
            return await store.create_session("contract", 60.0, 0.0, check)
        except CheckLost:
            return None

    return await poll_until(make, SOON_S, "a session on the check")


async def gone(store: Store, session: Session) -> bool:
    try:
        await store.renew_session(session.id)
    except SessionLost:
        return True
    return False


async def test_a_session_lives_as_long_as_its_check_is_passed(
    store: Store, prefix: str, check: str
) -> None:
    await store.register_check(check, TTL_S)
    session = await bound(store, check)
    fence = Fence(f"{prefix}/lock", session.id)
    taken = await store.acquire(fence.key, b"me", session.id)
    assert taken is not None
    for _ in range(15):  # twice its time to live
        await asyncio.sleep(TTL_S / 8)
        await store.pass_check(check)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Committed)

    await poll_until(lambda: gone(store, session), SOON_S, "nobody passes it: the session ends")
    late = await store.commit(fence, [Put(f"{prefix}/a", b"2")])
    assert isinstance(late, Refused)
    lock = await store.read(fence.key)
    assert lock is not None
    assert lock.session is None
    await store.pass_check(check)
    assert await gone(store, session), "a late pass brings nothing back"
    await store.deregister_check(check)


async def test_a_check_that_turned_critical_can_be_begun_anew(store: Store, check: str) -> None:
    await store.register_check(check, TTL_S)
    first = await bound(store, check)
    await poll_until(lambda: gone(store, first), SOON_S, "the session ends")
    await store.register_check(check, TTL_S)
    second = await bound(store, check)
    assert second.id != first.id
    await store.deregister_check(check)
    await poll_until(lambda: gone(store, second), SOON_S, "it ends with the check")


async def test_what_is_not_there_cannot_be_passed_or_bound_to(store: Store, check: str) -> None:
    with pytest.raises(CheckLost):
        await store.pass_check(check)
    with pytest.raises(CheckLost):
        await store.create_session("contract", 10.0, 0.0, check)
    await store.deregister_check(check)
