"""Every error is application/problem+json, and none tells of the inside."""

from __future__ import annotations

import pytest

from sidecar.core.errors import StoreUnreachable
from sidecar.http.problems import Problem, shown
from tests.unit.http.conftest import Client
from tests.unit.http.support import Log, Paper


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/", 405, "GET,HEAD"),
        ("GET", "/v1", 404, None),
        ("GET", "/v1/nothing", 404, None),
        ("POST", "/v1/watch", 405, "GET,HEAD"),
        ("GET", "/v1/breakers/", 404, None),
        ("GET", "/v1/breakers/none", 404, None),
        ("GET", "/v1/breakers/none/history", 404, None),
        ("POST", "/v1/breakers", 405, "GET,HEAD"),
        ("POST", "/v1/breakers/default", 405, "DELETE,GET,HEAD"),
        ("GET", "/v1/report", 405, "POST"),
        ("GET", "/v1/report/default", 405, "POST"),
        ("POST", "/v1/report/default/c-1", 405, "DELETE"),
        ("POST", "/livez", 405, "GET,HEAD"),
        ("OPTIONS", "/metrics", 405, "GET,HEAD"),
        ("PUT", "/openapi.json", 405, "GET,HEAD"),
    ],
)
async def test_the_form(
    client: Client, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = await client.request(method, path)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Allow") == allow
    body = await answer.json()
    assert body["status"] == status
    assert {"type", "title", "detail"} <= body.keys()
    assert all(body[key] for key in ("type", "title", "detail"))


async def test_a_defect_is_a_500_that_says_nothing_and_is_logged(
    client: Client, paper: Paper, log: Log
) -> None:
    paper.fault = ValueError("the secret is 42")
    answer = await client.get("/v1/breakers/default/history")
    assert answer.status == 500
    assert answer.content_type == "application/problem+json"
    assert "42" not in await answer.text()
    name, fields = log.events[0]
    assert name == "request_failed"
    assert fields["level"] == "error"
    assert fields["route"] == "/v1/breakers/{name}/history"
    assert "42" in str(fields["error"])


async def test_a_store_that_does_not_answer_is_a_503(
    client: Client, paper: Paper, log: Log
) -> None:
    paper.fault = StoreUnreachable("token abc at http://consul")
    answer = await client.get("/v1/breakers/default/history")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    body = await answer.json()
    assert body["type"] == "urn:breaker-sidecar:store-unavailable"
    assert "abc" not in body["detail"]
    assert log.events == []


def test_a_named_problem_has_a_type_and_a_title_of_its_own() -> None:
    response = Problem(418, "no-tea", "there is none", extra={"pots": 0}).response()
    assert response.body == (
        b'{"type":"urn:breaker-sidecar:no-tea","title":"No tea","status":418,'
        b'"detail":"there is none","pots":0}'
    )


@pytest.mark.parametrize(
    "value", ["\r\n", "\udcff", "é" * 500, None, True, {"a": [1]}, 10**300, float("nan")]
)
def test_what_clients_sent_is_repeated_safely(value: object) -> None:
    text = shown(value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= 70
