"""What a publish request carries, as records."""

from __future__ import annotations

import base64
import contextlib
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from sidecar.core.publishing import Draft, Refusal, Refused
from sidecar.http.drafts import MAX_RECORDS, Drafted, read
from sidecar.http.problems import Problem

JSON = "application/json"
LINES = "application/x-ndjson"
RAW = "application/octet-stream"


class Handed(NamedTuple):
    records: list[Drafted]
    single: bool


def handed(kind: str, body: bytes, *headers: tuple[str, str], most: int = 1000) -> Handed:
    sent = CIMultiDict([("Content-Type", kind), *headers])
    request = make_mocked_request("POST", "/v1/publish/t", headers=sent)
    pieces, single = read(request, body, most)
    return Handed([draft for piece in pieces for draft in piece], single)


def drafts(kind: str, body: bytes, *headers: tuple[str, str], most: int = 1000) -> list[Drafted]:
    return handed(kind, body, *headers, most=most).records


def text(data: object) -> dict[str, object]:
    return {"type": "STRING", "data": data}


def test_a_raw_body_is_one_record_with_what_the_headers_say() -> None:
    (draft,) = drafts(
        RAW,
        b"\x00\xff",
        ("Kafka-Key", "k"),
        ("kafka-partition", "7"),
        ("Kafka-Header-Trace-Id", "a"),
        ("Kafka-Header-Trace-Id", "b"),
        ("X-Other", "c"),
    )
    assert draft == Draft(b"k", b"\x00\xff", (("Trace-Id", b"a"), ("Trace-Id", b"b")), 7)
    assert handed(RAW, b"").single


@pytest.mark.parametrize("name", ["Kafka-Key", "Kafka-Partition"])
def test_what_can_be_said_once_is_not_said_twice(name: str) -> None:
    with pytest.raises(Problem) as caught:
        drafts(RAW, b"", (name, "1"), (name.lower(), "2"))
    assert (caught.value.status, caught.value.detail) == (400, f"{name} may be there once")


@pytest.mark.parametrize("kind", [RAW, "application/json", "application/x-ndjson"])
@pytest.mark.parametrize("name", ["Kafka-Partiton", "kafka-key-x", "Kafka-Headers"])
def test_a_mistyped_header_is_not_ignored(kind: str, name: str) -> None:
    with pytest.raises(Problem) as caught:
        drafts(kind, b"{}", (name, "1"))
    assert caught.value.status == 400
    assert caught.value.detail.startswith(f'the header "{name.lower()}" means nothing')


@pytest.mark.parametrize("body", [b'{"order":1}', b'{"key":"k","value":1}', b"[1]", b"no JSON"])
def test_json_that_headers_describe_is_a_raw_value(body: bytes) -> None:
    assert handed(JSON, body, ("Kafka-Key", "k")) == ([Draft(b"k", body, ())], True)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"value":{"type":"STRING","data":"1"}}'),
        (JSON, b'{"key":{"type":"STRING","data":"1"},"value":null}'),
        (JSON, b'{"records":[{"value":{"type":"STRING","data":"1"}},7]}'),
        (JSON, b'[{"value":{"type":"STRING","data":"1"}}]'),
        (LINES, b'{"value":{"type":"STRING","data":"1"}}'),
    ],
)
def test_records_that_say_it_themselves_are_not_described_by_headers(
    kind: str, body: bytes
) -> None:
    for header in ("Kafka-Key", "Kafka-Partition", "Kafka-Header-X"):
        with pytest.raises(Problem) as caught:
            drafts(kind, body, (header, "1"))
        assert caught.value.status == 400


@pytest.mark.parametrize("partition", ["-1", "x", "99999999999", "1.5"])
def test_a_partition_is_a_number(partition: str) -> None:
    with pytest.raises(Problem) as caught:
        drafts(RAW, b"", ("Kafka-Partition", partition))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
        "application/vnd.kafka.json.v2+json",
    ],
)
def test_what_a_web_page_may_send_and_other_batches_are_not_taken(kind: str) -> None:
    with pytest.raises(Problem) as caught:
        drafts(kind, b"x")
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("data", "bytes_"),
    [
        ({"type": "BINARY", "data": "AP8="}, b"\x00\xff"),
        (text("ä"), "ä".encode()),
        ({"type": "JSON", "data": {"a": [1, None]}}, b'{"a":[1,null]}'),
        ({"type": "JSON", "data": None}, None),
        ({"type": "BINARY", "data": None}, None),
        (None, None),
    ],
)
def test_data_by_its_type(data: object, bytes_: bytes | None) -> None:
    body = msgspec.json.encode({"records": [{"key": text("k"), "value": data}]})
    assert drafts(JSON, body) == [Draft(b"k", bytes_, ())]


