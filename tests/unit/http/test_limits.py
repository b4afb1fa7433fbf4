"""What is refused for its form, whoever sends it: targets, versions, codings, slow bodies."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.http import bodies
from sidecar.http.server import HttpSettings
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import Paper, raw

BODY = b'{"instance":"c-1","count_ok":1}'
REPORT = "POST /v1/report HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost:1/v1/breakers", 200),
        ("http://[::1]/v1/breakers", 200),
        ("http://gw.example/v1/breakers", 200),
        ("http://evil.example/v1/breakers", 403),
        ("http://localhost@evil.example/v1/breakers", 403),
        ("http://evil.example/allowed", 200),
    ],
)
async def test_a_whole_url_as_target_names_a_host_too(
    serve: Serve, target: str, status: int
) -> None:
    client = await serve(HttpSettings(allowed_hosts=frozenset({"gw.example"})))
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await raw(client.port or 0, request.encode())).status == status


@pytest.mark.parametrize("line", ["GET /allowed", "GET /allowed HTTP/2.0"])
async def test_another_version_is_refused_in_one_of_ours(client: Client, line: str) -> None:
    answer = await raw(client.port or 0, f"{line}\r\nHost: localhost\r\n\r\n".encode())
    assert answer.status == 505
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("coding", "status"), [("chunked", 202), ("Chunked", 202), ("gzip, chunked", 501)]
)
async def test_a_body_is_chunked_or_plain(client: Client, coding: str, status: int) -> None:
    head = f"{REPORT}Transfer-Encoding: {coding}\r\n\r\n".encode()
    answer = await raw(client.port or 0, head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert answer.status == status


async def test_a_body_must_come_in_time(
    client: Client, paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    head = f"{REPORT}Content-Length: {len(BODY)}\r\n\r\n".encode()
    answer = await raw(client.port or 0, head + BODY[:-1])
    assert answer.status == 408
    assert paper.posts == []


async def test_a_token_may_be_any_bytes(serve: Serve, paper: Paper, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(b"\xff\xfe")
    client = await serve(HttpSettings(admin_token_file=str(token)))
    for sent, status in ((b"\xff\xfd", 401), (b"\xff", 401), (b"\xff\xfe", 204)):
        answer = await raw(
            client.port or 0,
            b"DELETE /v1/breakers/default/override HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % sent,
        )
        assert answer.status == status
    assert len(paper.orders) == 1
