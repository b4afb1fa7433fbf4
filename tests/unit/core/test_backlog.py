"""The book of a flow's readings: bounded, and looked at since the last transition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.backlog import MOST_COLUMNS, LagBook, Reading
from sidecar.core.lag import ABSENT, NO_ANSWER, Backlog, PartitionState

S = PartitionState


def reading(at: float, committed: list[int], ends: list[int]) -> Reading:
    return Reading(at=at, committed=committed, ends=ends, members=True)


def book_of(*readings: Reading, window_s: float = 60) -> LagBook:
    book = LagBook(window_s)
    for each in readings:
        book.take(each, 20)
    return book


def test_nothing_is_known_before_kafka_was_asked() -> None:
    book = LagBook(60)
    assert not book.readable(0)
    assert book.backlog(0) is None
    assert book.look(since=0, need_s=48, floor=0) is None


def test_the_backlog_is_the_sum_and_the_oldest() -> None:
    book = book_of(reading(0, [100, 100], [100, 100]), reading(10, [150, 100], [200, 200]))
    assert book.backlog(10) == Backlog(150, 10.0)


def test_a_round_without_an_answer_is_no_backlog() -> None:
    book = book_of(reading(0, [100], [100]), Reading(at=5, fault="the brokers don't answer"))
    assert (book.backlog(5), book.fault) == (None, "the brokers don't answer")
    book.take(reading(10, [100], [100]), 20)
    assert book.backlog(10) == Backlog(0, 0.0)


def test_what_was_read_too_long_ago_is_unknown() -> None:
    book = book_of(reading(0, [100], [100]))
    assert book.readable(19.9)
    assert not book.readable(20)


@pytest.mark.parametrize(
    ("committed", "ends"), [([100, NO_ANSWER], [200, 200]), ([ABSENT, ABSENT], [5, 5])]
)
def test_part_of_an_answer_is_no_backlog(committed: list[int], ends: list[int]) -> None:
    assert book_of(reading(0, committed, ends)).backlog(0) is None


def test_a_partition_without_a_commit_leaves_the_others_theirs() -> None:
    book = book_of(reading(0, [100, ABSENT], [150, 10]))
    assert book.backlog(0) == Backlog(50, None)
    look = book.look(since=0, need_s=48, floor=100)
    assert look is not None
    assert look.states == {S.OK: 1, S.UNCOMMITTED: 1}


def test_a_look_counts_by_state_and_names_the_worst() -> None:
    looks = [reading(5.0 * i, [1000, 1000, 900 + i], [1000, 1500, 3000]) for i in range(13)]
    look = book_of(*looks).look(since=0, need_s=48, floor=10)
    assert look is not None
    assert look.states == {S.OK: 2, S.STALLED: 1}
    assert (look.worst, look.partition, look.partition_lag, look.partitions) == (
        S.STALLED,
        1,
        500,
        3,
    )


def test_the_furthest_behind_of_the_worst_state_is_named() -> None:
    looks = [reading(5.0 * i, [0, 0], [500, 900]) for i in range(13)]
    look = book_of(*looks).look(since=0, need_s=48, floor=10)
    assert look is not None
    assert (look.partition, look.partition_lag) == (1, 900)


def test_what_came_before_the_last_transition_is_spent() -> None:
    book = book_of(*[reading(5.0 * i, [1000], [1500]) for i in range(13)])
    assert _worst(book, since=0) is S.STALLED
    assert _worst(book, since=30) is S.TOO_EARLY
    assert book.look(since=61, need_s=48, floor=10) is None


def _worst(book: LagBook, *, since: float) -> PartitionState | None:
    look = book.look(since=since, need_s=48, floor=10)
    return look.worst if look is not None else None


def test_a_new_partition_has_a_window_of_its_own() -> None:
    old = [reading(5.0 * i, [1000], [1000]) for i in range(12)]
    new = [reading(60 + 5.0 * i, [1000, 0], [1000, 800]) for i in range(3)]
    assert _worst(book_of(*old, *new), since=0) is S.TOO_EARLY


def test_retention_leaves_less_to_do() -> None:
    one = replace(reading(0, [100], [1000]), begins={0: 950})
    look = book_of(one).look(since=0, need_s=48, floor=0)
    assert look is not None
    assert (look.backlog.messages, look.expired) == (50, 1)


def test_whether_it_falls_is_seen_over_the_window() -> None:
    book = book_of(*[reading(5.0 * i, [100 * i], [9000]) for i in range(13)])
    look = book.look(since=0, need_s=48, floor=10)
    assert look is not None
    assert look.falling
    assert look.spans
    early = book.look(since=50, need_s=48, floor=10)
    assert early is not None
    assert early.falling
    assert not early.spans


def test_a_saw_tooth_that_rises_over_ten_windows_is_falling_behind() -> None:
    book, committed, end = LagBook(20), 0, 1000
    for i in range(50):
        end += 500
        committed += 1900 if i % 4 == 3 else 0  # a batch every four rounds, of too little
        book.take(reading(5.0 * i, [committed], [end]), 20)
        if i < 12:
            assert _seen(book) is not S.FALLING_BEHIND
    assert _seen(book) is S.FALLING_BEHIND


def _seen(book: LagBook) -> PartitionState | None:
    look = book.look(since=0, need_s=16, floor=10)
    return look.worst if look is not None else None


def test_a_saw_tooth_that_keeps_pace_is_well() -> None:
    book, committed, end = LagBook(20), 0, 1000
    for i in range(100):
        end += 500
        committed += 2000 if i % 4 == 3 else 0
        book.take(reading(5.0 * i, [committed], [end]), 20)
        if i > 4:
            assert _seen(book) is S.OK


def test_memory_is_bounded_however_long_the_window() -> None:
    book = LagBook(3600)
    for i in range(5000):
        book.take(reading(1.0 * i, [i], [i + 500]), 20)
    assert len(book._columns) <= MOST_COLUMNS + 1
    assert _worst(book, since=0) is S.OK
