"""The memory store's own matters: sessions end by the clock it was given. The rest is contract."""

from __future__ import annotations

import asyncio
import time

import pytest

from sidecar.core.errors import SessionLost
from sidecar.core.ports import Committed, Fence, Put, Refused
from sidecar.store.memory import MAX_TOMBSTONES, MemoryStore

SOON_S = 5.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


async def test_a_session_ends_when_nobody_renews_it(store: MemoryStore, clock: Clock) -> None:
    session = await store.create_session("test", 10.0, 1.0)
    assert await store.acquire("lock", b"me", session.id) is not None
    clock.now += 9.9
    assert isinstance(await store.commit(Fence("lock", session.id), [Put("a", b"1")]), Committed)
    clock.now += 0.1
    assert isinstance(await store.commit(Fence("lock", session.id), [Put("a", b"2")]), Refused)
    left = await store.read("lock")
    assert left is not None
    assert (left.value, left.session, left.lock_index) == (b"me", None, 1)
    with pytest.raises(SessionLost):
        await store.renew_session(session.id)
    with pytest.raises(SessionLost):
        await store.acquire("lock", b"me", session.id)


async def test_a_renewed_session_lives_on(store: MemoryStore, clock: Clock) -> None:
    session = await store.create_session("test", 10.0, 1.0)
    for _ in range(5):
        clock.now += 9.0
        assert await store.renew_session(session.id) == session


async def test_the_lock_delay_counts_from_the_loss(store: MemoryStore, clock: Clock) -> None:
    first = await store.create_session("test", 10.0, 2.0)
    second = await store.create_session("test", 100.0, 2.0)
    await store.acquire("lock", b"1", first.id)
    clock.now += 10.0
    assert await store.acquire("lock", b"2", second.id) is None
    clock.now += 1.9
    assert await store.acquire("lock", b"2", second.id) is None
    clock.now += 0.1
    taken = await store.acquire("lock", b"2", second.id)
    assert taken is not None
    assert taken.lock_index == 2


async def test_a_session_that_ends_wakes_the_watcher() -> None:
    store = MemoryStore(time.monotonic)
    session = await store.create_session("test", 0.1, 0.0)
    await store.acquire("x/lock", b"me", session.id)
    index = (await store.watch("x/", 0, 0.0)).index
    page = await asyncio.wait_for(store.watch("x/", index, 60.0), SOON_S)
    assert page.index > index
    assert page.entries[0].session is None


async def test_a_watcher_behind_forgotten_deletions_is_woken_rather_than_left(
    store: MemoryStore,
) -> None:
    await store.put("x/a", b"1")
    index = (await store.watch("x/", 0, 0.0)).index
    await store.delete("x/a")
    for n in range(MAX_TOMBSTONES + 1):
        await store.put(f"y/{n}", b"1")
        await store.delete(f"y/{n}")
    page = await asyncio.wait_for(store.watch("x/", index, 60.0), SOON_S)
    assert page.entries == ()
    caught_up = await store.watch("x/", page.index, 0.05)
    assert caught_up.index == page.index


async def test_no_waiter_is_left_behind(store: MemoryStore) -> None:
    await store.watch("x/", 1, 0.01)
    watching = asyncio.create_task(store.watch("x/", 1, 60.0))
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching], timeout=SOON_S)
    assert not store._waiters


def test_nobody_else_shares_it(store: MemoryStore) -> None:
    assert store.exclusive
