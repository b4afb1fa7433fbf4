"""One suite for the stores; what only SQLite promises comes after it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sidecar.consumer import Known, Mark, MemoryStore, SqliteStore, Store, StoreFailed, Verdict

Make = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "marks.db")
    yield made
    await made.close()


def mark(identity: bytes, version: int | None = None, key: bytes | None = b"k") -> Mark:
    return Mark("billing", identity, key, version)


async def test_a_marked_event_is_known_to_its_group_alone(store: Store) -> None:
    assert await store.look(mark(b"1")) is Verdict.NEW
    await store.remember([mark(b"1")])
    assert await store.look(mark(b"1")) is Verdict.KNOWN
    assert await store.look(mark(b"2")) is Verdict.NEW
    assert await store.look(Mark("shipping", b"1", b"k", None)) is Verdict.NEW


async def test_an_older_version_of_its_key_is_stale_an_equal_or_newer_one_is_not(
    store: Store,
) -> None:
    await store.remember([mark(b"5", 5), mark(b"3", 3)])
    assert await store.look(mark(b"4", 4)) is Verdict.STALE
    assert await store.look(mark(b"5b", 5)) is Verdict.NEW
    assert await store.look(mark(b"6", 6)) is Verdict.NEW
    assert await store.look(mark(b"none")) is Verdict.NEW
    assert await store.look(mark(b"4", 4, b"other")) is Verdict.NEW
    assert await store.look(mark(b"4", 4, None)) is Verdict.NEW


async def test_a_transaction_marks_once_and_only_if_it_succeeds(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.transaction(mark(b"1", 1)):
            raise ZeroDivisionError
    assert await store.look(mark(b"1", 1)) is Verdict.NEW
    async with store.transaction(mark(b"1", 1)):
        pass
    with pytest.raises(Known) as known:
        async with store.transaction(mark(b"1", 1)):
            raise AssertionError("must not be entered")
    assert known.value.verdict is Verdict.KNOWN
    with pytest.raises(Known) as known:
        async with store.transaction(mark(b"0", 0)):
            raise AssertionError("must not be entered")
    assert known.value.verdict is Verdict.STALE


async def test_memory_forgets_the_oldest() -> None:
    store = MemoryStore(most=2)
    await store.remember([mark(b"1"), mark(b"2"), mark(b"3")])
    assert len(store) == 2
    assert await store.look(mark(b"1")) is Verdict.NEW
    assert await store.look(mark(b"3")) is Verdict.KNOWN


SCHEMA = "CREATE TABLE IF NOT EXISTS effects (id TEXT)"


def effects(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute("SELECT id FROM effects ORDER BY rowid")]
    db.close()
    return found


async def test_effects_and_mark_are_both_there_or_neither(tmp_path: Path) -> None:
    path = tmp_path / "marks.db"
    store = SqliteStore(path, schema=SCHEMA)
    async with store.transaction(mark(b"1")) as db:
        db.execute("INSERT INTO effects VALUES ('one')")

    async def fail() -> None:
        async with store.transaction(mark(b"2")) as db:
            db.execute("INSERT INTO effects VALUES ('two')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await store.close()

    assert effects(path) == ["one"]
    again = SqliteStore(path, schema=SCHEMA)
    assert await again.look(mark(b"1")) is Verdict.KNOWN
    assert await again.look(mark(b"2")) is Verdict.NEW
    await again.close()


async def test_of_two_processes_that_handle_an_event_only_one_gets_to_write(
    tmp_path: Path,
) -> None:
    path = tmp_path / "marks.db"
    one, other = SqliteStore(path, schema=SCHEMA), SqliteStore(path, schema=SCHEMA)
    assert await one.look(mark(b"1")) is await other.look(mark(b"1")) is Verdict.NEW
    async with one.transaction(mark(b"1")) as db:
        db.execute("INSERT INTO effects VALUES ('one')")
    with pytest.raises(Known):
        async with other.transaction(mark(b"1")) as db:
            db.execute("INSERT INTO effects VALUES ('other')")
    assert effects(path) == ["one"]
    await one.close()
    await other.close()


async def test_looking_does_not_wait_for_a_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "marks.db", timeout_s=5.0)
    async with store.transaction(mark(b"1")):
        assert await store.look(mark(b"2")) is Verdict.NEW
    await store.close()


async def test_a_writer_that_does_not_get_its_turn_fails_in_time(tmp_path: Path) -> None:
    path = tmp_path / "marks.db"
    one, other = SqliteStore(path), SqliteStore(path, timeout_s=0.2)
    async with one.transaction(mark(b"1")):
        with pytest.raises(StoreFailed):
            await other.remember([mark(b"2")])
    await other.remember([mark(b"2")])
    assert await one.look(mark(b"2")) is Verdict.KNOWN
    await one.close()
    await other.close()


async def test_marks_and_versions_are_kept_for_so_long_and_no_longer(tmp_path: Path) -> None:
    at = [1_000_000.0]
    store = SqliteStore(tmp_path / "marks.db", keep_s=600.0, wall=lambda: at[0])
    await store.remember([mark(b"1", 9)])
    at[0] += 500.0
    await store.remember([mark(b"2", 2, b"other")])
    assert await store.look(mark(b"1", 9)) is Verdict.KNOWN
    at[0] += 200.0
    await store.remember([mark(b"3", 3, b"other")])
    assert await store.look(mark(b"1", 1)) is Verdict.NEW
    assert await store.look(mark(b"2", 2, b"other")) is Verdict.KNOWN
    await store.close()


async def test_what_is_no_database_is_a_failure_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "marks.db"
    path.write_bytes(b"no database at all" * 100)
    store = SqliteStore(path)
    with pytest.raises(StoreFailed):
        await store.look(mark(b"1"))
    await store.close()
    with pytest.raises(StoreFailed):
        await store.look(mark(b"1"))
