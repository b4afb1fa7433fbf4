"""Each gateway of docs/gateways.md as a real program, before a real daemon, in every state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.daemon import Daemon
from tests.gateways import EXAMPLES, Application, Gateway
from tests.servers import poll_until_sync

pytestmark = pytest.mark.gateways

VARIANTS = ("fail-open", "fail-closed")
CONFIG = {
    "store": "memory",
    "breakers": {
        "default": {
            "failure_threshold": 5,
            "evaluation_interval": "100ms",
            "report_interval": "200ms",
            "open_duration": "3s",
            "half_open": {"initial": 0.5, "ramp": "90s", "max": "10m"},
        }
    },
}
"""Short, but HALF_OPEN stays at half: nobody reports healthy again."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an example is started.

    Args:
        main: the example's file for each variant, `{}` being the variant.
        command: the program and its arguments in a folder that holds `files`.
        files: the name in that folder of each example file, `{}` likewise; and literal ones.
    """

    command: tuple[str, ...]
    files: Mapping[str, str]
    literal: Mapping[str, str]

    def start(self, folder: str, variant: str, sidecar: int, application: int) -> Gateway:
        """The gateway for a variant, not yet entered."""
        texts = dict(self.literal)
        for name, source in self.files.items():
            texts[name] = (EXAMPLES / folder / source.format(variant)).read_text("utf-8")
        return Gateway(self.command, texts, sidecar=sidecar, application=application)


NGINX_MAIN = """\
daemon off;
pid nginx.pid;
worker_processes 1;
error_log stderr;
events {}
http {
    access_log off;
    # Its worker may be a user that can't write here.
    client_body_buffer_size 1m;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    include breaker.conf;
}
"""

RECIPES = {
    "nginx": Recipe(
        ("nginx", "-p", ".", "-e", "stderr", "-c", "main.conf"),
        {"breaker.conf": "{}.conf"},
        {"main.conf": NGINX_MAIN},
    ),
    "haproxy": Recipe(
        ("haproxy", "-db", "-f", "breaker.cfg"),
        {"breaker.cfg": "{}.cfg", "breaker.lua": "breaker.lua"},
        {},
    ),
    "caddy": Recipe(("caddy", "run", "--config", "Caddyfile"), {"Caddyfile": "{}.Caddyfile"}, {}),
    "traefik": Recipe(
        ("traefik", "--configFile=traefik.yml"),
        {"traefik.yml": "traefik.yml", "breaker.yml": "{}.yml"},
        {},
    ),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A daemon, an application, and one gateway in both variants between them."""

    daemon: Daemon
    application: Application
    gateways: Mapping[str, Gateway]


@pytest.fixture(params=RECIPES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """One gateway's scene; the daemon is fresh and CLOSED."""
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(CONFIG))
        application = stack.enter_context(Application())
        gateways = {
            variant: stack.enter_context(
                RECIPES[request.param].start(request.param, variant, daemon.port, application.port)
            )
            for variant in VARIANTS
        }
        yield Scene(daemon, application, gateways)


def state(daemon: Daemon) -> str:
    """What the daemon itself says, spending nothing."""
    return daemon.allowed(peek=True).headers["x-breaker-state"]


def trip(daemon: Daemon) -> None:
    """Report what opens the breaker; it is open when this returns."""
    assert daemon.post("/v1/report", {"instance": "c-1", "count_fail": 25}).status == 202
    assert state(daemon) == "OPEN"


def check_passes(scene: Scene, gateway: Gateway) -> None:
    """A request with a body reaches the application whole, once, and its answer comes back."""
    before = len(scene.application.seen)
    answer = gateway.ask("/orders?a=1", method="POST", body=b"x" * 100_000)
    assert (answer.status, answer.content) == (200, b"the application\n")
    (seen,) = scene.application.seen[before:]
    assert (seen.method, seen.path, seen.body) == ("POST", "/orders?a=1", b"x" * 100_000)
    assert seen.headers["origin"] == "https://evil.example.net"
    assert seen.headers["authorization"] == "Bearer of-the-application"


def check_rejects(scene: Scene, gateway: Gateway, *, silent: bool = False) -> None:
    """Every kind of request is a 503 with a time to come back; none reaches the application.

    The sentence for people is the sidecar's or the recipe's, and Traefik's own where it is silent.
    """
    before = len(scene.application.seen)
    for method, body in (("GET", None), ("POST", b"{}"), ("HEAD", None), ("OPTIONS", None)):
        answer = gateway.ask("/orders?peek=1&deny_status=401", method=method, body=body)
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        if method != "HEAD":
            said = answer.content.decode()
            assert "try again in" in said or (silent and said == "no available server\n")
    assert len(scene.application.seen) == before


def decided(daemon: Daemon) -> int:
    """How many decisions the daemon has counted."""
    counts = daemon.get("/v1/breakers/default").body["decisions"]
    return int(counts["admitted"] + counts["rejected"])


def check_share(scene: Scene, gateway: Gateway) -> None:
    """Half of the requests pass, each asking exactly once, whatever their query says."""
    reached, asked = len(scene.application.seen), decided(scene.daemon)
    answers = [gateway.ask("/orders?peek=1&deny_status=401") for _ in range(20)]
    assert sorted(answer.status for answer in answers) == [200] * 10 + [503] * 10
    assert len(scene.application.seen) == reached + 10
    assert decided(scene.daemon) == asked + 20
    waits = {answer.headers.get("retry-after") for answer in answers if answer.status == 503}
    # To the next step of a ramp over 90 s: no gateway would make this up.
    assert all(wait is not None and 5 < int(wait) <= 90 for wait in waits)


def check_silent(scene: Scene) -> None:
    """Fail-open passes, fail-closed rejects."""
    check_passes(scene, scene.gateways["fail-open"])
    check_rejects(scene, scene.gateways["fail-closed"], silent=True)


def check_own_errors(gateway: Gateway) -> None:
    """What the application itself refuses looks as it made it."""
    for status in (401, 403, 404, 429, 500, 502, 503, 504):
        answer = gateway.ask(f"/status/{status}")
        assert (answer.status, answer.content) == (status, b"the application\n")
        assert "retry-after" not in answer.headers


def test_the_gateway_follows_the_breaker(scene: Scene) -> None:
    for gateway in scene.gateways.values():
        check_passes(scene, gateway)
        check_own_errors(gateway)
    trip(scene.daemon)
    for gateway in scene.gateways.values():
        check_rejects(scene, gateway)
    assert state(scene.daemon) == "OPEN"
    poll_until_sync(lambda: state(scene.daemon) == "HALF_OPEN", 8.0, "it is HALF_OPEN")
    for gateway in scene.gateways.values():
        check_share(scene, gateway)


def test_a_silent_sidecar_means_what_the_variant_says(scene: Scene) -> None:
    scene.daemon.pause()
    check_silent(scene)
    scene.daemon.kill()
    check_silent(scene)
    scene.daemon.start().wait_ready()
    for gateway in scene.gateways.values():
        check_passes(scene, gateway)


def test_a_breaker_that_the_sidecar_does_not_know_is_never_an_admission(scene: Scene) -> None:
    scene.daemon.kill()
    # None of two is the default, so `/allowed` is a 404.
    scene.daemon.configure({"store": "memory", "breakers": {"one": {}, "two": {}}})
    scene.daemon.start().wait_ready()
    before = len(scene.application.seen)
    for gateway in scene.gateways.values():
        assert gateway.ask().status >= 400
    assert len(scene.application.seen) == before
