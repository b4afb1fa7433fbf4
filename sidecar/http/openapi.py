"""The description of this interface that `/openapi.json` serves."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.core.override import MAX_TTL_S
from sidecar.core.reports import INSTANCE
from sidecar.http import schemas
from sidecar.http.allowed import DENY_STATUSES
from sidecar.http.posts import MAX_NUMBER, PRODUCERS, ROLES
from sidecar.http.problems import MEDIA_TYPE
from sidecar.http.replies import json

Node = dict[str, Any]

_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_PROBLEM = {
    400: "A parameter or the body is wrong; `detail` says which and how.",
    401: "The bearer token is missing or wrong.",
    403: "Not for this client: see Host, Origin, `reports` and `admin.token_file`.",
    404: "No such breaker or instance; the names are listed.",
    405: "Wrong method; `Allow` lists the right ones.",
    408: "The body was not there in time.",
    409: "It contradicts what is in force; `detail` says what and who.",
    413: "The body is over 64 KiB.",
    415: "The body is not application/json.",
    422: "It can't be accepted as it is; `detail` says why.",
    429: "Too many instances report through this sidecar.",
    503: "Not now; `Retry-After` says when to try again.",
    504: "Kafka confirmed nothing in time: the records may or may not be there.",
    507: "There is no room for it on disk.",
}


def _parameter(name: str, where: str, description: str, **schema: object) -> Node:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


_NAME = _parameter("name", "path", "A breaker, or `default` for the default one.", type="string")
_INSTANCE = _parameter(
    "instance", "path", "Who reported.", type="string", pattern=f"^{INSTANCE.pattern}$"
)
_PEEK = _parameter("peek", "query", "`1`: look only; nothing is spent or counted.", type="string")
_EXPLAIN = _parameter(
    "explain", "query", "`1`: `explain` in the body says why it is so.", type="string"
)
_DENY = _parameter(
    "deny_status",
    "query",
    "The status of a rejection.",
    type="string",
    enum=[str(status) for status in DENY_STATUSES],
)
_STRICT = _parameter("strict", "query", "`1`: 503 while any breaker is stale.", type="string")
_INDEX = _parameter(
    "index",
    "query",
    "Answer as soon as `seq` differs from this one.",
    type="string",
    pattern="^[0-9]{1,18}$",
)
_WAIT = _parameter(
    "wait",
    "query",
    "With `index`: answer after this time with what there is (Go duration, at most 5m).",
    type="string",
    pattern=r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|ms|s|m|h))+)$",
    maxLength=40,
)
_LAST_ID = _parameter(
    "Last-Event-ID", "header", "Go on after this event; an unknown one: a snapshot.", type="string"
)


_TOPIC = _parameter("topic", "path", "A Kafka topic.", type="string")
_ACK = _parameter(
    "ack",
    "query",
    "`delivered`: wait for Kafka's word as long as there is time, also for spooled records.",
    type="string",
    enum=["durable", "delivered"],
)
_ONCE = _parameter(
    "Idempotency-Key",
    "header",
    "Accept this request once, however often it is sent.",
    type="string",
    maxLength=200,
)


def _ok(description: str, schema: str, media: str = "application/json") -> Node:
    content = {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _problem(status: int) -> Node:
    return _ok(_PROBLEM[status], "Problem", MEDIA_TYPE)


def _operation(
    summary: str, responses: dict[int, Node], *problems: int, parameters: tuple[Node, ...] = ()
) -> Node:
    answers = {str(status): answer for status, answer in responses.items()}
    answers |= {str(status): _problem(status) for status in problems}
    operation: Node = {"summary": summary, "responses": answers}
    if parameters:
        operation["parameters"] = list(parameters)
    return operation


def _readable(operation: Node) -> Node:
    """GET, and HEAD that answers the same without the body."""
    bare = {
        status: {key: value for key, value in answer.items() if key != "content"}
        for status, answer in operation["responses"].items()
    }
    return {"get": operation, "head": {**operation, "responses": bare}}


def _decision(*extra: Node) -> Node:
    headers = {
        "X-Breaker": {"schema": {"type": "string"}},
        "X-Breaker-State": {"schema": {"$ref": "#/components/schemas/State"}},
        "X-Breaker-Reason": {"schema": {"type": "string"}},
        "X-Breaker-Seq": {"schema": {"type": "integer"}},
        "X-Breaker-Stale": {"schema": {"enum": ["true", "false"]}},
    }
    retry = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    admit = {**_ok("Send.", "Admission"), "headers": headers}
    reject = {**_ok("Do not send yet.", "Rejection"), "headers": {**headers, **retry}}
    responses = {200: admit} | dict.fromkeys(DENY_STATUSES, reject)
    parameters = (*extra, _PEEK, _EXPLAIN, _DENY)
    return _operation("May a producer send now?", responses, 400, 404, parameters=parameters)


def _envoy() -> Node:
    operation = _operation(
        "The decision for Envoy: 200 or 429, whatever method and body.",
        {200: _ok("Let it through.", "Admission"), 429: _ok("Not now.", "Rejection")},
        404,
        parameters=(
            _NAME,
            _parameter("path", "path", "What the client asked for; ignored.", type="string"),
        ),
    )
    both = _readable(operation)
    return {method: both["head" if method == "head" else "get"] for method in _METHODS}


def _report(*parameters: Node) -> Node:
    operation = _operation(
        "Take in what an instance says of the time since its last report.",
        {202: _ok("Taken in.", "Accepted")},
        400,
        403,
        404,
        413,
        415,
        429,
        503,
        parameters=parameters,
    )
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Report"}}}
    operation["requestBody"] = {"required": True, "content": content}
    return {"post": operation}


def _paths() -> Node:
    """Every path, in the order of the page that describes them."""
    return {
        "/": _readable(
            _operation("The status page.", {200: {"description": "HTML.", "content": _HTML}}, 403)
        ),
        "/allowed": _readable(_decision()),
        "/allowed/{name}": _readable(_decision(_NAME)),
        "/ext_authz/{name}/{path}": _envoy(),
        **_breakers(),
        "/v1/report": _report(),
        "/v1/report/{name}": _report(_NAME),
        "/v1/report/{name}/{instance}": {"delete": _withdraw()},
        **_publishing(),
        **_probes(),
        "/openapi.json": _readable(
            _operation("This document.", {200: _ok("It.", "Object")}, 403),
        ),
    }


def _publishing() -> Node:
    """Handing records over, and the spool they may lie in."""
    publish = _operation(
        "Hand records over: each is in Kafka, safely on disk, or refused.",
        {
            200: _ok("All is in Kafka (or dropped, where that is the strategy).", "Published"),
            202: _ok("Some of it is on disk and goes to Kafka from there.", "Published"),
            207: _ok("Some of it was refused.", "Published"),
        },
        *(400, 401, 403, 404, 408, 409, 413, 415, 422, 503, 504, 507),
        parameters=(_TOPIC, _ACK, _ONCE),
    )
    records = {"schema": {"$ref": "#/components/schemas/Records"}}
    raw: Node = {"schema": {}}
    publish["requestBody"] = {
        "required": True,
        "content": {
            "application/json": records,
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/octet-stream": raw,
        },
    }
    order = _operation(
        "Let a topic's replay stand still, or go on.",
        {200: _ok("It does.", "Object")},
        *(401, 403, 404, 503),
        parameters=(_TOPIC,),
    )
    return {
        "/v1/publish/{topic}": {"post": publish},
        "/v1/spool": _readable(
            _operation("What waits for Kafka.", {200: _ok("It.", "Spool")}, 403, 404)
        ),
        "/v1/spool/{topic}/pause": {"post": order},
        "/v1/spool/{topic}/resume": {"post": order},
    }


def _breakers() -> Node:
    """What is to be read of breakers, and the orders that may be given to them."""
    poll = (_NAME, _INDEX, _WAIT)
    stream = {200: {"description": "Without end.", "content": _EVENTS}}
    breakers = _operation("Every breaker.", {200: _ok("All.", "Breakers")}, 403)
    breaker = _operation(
        "One breaker.", {200: _ok("It.", "Breaker")}, 400, 403, 404, 503, parameters=poll
    )
    history = _operation(
        "The last transitions, newest last.",
        {200: _ok("Up to 64.", "History")},
        *(403, 404, 503),
        parameters=(_NAME,),
    )
    events = _operation(
        "Every change of a decision, as server-sent events.",
        stream,
        *(403, 503),
        parameters=(_LAST_ID,),
    )
    status = _operation("The sidecar and all it knows.", {200: _ok("It.", "Status")}, 403)
    force, release, forget = _orders()
    return {
        "/v1/breakers": _readable(breakers),
        "/v1/breakers/{name}": {**_readable(breaker), "delete": forget},
        "/v1/breakers/{name}/override": {"put": force, "delete": release},
        "/v1/breakers/{name}/history": _readable(history),
        "/v1/watch": _readable(events),
        "/v1/status": _readable(status),
    }


def _orders() -> tuple[Node, Node, Node]:
    """(force, release, forget)."""
    gone = {204: {"description": "Done."}}
    problems = (401, 403, 404, 503)
    force = _operation(
        "Force a breaker, fleet-wide.",
        {200: _ok("In force here.", "Override")},
        *(400, 401, 403, 404, 409, 413, 415, 503),
        parameters=(_NAME,),
    )
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}
    force["requestBody"] = {"required": True, "content": content}
    release = _operation("End the override.", gone, *problems, parameters=(_NAME,))
    forget = _operation(
        "Close a breaker and delete its keys.", gone, *problems, 409, parameters=(_NAME,)
    )
    return force, release, forget


def _withdraw() -> Node:
    return _operation(
        "A reporter says goodbye.",
        {204: {"description": "Its report is gone."}},
        *(400, 403, 404, 503),
        parameters=(_NAME, _INSTANCE),
    )


def _probes() -> Node:
    """What anyone may ask of the process itself."""
    ready = _operation(
        "Can a decision be given?",
        {200: _ok("Yes.", "Readiness"), 503: _ok("Stale, and asked strictly.", "Readiness")},
        parameters=(_STRICT,),
    )
    live = _operation("Does the event loop turn?", {200: _ok("Yes.", "Object")})
    version = _operation("What runs.", {200: _ok("It.", "Version")})
    metrics = _operation("Metrics.", {200: {"description": "Prometheus text.", "content": _TEXT}})
    return {
        "/livez": _readable(live),
        "/readyz": _readable(ready),
        "/version": _readable(version),
        "/metrics": _readable(metrics),
    }


_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
_HTML = {"text/html": {"schema": {"type": "string"}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def document(version: str) -> Node:
    """The whole description, OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "breaker sidecar",
            "version": version,
            "description": "One fleet-wide circuit breaker for each Kafka flow, answered here.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas.components(MAX_NUMBER, MAX_TTL_S, INSTANCE.pattern, ROLES, PRODUCERS)
        },
    }


class Description:
    """The handler of `/openapi.json`; the document is rendered once."""

    def __init__(self, version: str) -> None:
        self._document = document(version)

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where the handler is to be found."""
        return [web.get("/openapi.json", self.openapi)]

    async def openapi(self, _request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        return json(self._document)
