"""Every example client, built and run against a real daemon: closed, open, gone, frozen, back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import example_clients as examples
from tests.acceptance.example_clients import EXAMPLES, Program, send
from tests.daemon import Daemon
from tests.servers import poll_until_sync

SOON_S = 10.0
CONFIG = {
    "store": "memory",
    "breakers": {
        "orders": {"failure_threshold": 5, "open_duration": "20s"},
        # Nobody reports after its trip, so that it stays at the first half.
        "half": {
            "failure_threshold": 5,
            "open_duration": "200ms",
            "half_open": {"initial": 0.5},
        },
    },
}
ASKED = 40
CLIENTS = [
    pytest.param(examples.bash, id="bash"),
    pytest.param(examples.by_requests, id="requests"),
    pytest.param(examples.by_asyncio, id="asyncio"),
    pytest.param(examples.go, id="go", marks=pytest.mark.go),
    pytest.param(examples.java, id="java", marks=pytest.mark.java),
    pytest.param(examples.javascript, id="javascript", marks=pytest.mark.node),
    pytest.param(examples.rust, id="rust", marks=pytest.mark.rust),
]
MIDDLEWARE = [
    pytest.param(examples.go_middleware, id="go", marks=pytest.mark.go),
    pytest.param(examples.servlet_filter, id="servlet", marks=pytest.mark.java),
]
Command = Callable[[], list[str]]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with Daemon(CONFIG) as running:
        yield running


def trip(daemon: Daemon) -> None:
    """Report so many failures that it opens."""
    report = {"instance": "c-1", "count_fail": 50}
    assert daemon.post("/v1/report/orders", report).status == 202
    poll_until_sync(
        lambda: daemon.allowed("orders", peek=True).status == 503, SOON_S, "the breaker opens"
    )


def half_open(daemon: Daemon) -> None:
    """Have one breaker admit every other call."""
    assert daemon.post("/v1/report/half", {"instance": "c-1", "count_fail": 50}).status == 202

    def half() -> bool:
        said = daemon.allowed("half", peek=True).body
        return bool(said["state"] == "HALF_OPEN" and said["admit_ratio"] == 0.5)

    poll_until_sync(half, SOON_S, "it admits half")


def assert_half(admitted: int, rejected: int) -> None:
    """Exactly half; but for calls whose answer came too late, which may have spent their share."""
    lost = ASKED - admitted - rejected
    assert lost < ASKED / 4
    assert abs(admitted - rejected) <= 1 + 2 * lost


def start(command: Command, daemon: Daemon, default: str, breaker: str = "orders") -> Program:
    """The client, told where the daemon is and what to do without it."""
    env = {
        "BREAKER_SIDECAR_ADDRESS": f"{daemon.host}:{daemon.port}",
        "BREAKER": breaker,
        "BREAKER_DEFAULT": default,
    }
    return Program(command(), env)


def settles(client: Program, word: str, last: str | tuple[str, ...] = "") -> str:
    """Ask until it says so: a busy machine may once be slower than a client's patience."""

    def answer() -> str | None:
        said = client.ask()
        return said if said.startswith(word) and said.endswith(last) else None

    return poll_until_sync(answer, SOON_S, f"it says {word} {last}")


