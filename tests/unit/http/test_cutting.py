"""What is decoded in pieces is what would be decoded at once, wherever it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http import cutting

TRICKY = st.sampled_from(
    ['},{"key":', '} , {"value":1', "}{", '"},{"headers":[', "]}", "\\", '\\"', "é", "\n}\n{"]
)
TEXT = TRICKY | st.text(max_size=5)
NAMES = st.sampled_from(["key", "value", "headers", "name", "data"]) | TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=8)
SPACE = st.sampled_from(["", " ", "\n", "\r\n\t"])


@pytest.fixture(autouse=True, params=[1, 40])
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pieces of a size that short bodies have several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "CUT_BYTES", request.param)
        yield


def pieces(cut: Iterator[list[msgspec.Raw]] | None) -> list[bytes] | None:
    """All of them; None where it is nothing that can be cut."""
    try:
        return None if cut is None else [bytes(one) for piece in cut for one in piece]
    except cutting.FAULTS:
        return None


def bodies(records: list[Any], space: str, form: str) -> bytes:
    listed = f"{space},{space}".join(
        json.dumps(one, indent=1 if space == "\n" else None, ensure_ascii=False) for one in records
    )
    return form.replace("*", f"[{space}{listed}{space}]").encode()


FORMS = st.sampled_from(["*", ' {"records" : *} ', '{"entries":*}\n', '{"records":*,"x":1}', "{*}"])


@settings(max_examples=60)
@given(RECORDS, SPACE, FORMS)
def test_a_list(records: list[Any], space: str, form: str) -> None:
    found = pieces(cutting.of_list(bodies(records, space, form)))
    if found is not None:
        assert form not in {'{"records":*,"x":1}', "{*}"}
        assert [json.loads(one) for one in found] == records


@settings(max_examples=60)
@given(RECORDS, SPACE, FORMS, st.data())
def test_what_is_no_json_is_no_list(
    records: list[Any], space: str, form: str, data: st.DataObject
) -> None:
    body = bodies(records, space, form)
    at = data.draw(st.integers(0, len(body)))
    body = body[:at] + data.draw(st.binary(max_size=3) | TRICKY.map(str.encode)) + body[at + 1 :]
    found = pieces(cutting.of_list(body))
    if found is not None:
        whole = msgspec.json.decode(body, type=list[msgspec.Raw] | dict[str, list[msgspec.Raw]])
        (listed,) = whole.values() if isinstance(whole, dict) else [whole]
        assert found == [bytes(one) for one in listed]


@pytest.mark.parametrize("form", ["*", '{"records": *}'])
def test_records_as_they_are_sent_can_be_cut(form: str) -> None:
    records = [{"value": {"type": "STRING", "data": str(n)}} for n in range(20)]
    cut = cutting.of_list(bodies(records, "", form))
    assert cut is not None
    sizes = [len(piece) for piece in cut]
    assert sum(sizes) == 20
    assert max(sizes) <= 2


@settings(max_examples=60)
@given(RECORDS, SPACE)
def test_values_one_after_the_other(records: list[Any], space: str) -> None:
    written = [json.dumps(one, ensure_ascii=False) for one in records]
    cut = cutting.of_values(space.join(written).encode())
    if len(records) == 1:
        assert cut is None
    elif cut is not None:  # else the first has too much in it that looks like an end
        found = pieces(cut)
        assert found is None or [json.loads(one) for one in found] == records


def test_only_what_is_behind_a_whole_value_is_another_one() -> None:
    alone = {"value": {"type": "STRING", "data": "}{" * 20}}
    body = json.dumps(alone).encode()
    assert cutting.of_values(body) is None
    assert pieces(cutting.of_values(b'{"key": 1} {"key": 2}{"key": 3}')) == [
        b'{"key": 1}',
        b'{"key": 2}',
        b'{"key": 3}',
    ]
    assert pieces(cutting.of_values(b'{"key": 1}{"key"')) is None
    assert cutting.of_values(b'[{"key": 1}]') is None
