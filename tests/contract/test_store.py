"""What every store promises (`sidecar.core.ports.Store`), sentence by sentence, on both stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from sidecar.core.errors import SessionLost
from sidecar.core.ports import Committed, Entry, Fence, Put, Refused, Session, Store
from tests.servers import poll_until

SOON_S = 5.0
NOBODY = "5f0c8d2e-9a57-4c35-8a5b-6f6d1c1a7e99"


async def session_of(store: Store, lock_delay_s: float = 1.0) -> str:
    return (await store.create_session("contract", 10.0, lock_delay_s)).id


async def locked(store: Store, key: str) -> Fence:
    """A lock taken by a session of its own."""
    session = await session_of(store)
    assert await store.acquire(key, b"holder", session) is not None
    return Fence(key, session)


async def entry(store: Store, key: str) -> Entry:
    found = await store.read(key)
    assert found is not None
    return found


async def index_of(store: Store, prefix: str) -> int:
    """Where a watcher of the prefix is now."""
    return max(1, (await store.watch(f"{prefix}/", 0, 0.0)).index)


# --- reading and writing ---------------------------------------------------------------------


async def test_an_absent_key_reads_as_none(store: Store, prefix: str) -> None:
    assert await store.read(f"{prefix}/a") is None


async def test_what_was_put_is_read(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a", b"\x00\xffvalue")
    found = await entry(store, f"{prefix}/a")
    assert (found.key, found.value) == (f"{prefix}/a", b"\x00\xffvalue")
    assert (found.session, found.lock_index) == (None, 0)
    assert found.modify_index > 0


async def test_an_empty_value_is_a_value(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a", b"")
    assert (await entry(store, f"{prefix}/a")).value == b""


async def test_a_put_moves_the_index_and_an_identical_one_does_not(
    store: Store, prefix: str
) -> None:
    key = f"{prefix}/a"
    await store.put(key, b"1")
    first = await entry(store, key)
    await store.put(key, b"1")
    assert await entry(store, key) == first
    await store.put(key, b"2")
    assert (await entry(store, key)).modify_index > first.modify_index


async def test_deleting(store: Store, prefix: str) -> None:
    key = f"{prefix}/a"
    await store.put(key, b"1")
    assert await store.delete(key)
    assert await store.read(key) is None
    assert await store.delete(key), "an absent key is deleted already"


async def test_deleting_at_an_index(store: Store, prefix: str) -> None:
    key = f"{prefix}/a"
    await store.put(key, b"1")
    old = (await entry(store, key)).modify_index
    await store.put(key, b"2")
    assert not await store.delete(key, cas=old)
    assert not await store.delete(key, cas=0)
    assert (await entry(store, key)).value == b"2"
    assert await store.delete(key, cas=(await entry(store, key)).modify_index)
    assert await store.read(key) is None


async def test_setting_at_an_index(store: Store, prefix: str) -> None:
    key = f"{prefix}/a"
    assert not await store.swap(key, b"1", 7), "it isn't there"
    assert await store.swap(key, b"1", 0)
    assert not await store.swap(key, b"2", 0), "it is there"
    old = (await entry(store, key)).modify_index
    assert await store.swap(key, b"2", old)
    assert not await store.swap(key, b"3", old)
    assert (await entry(store, key)).value == b"2"


# --- watching --------------------------------------------------------------------------------


async def test_index_zero_answers_at_once_with_all_below(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/b/state", b"2")
    await store.put(f"{prefix}/a", b"1")
    page = await store.watch(f"{prefix}/", 0, 30.0)
    assert [(e.key, e.value) for e in page.entries] == [
        (f"{prefix}/a", b"1"),
        (f"{prefix}/b/state", b"2"),
    ]
    assert page.known_leader
    assert page.index >= max(e.modify_index for e in page.entries)


async def test_a_sibling_that_begins_alike_is_not_below(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/b/x", b"in")
    await store.put(f"{prefix}/b-2/x", b"out")
    page = await store.watch(f"{prefix}/b/", 0, 0.0)
    assert [e.key for e in page.entries] == [f"{prefix}/b/x"]


async def test_nothing_below_is_an_empty_page(store: Store, prefix: str) -> None:
    page = await store.watch(f"{prefix}/", 0, 0.0)
    assert page.entries == ()
    assert page.known_leader


async def _change_put(store: Store, key: str, _session: str) -> None:
    await store.put(key, b"changed")


async def _change_delete(store: Store, key: str, _session: str) -> None:
    assert await store.delete(key)


async def _change_lock(store: Store, key: str, session: str) -> None:
    assert await store.acquire(key, b"1", session) is not None


@pytest.mark.parametrize("change", [_change_put, _change_delete, _change_lock])
async def test_a_change_wakes_the_watcher(
    store: Store, prefix: str, change: Callable[[Store, str, str], Awaitable[None]]
) -> None:
    key = f"{prefix}/a"
    await store.put(key, b"1")
    session = await session_of(store)
    index = await index_of(store, prefix)
    watching = asyncio.create_task(store.watch(f"{prefix}/", index, 30.0))
    await asyncio.sleep(0)  # let it begin; it must not miss the change in either order
    await change(store, key, session)
    page = await asyncio.wait_for(watching, SOON_S)
    assert page.index > index
    assert list(page.entries) == [e for e in [await store.read(key)] if e is not None]


async def test_a_change_between_two_watches_is_not_missed(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a", b"1")
    index = await index_of(store, prefix)
    assert await store.delete(f"{prefix}/a")
    page = await asyncio.wait_for(store.watch(f"{prefix}/", index, 30.0), SOON_S)
    assert page.entries == ()
    assert page.index > index


async def test_the_end_of_a_session_wakes_the_watcher(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    index = await index_of(store, prefix)
    watching = asyncio.create_task(store.watch(f"{prefix}/", index, 30.0))
    await asyncio.sleep(0)
    await store.destroy_session(fence.session)
    page = await asyncio.wait_for(watching, SOON_S)
    assert [(e.value, e.session) for e in page.entries] == [(b"holder", None)]


async def test_after_the_wait_it_answers_with_what_there_is(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a", b"1")
    index = await index_of(store, prefix)
    began = time.monotonic()
    page = await store.watch(f"{prefix}/", index, 0.3)
    assert 0.25 <= time.monotonic() - began < SOON_S
    assert [e.key for e in page.entries] == [f"{prefix}/a"]


async def test_changes_elsewhere_do_not_end_the_wait(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a/x", b"1")
    index = await index_of(store, f"{prefix}/a")
    began = time.monotonic()
    watching = asyncio.create_task(store.watch(f"{prefix}/a/", index, 0.4))
    await asyncio.sleep(0)
    await store.put(f"{prefix}/b/x", b"1")
    await store.put(f"{prefix}/a/x", b"1")  # identical: no change either
    page = await watching
    assert time.monotonic() - began >= 0.35
    assert [e.value for e in page.entries] == [b"1"]


async def test_a_watch_can_be_cancelled_and_taken_up_again(store: Store, prefix: str) -> None:
    await store.put(f"{prefix}/a", b"1")
    index = await index_of(store, prefix)
    watching = asyncio.create_task(store.watch(f"{prefix}/", index, 30.0))
    await asyncio.sleep(0)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await store.put(f"{prefix}/a", b"2")
    page = await asyncio.wait_for(store.watch(f"{prefix}/", index, 30.0), SOON_S)
    assert page.entries[0].value == b"2"


async def test_many_watchers_all_wake_and_short_calls_do_not_queue_behind_them(
    store: Store, prefix: str
) -> None:
    await store.put(f"{prefix}/a", b"1")
    index = await index_of(store, prefix)
    watching = [asyncio.create_task(store.watch(f"{prefix}/", index, 30.0)) for _ in range(150)]
    await asyncio.sleep(0)
    await asyncio.wait_for(store.put(f"{prefix}/a", b"2"), SOON_S)
    pages = await asyncio.wait_for(asyncio.gather(*watching), 2 * SOON_S)
    assert {page.entries[0].value for page in pages} == {b"2"}


# --- sessions --------------------------------------------------------------------------------


async def test_a_session_tells_its_time_to_live(store: Store) -> None:
    made = await store.create_session("contract", 12.0, 1.0)
    assert made.ttl_s == 12.0
    assert await store.renew_session(made.id) == Session(made.id, 12.0)
    await store.destroy_session(made.id)


async def test_a_session_that_is_gone_cannot_be_renewed(store: Store) -> None:
    session = await session_of(store)
    await store.destroy_session(session)
    with pytest.raises(SessionLost):
        await store.renew_session(session)
    with pytest.raises(SessionLost):
        await store.renew_session(NOBODY)


async def test_destroying_an_absent_session_is_fine(store: Store) -> None:
    await store.destroy_session(NOBODY)


# --- locks -----------------------------------------------------------------------------------


async def test_taking_a_lock_returns_the_locked_key(store: Store, prefix: str) -> None:
    session = await session_of(store)
    taken = await store.acquire(f"{prefix}/lock", b"me", session)
    assert taken == await store.read(f"{prefix}/lock")
    assert taken is not None
    assert (taken.value, taken.session, taken.lock_index) == (b"me", session, 1)


async def test_a_held_lock_is_not_given_away(store: Store, prefix: str) -> None:
    await locked(store, f"{prefix}/lock")
    before = await entry(store, f"{prefix}/lock")
    assert await store.acquire(f"{prefix}/lock", b"other", await session_of(store)) is None
    assert await entry(store, f"{prefix}/lock") == before


async def test_the_holder_may_refresh_its_value(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    before = await entry(store, fence.key)
    assert await store.acquire(fence.key, b"holder", fence.session) == before
    again = await store.acquire(fence.key, b"elsewhere", fence.session)
    assert again == await entry(store, fence.key)
    assert again is not None
    assert (again.value, again.lock_index) == (b"elsewhere", 1)
    assert again.modify_index > before.modify_index


async def test_an_unknown_session_gets_no_lock(store: Store, prefix: str) -> None:
    with pytest.raises(SessionLost):
        await store.acquire(f"{prefix}/lock", b"x", NOBODY)
    fence = await locked(store, f"{prefix}/held")
    with pytest.raises(SessionLost):
        await store.acquire(fence.key, b"x", NOBODY)


async def test_a_released_lock_is_free_at_once_and_counts_its_holders(
    store: Store, prefix: str
) -> None:
    fence = await locked(store, f"{prefix}/lock")
    assert await store.release(fence.key, b"bye", fence.session)
    left = await entry(store, fence.key)
    assert (left.value, left.session, left.lock_index) == (b"bye", None, 1)
    taken = await store.acquire(fence.key, b"next", await session_of(store))
    assert taken is not None
    assert taken.lock_index == 2


async def test_only_the_holder_releases(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    assert not await store.release(fence.key, b"x", await session_of(store))
    assert not await store.release(fence.key, b"x", NOBODY)
    assert not await store.release(f"{prefix}/none", b"x", fence.session)
    held = await entry(store, fence.key)
    assert (held.value, held.session) == (b"holder", fence.session)


async def test_a_lost_lock_has_a_delay_and_keeps_its_value(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    began = time.monotonic()
    await store.destroy_session(fence.session)
    left = await entry(store, fence.key)
    assert (left.value, left.session) == (b"holder", None)
    session = await session_of(store)

    async def taken() -> Entry | None:
        return await store.acquire(fence.key, b"next", session)

    assert await taken() is None
    got = await poll_until(taken, SOON_S, "the lock-delay ends")
    assert time.monotonic() - began >= 0.9
    assert got.lock_index == 2


async def test_without_a_lock_delay_a_lost_lock_is_free_at_once(store: Store, prefix: str) -> None:
    session = await session_of(store, lock_delay_s=0.0)
    assert await store.acquire(f"{prefix}/lock", b"x", session)
    await store.destroy_session(session)
    assert await store.acquire(f"{prefix}/lock", b"y", await session_of(store)) is not None


async def test_release_then_destroy_leaves_no_delay(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    assert await store.release(fence.key, b"bye", fence.session)
    await store.destroy_session(fence.session)
    assert await store.acquire(fence.key, b"next", await session_of(store)) is not None


async def test_a_plain_put_keeps_the_holder_and_forgets_the_count(
    store: Store, prefix: str
) -> None:
    fence = await locked(store, f"{prefix}/lock")
    await store.put(fence.key, b"vandal")
    found = await entry(store, fence.key)
    assert (found.value, found.session, found.lock_index) == (b"vandal", fence.session, 0)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Committed)


async def test_a_deleted_lock_is_free(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    assert await store.delete(fence.key)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Refused)
    taken = await store.acquire(fence.key, b"next", await session_of(store))
    assert taken is not None
    assert taken.lock_index == 1


# --- fenced transactions ---------------------------------------------------------------------


async def test_a_commit_writes_all_and_tells_the_indexes(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    done = await store.commit(
        fence, [Put(f"{prefix}/state", b"s", cas=0), Put(f"{prefix}-history/a", b"h")]
    )
    assert isinstance(done, Committed)
    state, history = (
        await entry(store, f"{prefix}/state"),
        await entry(store, f"{prefix}-history/a"),
    )
    assert (state.value, history.value) == (b"s", b"h")
    assert done.indexes == {state.key: state.modify_index, history.key: history.modify_index}


async def test_a_commit_at_the_read_index(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    key = f"{prefix}/state"
    await store.put(key, b"1")
    read = (await entry(store, key)).modify_index
    done = await store.commit(fence, [Put(key, b"2", cas=read)])
    assert isinstance(done, Committed)
    assert done.indexes[key] > read
    refused = await store.commit(fence, [Put(key, b"3", cas=read)])
    assert isinstance(refused, Refused)
    assert any(key in conflict for conflict in refused.conflicts)
    assert (await entry(store, key)).value == b"2"


async def test_cas_zero_means_must_not_exist(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    key = f"{prefix}/state"
    assert isinstance(await store.commit(fence, [Put(key, b"1", cas=0)]), Committed)
    assert isinstance(await store.commit(fence, [Put(key, b"2", cas=0)]), Refused)
    assert (await entry(store, key)).value == b"1"


async def test_cas_on_a_deleted_key_is_refused(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    key = f"{prefix}/state"
    await store.put(key, b"1")
    read = (await entry(store, key)).modify_index
    await store.delete(key)
    assert isinstance(await store.commit(fence, [Put(key, b"2", cas=read)]), Refused)
    assert await store.read(key) is None


async def test_one_conflict_stops_every_write(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    await store.put(f"{prefix}/b", b"there")
    writes = [Put(f"{prefix}/a", b"1"), Put(f"{prefix}/b", b"2", cas=0), Put(f"{prefix}/c", b"3")]
    assert isinstance(await store.commit(fence, writes), Refused)
    assert await store.read(f"{prefix}/a") is None
    assert await store.read(f"{prefix}/c") is None
    assert (await entry(store, f"{prefix}/b")).value == b"there"


async def test_without_the_lock_nothing_is_written(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    stranger = Fence(fence.key, await session_of(store))
    never = Fence(f"{prefix}/never-locked", fence.session)
    for refused in (stranger, never, Fence(fence.key, NOBODY)):
        done = await store.commit(refused, [Put(f"{prefix}/a", b"1")])
        assert isinstance(done, Refused)
        assert any(refused.key in conflict for conflict in done.conflicts)
    assert await store.read(f"{prefix}/a") is None


async def test_a_lost_session_writes_nothing(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    await store.destroy_session(fence.session)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Refused)
    assert await store.read(f"{prefix}/a") is None


async def test_after_a_release_nothing_is_written(store: Store, prefix: str) -> None:
    fence = await locked(store, f"{prefix}/lock")
    await store.release(fence.key, b"bye", fence.session)
    assert isinstance(await store.commit(fence, [Put(f"{prefix}/a", b"1")]), Refused)


async def test_of_two_hundred_commits_at_one_index_exactly_one_wins(
    store: Store, prefix: str
) -> None:
    fence = await locked(store, f"{prefix}/lock")
    key = f"{prefix}/state"
    await store.put(key, b"before")
    read = (await entry(store, key)).modify_index
    done = await asyncio.gather(
        *(store.commit(fence, [Put(key, str(n).encode(), cas=read)]) for n in range(200))
    )
    winners = [n for n, each in enumerate(done) if isinstance(each, Committed)]
    assert len(winners) == 1
    assert (await entry(store, key)).value == str(winners[0]).encode()


async def test_of_two_hundred_that_try_for_a_lock_exactly_one_gets_it(
    store: Store, prefix: str
) -> None:
    sessions = await asyncio.gather(*(session_of(store) for _ in range(200)))
    got = await asyncio.gather(*(store.acquire(f"{prefix}/lock", b"x", s) for s in sessions))
    assert len([each for each in got if each is not None]) == 1


async def test_closing_twice_is_fine(store: Store) -> None:
    await store.close()
    await store.close()
