"""HTTP to the sidecar for threads, by the standard library alone. Everything has a deadline."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self

from sidecar.client.address import Place
from sidecar.client.known import NotASidecar
from sidecar.client.settings import ANSWER_BYTES, WATCH_PATH

CHUNK_BYTES = 64 * 1024


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Link:
    """One connection to a sidecar, for one request. Use it as a context manager.

    `hang_up` may be called by any thread, and ends whatever waits on it at once. `place` is the
    one that took the connection.

    Args:
        places: tried in turn until one takes the connection.
        timeout_s: for connecting and the answer together; of a stream, its head.

    Raises:
        OSError: nobody is there.
    """

    def __init__(self, places: list[Place], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s
        self.place, self._connection, self._sock = _connect(places, self._ends)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        limit: int = ANSWER_BYTES,
        token: str | None = None,
    ) -> tuple[int, bytes]:
        """The status and the body, as far as `limit`, that are answered.

        Raises:
            OSError, HTTPException: it broke, or it isn't HTTP; TimeoutError: not in time.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with self._in_time():
            self._connection.request(method, path, body, headers)
            with self._connection.getresponse() as response:
                return response.status, response.read(limit)

    def watch(self) -> Iterator[bytes]:
        """The watch stream as it comes, until it ends.

        Raises:
            OSError, HTTPException: it broke; TimeoutError where `endure` says so.
            NotASidecar: something else was answered.
        """
        with self._in_time():
            self._connection.request("GET", WATCH_PATH, headers={"Accept": "text/event-stream"})
            response = self._connection.getresponse()
        with response:
            if response.status != 200 or response.headers.get_content_subtype() != "event-stream":
                raise NotASidecar(f"{WATCH_PATH} answered {response.status}")
            while chunk := response.read1(CHUNK_BYTES):
                yield chunk

    def endure(self, silence_s: float) -> None:
        """From now on a stream without a byte for so long is dead."""
        self._sock.settimeout(silence_s)

    def hang_up(self) -> None:
        """End it, from whatever thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close this process's end alone: after a fork the other process still talks on it."""
        with contextlib.suppress(OSError):
            os.close(self._sock.detach())

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """A socket's own timeout begins anew with every byte, so a timer hangs up at the end."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.hang_up()

        timer = threading.Timer(max(0.0, self._ends - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():  # an answer that was cut short may look like a whole one
            raise TimeoutError(f"no answer within {self._timeout_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._sock.close()


def _connect(
    places: list[Place], ends: float
) -> tuple[Place, http.client.HTTPConnection, socket.socket]:
    fault: OSError = ConnectionError("nowhere to look")
    for place in places:
        left_s = max(0.001, ends - time.monotonic())
        connection = (
            UnixConnection(place.socket_path, left_s)
            if place.socket_path is not None
            else http.client.HTTPConnection(place.host, place.port, timeout=left_s)
        )
        try:
            connection.connect()
        except (OSError, ValueError) as error:  # ValueError: a name that nobody can look up
            connection.close()
            fault = error if isinstance(error, OSError) else ConnectionError(str(error))
        else:
            return place, connection, connection.sock
    raise fault