def connections(daemon: Daemon) -> int:
    """How many connections the daemon holds."""
    own = f"0100007F:{daemon.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return sum(1 for row in rows if row[1] == own and row[3] == "01")


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_through_all_states(command: Command, daemon: Daemon) -> None:
    with start(command, daemon, "admit") as client:
        for _ in range(5):
            settles(client, "admit", "admit")
        assert connections(daemon) == 1  # kept
        trip(daemon)
        assert 1 <= int(settles(client, "reject").split()[1]) <= 22
        assert connections(daemon) == 1
        daemon.kill()
        assert [client.ask() for _ in range(2)] == ["admit no-answer"] * 2
        daemon.start().wait_ready()
        settles(client, "admit", "admit")
        assert client.end() == (0, "")


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_that_shall_reject_without_an_answer(command: Command, daemon: Daemon) -> None:
    with start(command, daemon, "reject") as client:
        settles(client, "admit")
        daemon.pause()  # it takes the connection and says nothing
        asked = time.monotonic()
        assert client.ask() == "reject no-answer"
        assert time.monotonic() - asked < 2.0
        daemon.resume()
        # What comes late is not taken for the answer to a later question.
        trip(daemon)
        assert "admit" not in [client.ask() for _ in range(5)]
        settles(client, "reject ", tuple("0123456789"))
        daemon.kill()
        assert client.ask() == "reject no-answer"


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_of_a_half_open_breaker_gets_its_share(command: Command, daemon: Daemon) -> None:
    with start(command, daemon, "admit", "half") as client:
        settles(client, "admit", "admit")
        half_open(daemon)
        said = [client.ask() for _ in range(ASKED)]
        rejections = [word.split() for word in said if word.startswith("reject")]
        assert_half(said.count("admit"), len(rejections))
        assert all(int(after) >= 1 for _, after in rejections)


@pytest.mark.parametrize("command", CLIENTS)
def test_a_client_of_a_breaker_that_is_not_there(command: Command, daemon: Daemon) -> None:
    with start(command, daemon, "reject", "oders") as client:
        assert client.ask() == "reject no-answer"


@pytest.mark.parametrize("command", MIDDLEWARE)
def test_middleware_through_all_states(command: Command, daemon: Daemon) -> None:
    address = f"{daemon.host}:{daemon.port}"
    with Program([*command(), address, "orders", "admit"], {}) as server:
        port = int(server.line())
        poll_until_sync(lambda: send(port).content == b"fine", SOON_S, "it is served")
        trip(daemon)
        poll_until_sync(lambda: send(port).status == 503, SOON_S, "it is rejected")
        answer = send(port)
        assert answer.status == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 22
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.body["status"] == 503
        assert send(port, "GET").content == b"fine"
        daemon.kill()
        assert send(port).content == b"fine"
        daemon.start().wait_ready()
        trip(daemon)
        poll_until_sync(lambda: send(port).status == 503, SOON_S, "it is rejected again")


@pytest.mark.parametrize("command", MIDDLEWARE)
def test_middleware_of_a_half_open_breaker_lets_its_share_in(
    command: Command, daemon: Daemon
) -> None:
    address = f"{daemon.host}:{daemon.port}"
    with Program([*command(), address, "half", "reject"], {}) as server:
        port = int(server.line())
        poll_until_sync(lambda: send(port).content == b"fine", SOON_S, "it is served")
        half_open(daemon)
        answers = [send(port) for _ in range(ASKED)]
        rejected = [answer for answer in answers if answer.status == 503]
        # An answer that came too late looks like any other rejection from here.
        assert ASKED / 4 <= len(rejected) <= ASKED * 3 / 4
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in rejected)


@pytest.mark.parametrize("command", MIDDLEWARE)
def test_middleware_that_shall_reject_without_an_answer(command: Command, daemon: Daemon) -> None:
    address = f"{daemon.host}:{daemon.port}"
    with Program([*command(), address, "orders", "reject"], {}) as server:
        port = int(server.line())
        poll_until_sync(lambda: send(port).content == b"fine", SOON_S, "it is served")
        daemon.pause()
        asked = time.monotonic()
        assert send(port).status == 503
        assert time.monotonic() - asked < 2.0
        daemon.resume()
        daemon.kill()
        answer = send(port)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert send(port, "GET").content == b"fine"


def test_a_client_takes_no_more_than_twenty_five_lines() -> None:
    middleware = {"BreakerFilter.java", "breaker.go"}
    clients = [
        file for file in EXAMPLES.iterdir() if file.is_file() and file.name not in middleware
    ]
    assert len(clients) == len(CLIENTS)
    lengths = {file.name: len(file.read_text("utf-8").splitlines()) for file in clients}
    assert max(lengths.values()) <= 25, lengths
