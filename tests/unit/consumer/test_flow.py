"""What becomes of events, on a source and a sink in memory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.consumer import (
    Event,
    Hooks,
    Limits,
    Mark,
    MemoryStore,
    Outcome,
    Permanent,
    RetryPolicy,
    SourceError,
    SqliteStore,
    by_field,
    by_header,
    version_header,
)
from sidecar.consumer.headers import DUE_AT, number_of, text_of
from sidecar.consumer.source import Place
from tests.servers import poll_until
from tests.unit.consumer.fake import PATIENCE_S, Kit
from tests.unit.consumer.records import Rec


def events(count: int, keys: int = 7, partitions: int = 1) -> list[Rec]:
    return [
        Rec(
            offset=n // partitions,
            partition=n % partitions,
            key=b"k%d" % (n % keys) if keys else None,
            value=b"%d" % n,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("wait_s", [None, 0.0, 0.002])
async def test_many_keys_at_a_time_each_in_order_all_committed(wait_s: float | None) -> None:
    seen: dict[bytes | None, list[int]] = defaultdict(list)
    busy: Counter[bytes | None] = Counter()
    most = 0

    async def handle(event: Event[bytes]) -> None:
        nonlocal most
        busy[event.key] += 1
        assert busy[event.key] == 1, "two events of a key at a time"
        most = max(most, busy.total())
        if wait_s is not None:
            await asyncio.sleep(wait_s)
        busy[event.key] -= 1
        seen[event.key].append(int(event.value))

    kit = Kit(handle, limits=Limits(concurrency=5, commit_every_s=0.02))
    kit.source.add(*events(400, keys=7, partitions=1))
    async with kit.running():
        await kit.until_committed(400)
    assert sorted(n for numbers in seen.values() for n in numbers) == list(range(400))
    for numbers in seen.values():
        assert numbers == sorted(numbers)
    assert most == (5 if wait_s is not None else 1)
    assert kit.counts == {"handled": 400}


async def test_a_slow_key_holds_up_its_own_events_and_the_commit_alone() -> None:
    gate, seen = asyncio.Event(), []

    async def handle(event: Event[bytes]) -> None:
        if event.key == b"k0":
            await gate.wait()
        seen.append(int(event.value))

    kit = Kit(handle)
    kit.source.add(*events(50, keys=5))
    async with kit.running():
        await poll_until(lambda: len(seen) == 40, PATIENCE_S, "all other keys are handled")
        assert kit.committed() is None
        gate.set()
        await kit.until_committed(50)
    assert [n for n in seen if n % 5 == 0] == list(range(0, 50, 5))


async def test_permanent_errors_go_to_the_dead_letter_topic_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(event: Event[Any]) -> None:
        if event.value["n"] == 3:
            raise Permanent("never")
        if event.value["n"] == 4:
            raise KeyError("missing")

    kit = Kit(handle, decode=json.loads, permanent=(LookupError,))
    kit.source.add(*[Rec(offset=n, key=b"%d" % n, value=b'{"n": %d}' % n) for n in range(5)])
    kit.source.add(Rec(offset=5, value=b"no json"), Rec(offset=6, value=b'{"n": 6}'))
    async with kit.running():
        await kit.until_committed(7)
    assert kit.counts == {"handled": 4, "dead": 3}
    assert {(topic, value) for topic, value, _ in kit.sink.sent} == {
        ("orders.dlq", b'{"n": 3}'),
        ("orders.dlq", b'{"n": 4}'),
        ("orders.dlq", b"no json"),
    }
    for _, _, headers in kit.sink.sent:
        assert text_of(headers, "breaker-reason") == "permanent"
        assert number_of(headers, "breaker-attempts") == 1
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1, "the others' number would be told with the next one"
    assert said[0].startswith("to orders.dlq: orders[0]@")


async def test_what_may_pass_is_tried_in_place_then_moved_and_nothing_waits_for_it() -> None:
    tried: Counter[bytes] = Counter()

    async def handle(event: Event[bytes]) -> None:
        tried[event.value] += 1
        if event.value == b"7" or (event.value == b"8" and tried[b"8"] == 1):
            raise ConnectionError("away")

    kit = Kit(handle)
    kit.source.add(*events(30, keys=30))
    async with kit.running():
        await kit.until_committed(30)
    assert (tried[b"7"], tried[b"8"], tried[b"9"]) == (2, 2, 1)
    assert kit.counts == {"handled": 29, "again": 2, "later": 1}
    ((topic, value, headers),) = kit.sink.sent
    assert (topic, value) == ("orders.retry.1", b"7")
    assert number_of(headers, DUE_AT) is not None


async def test_on_a_retry_topic_each_waits_until_it_is_due_and_then_dies_if_it_must() -> None:
    tried: list[tuple[int, int, float]] = []
    clock = asyncio.get_running_loop().time

    async def handle(event: Event[bytes]) -> None:
        tried.append((event.tier, event.attempt, clock()))
        raise ConnectionError("away")

    kit = Kit(handle, policy=RetryPolicy(in_place=0, delays_s=(0.3,)))
    headers = ((DUE_AT, b"99999999999999"), ("breaker-attempts", b"4"), ("breaker-topic", b"x"))
    kit.source.add(Rec(topic="orders.retry.1", headers=headers))
    began = clock()
    async with kit.running():
        await poll_until(lambda: kit.sink.sent, PATIENCE_S, "it died")
    ((tier, attempt, at),) = tried
    assert (tier, attempt) == (1, 5)
    assert at - began >= 0.29, "not before its delay; and a clock far ahead prolongs nothing"
    assert Place("orders.retry.1", 0) in kit.source.ever_paused
    ((topic, _, headers_of_it),) = kit.sink.sent
    assert topic == "x.dlq"
    assert number_of(headers_of_it, "breaker-attempts") == 5
    assert text_of(headers_of_it, "breaker-reason") == "exhausted"


async def test_what_somebody_else_put_on_a_retry_topic_is_an_event_of_the_topic_itself() -> None:
    topics: list[str] = []

    async def handle(event: Event[bytes]) -> None:
        topics.append(event.topic)
        raise ConnectionError("away")

    kit = Kit(handle)
    kit.source.add(Rec(topic="orders.retry.1"))
    async with kit.running():
        await poll_until(lambda: kit.sink.sent, PATIENCE_S, "it is set aside")
    assert set(topics) == {"orders"}
    assert [topic for topic, *_ in kit.sink.sent] == ["orders.dlq"]


async def test_what_can_not_be_written_elsewhere_is_not_committed() -> None:
    async def handle(event: Event[bytes]) -> None:
        if event.value == b"2":
            raise Permanent("never")

    kit = Kit(handle)
    kit.source.add(*events(10, keys=10))
    kit.sink.broken = True
    async with kit.running():
        await poll_until(lambda: kit.sink.tried > 2, PATIENCE_S, "it is tried again and again")
        await kit.until_committed(2)
        kit.sink.broken = False
        await kit.until_committed(10)
    assert len(kit.sink.sent) == 1


async def test_when_too_many_can_not_be_written_nothing_more_is_read() -> None:
    tried = 0

    async def handle(event: Event[bytes]) -> None:
        nonlocal tried
        tried += 1
        raise Permanent("never")

    kit = Kit(handle, limits=Limits(concurrency=4, in_flight=20, commit_every_s=0.02))
    kit.source.add(*events(500, keys=0))
    kit.sink.broken = True
    async with kit.running():
        await poll_until(lambda: kit.sink.tried >= 60, PATIENCE_S, "they are tried again")
        assert tried <= 20
        kit.sink.broken = False
        await kit.until_committed(500)


async def test_a_handler_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    cancelled = 0

    async def handle(event: Event[bytes]) -> None:
        nonlocal cancelled
        if event.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    kit = Kit(handle, limits=Limits(concurrency=2, handler_s=0.1, commit_every_s=0.02))
    kit.source.add(*events(3, keys=3))
    async with kit.running():
        await kit.until_committed(3)
    assert cancelled == 3
    assert kit.counts == {"handled": 3, "again": 3}


async def test_a_handler_that_ends_well_although_it_was_cancelled_has_handled_it() -> None:
    async def handle(event: Event[bytes]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    kit = Kit(handle, limits=Limits(concurrency=2, handler_s=0.05, commit_every_s=0.02))
    kit.source.add(*events(4, keys=2))
    async with kit.running():
        await kit.until_committed(4)
    assert kit.counts == {"handled": 4}


async def test_while_nothing_succeeds_few_are_tried_and_partitions_are_paused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    away, tried = True, 0

    async def handle(event: Event[bytes]) -> None:
        nonlocal tried
        tried += 1
        if away:
            raise ConnectionError("away")

    limits = Limits(
        concurrency=4, commit_every_s=0.02, brake_after=8, brake_first_s=0.1, brake_most_s=0.2
    )
    kit = Kit(handle, limits=limits, policy=RetryPolicy(in_place=50, delays_s=()))
    kit.source.add(*events(1000, keys=0))
    async with kit.running():
        await poll_until(lambda: Place("orders", 0) in kit.source.paused, PATIENCE_S, "paused")
        before, began = tried, asyncio.get_running_loop().time()
        await poll_until(lambda: tried > before + 3, PATIENCE_S, "trials go on")
        assert asyncio.get_running_loop().time() - began > 3 * 0.05
        assert before <= 8 + limits.concurrency + 4
        away = False
        await kit.until_committed(1000)
    assert kit.counts["handled"] == 1000
    said = [record.getMessage() for record in caplog.records]
    held = [one for one in said if one.startswith("held back: 8 failures in a row")]
    assert len(held) == 1
    assert "ConnectionError: away" in held[0]
    assert "an event succeeded: no longer held back" in said


async def test_revoked_partitions_are_drained_and_committed_and_nothing_more_of_them_is_begun() -> (
    None
):
    gate, begun = asyncio.Event(), []

    async def handle(event: Event[bytes]) -> None:
        begun.append(int(event.value))
        await gate.wait()

    kit = Kit(handle, limits=Limits(concurrency=3, commit_every_s=60.0))
    kit.source.add(*events(20, keys=20))
    async with kit.running():
        await poll_until(lambda: len(begun) == 3, PATIENCE_S, "all workers are at it")
        revoking = asyncio.create_task(kit.keeper.revoked([Place("orders", 0)], lost=False))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.wait_for(revoking, PATIENCE_S)
        assert kit.committed() == 3
        assert begun == [0, 1, 2]
        assert kit.flow.open == 0
        # Ours again: from what was committed on.
        kit.source.at[Place("orders", 0)] = 3
        await kit.keeper.assigned([Place("orders", 0)])
        await poll_until(lambda: len(begun) == 20, PATIENCE_S, "the rest")
    assert begun == list(range(20))


async def test_a_handler_that_outlasts_the_drain_is_cancelled_and_its_event_left_to_others() -> (
    None
):
    ended: list[str] = []

    async def handle(event: Event[bytes]) -> None:
        try:
            if event.value == b"1":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    kit = Kit(handle, limits=Limits(concurrency=3, commit_every_s=60.0, drain_s=0.1))
    kit.source.add(*events(5, keys=5))
    async with kit.running():
        await poll_until(lambda: kit.counts.get("handled") == 4, PATIENCE_S, "the others")
        await kit.keeper.revoked([Place("orders", 0)], lost=False)
        assert kit.committed() == 1
    assert ended == ["cancelled"]


async def test_of_lost_partitions_nothing_is_committed_and_handlers_are_stopped() -> None:
    begun, ended = asyncio.Event(), []

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"4":
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(event.value)

    kit = Kit(handle, limits=Limits(concurrency=3, commit_every_s=60.0))
    kit.source.add(*events(5, keys=5))
    async with kit.running():
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        await kit.keeper.revoked([Place("orders", 0)], lost=True)
        assert ended == [b"4"]
    assert kit.source.commits == 0


async def test_commits_that_fail_are_made_up_for() -> None:
    async def handle(event: Event[bytes]) -> None: ...

    kit = Kit(handle)
    kit.source.add(*events(10))
    kit.source.fault = SourceError("away")
    async with kit.running():
        await poll_until(lambda: kit.flow.uncommitted > 2, PATIENCE_S, "commits fail")
        kit.source.fault = None
        await kit.until_committed(10)
    assert kit.flow.uncommitted == 0


async def test_what_follows_the_last_event_and_is_none_is_committed_once_that_is_done() -> None:
    gate = asyncio.Event()

    async def handle(event: Event[bytes]) -> None:
        await gate.wait()

    kit = Kit(handle)
    kit.source.add(*events(3))
    async with kit.running():
        await poll_until(lambda: kit.flow.open == 3, PATIENCE_S, "all are read")
        kit.source.at[Place("orders", 0)] = 8  # past a transaction that was aborted, say
        await asyncio.sleep(0.1)
        assert kit.committed() is None
        gate.set()
        await kit.until_committed(8)


async def test_duplicates_and_stale_events_are_dropped_and_committed() -> None:
    handled: list[bytes] = []

    async def handle(event: Event[bytes]) -> None:
        handled.append(event.value)

    def event(offset: int, identity: bytes, version: int) -> Rec:
        headers = (("id", identity), ("version", b"%d" % version))
        return Rec(offset=offset, value=identity, headers=headers)

    kit = Kit(
        handle,
        store=MemoryStore(),
        identity=by_header("id"),
        version=version_header("version"),
    )
    kit.source.add(
        event(0, b"a", 1),
        event(1, b"c", 3),
        event(2, b"a", 1),
        event(3, b"b", 2),
        event(4, b"d", 4),
    )
    kit.source.add(Rec(offset=5, value=b"nameless"))
    async with kit.running():
        await kit.until_committed(6)
    assert handled == [b"a", b"c", b"d"]
    assert kit.counts == {"handled": 3, "known": 1, "stale": 1, "dead": 1}


@pytest.mark.parametrize("version", [b"9223372036854775808", b"none"])
async def test_an_event_of_which_identity_or_version_can_not_be_told_is_dead_and_ends_nothing(
    tmp_path: Path, version: bytes
) -> None:
    handled: list[Any] = []

    async def handle(event: Event[Any]) -> None:
        handled.append(event.value)

    def versioned(event: Event[bytes]) -> int:
        return int(event.header("version") or b"0")

    kit = Kit(
        handle,
        store=SqliteStore(tmp_path / "it.db"),
        identity=by_field("id"),
        version=versioned,
        decode=json.loads,
    )
    kit.source.add(
        Rec(offset=0, value=b'{"id": "a"}', headers=(("version", version),)),
        Rec(offset=1, value=b'{"id": "\\ud800"}'),
        Rec(offset=2, value=b'{"id": "b"}'),
    )
    async with kit.running():
        await kit.until_committed(3)
    assert handled == [{"id": "b"}]
    assert kit.counts == {"handled": 1, "dead": 2}


class Wordy(MemoryStore):
    """A store of the application's own, which fails in words of its own at first."""

    failures = 2

    async def remember(self, marks: Sequence[Mark]) -> None:
        """Not yet."""
        self.failures -= 1
        if self.failures >= 0:
            raise LookupError("no such table")
        await super().remember(marks)