def test_json_is_passed_on_as_it_was_written() -> None:
    (draft,) = drafts(JSON, b'{"value": {"type": "JSON", "data": {"b" : 1.50,  "a": 2}}}')
    assert draft == Draft(None, b'{"b" : 1.50,  "a": 2}', ())
    assert handed(JSON, b'{"value": {"type": "JSON", "data": 1}}').single


@pytest.mark.parametrize("form", [b'{"records": %s}', b' {"entries": %s}', b" %s"])
def test_forms_of_a_batch(form: bytes) -> None:
    records = b'[{"id": "1", "value": {"type": "STRING", "data": "x"}}]'
    assert handed(JSON, form % records) == ([Draft(None, b"x", ())], False)


@pytest.mark.parametrize("between", [b"", b" ", b"\n", b"\r\n\r\n"])
def test_records_one_after_the_other_are_a_batch_on_lines_or_not(between: bytes) -> None:
    record = b'{"value": {"type": "STRING", "data": "}{"}}' + between
    assert handed(JSON, record * 3) == ([Draft(None, b"}{", ())] * 3, False)
    good, bad, _ = handed(JSON, record + b'{"value": 1}' + between + b'{"key": null}').records
    assert isinstance(good, Draft)
    assert isinstance(bad, Refused)


@pytest.mark.parametrize(
    ("stamp", "ms"), [("1970-01-01T00:00:01Z", 1000), (17, 17), ("1970-01-01T01:00:01+01:00", 1000)]
)
def test_timestamps(stamp: object, ms: int) -> None:
    (draft,) = drafts(JSON, msgspec.json.encode({"value": text("x"), "timestamp": stamp}))
    assert isinstance(draft, Draft)
    assert draft.timestamp_ms == ms


def test_a_bad_record_costs_itself_alone() -> None:
    good = {"value": text("x")}
    records: list[Any] = [
        good,
        {"value": {"type": "BINARY", "data": "!"}},
        {"value": {"type": "AVRO", "data": 1}},
        {"value": {"data": 1}},
        7,
        {},
        {"value": text("x"), "partition_id": -1},
        {"value": text("x"), "timestamp": -1},
        {"value": text("x" * 2000)},
        good,
    ]
    found = drafts(JSON, msgspec.json.encode({"records": records}))
    whys = [draft.why if isinstance(draft, Refused) else None for draft in found]
    assert whys == [None, *[Refusal.INVALID] * 7, Refusal.TOO_LARGE, None]
    lines = b"\n".join(msgspec.json.encode(record) for record in records)
    assert [type(draft) for draft in drafts(LINES, lines)] == [type(draft) for draft in found]


@pytest.mark.parametrize("record", [{"value": {"a": 1}}, {"key": "k"}, {"value": [1]}])
def test_who_sends_bare_values_is_told_what_they_are_to_be(record: object) -> None:
    (refused,) = drafts(JSON, msgspec.json.encode(record))
    assert isinstance(refused, Refused)
    assert '"STRING"' in refused.detail


def test_lines() -> None:
    body = b'{"value":{"type":"STRING","data":"1"}}\n\n{"value":{"type":"STRING","data":"2"}}'
    assert handed(LINES, body) == ([Draft(None, b"1", ()), Draft(None, b"2", ())], False)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'{"records": 1}'),
        (JSON, b'{"records": []}'),
        (JSON, b'{"entries": null}'),
        (JSON, b'{"value": {"type": "STRING", "data": "x"}} {'),
        (JSON, b'{"value": {"type": "STRING", "data": "x"}} {} 1}'),
        (JSON, b'[{"value": {"type": "STRING", "data": "x"}}] []'),
        (JSON, b'{"records": [{"value": {"type": "STRING", "data": "x"}}, ]}'),
        (JSON, b"\xff"),
        (LINES, b"\n"),
        (LINES, b'{"value":{"type":"STRING","data":"1"}}\n' * (MAX_RECORDS + 1)),
    ],
)
def test_what_is_no_batch(kind: str, body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        drafts(kind, body)
    assert caught.value.status == 400


@settings(deadline=None)
@given(st.sampled_from([JSON, LINES, RAW]), st.binary(max_size=300))
def test_no_body_is_a_defect(kind: str, body: bytes) -> None:
    with contextlib.suppress(Problem):
        assert all(isinstance(draft, Draft | Refused) for draft in drafts(kind, body))


@settings(deadline=None)
@given(st.binary(), st.binary(), st.lists(st.tuples(st.text(), st.binary()), max_size=3))
def test_bytes_come_out_as_they_went_in(
    key: bytes, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    def coded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    record = {
        "key": {"type": "BINARY", "data": coded(key)},
        "value": {"type": "BINARY", "data": coded(value)},
        "headers": [{"name": name, "value": coded(data)} for name, data in headers],
    }
    assert drafts(JSON, msgspec.json.encode({"records": [record]}), most=10**6) == [
        Draft(key, value, tuple(headers))
    ]
