"""Envoy's HTTP ext_authz: the requests that it sends, replayed; its configuration, validated.

What is replayed is what Envoy's filter makes of a client's request: `content-length` first, then of
the client's headers those that are allowed (by default `:authority`, `:method`, `:path` and
`authorization`), the path behind `path_prefix`, and what its internal client adds. Header names are
lower case, and the connection is kept for the next.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.example_clients import cached
from tests.daemon import Answer, Daemon
from tests.gateways import EXAMPLES, FOREIGN
from tests.servers import poll_until_sync

VARIANTS = ("fail-open", "fail-closed")
VALIDATOR = Path(__file__).resolve().parent / "envoy"
DEADLINE_S = 300.0
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE")
PATHS = (
    "/",
    "/orders/7?peek=1&deny_status=401",
    "//orders//",
    "/../../v1/report",
    "/%2e%2e/%2Forders%20;v=1?a=%ff&b",
    "/?" + "q" * 4000,
)
CONFIG = {
    "store": "memory",
    "breakers": {
        "default": {
            "failure_threshold": 5,
            "evaluation_interval": "100ms",
            "open_duration": "3s",
            "half_open": {"initial": 0.5, "ramp": "90s", "max": "10m"},
        }
    },
}


def ext_authz(variant: str) -> dict[str, Any]:
    """The filter of an example."""
    text = (EXAMPLES / "envoy" / f"{variant}.yaml").read_text("utf-8")
    (listener,) = yaml.safe_load(text)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    found: dict[str, Any] = manager["http_filters"][0]["typed_config"]
    return found


class Envoy:
    """Sends what Envoy would, over one kept connection."""

    def __init__(self, daemon: Daemon) -> None:
        self._connection = http.client.HTTPConnection(daemon.host, daemon.port, timeout=5.0)
        self._prefix = ext_authz("fail-closed")["http_service"]["path_prefix"]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def check(
        self, method: str, path: str, body: bytes = b"", further: Mapping[str, str] | None = None
    ) -> Answer:
        """The check for a client's request; `body` as `with_request_body` has it sent.

        Args:
            further: what `allowed_headers` lets through beside the default.
        """
        sent = {
            "host": FOREIGN["Host"],
            "content-length": str(len(body)),
            "authorization": FOREIGN["Authorization"],
            **{name.lower(): value for name, value in (further or {}).items()},
            "x-envoy-internal": "true",
            "x-forwarded-for": "198.51.100.7",
            "x-envoy-expected-rq-timeout-ms": "250",
        }
        self._connection.putrequest(
            method, self._prefix + path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in sent.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body)
        response = self._connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, got, response.read())


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Fresh and CLOSED."""
    with Daemon(CONFIG) as started:
        yield started


def state(daemon: Daemon) -> str:
    """What the daemon says, spending nothing."""
    return daemon.allowed(peek=True).headers["x-breaker-state"]


def everything(envoy: Envoy) -> list[Answer]:
    """Every method with every path, with and without a client's headers and a body."""
    answers = []
    for method in METHODS:
        answers += [envoy.check(method, path) for path in PATHS]
        answers.append(envoy.check(method, "/orders", b"x" * 200_000))
        further = {**FOREIGN, "Content-Type": "text/plain", "X-Breaker": "other", "Accept": "*/*"}
        answers.append(envoy.check(method, "/orders", b"{", further))
        answers.append(envoy.check(method, "/orders", further={"Cookie": "c" * 6000}))
    return answers


def test_every_request_is_a_plain_yes_or_no(daemon: Daemon) -> None:
    with closing(Envoy(daemon)) as envoy:
        assert {answer.status for answer in everything(envoy)} == {200}
        daemon.post("/v1/report", {"instance": "c-1", "count_fail": 25})
        rejected = everything(envoy)
        assert state(daemon) == "OPEN"
        assert {answer.status for answer in rejected} == {429}
        assert all(1 <= int(answer.headers["retry-after"]) <= 4 for answer in rejected)
        said = [json.loads(answer.content)["error"] for answer in rejected if answer.content]
        assert len(said) == len(rejected) * 8 // 9  # HEAD has no body
        assert all("try again in" in sentence for sentence in said)


def test_half_open_spends_once_for_each_request(daemon: Daemon) -> None:
    daemon.post("/v1/report", {"instance": "c-1", "count_fail": 25})
    poll_until_sync(lambda: state(daemon) == "HALF_OPEN", 8.0, "it is HALF_OPEN")
    with closing(Envoy(daemon)) as envoy:
        statuses = [
            envoy.check(method, "/orders?peek=1", b"x").status
            for method in ("GET", "POST", "HEAD", "OPTIONS") * 5
        ]
    assert sorted(statuses) == [200] * 10 + [429] * 10


def test_a_mistake_in_the_breakers_name_is_no_word_of_a_breaker(daemon: Daemon) -> None:
    assert daemon.post("/ext_authz/nobody/orders", {}).status == 404


def test_the_variants_differ_in_what_silence_means_alone() -> None:
    opened, closed = (ext_authz(variant) for variant in VARIANTS)
    assert opened.pop("failure_mode_allow") is True
    assert closed.pop("failure_mode_allow") is False
    assert closed.pop("status_on_error") == {"code": "ServiceUnavailable"}
    assert opened == closed


def _build(folder: Path) -> None:
    subprocess.run(
        ["go", "build", "-o", str(folder / "validate"), "."],
        cwd=VALIDATOR,
        check=True,
        timeout=DEADLINE_S,
    )


def _validate(config: object) -> subprocess.CompletedProcess[str]:
    program = cached("envoy-validator", sorted(VALIDATOR.iterdir()), _build) / "validate"
    return subprocess.run(
        [str(program)],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


@pytest.mark.go
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_example_is_what_envoys_own_definitions_allow(variant: str) -> None:
    text = (EXAMPLES / "envoy" / f"{variant}.yaml").read_text("utf-8")
    done = _validate(yaml.safe_load(text))
    assert (done.returncode, done.stderr) == (0, "")
    unknown = _validate(yaml.safe_load(text.replace("path_prefix", "path_prefixes")))
    assert "path_prefixes" in unknown.stderr
    against_the_rules = _validate(yaml.safe_load(text.replace("stat_prefix: web", "")))
    assert "StatPrefix" in against_the_rules.stderr