async def test_a_store_that_fails_in_words_of_its_own_is_asked_again() -> None:
    async def handle(event: Event[bytes]) -> None:
        pass

    store = Wordy()
    kit = Kit(handle, store=store)
    kit.source.add(Rec(offset=0))
    async with kit.running():
        await kit.until_committed(1)
    assert len(store) == 1


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


async def test_an_error_that_can_not_be_put_in_words_is_one_all_the_same() -> None:
    async def handle(event: Event[bytes]) -> None:
        raise Permanent("\ud800 is no text") from Speechless()

    async def fail(event: Event[bytes]) -> None:
        raise Speechless

    for handler, error in (
        (handle, "Permanent: \\ud800 is no text"),
        (fail, "Speechless: it can't say what"),
    ):
        kit = Kit(handler, policy=RetryPolicy(in_place=0, delays_s=()))
        kit.source.add(Rec(offset=0))
        async with kit.running():
            await kit.until_committed(1)
        ((_, _, headers),) = kit.sink.sent
        assert text_of(headers, "breaker-error") == error
        assert "Speechless: it can't say what" in (text_of(headers, "breaker-stack") or "")


class Hanging(MemoryStore):
    """A store that takes no marks for a while, and doesn't say so."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def remember(self, marks: Sequence[Mark]) -> None:
        """For ever, at first."""
        await self.answers.wait()
        await super().remember(marks)


async def test_marks_that_can_not_be_written_stop_committing_and_reading() -> None:
    handled = 0

    async def handle(event: Event[bytes]) -> None:
        nonlocal handled
        handled += 1

    store = Hanging()
    kit = Kit(
        handle,
        store=store,
        limits=Limits(commit_every_s=0.02, kafka_s=0.1, concurrency=2, in_flight=10),
    )
    kit.source.add(*events(2000, keys=0))
    async with kit.running():
        await poll_until(lambda: kit.flow.stuck, PATIENCE_S, "it is told")
        before = handled
        await asyncio.sleep(0.3)
        assert handled <= before + 20
        assert kit.committed() is None
        store.answers.set()
        await kit.until_committed(2000)
    assert handled == 2000


async def test_hooks_see_each_attempt_and_its_end() -> None:
    entered: list[int] = []
    ended: list[tuple[int, str, str | None]] = []

    @contextmanager
    def around(event: Event[Any]) -> Iterator[None]:
        entered.append(event.record.offset)
        yield

    def end(record: Any, outcome: Outcome, error: BaseException | None) -> None:
        ended.append((record.offset, str(outcome), None if error is None else str(error)))

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"1":
            raise Permanent("never")

    kit = Kit(handle, hooks=Hooks(around, end))
    kit.source.add(*events(3))
    async with kit.running():
        await kit.until_committed(3)
    assert sorted(entered) == [0, 1, 2]
    assert sorted(ended) == [(0, "handled", None), (1, "dead", "never"), (2, "handled", None)]
