"""The wire formats: what anybody wrote is read without raising, and what we write is exact."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.ports import Wire
from sidecar.core.types import (
    BadReport,
    Foreign,
    LockHolder,
    Record,
    Report,
    State,
    Transition,
    Unreadable,
)
from sidecar.core.wire import parse_rfc3339, plain, rfc3339
from sidecar.store.codec import JsonWire, Keys
from sidecar.store.fields import MOST
from sidecar.store.records import (
    HISTORY_ENTRIES,
    HISTORY_ENTRY_BYTES,
    append_history,
    decode_history,
    decode_holder,
    decode_state,
    encode_holder,
    encode_state,
)
from sidecar.store.reports import decode_report, encode_report

AT = 1795204800.123456  # 2026-11-20T20:00:00.123456Z
WRITTEN = {
    "current_state": "OPEN",
    "last_changed": "2026-11-20T20:00:00.123456Z",
    "schema": 1,
    "seq": 42,
    "epoch": 7,
    "automaton": "OPEN",
    "reason": "failures",
    "detail": "25 failures in the last interval, threshold 20",
    "evidence": {"failures": 25, "threshold": 20, "reporters": 3},
    "open_count": 1,
    "open_for": 30.0,
    "retry_at": "2026-11-20T20:00:30.123456Z",
    "admit_ratio": 0.0,
    "automaton_ratio": 0.0,
    "policy": "abc",
    "evaluator": "one",
}
RECORD = Record(
    current_state=State.OPEN,
    last_changed_at=AT,
    seq=42,
    epoch=7,
    automaton=State.OPEN,
    reason="failures",
    detail="25 failures in the last interval, threshold 20",
    evidence={"failures": 25, "threshold": 20, "reporters": 3},
    open_count=1,
    open_for_s=30.0,
    retry_at=AT + 30,
    admit_ratio=0.0,
    automaton_ratio=0.0,
    policy="abc",
    evaluator="one",
)
ENTRY = Transition(
    seq=42,
    at=AT,
    from_state=State.CLOSED,
    to_state=State.OPEN,
    reason="failures",
    detail="25 failures",
    evidence={"failures": 25},
    epoch=7,
    evaluator="one",
)
REPORT: dict[str, Any] = {
    "timestamp": "2026-11-20T20:00:00Z",
    "rate_ok": 98.2,
    "count_fail": 0,
}

finite = st.floats(0, 2**53, allow_nan=False, allow_infinity=False)
times = st.integers(946684800_000000, 4102444800_000000).map(lambda micros: micros / 1e6)
ratios = st.floats(0, 1)
states = st.sampled_from(State)
texts = st.text(st.characters(codec="utf-8"), max_size=50)
scalars = texts | st.booleans() | st.none() | st.integers(-(2**53), 2**53) | finite
evidence = st.dictionaries(texts, scalars, max_size=5)
counts = st.integers(0, MOST)
records = st.builds(
    Record,
    current_state=states,
    last_changed_at=times,
    seq=counts,
    epoch=counts,
    automaton=states,
    reason=texts,
    detail=texts,
    evidence=evidence,
    open_count=counts,
    open_for_s=finite,
    retry_at=times | st.none(),
    admit_ratio=ratios,
    automaton_ratio=ratios,
    policy=texts,
    evaluator=texts,
    schema=st.integers(1, 3),
)
optional = finite | st.none()
reports = st.builds(
    Report,
    timestamp_at=times,
    rate_ok=finite,
    count_fail=finite,
    count_ok=optional,
    interval_s=optional,
    lag=optional,
    in_flight=optional,
    latency_ms=optional,
    role=texts | st.none(),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def state(**changes: object) -> bytes:
    return encoded({**WRITTEN, **changes})


def state_without(*names: str, **changes: object) -> bytes:
    fields = {**WRITTEN, **changes}
    return encoded({k: v for k, v in fields.items() if k not in names})


# --- times and numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-20T20:00:00Z", 1795204800.0),
        ("2026-11-20T20:00:00.123456789Z", 1795204800.123456789),
        ("2026-11-20T21:30:00.5+01:30", 1795204800.5),
        ("2026-11-20T12:00:00-08:00", 1795204800.0),
        ("2026-11-20t20:00:00z", 1795204800.0),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_times_are_read(text: str, at: float) -> None:
    assert parse_rfc3339(text) == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-20",
        "2026-11-20T20:00:00",
        "2026-11-20 20:00:00Z",
        "2026-13-20T20:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T20:00:00.Z",
        "٢٠٢٦-11-20T20:00:00Z",
        "2026-11-20T20:00:00+25:00",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_rfc3339(text)


@given(times)
def test_a_time_comes_back_to_the_microsecond(at: float) -> None:
    assert parse_rfc3339(rfc3339(at)) == at


def test_times_are_written_in_utc_with_microseconds() -> None:
    assert rfc3339(AT) == "2026-11-20T20:00:00.123456Z"
    assert rfc3339(1795204800) == "2026-11-20T20:00:00.000000Z"
    assert rfc3339(math.inf) == "9999-12-31T23:59:59.000000Z"
    with pytest.raises(ValueError, match="NaN"):
        rfc3339(math.nan)


def test_whole_numbers_are_written_as_such() -> None:
    assert [repr(plain(n)) for n in (25.0, 25, 0.5, 0.0)] == ["25", "25", "0.5", "0"]
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="written"):
            plain(bad)


# --- the state record ------------------------------------------------------------------------


def test_a_record_is_written_in_the_public_form_and_order() -> None:
    written = json.loads(encode_state(RECORD))
    assert written == WRITTEN
    assert list(written) == list(WRITTEN)


@given(records)
def test_a_record_comes_back(record: Record) -> None:
    assert decode_state(encode_state(record)) == record


@pytest.mark.parametrize("name", ["open_for_s", "admit_ratio", "automaton_ratio", "retry_at"])
def test_no_nan_is_written(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_state(replace(RECORD, **{name: math.nan}))  # type: ignore[arg-type]


def test_evidence_that_is_no_number_becomes_null() -> None:
    written = json.loads(encode_state(replace(RECORD, evidence={"a": math.inf, "b": 1.5})))
    assert written["evidence"] == {"a": None, "b": 1.5}


@pytest.mark.parametrize("name", ["CLOSED", "OPEN", "HALF_OPEN"])
def test_two_fields_are_a_foreign_record(name: str) -> None:
    found = decode_state(
        encoded({"current_state": name, "last_changed": "2026-11-20T21:00:00.123456000+01:00"})
    )
    assert found == Foreign(State(name), AT)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"last_changed": None},
        {"last_changed": "0001-01-01T00:00:00Z"},
        {"last_changed": "0001-01-01T01:00:00+01:00"},
    ],
)
def test_a_foreign_record_without_a_time(more: dict[str, object]) -> None:
    assert decode_state(encoded({"current_state": "OPEN", **more})) == Foreign(State.OPEN, None)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"OPEN"',
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        encoded({"current_state": "open"}),
        encoded({"current_state": 1}),
        encoded({"current_state": "OPEN", "last_changed": 5}),
        encoded({"current_state": "OPEN", "last_changed": "noon"}),
        state(current_state="AJAR"),
        state(seq=-1),
        state(seq=True),
        state(seq=1.5),
        state(seq="1"),
        state(seq=None),
        state(seq=10**30),
        state(seq=2**53),
        state(epoch=2**53 - 1),
        state(open_count=2**53),
        state(schema=0),
        state(schema=True),
        state(schema="2"),
        state(epoch=-1),
        state(automaton="AJAR"),
        state(open_for=-1),
        state(open_for=math.nan),
        state(open_for=math.inf),
        state(open_for=True),
        state(admit_ratio=1.1),
        state(automaton_ratio=-0.1),
        state(open_count=0.5),
        state(evidence=[]),
        state(evidence={"a": {"b": 1}}),
        state(retry_at=5),
        state(retry_at="soon"),
        state(last_changed="soon"),
        state_without("last_changed"),
        state_without("open_for"),
        state_without("admit_ratio"),
        state_without("epoch"),
    ],
)
def test_what_cannot_be_read(value: bytes) -> None:
    found = decode_state(value)
    assert isinstance(found, Unreadable)
    assert 0 < len(found.fault) < 250


def test_a_fault_names_the_field_and_shortens_the_value() -> None:
    found = decode_state(state(admit_ratio="x" * 1000))
    assert isinstance(found, Unreadable)
    assert found.fault.startswith("admit_ratio is 'xxx")
    assert len(found.fault) < 150


def test_what_may_be_absent() -> None:
    optional = ("schema", "automaton", "automaton_ratio", "retry_at", "evidence", "detail")
    found = decode_state(state_without(*optional, current_state="HALF_OPEN", admit_ratio=0.2))
    assert isinstance(found, Record)
    assert found.automaton is State.HALF_OPEN
    assert found.automaton_ratio == 0.2
    assert (found.schema, found.retry_at, found.evidence) == (1, None, {})


def test_unknown_fields_are_no_fault() -> None:
    assert decode_state(state(since="later versions")) == RECORD


@pytest.mark.parametrize("name", ["CLOSED", "OPEN", "HALF_OPEN"])
def test_a_newer_schema_needs_only_seq_and_state(name: str) -> None:
    found = decode_state(encoded({"current_state": name, "seq": 9, "schema": 2}))
    assert isinstance(found, Record)
    assert (found.current_state, found.automaton, found.seq, found.schema) == (name, name, 9, 2)
    assert found.admit_ratio == {"CLOSED": 1.0, "OPEN": 0.0, "HALF_OPEN": 0.05}[name]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(WRITTEN, json_values)))
def test_a_newer_schema_is_followed_whatever_else_it_says(fields: dict[str, object]) -> None:
    found = decode_state(encoded({**fields, "schema": 2, "seq": 9, "current_state": "OPEN"}))
    # Python writes NaN and lone surrogates, which are no JSON for anybody else.
    try:
        msgspec.json.decode(encoded(fields))
    except (msgspec.DecodeError, UnicodeError):
        return
    assert isinstance(found, Record)
    assert (found.current_state, found.seq) == (State.OPEN, 9)


@pytest.mark.parametrize("fields", [{"seq": -1}, {"seq": "1"}, {"current_state": "AJAR"}])
def test_a_newer_schema_without_a_valid_seq_or_state(fields: dict[str, object]) -> None:
    found = decode_state(encoded({"current_state": "OPEN", "seq": 1, "schema": 2, **fields}))
    assert isinstance(found, Unreadable)


@given(st.binary(max_size=200) | json_values.map(encoded))
def test_nothing_read_raises(value: bytes) -> None:
    decode_state(value)
    decode_report(value)
    decode_holder(value)
    decode_history(value)


@given(st.sampled_from(sorted(WRITTEN)), json_values)
def test_no_field_makes_reading_raise(name: str, junk: object) -> None:
    found = decode_state(state(**{name: junk}))
    if isinstance(found, Record):
        assert 0 <= found.admit_ratio <= 1
        assert found.open_for_s >= 0
        assert found.seq >= 0


# --- reports ---------------------------------------------------------------------------------


def test_three_fields_are_a_report() -> None:
    found = decode_report(encoded(REPORT))
    assert found == Report(timestamp_at=1795204800.0, rate_ok=98.2, count_fail=0)


def test_a_whole_report_with_fields_nobody_knows() -> None:
    more = {
        "count_ok": 491,
        "interval": 5.0,
        "lag": 120,
        "in_flight": 4,
        "latency_ms": 12.5,
        "role": "consumer",
    }
    found = decode_report(encoded({**REPORT, **more, "host": {"name": "x"}}))
    assert found == Report(
        timestamp_at=1795204800.0,
        rate_ok=98.2,
        count_fail=0,
        count_ok=491,
        interval_s=5.0,
        lag=120,
        in_flight=4,
        latency_ms=12.5,
        role="consumer",
    )


NUMBERS = ["rate_ok", "count_fail", "count_ok", "interval", "lag", "in_flight", "latency_ms"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, -0.001, True, "1", [], {}, 2**53 + 2, math.nan, math.inf])
def test_numbers_must_be_numbers(name: str, value: object) -> None:
    found = decode_report(encoded({**REPORT, name: value}))
    assert isinstance(found, BadReport)
    if not isinstance(value, float) or math.isfinite(value):  # else it is no JSON at all
        assert found.fault.startswith(f"{name} is ")


@pytest.mark.parametrize("name", sorted(REPORT))
def test_a_missing_field_is_named(name: str) -> None:
    found = decode_report(encoded({k: v for k, v in REPORT.items() if k != name}))
    assert isinstance(found, BadReport)
    assert name in found.fault


@pytest.mark.parametrize("value", [None, 5, "", "noon", "2026-11-20T20:00:00"])
def test_a_report_needs_its_time(value: object) -> None:
    found = decode_report(encoded({**REPORT, "timestamp": value}))
    assert isinstance(found, BadReport)
    assert found.fault.startswith("timestamp is ")


@given(reports)
def test_a_report_comes_back(report: Report) -> None:
    assert decode_report(encode_report(report)) == report


def test_a_report_is_written_plainly() -> None:
    report = Report(timestamp_at=AT, rate_ok=2.0, count_fail=25.0, count_ok=0, interval_s=0.5)
    assert encode_report(report) == (
        b'{"timestamp":"2026-11-20T20:00:00.123456Z","rate_ok":2,"count_fail":25,'
        b'"count_ok":0,"interval":0.5}'
    )
    with pytest.raises(ValueError, match="written"):
        encode_report(replace(report, lag=math.nan))


def test_the_same_counts_a_moment_later_are_another_value() -> None:
    report = Report(timestamp_at=AT, rate_ok=2.0, count_fail=0)
    assert encode_report(report) != encode_report(replace(report, timestamp_at=AT + 1e-5))


# --- the lock's value ------------------------------------------------------------------------


def test_a_holder_comes_back() -> None:
    holder = LockHolder(instance="one", address="10.0.0.1:9100", since_at=AT)
    assert encode_holder(holder) == (
        b'{"instance":"one","address":"10.0.0.1:9100","since":"2026-11-20T20:00:00.123456Z"}'
    )
    assert decode_holder(encode_holder(holder)) == holder
    released = replace(holder, released=True)
    assert json.loads(encode_holder(released))["released"] is True
    assert decode_holder(encode_holder(released)) == released


@pytest.mark.parametrize(
    "value", [b"", b"x", b"{}", b'{"instance":"a","address":"b","since":"noon"}']
)
def test_a_junk_holder_is_none(value: bytes) -> None:
    assert decode_holder(value) is None


# --- history ---------------------------------------------------------------------------------


def test_history_comes_back_in_the_public_form() -> None:
    value = append_history([ENTRY], replace(ENTRY, seq=43, from_state=None))
    assert decode_history(value) == ([ENTRY, replace(ENTRY, seq=43, from_state=None)], False)
    first = json.loads(value)[0]
    assert list(first) == [
        "seq",
        "at",
        "from",
        "to",
        "reason",
        "detail",
        "evidence",
        "epoch",
        "evaluator",
    ]
    assert (first["from"], first["to"]) == ("CLOSED", "OPEN")


def test_no_history_is_empty_and_junk_is_told() -> None:
    assert decode_history(None) == ([], False)
    assert decode_history(b"[]") == ([], False)
    for junk in (b"", b"{}", b"null", b"[", b"\xff"):
        assert decode_history(junk) == ([], True)


def test_one_junk_entry_costs_no_other() -> None:
    good = append_history([], ENTRY)[1:-1]
    value = b"[" + good + b',{"seq":"x"},' + good + b"]"
    assert decode_history(value) == ([ENTRY, ENTRY], True)


def test_an_entry_that_leaves_no_room_for_the_next_is_junk() -> None:
    entry = {"at": "2026-11-20T20:00:00Z", "to": "OPEN"}
    found, junk = decode_history(encoded([{**entry, "seq": 2**53}, {**entry, "seq": MOST}]))
    assert ([one.seq for one in found], junk) == ([MOST], True)


def test_the_last_entries_are_kept() -> None:
    entries = [replace(ENTRY, seq=n) for n in range(100)]
    kept, junk = decode_history(append_history(entries, replace(ENTRY, seq=100)))
    assert [e.seq for e in kept] == list(range(101 - HISTORY_ENTRIES, 101))
    assert not junk


def test_a_long_detail_is_shortened_before_the_evidence() -> None:
    ((found,), _) = decode_history(append_history([], replace(ENTRY, detail="é" * 5000)))
    assert found.detail.startswith("ééé")
    assert found.detail.endswith("…")
    assert found.evidence == ENTRY.evidence


@given(
    st.builds(
        replace,
        st.just(ENTRY),
        detail=st.integers(0, 3000).map(lambda n: "\x01é" * n),
        reason=st.integers(0, 3000).map(lambda n: "\x01" * n),
        evaluator=st.integers(0, 3000).map(lambda n: "é" * n),
        evidence=st.integers(0, 100).map(lambda n: dict.fromkeys(map(str, range(n)), "\x01" * 30)),
    )
)
def test_no_entry_is_longer_than_its_bound(entry: Transition) -> None:
    value = append_history([], entry)
    assert len(value) <= HISTORY_ENTRY_BYTES + 2
    ((found,), junk) = decode_history(value)
    assert (found.seq, found.to_state, junk) == (42, State.OPEN, False)


# --- keys ------------------------------------------------------------------------------------


def test_only_the_default_has_short_keys() -> None:
    keys = Keys("breaker")
    assert keys.watched == "breaker/"
    assert [keys.state("default"), keys.override("default"), keys.leader("default")] == [
        "breaker/state",
        "breaker/override",
        "breaker/leader",
    ]
    assert [keys.state("a"), keys.override("a"), keys.leader("a")] == [
        "breaker/a/state",
        "breaker/a/override",
        "breaker/a/leader",
    ]
    assert keys.history("default") == "breaker-history/default"
    assert keys.history("a") == "breaker-history/a"
    assert Keys("team/breaker/").state("a") == "team/breaker/a/state"


@pytest.mark.parametrize("name", ["default", "a", "orders-v2.eu", "Default"])
@pytest.mark.parametrize("kind", ["state", "override", "leader"])
def test_a_key_is_understood(name: str, kind: str) -> None:
    keys = Keys("team/breaker")
    assert keys.parse(getattr(keys, kind)(name)) == (name, kind)


@pytest.mark.parametrize(
    "key",
    [
        "breaker",
        "breaker/",
        "breaker/a",
        "breaker/a/",
        "breaker/a/b",
        "breaker/a/b/state",
        "breaker//state",
        "breaker/state/state",
        "breaker/default/state",
        "breaker/.a/state",
        f"breaker/{'a' * 65}/state",
        "breaker-history/a",
        "other/a/state",
    ],
)
def test_other_keys_are_none_of_ours(key: str) -> None:
    assert Keys("breaker").parse(key) is None


def test_all_formats_as_one_object() -> None:
    wire: Wire = JsonWire("breaker")
    assert wire.decode_state(wire.encode_state(RECORD)) == RECORD
    report = Report(timestamp_at=AT, rate_ok=1, count_fail=0)
    assert wire.decode_report(wire.encode_report(report)) == report
    holder = LockHolder(instance="a", address="b", since_at=AT)
    assert wire.decode_holder(wire.encode_holder(holder)) == holder
    assert wire.decode_history(wire.append_history([], ENTRY)) == ([ENTRY], False)
