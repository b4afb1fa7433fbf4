"""Who may: Host, Origin and Sec-Fetch-Site for `/v1/*`, and nothing of it for decisions."""

from __future__ import annotations

import json

import pytest

from sidecar.http.door import trusted
from sidecar.http.server import HttpSettings, apply_settings
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import raw

GUARDED = [
    "/v1/breakers",
    "/v1/nothing/at/all",
    "/",
    "/openapi.json",
    "//v1/breakers",
    "/V1/status",
]
OPEN = ["/allowed", "/ext_authz/default/x", "/livez", "/readyz", "/metrics", "/version"]


@pytest.mark.parametrize(
    ("authority", "yes"),
    [
        ("localhost", True),
        ("LOCALHOST:9100", True),
        ("localhost.", True),
        ("127.0.0.1", True),
        ("127.9.8.7:1", True),
        ("[::1]", True),
        ("[::1]:9100", True),
        ("[0:0:0:0:0:0:0:1]:80", True),
        ("box.example", True),
        ("BOX.example:8080", True),
        ("[fd00::1]:9100", True),
        ("", False),
        (":9100", False),
        ("::1", False),
        ("[::1", False),
        ("[::2]", False),
        ("[::ffff:127.0.0.1]", False),
        ("0.0.0.0", False),
        ("128.0.0.1", False),
        ("127.1", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example", False),
        ("notbox.example", False),
        ("localhost@evil.example", False),
        ("evil.example#localhost", False),
        ("localhost:port", False),
        ("localhost:80:80", False),
        ("localhost:٤", False),
    ],
)
def test_who_is_trusted(authority: str, yes: bool) -> None:
    assert trusted(authority, frozenset({"box.example", "fd00::1"})) is yes


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "gw.example:80"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://127.0.0.1"}, 200),
        ({"Origin": "http://[::1]:9"}, 200),
        ({"Origin": "https://gw.example"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost@evil.example"}, 403),
        ({"Origin": "file://localhost"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "Cross-Site "}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
async def test_the_door(serve: Serve, headers: dict[str, str], status: int) -> None:
    client = await serve(HttpSettings(allowed_hosts=frozenset({"gw.example"})))
    for method in ("GET", "HEAD"):
        answer = await client.request(method, "/v1/breakers", headers=headers)
        assert answer.status == status
        assert answer.content_type == f"application/{'problem+' if status == 403 else ''}json"
    for path in OPEN:
        assert (await client.get(path, headers=headers)).status == 200


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_it_stands_before_routing(client: Client, path: str, method: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n"
    answer = await raw(client.port or 0, request.encode())
    assert answer.status == 403
    body = json.loads(answer.body)
    assert body["type"] == "urn:breaker-sidecar:forbidden-host"
    assert "allowed_hosts" in body["detail"]


@pytest.mark.parametrize(
    "hosts", ["", "Host: localhost\r\nHost: evil.example\r\n", "Host:\r\n", "Host: a b\r\n"]
)
async def test_no_host_or_two_are_no_local_host(client: Client, hosts: str) -> None:
    answer = await raw(client.port or 0, f"GET /v1/breakers HTTP/1.1\r\n{hosts}\r\n".encode())
    assert answer.status in {400, 403}


async def test_a_foreign_page_can_not_report(client: Client) -> None:
    answer = await client.post(
        "/v1/report", json={"instance": "c"}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status == 403


async def test_on_the_unix_socket_any_host_may_and_foreign_pages_may_not(serve: Serve) -> None:
    client = await serve(transport="unix")
    assert (await client.get("/v1/breakers", headers={"Host": "x"})).status == 200
    answer = await client.get("/v1/breakers", headers={"Origin": "https://evil.example"})
    assert answer.status == 403


async def test_a_reload_takes_effect_between_two_requests(client: Client) -> None:
    asked = {"Host": "gw.example"}
    assert (await client.get("/v1/status", headers=asked)).status == 403
    app = client.app
    assert app is not None
    apply_settings(app, HttpSettings(allowed_hosts=frozenset({"gw.example"})))
    assert (await client.get("/v1/status", headers=asked)).status == 200
