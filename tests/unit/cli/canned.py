"""A sidecar's place is taken by a small HTTP server with canned answers."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from click.testing import Result

Invoke = Callable[..., Result]
"""Runs a command line."""
Reply = tuple[int, object]
"""A status, and a body: JSON unless it is bytes. A `Stream` goes on until it is ended."""
Stream = queue.Queue[bytes | None]
"""What is to be sent as it comes; None ends it."""


@dataclass
class Canned:
    """What to answer by `METHOD path`, and what was asked. A list is used up, its last stays."""

    replies: dict[str, Reply | list[Reply]] = field(default_factory=dict)
    asked: list[tuple[str, object]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    address: str = ""

    def answer(self, what: str) -> Reply:
        """The next reply for a request."""
        reply = self.replies.get(what, (404, b"<h1>Not here</h1>"))
        if isinstance(reply, list):
            return reply.pop(0) if len(reply) > 1 else reply[0]
        return reply


def handler(canned: Canned) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            what = f"{self.command} {self.path}"
            canned.asked.append((what, json.loads(body) if body else None))
            canned.headers.append(dict(self.headers))
            status, content = canned.answer(what)
            if isinstance(content, queue.Queue):
                self.stream(content)
                return
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(0 if status == 204 else len(data)))
            self.end_headers()
            if status != 204:
                self.wfile.write(data)

        def stream(self, chunks: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            while (chunk := chunks.get(timeout=30)) is not None:
                self.wfile.write(chunk)

        do_GET = do_POST = do_DELETE = do  # noqa: N815 - the names http.server looks for

        def log_message(self, *args: object) -> None:
            """Nothing: the test looks at what was asked."""

        def address_string(self) -> str:
            return "client"

    return Handler


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class TcpServer(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False  # a stream that nobody ended waits for its next chunk


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Run a server in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


UNKNOWN: Reply = (
    404,
    {
        "type": "urn:breaker-sidecar:unknown-breaker",
        "title": "Unknown breaker",
        "status": 404,
        "detail": 'no breaker is called "nope"; there are: default, orders',
        "breakers": ["default", "orders"],
    },
)


def breaker(name: str = "default", **more: object) -> dict[str, object]:
    """One item of `/v1/breakers`, as a follower shows it."""
    return {
        "name": name,
        "state": "CLOSED",
        "reason": "created",
        "detail": "no state was there",
        "seq": 1,
        "admit_ratio": 1.0,
        "stale": False,
        "override": None,
        "mode": "enforce",
        "automaton": "CLOSED",
        "since": "2026-11-20T20:00:00.123456Z",
        "epoch": 1,
        "config_mismatch": False,
        "evaluator": {"instance": "i-1", "address": "h:1", "since": "2026-11-20T19:00:00Z"},
        "reporters": None,
    } | more


def event(kind: str, **data: object) -> bytes:
    """One server-sent event as it comes over the wire."""
    return f"id: 1\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def decision(name: str = "default", **more: object) -> dict[str, object]:
    """One breaker as events show it."""
    return {
        "breaker": name,
        "state": "CLOSED",
        "reason": "created",
        "detail": "no state was there",
        "seq": 1,
        "admit_ratio": 1.0,
        "stale": False,
        "override": None,
        "retry_after": None,
    } | more


def transition(seq: int, before: str, after: str, **more: object) -> dict[str, object]:
    """One entry of a history."""
    return {
        "seq": seq,
        "at": f"2026-11-20T20:00:{seq:02}.123456Z",
        "from": before,
        "to": after,
        "reason": "failures",
        "detail": "25 failures in the last interval, threshold 20",
        "evidence": {"failures": 25},
        "epoch": 7,
        "evaluator": "i-1",
    } | more
