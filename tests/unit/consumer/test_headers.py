from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.headers import (
    ATTEMPTS,
    DUE_AT,
    ERROR,
    MOST_STACK_BYTES,
    REASON,
    REPLAYS,
    SLIM_ERROR_BYTES,
    STACK,
    TOPIC,
    Header,
    clipped,
    number_of,
    origin_of,
    own,
    replayed,
    slimmed,
    text_of,
    written,
)
from tests.unit.consumer.records import Rec


def moved(record: Rec, *, attempts: int = 1, **more: object) -> list[Header]:
    return written(
        record,
        origin_of(record, moved=record.topic != "orders"),
        group="billing",
        attempts=attempts,
        error="OSError: away",
        stack="  in handle",
        at_ms=1_795_000_001_000,
        **more,  # type: ignore[arg-type]
    )


def test_a_moved_event_tells_where_it_comes_from_and_keeps_its_own_headers() -> None:
    record = Rec(offset=42, partition=3, headers=(("traceparent", b"00-1"),))
    headers = moved(record, attempts=3, due_at_ms=1_795_000_011_000)

    assert dict(headers) == {
        "traceparent": b"00-1",
        "breaker-topic": b"orders",
        "breaker-partition": b"3",
        "breaker-offset": b"42",
        "breaker-timestamp": b"1795000000000",
        "breaker-group": b"billing",
        "breaker-attempts": b"3",
        "breaker-error": b"OSError: away",
        "breaker-stack": b"  in handle",
        "breaker-failed-at": b"1795000001000",
        "breaker-due-at": b"1795000011000",
    }


def test_moved_again_it_still_tells_where_it_first_was() -> None:
    first = moved(Rec(offset=42, partition=3), attempts=3)
    again = Rec(offset=7, topic="orders.retry.1", timestamp=1, headers=tuple(first))
    headers = moved(again, attempts=6, reason="exhausted")

    origin = origin_of(Rec(topic="orders.dlq", headers=tuple(headers)), moved=True)
    assert (origin.topic, origin.partition, origin.offset) == ("orders", 3, 42)
    assert (origin.timestamp_ms, origin.attempts) == (1_795_000_000_000, 6)
    assert text_of(headers, REASON) == "exhausted"
    assert number_of(headers, DUE_AT) is None
    assert len(headers) == len({name for name, _ in headers})


def test_what_somebody_else_wrote_onto_the_topic_itself_is_not_believed() -> None:
    forged = ((TOPIC, b"other"), (ATTEMPTS, b"99"), (DUE_AT, b"9"), (REPLAYS, b"2"))
    origin = origin_of(Rec(offset=5, headers=forged), moved=False)
    assert (origin.topic, origin.offset, origin.attempts, origin.due_at_ms) == (
        "orders",
        5,
        0,
        None,
    )
    assert origin.replays == 2


@given(st.lists(st.tuples(st.sampled_from([TOPIC, ATTEMPTS, DUE_AT, REPLAYS]), st.binary())))
def test_whatever_stands_in_a_header_is_read_without_an_error(headers: list[Header]) -> None:
    origin = origin_of(Rec(headers=tuple(headers)), moved=True)
    assert origin.attempts >= 0
    assert origin.replays >= 0


def test_a_replay_has_the_events_own_headers_and_a_count() -> None:
    headers = [("id", b"1"), *moved(Rec(), reason="permanent")]
    assert replayed(headers, 2) == [("id", b"1"), (REPLAYS, b"2")]
    assert own(headers) == [("id", b"1")]


def test_the_stack_is_clipped_to_its_end_and_can_be_left_out() -> None:
    record = Rec()
    headers = written(
        record,
        origin_of(record, moved=False),
        group="g",
        attempts=1,
        error="e" * 10_000,
        stack="a" * 10_000 + "the end",
        at_ms=0,
    )
    stack = text_of(headers, STACK)
    assert stack is not None
    assert stack.endswith("the end")
    assert len(stack.encode()) <= MOST_STACK_BYTES
    slim = slimmed(headers)
    assert {name for name, _ in headers} - {name for name, _ in slim} == {STACK}
    assert len(dict(slim)[ERROR]) <= SLIM_ERROR_BYTES
    assert len(text_of(headers, ERROR) or "") < 3000


@given(st.text(st.characters()), st.integers(4, 50))
def test_clipped_text_can_be_written_and_is_never_longer(text: str, most: int) -> None:
    assert len(clipped(text + "\ud800", most).encode()) <= most


def test_an_event_without_key_and_value_says_so() -> None:
    assert ("breaker-empty", b"1") in moved(Rec(key=None, value=None))
