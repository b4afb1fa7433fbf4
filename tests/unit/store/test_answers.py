"""Consul's answers, where no server is needed to know what they mean."""

from __future__ import annotations

import base64
import json
import time

import pytest

from sidecar.core.errors import SessionLost, StoreDenied, StoreUnreachable
from sidecar.store.answers import duration_s, page, renewed_session, single, transacted
from sidecar.store.transport import Answer

HEADERS = {"X-Consul-Index": "42", "X-Consul-KnownLeader": "true"}


def answer(body: object, status: int = 200) -> Answer:
    return Answer(status, HEADERS, json.dumps(body).encode(), time.perf_counter())


def pair(key: str, value: bytes) -> dict[str, object]:
    return {
        "LockIndex": 0,
        "Key": key,
        "Flags": 0,
        "Value": base64.b64encode(value).decode() or None,
        "CreateIndex": 3,
        "ModifyIndex": 5,
    }


def test_an_empty_value_is_null_on_the_wire() -> None:
    found = single(answer([pair("a", b"")]))
    assert found is not None
    assert found.value == b""


def test_ten_thousand_reports_are_read_quickly() -> None:
    value = b'{"timestamp":"2026-11-20T20:00:00Z","rate_ok":98.2,"count_fail":0}' + b" " * 180
    listing = answer(
        [pair(f"service-metrics/kafka-consumer/c-{n:05}", value) for n in range(10000)]
    )
    assert len(listing.body) > 4_000_000
    began = time.process_time()
    found = page(listing)
    # Takes about 25 ms; the bound leaves room for a slow machine.
    assert time.process_time() - began < 0.5
    assert len(found.entries) == 10000
    assert found.entries[9999].value == value
    assert (found.index, found.known_leader) == (42, True)
    assert found.spent_s > 0


def test_conflicts_name_their_keys() -> None:
    body = {"Results": None, "Errors": [{"OpIndex": 1, "What": "index is stale"}]}
    assert transacted(answer(body, 409), ["lock", "state"]) == ("state: index is stale",)
    body = {"Results": None, "Errors": [{"OpIndex": 7, "What": "index is stale"}]}
    assert transacted(answer(body, 409), ["lock", "state"]) == ("?: index is stale",)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("Permission denied: token lacks permission 'key:write'", StoreDenied),
        ('invalid session "x"', SessionLost),
    ],
)
def test_not_every_conflict_is_one(what: str, error: type[Exception]) -> None:
    body = {"Results": None, "Errors": [{"OpIndex": 0, "What": what}]}
    with pytest.raises(error):
        transacted(answer(body, 409), ["lock"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("1m30.5s", 90.5),
        ("24h0m0s", 86400.0),
        ("500ms", 0.5),
        ("", None),
        ("10", None),
        ("s", None),
        ("-10s", None),
        ("10 s", None),
    ],
)
def test_durations_as_go_prints_them(text: str, seconds: float | None) -> None:
    assert duration_s(text) == seconds


def test_a_renewal_of_nothing_is_no_answer() -> None:
    with pytest.raises(StoreUnreachable):
        renewed_session(answer([]))
    with pytest.raises(SessionLost):
        renewed_session(answer("Session id not found", 404))
