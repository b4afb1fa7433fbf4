"""The parts without input or output: addresses, events, the share, what was said."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.client.address import AddressError, Place, places
from sidecar.client.known import NoSuchBreaker, NotASidecar, choose, read
from sidecar.client.settings import BREAKER_NAME as CLIENTS_NAME
from sidecar.client.share import UNIT, Share
from sidecar.client.sse import Event, NotEvents, Parser
from sidecar.core.naming import BREAKER_NAME


@pytest.mark.parametrize(
    ("address", "environ", "expected"),
    [
        (None, {}, [Place("127.0.0.1", 9100), Place("::1", 9100)]),
        (None, {"NOMAD_PORT_breaker": "23456"}, [Place("127.0.0.1", 23456), Place("::1", 23456)]),
        (None, {"BREAKER_SIDECAR_ADDRESS": "h:1", "NOMAD_PORT_breaker": "2"}, [Place("h", 1)]),
        ("10.0.0.7:81", {"BREAKER_SIDECAR_ADDRESS": "h:1"}, [Place("10.0.0.7", 81)]),
        ("", {}, [Place("127.0.0.1", 9100), Place("::1", 9100)]),
        ("localhost:1", {}, [Place("127.0.0.1", 1), Place("::1", 1)]),
        (":1", {}, [Place("127.0.0.1", 1), Place("::1", 1)]),
        ("10.0.0.7", {}, [Place("10.0.0.7", 9100)]),
        ("::1", {}, [Place("::1", 9100)]),
        ("[::1]:7", {}, [Place("::1", 7)]),
        ("http://h", {}, [Place("h", 80)]),
        ("http://[::1]", {}, [Place("::1", 80)]),
        ("http://[::1]:7", {}, [Place("::1", 7)]),
        ("http://h:9100/", {}, [Place("h", 9100)]),
        ("unix:/run/b.sock", {}, [Place(socket_path="/run/b.sock")]),
        ("unix:b.sock", {}, [Place(socket_path="b.sock")]),
        ("unix:///run/b.sock", {}, [Place(socket_path="/run/b.sock")]),
    ],
)
def test_where_the_sidecar_is(
    address: str | None, environ: dict[str, str], expected: list[Place]
) -> None:
    assert places(address, environ) == expected


@pytest.mark.parametrize(
    "address",
    [
        "unix:",
        "https://h",
        "ftp://h",
        "http://",
        "http://h/x",
        "http://u@h",
        "h:port",
        "h:",
        "h:99999",
        ":",
        "1:2:3",
        "[::1",
        "[::1]x:7",
        "h\n",
        "h/x",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressError, match="write"):
        places(address, {})


def test_nomads_port_must_be_one() -> None:
    with pytest.raises(AddressError, match="NOMAD_PORT_breaker is 'http'; write"):
        places(None, {"NOMAD_PORT_breaker": "http"})


def test_the_client_takes_the_names_that_the_daemon_takes() -> None:
    assert CLIENTS_NAME.pattern == BREAKER_NAME


def test_a_place_in_a_url() -> None:
    assert Place("::1", 7).base_url == "http://[::1]:7"
    assert Place("h", 7).base_url == "http://h:7"
    assert Place(socket_path="/x").base_url == "http://localhost"
    assert str(Place(socket_path="/x")) == "unix:/x"


STREAM = (
    ": comment\r\n\r\n"
    "event: snapshot\nid: 7\ndata: {\ndata: }\n\n"
    "data:no space\r\revent: transition\rdata: é\r\n\r\n"
    "event: empty\n\nretry: 5\nid: 8\ndata: x\n\n"
).encode()
EVENTS = [
    Event("snapshot", "{\n}", "7"),
    Event("message", "no space", "7"),
    Event("transition", "é", "7"),
    Event("message", "x", "8"),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = Parser()
    heard = [e for a, b in itertools.pairwise(edges) for e in parser.feed(STREAM[a:b])]
    assert heard == EVENTS


def test_an_event_that_never_ends_is_refused() -> None:
    with pytest.raises(NotEvents):
        Parser(limit=100).feed(b"data: " + b"x" * 100)
    parser = Parser(limit=100)
    parser.feed(b"data: " + b"x" * 60 + b"\n")
    with pytest.raises(NotEvents):
        parser.feed(b"data: " + b"x" * 60 + b"\n")
    with pytest.raises(NotEvents):
        Parser().feed(b"data: \xff\n")


@given(ratio=st.integers(1, UNIT - 1), phase=st.integers(0, UNIT - 1), calls=st.integers(1, 3000))
def test_a_share_is_exact_over_any_number_of_calls(ratio: int, phase: int, calls: int) -> None:
    share = Share(ratio, phase)
    admitted = sum(share.spend() for _ in range(calls))
    assert admitted == (phase + calls * ratio) // UNIT


@given(
    st.lists(st.tuples(st.integers(1, UNIT - 1), st.integers(0, 200)), min_size=1, max_size=8),
    st.integers(0, UNIT - 1),
)
def test_a_share_goes_on_where_it_stood_when_its_ratio_changes(
    steps: list[tuple[int, int]], phase: int
) -> None:
    share, admitted, total = Share(UNIT, phase), 0, phase
    for ratio, calls in steps:
        share = share.at(ratio)
        admitted += sum(share.spend() for _ in range(calls))
        total += ratio * calls
    assert admitted == total // UNIT


def test_when_to_come_back() -> None:
    said = {"name": "a", "state": "OPEN", "admit_ratio": 0}
    at = "2026-11-20T20:00:30Z"
    wall_at = 1795204820.0 + 0.5
    assert read({**said, "retry_after": 3}, 100.0).retry_after(101.5) == 2
    assert read({**said, "retry_after": 3}, 100.0).retry_after(200.0) == 1
    assert read(said, 100.0).retry_after(100.0) == 1
    dated = read({**said, "retry_at": at}, 100.0, lambda: wall_at)
    assert dated.retry_after(100.0) == 10
    assert read({**said, "retry_at": "soon"}, 100.0).retry_after(100.0) == 1


def test_which_breaker_is_meant() -> None:
    assert choose(["a", "default"], None) == "default"
    assert choose(["a"], None) == "a"
    assert choose(["a", "b"], "b") == "b"
    for names, wanted in ((["a", "b"], None), ([], None), (["a"], "b")):
        with pytest.raises(NoSuchBreaker, match="there are"):
            choose(names, wanted)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_whatever_is_said_is_read_or_refused(value: object) -> None:
    body = {"name": "a", "state": "OPEN", "admit_ratio": value, "retry_after": value, "seq": value}
    for said in (value, body, json.loads(json.dumps(body))):
        with contextlib.suppress(NotASidecar):
            known = read(said, 0.0)
            assert 0 <= known.admit_ratio <= 1
            assert known.retry_after(1.0) >= 1
