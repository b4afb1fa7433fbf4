"""Orders over HTTP: who may, what is understood, and what each outcome looks like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.errors import Contradicted, StillEvaluated, StoreDenied, StoreUnreachable
from sidecar.core.override import Mode, Override
from sidecar.http.settings import HttpSettings
from tests.unit.http.conftest import Client, Serve
from tests.unit.http.support import Paper

PATH = "/v1/breakers/default/override"
ORDER: dict[str, Any] = {"mode": "open", "ttl_s": 900, "reason": "migration", "author": "ann"}
OPEN = HttpSettings(open_orders=True)
METHODS = [("PUT", PATH), ("DELETE", PATH), ("DELETE", "/v1/breakers/default")]


@pytest.fixture
async def client(serve: Serve) -> Client:
    return await serve(OPEN)


async def test_an_order_is_given_and_answered(client: Client, paper: Paper) -> None:
    answer = await client.put(PATH, json=ORDER)
    assert answer.status == 200
    body = await answer.json()
    assert {**body, "set_at": 0, "expires_at": 0} == {**ORDER, "set_at": 0, "expires_at": 0}
    ((name, override, replace),) = paper.orders
    assert (name, replace) == ("default", False)
    assert isinstance(override, Override)
    assert override.expires_at == pytest.approx((override.set_at or 0) + 900)


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [({"ttl_s": 0.5}, 0.5), ({"ttl": "1h30m"}, 5400), ({"ttl": "none"}, math.inf)],
)
async def test_every_way_to_say_how_long(
    client: Client, paper: Paper, ttl: dict[str, object], seconds: float
) -> None:
    answer = await client.put(PATH, json={"mode": "shadow", "reason": "x", "replace": True, **ttl})
    assert answer.status == 200
    ((_, override, replace),) = paper.orders
    assert isinstance(override, Override)
    assert (override.mode, override.ttl_s, replace) == (Mode.SHADOW, seconds, True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": "half_open"}, "mode"),
        ({"mode": None}, "mode"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"ttl_s": "15m"}, "ttl_s"),
        ({"ttl_s": True}, "ttl_s"),
        ({"ttl_s": None}, "ttl_s"),
        ({"ttl": "15m"}, "ttl_s"),
        ({"reason": ""}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": 5}, "reason"),
        ({"reason": "x" * 1025}, "reason"),
        ({"author": ""}, "author"),
        ({"replace": "yes"}, "replace"),
        ({"until": "tomorrow"}, '"until"'),
    ],
)
async def test_what_is_wrong_is_named(
    client: Client, paper: Paper, change: dict[str, object], field: str
) -> None:
    answer = await client.put(PATH, json={**ORDER, **change})
    assert answer.status == 400
    body = await answer.json()
    assert body["type"] == "urn:breaker-sidecar:bad-override"
    assert field in [error["field"] for error in body["errors"]]
    assert paper.orders == []


async def test_every_fault_at_once(client: Client) -> None:
    body = await (await client.put(PATH, json={})).json()
    assert [error["field"] for error in body["errors"]] == ["mode", "ttl_s", "reason"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
async def test_no_json_object(client: Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.put(PATH, data=content, headers=headers)
    assert answer.status in {400, 413}


@pytest.mark.parametrize(("method", "path"), METHODS[1:])
async def test_release_and_forget_say_nothing_more(
    client: Client, paper: Paper, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status, await answer.read()) == (204, b"")
    assert paper.orders == [("default", "release" if path == PATH else "forget")]


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Contradicted("forced open by ann: x"), 409, "forced-open"),
        (StoreUnreachable("away"), 503, "store-unavailable"),
        (StoreDenied("no key:write"), 403, "store-denied"),
    ],
)
async def test_what_the_store_says_of_an_order(
    client: Client, paper: Paper, fault: Exception, status: int, kind: str
) -> None:
    paper.fault = fault
    answer = await client.put(PATH, json=ORDER)
    assert answer.status == status
    assert (await answer.json())["type"] == f"urn:breaker-sidecar:{kind}"


async def test_a_breaker_that_others_evaluate_is_not_forgotten(
    client: Client, paper: Paper
) -> None:
    paper.fault = StillEvaluated("web-7 still evaluates default")
    answer = await client.delete("/v1/breakers/default")
    assert answer.status == 409
    assert "web-7" in (await answer.json())["detail"]


async def test_an_unknown_breaker_is_a_404_with_the_names(client: Client) -> None:
    for method, path in METHODS:
        answer = await client.request(method, path.replace("default", "nosuch"), json=ORDER)
        assert answer.status == 404
        assert (await answer.json())["breakers"] == ["default"]


@pytest.mark.parametrize(("method", "path"), METHODS)
async def test_over_tcp_without_a_token_configured(
    serve: Serve, paper: Paper, method: str, path: str
) -> None:
    client = await serve(HttpSettings())
    answer = await client.request(method, path, json=ORDER)
    assert answer.status == 403
    assert "admin.token_file" in (await answer.json())["detail"]
    assert paper.orders == []


async def test_the_unix_socket_is_guarded_by_its_file_mode(serve: Serve, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    for settings in (HttpSettings(), HttpSettings(admin_token_file=str(token))):
        client = await serve(settings, transport="unix")
        assert (await client.put(PATH, json=ORDER)).status == 200


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"],
)
async def test_a_wrong_token(
    serve: Serve, paper: Paper, tmp_path: Path, authorization: str | None
) -> None:
    """Even where orders are open without a token: whoever configures one means it."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    client = await serve(HttpSettings(admin_token_file=str(token), open_orders=True))
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in METHODS:
        answer = await client.request(method, path, json=ORDER, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "s3cret" not in await answer.text()
    assert paper.orders == []


async def test_a_rotated_token_counts_at_once(serve: Serve, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    client = await serve(HttpSettings(admin_token_file=str(token)))

    async def status(value: str) -> int:
        headers = {"Authorization": f"bearer {value}"}
        return (await client.put(PATH, json=ORDER, headers=headers)).status

    assert [await status("old"), await status("new")] == [200, 401]
    token.write_text("new\n")
    assert [await status("old"), await status("new")] == [401, 200]
    token.write_text("\n")
    assert await status("") == 503
    token.unlink()
    assert await status("new") == 503
