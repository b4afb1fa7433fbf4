"""The description describes what exists, and nothing else."""

from __future__ import annotations

import jsonschema_rs
import pytest

from sidecar.core.board import Board
from sidecar.core.types import State
from sidecar.http.openapi import document
from sidecar.http.server import HttpSettings, build_app
from tests.unit.http.conftest import Client
from tests.unit.http.support import Clock, Log, Paper, enter, make_record, metrics_text


def test_every_route_is_described_and_every_description_has_a_route(
    paper: Paper, clock: Clock, log: Log
) -> None:
    app = build_app(
        paper, HttpSettings(), transport="tcp", metrics=metrics_text, now=clock, telemetry=log
    )
    served: set[tuple[str, str]] = set()
    for route in app.router.routes():
        assert route.resource is not None
        served.add((route.resource.canonical, route.method.lower()))
    described = {
        (path, method) for path, methods in document("1")["paths"].items() for method in methods
    }
    envoy = "/ext_authz/{name}/{path}"
    assert {p for p, m in served if m == "*"} == {envoy, "/ext_authz/{name}"}
    assert {(p, m) for p, m in described if p != envoy} == {(p, m) for p, m in served if m != "*"}
    assert {m for p, m in described if p == envoy} >= {"get", "head", "post", "put", "delete"}


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/allowed", "/allowed"),
        ("/allowed?explain=1", "/allowed"),
        ("/allowed/none", "/allowed/{name}"),
        ("/v1/breakers", "/v1/breakers"),
        ("/v1/breakers/default", "/v1/breakers/{name}"),
        ("/v1/breakers/default/history", "/v1/breakers/{name}/history"),
        ("/v1/status", "/v1/status"),
        ("/readyz", "/readyz"),
        ("/version", "/version"),
        ("/openapi.json", "/openapi.json"),
    ],
)
async def test_answers_have_the_described_shape(
    client: Client, board: Board, clock: Clock, path: str, template: str
) -> None:
    whole = await (await client.get("/openapi.json")).json()
    for seq, state in enumerate(State, 1):
        enter(board, clock, "default", make_record(state, seq))
        answer = await client.get(path)
        described = whole["paths"][template]["get"]["responses"][str(answer.status)]
        schema = described["content"][answer.content_type]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": whole["components"]})
        validator.validate(await answer.json())
