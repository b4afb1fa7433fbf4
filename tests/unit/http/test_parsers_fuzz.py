"""Whatever is sent, the parsers say what is wrong with it, in an answer that can be sent."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.reports import INSTANCE
from sidecar.http import overrides, posts
from sidecar.http.parameters import duration
from sidecar.http.problems import Problem

TEXT = st.text(st.characters(), max_size=40)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
REPORT_FIELDS = st.sampled_from(
    ["instance", "count_ok", "count_fail", "lag", "role", "timestamp", "rate_ok", "interval"]
)
ORDER_FIELDS = st.sampled_from(["mode", "ttl", "ttl_s", "reason", "author", "replace", "set_at"])


def _bodies(fields: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    objects = st.dictionaries(fields | TEXT, VALUES, max_size=6)
    written = (objects | VALUES).map(json.dumps).map(str.encode)
    broken = st.tuples(written, st.integers(0, 60), st.binary(max_size=4)).map(
        lambda parts: parts[0][: parts[1]] + parts[2]
    )
    return written | broken | st.binary(max_size=60)


def _sendable(problem: Problem) -> None:
    response = problem.response()
    assert problem.status == 400
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["status"] == 400
    assert response.body.decode().isprintable()


@settings(max_examples=400)
@given(_bodies(REPORT_FIELDS))
def test_a_report_is_understood_or_refused(body: bytes) -> None:
    try:
        post = posts.parse(body)
    except Problem as problem:
        _sendable(problem)
        return
    assert INSTANCE.fullmatch(post.instance)
    assert 0 <= post.count_ok <= posts.MAX_NUMBER
    assert 0 <= post.count_fail <= posts.MAX_NUMBER


@settings(max_examples=400)
@given(_bodies(ORDER_FIELDS))
def test_an_order_is_understood_or_refused(body: bytes) -> None:
    try:
        override, _ = overrides.parse(body, wall_at=1_795_000_000.0)
    except Problem as problem:
        _sendable(problem)
        return
    assert override.ttl_s is not None
    assert override.ttl_s > 0


@settings(max_examples=400)
@given(TEXT | st.from_regex(r"[-+0-9.a-zµ]{0,45}", fullmatch=True))
def test_a_duration_is_one_or_none(text: str) -> None:
    seconds = duration(text)
    assert seconds is None or 0 <= seconds < float("inf")
