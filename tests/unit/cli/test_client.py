"""Asking a sidecar, and giving up in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from sidecar.cli.client import Client, NoAnswer
from sidecar.client.address import Place, places
from tests.unit.cli.canned import Canned


def test_it_asks_over_tcp_and_over_a_unix_socket(sidecar: Canned, unix_sidecar: Canned) -> None:
    for canned in (sidecar, unix_sidecar):
        canned.replies["POST /x"] = (202, {"ok": True})
        answer = Client(places(canned.address)).request("POST", "/x", {"n": 1})
        assert (answer.status, answer.body) == (202, {"ok": True})
        assert canned.asked == [("POST /x", {"n": 1})]
        assert canned.headers[0]["Content-Type"] == "application/json"


def test_the_second_place_is_tried(sidecar: Canned) -> None:
    sidecar.replies["GET /x"] = (200, {})
    port = int(sidecar.address.rpartition(":")[2])
    tried = [Place(socket_path="/nowhere"), Place("127.0.0.1", port)]
    assert Client(tried).request("GET", "/x").status == 200


@contextmanager
def server(speak: Callable[[socket.socket], None]) -> Iterator[Place]:
    """A server of one connection that answers as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                speak(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Place("127.0.0.1", listener.getsockname()[1])
    thread.join(5)
    listener.close()


def hang(connection: socket.socket) -> None:
    connection.settimeout(5)
    while connection.recv(4096):
        pass


def drip(connection: socket.socket) -> None:
    """A byte now and then: no single read ever waits for long."""
    ended = threading.Event()
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
        connection.send(bytes([byte]))
        ended.wait(0.05)


def drip_body(connection: socket.socket) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    ended = threading.Event()
    for _ in range(100):
        connection.send(b"x")
        ended.wait(0.05)


@pytest.mark.parametrize("speak", [hang, drip, drip_body])
def test_a_deadline_holds_however_slow_the_answer(speak: Callable[[socket.socket], None]) -> None:
    with server(speak) as target:
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="it took too long"):
            Client([target], 0.3).request("GET", "/")
        assert time.monotonic() - began < 2


def test_what_speaks_no_http_is_no_answer() -> None:
    with (
        server(lambda connection: connection.sendall(b"SSH-2.0-x\r\n")) as target,
        pytest.raises(NoAnswer),
    ):
        Client([target], 2).request("GET", "/")


def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="Is the sidecar running there"):
        Client([Place(socket_path="/nowhere")]).request("GET", "/")


def test_a_name_that_nobody_can_look_up_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match="label empty"):
        Client(places("a..b:1")).request("GET", "/")
