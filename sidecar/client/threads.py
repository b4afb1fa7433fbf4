"""The client for threads: WSGI servers, scripts, anything without an event loop."""

from __future__ import annotations

import http.client
import os
import threading
import time
import weakref
from typing import Self

from sidecar.client.address import places
from sidecar.client.blocking import Link
from sidecar.client.decider import Decider, Source, own_share
from sidecar.client.known import NoSuchBreaker, NotASidecar
from sidecar.client.settings import KEEP_S, SILENCE_S, TIMEOUT_S, ask_path, checked
from sidecar.client.sse import NotEvents, Parser

FAULTS = (OSError, http.client.HTTPException, NotASidecar, NotEvents, NoSuchBreaker, RuntimeError)
"""RuntimeError: the process has no thread left, which each deadline takes."""


class Breaker(Decider):
    """Follows one breaker on a daemon thread of its own; `allowed()` may be called by any thread.

    Starts with the first `allowed()`, which waits for the sidecar's first word as long as
    `timeout_s`; `start()` or `with` does that beforehand. A process that forks (a prefork server
    that loaded its application first) needs nothing special: each child starts its own.

    Args:
        name: the breaker; None: the sidecar's default one.
        address: `host:port`, an `http://` URL or `unix:PATH`; else BREAKER_SIDECAR_ADDRESS, else
            localhost at NOMAD_PORT_breaker, else localhost:9100.
        on_no_answer: what to decide while no sidecar answers.
        timeout_s: for one question to the sidecar, connecting included.
        keep_s: how long the last word holds after the sidecar was lost.
        silence_s: a stream without even a comment for so long is dead.

    Raises:
        AddressError: the address is none.
        ValueError: the name can't be a breaker's, or a duration can't work.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        on_no_answer: bool,
        address: str | None = None,
        timeout_s: float = TIMEOUT_S,
        keep_s: float = KEEP_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        checked(timeout_s, silence_s)
        super().__init__(name, on_no_answer=on_no_answer, keep_s=keep_s)
        self._places = places(address)
        self._path = ask_path(name)
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._rest()
        _everyone.add(self)

    def _rest(self) -> None:
        """As before the start."""
        self._starting = threading.Lock()
        self._tried = threading.Event()
        self._closed = threading.Event()
        self._waited = False
        self._thread: threading.Thread | None = None
        self._link: Link | None = None
        self._decide = self._first

    def _first(self) -> bool:
        if not self._waited:
            self.start()
        decide = self._decide
        return self.on_no_answer if decide == self._first else decide()

    def start(self) -> None:
        """Begin to follow, and wait for the first word for as long as a question may take."""
        with self._starting:
            if self._thread is None and not self._closed.is_set():
                name = f"breaker-{self._wanted or 'default'}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        self._tried.wait(self._timeout_s)
        self._waited = True

    def close(self) -> None:
        """Stop following; from then on `on_no_answer` decides. A second time does nothing."""
        with self._starting:
            self._closed.set()
            thread, link = self._thread, self._link
        if link is not None:
            link.hang_up()
        if thread is not None and thread is not threading.current_thread():
            thread.join(3 * self._timeout_s)  # it may be connecting, and then asking
        self._fault = "closed"
        self._tried.set()
        self._default()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                heard = [time.monotonic()]
                try:
                    self._follow(heard)
                except TimeoutError as fault:
                    self._missed(fault, since=heard[0])
                except FAULTS as fault:
                    self._missed(fault)
                if not self._closed.is_set():
                    self._ask()
                    self._tried.set()
                    self._closed.wait(self._pause_s())
        finally:
            self._default()  # whatever ended it, nobody listens any more

    def _follow(self, heard: list[float]) -> None:
        """Follow the stream until it ends; `heard` is kept at when the last byte came."""
        parser = Parser()
        with Link(self._places, self._timeout_s) as link:
            self._link = link
            ends = time.monotonic() + 2 * self._timeout_s
            try:
                link.endure(self._timeout_s)
                for chunk in link.watch():
                    heard[0] = time.monotonic()
                    if self._closed.is_set():
                        return
                    for event in parser.feed(chunk):
                        self._hear(event)
                    if self._source is Source.WATCH:
                        link.endure(self._silence_s)
                        self._tried.set()
                    elif heard[0] > ends:  # something in between keeps it for itself
                        raise TimeoutError("a stream without a snapshot")
            finally:
                self._link = None
        raise NotASidecar("the stream ended")

    def _ask(self) -> None:
        try:
            with Link(self._places, self._timeout_s) as link:
                self._answered(*link.ask(self._path))
        except FAULTS as fault:
            if isinstance(fault, NoSuchBreaker):
                self._fault = f"NoSuchBreaker: {fault}"
            self._unanswered()

    def _forked(self) -> None:
        """In a child: the thread stayed behind, and the connection is the parent's."""
        if self._thread is None or self._closed.is_set():
            return
        if self._link is not None:
            self._link.drop()
        self._share = own_share()  # not in step with its siblings
        self._default()
        self._rest()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_everyone: weakref.WeakSet[Breaker] = weakref.WeakSet()


def _after_fork() -> None:
    for breaker in list(_everyone):
        breaker._forked()


os.register_at_fork(after_in_child=_after_fork)
