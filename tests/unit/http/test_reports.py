"""`/v1/report`: what is taken in, what is refused, and how that is said."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.board import Cell
from sidecar.core.errors import StoreDenied, StoreUnreachable
from sidecar.core.intake import IntakeFull, Post
from sidecar.http.posts import parse
from sidecar.http.problems import Problem
from sidecar.http.server import HttpSettings
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import Paper

GOOD = {
    "instance": "c-1",
    "count_ok": 10,
    "count_fail": 2.5,
    "lag": 120,
    "in_flight": 4,
    "latency_ms": 12.5,
    "role": "consumer",
}


@pytest.mark.parametrize("path", ["/v1/report", "/v1/report/default"])
async def test_a_report_is_taken_in(client: Client, paper: Paper, path: str) -> None:
    answer = await client.post(path, json=GOOD)
    assert answer.status == 202
    assert await answer.json() == {"accepted": True, "breaker": "default", "instance": "c-1"}
    assert paper.posts == [("default", Post(**GOOD))]  # type: ignore[arg-type]


def test_counts_default_to_nothing() -> None:
    assert parse(b'{"instance":"c"}') == Post(instance="c", count_ok=0, count_fail=0)
    nulls = b'{"instance":"c","lag":null,"in_flight":null,"latency_ms":null,"role":null}'
    assert parse(nulls) == Post(instance="c")


def test_what_the_stores_report_has_beside_is_taken_and_not_used() -> None:
    given = {"timestamp": "2026-11-20T20:00:00Z", "rate_ok": 98.2, "interval": 5.0, **GOOD}
    assert parse(json.dumps(given).encode()) == Post(**GOOD)  # type: ignore[arg-type]


def test_a_producer_may_report_in_its_own_words() -> None:
    given = {"instance": "api-1", "role": "producer"}
    own = {**given, "delivered": 180, "errored": 60, "outstanding": 12}
    usual = {**given, "count_ok": 180, "count_fail": 60, "in_flight": 12}
    assert parse(json.dumps(own).encode()) == parse(json.dumps(usual).encode())


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ({}, "instance", "instance is missing"),
        ({"instance": ""}, "instance", 'instance is ""'),
        ({"instance": "-c"}, "instance", "must match"),
        ({"instance": "a/b"}, "instance", '"a/b"'),
        ({"instance": "a\n"}, "instance", "must match"),
        ({"instance": "n" * 129}, "instance", "must match"),
        ({"instance": 7}, "instance", "instance is 7;"),
        ({"instance": None}, "instance", "null"),
        ({"instance": "c", "count_fail": -1}, "count_fail", "count_fail is -1;"),
        ({"instance": "c", "count_fail": True}, "count_fail", "count_fail is true;"),
        ({"instance": "c", "count_fail": None}, "count_fail", "null"),
        ({"instance": "c", "count_ok": "10"}, "count_ok", '"10"'),
        ({"instance": "c", "count_ok": [1]}, "count_ok", "[1]"),
        ({"instance": "c", "count_ok": 2**53 + 2}, "count_ok", "from 0 to 2^53"),
        ({"instance": "c", "count_ok": 10**30}, "count_ok", "from 0 to 2^53"),
        ({"instance": "c", "count_ok": 1e300}, "count_ok", "from 0 to 2^53"),
        ({"instance": "c", "lag": -0.1}, "lag", "lag is -0.1;"),
        ({"instance": "c", "in_flight": False}, "in_flight", "false"),
        ({"instance": "c", "latency_ms": "fast"}, "latency_ms", "fast"),
        ({"instance": "c", "role": "boss"}, "role", "consumer or producer"),
        ({"instance": "c", "role": ["consumer"]}, "role", "consumer or producer"),
        ({"instance": "c", "rate_ok": 5}, "count_ok", "rate_ok alone"),
        ({"instance": "c", "delivered": 5}, "delivered", "send role: producer, or count_ok"),
        ({"instance": "c", "role": "producer", "errored": -1}, "errored", "errored is -1;"),
        (
            {"instance": "c", "role": "producer", "outstanding": 1, "in_flight": 1},
            "outstanding",
            "outstanding and in_flight are the same",
        ),
        ({"instance": "c", "count_failed": 5}, "count_failed", '"count_failed" is not a field'),
        ({"instance": "c", "é\n": 5}, "\\xe9\n", "is not a field"),
    ],
)
async def test_a_fault_names_field_and_value(
    client: Client, paper: Paper, given: object, field: str, said: str
) -> None:
    answer = await client.post("/v1/report", json=given)
    assert answer.status == 400
    assert answer.content_type == "application/problem+json"
    body = await answer.json()
    assert body["type"] == "urn:breaker-sidecar:bad-report"
    assert body["errors"][0]["field"] == field
    assert said in body["errors"][0]["detail"]
    assert said in body["detail"]
    assert paper.posts == []


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Problem) as caught:
        parse(b'{"instance":"-","count_ok":-1,"count_fail":"x","zz":1}')
    errors = caught.value.extra["errors"]
    assert isinstance(errors, list)
    assert [e["field"] for e in errors] == ["instance", "count_ok", "count_fail", "zz"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"c-1"',
        b"null",
        b'{"instance":"c","count_ok":NaN}',
        b'{"instance":"c","count_ok":1e999}',
        b"\xff\xfe{}",
        b'{"instance":"\\ud800"}',
        b"[" * 60_000,
        b'{"instance":"c","count_ok":' + b"1" * 5000 + b"}",
    ],
)
async def test_wrong_json_is_a_400(client: Client, body: bytes) -> None:
    answer = await client.post(
        "/v1/report", data=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 202),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, 202),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/jsonx"}, 415),
        ({}, 415),
    ],
)
async def test_only_json_is_read(client: Client, headers: dict[str, str], status: int) -> None:
    answer = await client.post("/v1/report", data=b'{"instance":"c"}', headers=headers)
    assert answer.status == status


async def test_a_content_coding_is_refused(client: Client) -> None:
    answer = await client.post("/v1/report", json=GOOD, compress="gzip")
    assert answer.status == 415
    assert "Content-Encoding" in (await answer.json())["detail"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_64_kib_is_the_limit(client: Client, chunked: bool) -> None:
    for size, status in ((65_536, 202), (65_537, 413)):
        body = b'{"instance":"c"}'.ljust(size)
        answer = await client.post(
            "/v1/report",
            data=body,
            headers={"Content-Type": "application/json"},
            chunked=chunked or None,
        )
        assert answer.status == status
        said = await answer.json()
        assert (status == 202) or "65536" in said["detail"]


async def test_an_unknown_breaker_is_a_404_with_the_names(client: Client) -> None:
    answer = await client.post("/v1/report/none", json=GOOD)
    assert answer.status == 404
    assert (await answer.json())["breakers"] == ["default"]


@pytest.mark.parametrize(
    ("fault", "status"), [(IntakeFull("10000 are enough"), 429), (StoreUnreachable("x"), 503)]
)
async def test_when_it_can_not_be_taken(
    client: Client, paper: Paper, fault: Exception, status: int
) -> None:
    paper.fault = fault
    answer = await client.post("/v1/report", json=GOOD)
    assert answer.status == status
    assert "Retry-After" in answer.headers


async def test_goodbye(client: Client, paper: Paper) -> None:
    await client.post("/v1/report", json=GOOD)
    answer = await client.delete("/v1/report/default/c-1")
    assert answer.status == 204
    assert await answer.read() == b""
    assert (await client.delete("/v1/report/default/c-1")).status == 404
    assert (await client.delete("/v1/report/none/c-1")).status == 404
    assert (await client.delete("/v1/report/default/-c")).status == 400
    paper.fault = StoreDenied("no")
    assert (await client.delete("/v1/report/default/c-1")).status == 503


@pytest.mark.parametrize(
    ("reports", "transport", "status"),
    [
        ("tcp", "tcp", 202),
        ("tcp", "unix", 202),
        ("socket", "tcp", 403),
        ("socket", "unix", 202),
        ("off", "tcp", 403),
        ("off", "unix", 403),
    ],
)
async def test_where_reports_are_taken(
    serve: Serve, reports: str, transport: str, status: int
) -> None:
    settings = HttpSettings(reports=reports)  # type: ignore[arg-type]
    client = await serve(settings, transport=transport)
    answer = await client.post("/v1/report", json=GOOD)
    assert answer.status == status
    gone = await client.delete("/v1/report/default/c-1")
    if status == 403:
        assert "`reports: tcp`" in (await answer.json())["detail"]
        assert gone.status == 403
    else:
        assert gone.status == 204


async def test_a_report_is_finished_though_its_client_hung_up(client: Client, paper: Paper) -> None:
    entered, leave, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(cell: Cell, post: Post) -> None:
        entered.set()
        await leave.wait()
        done.set()

    paper.report = slow  # type: ignore[method-assign]
    asked = asyncio.create_task(client.post("/v1/report", json=GOOD), name="asked")
    await asyncio.wait_for(entered.wait(), 5)
    asked.cancel()
    await asyncio.wait([asked])
    leave.set()
    await asyncio.wait_for(done.wait(), 5)
