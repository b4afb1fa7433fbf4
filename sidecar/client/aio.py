"""The client for asyncio, by aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Self

import aiohttp

from sidecar.client.address import Place, places
from sidecar.client.decider import Decider, Source
from sidecar.client.known import NoSuchBreaker, NotASidecar
from sidecar.client.settings import (
    ANSWER_BYTES,
    KEEP_S,
    SILENCE_S,
    TIMEOUT_S,
    WATCH_PATH,
    ask_path,
    checked,
)
from sidecar.client.sse import NotEvents, Parser

FAULTS = (OSError, aiohttp.ClientError, NotASidecar, NotEvents, NoSuchBreaker)


class AsyncBreaker(Decider):
    """Follows one breaker by a task; `allowed()` needs no await.

    `async with` or `await start()` begins, and waits for the sidecar's first word as long as
    `timeout_s`. Until then `on_no_answer` decides. It belongs to the loop it was started on;
    started on another one (a test's next loop) it begins anew there.

    Args and errors are those of `sidecar.client.Breaker`.
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
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def running(self) -> bool:
        """Whether it follows on the running loop, and has heard or missed a first word."""
        return self._tried.is_set() and self._here()

    def _here(self) -> bool:
        return self._task is not None and self._loop is asyncio.get_running_loop()

    async def start(self) -> None:
        """Begin to follow, and wait for the first word for as long as a question may take."""
        if not self._here():
            self._loop = asyncio.get_running_loop()
            self._tried = asyncio.Event()
            name = f"breaker-{self._wanted or 'default'}"
            self._task = self._loop.create_task(self._run(self._tried), name=name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._tried.wait()

    async def close(self) -> None:
        """Stop following; from then on `on_no_answer` decides. A second time does nothing."""
        task, here = self._task, self._here()
        self._task = None
        if task is not None and here:
            task.cancel()
            await asyncio.wait([task], timeout=self._timeout_s)
        self._fault = "closed"
        self._default()

    async def _run(self, tried: asyncio.Event) -> None:
        """Until it is cancelled."""
        async with aiohttp.ClientSession(connector=_connector(self._places[0])) as session:
            try:
                while True:
                    heard = [time.monotonic()]
                    try:
                        await self._follow(session, heard, tried)
                    except TimeoutError as fault:
                        self._missed(fault, since=heard[0])
                    except FAULTS as fault:
                        self._missed(fault)
                    await self._ask(session)
                    tried.set()
                    await asyncio.sleep(self._pause_s())
            finally:
                self._default()

    async def _follow(
        self, session: aiohttp.ClientSession, heard: list[float], tried: asyncio.Event
    ) -> None:
        """Follow the stream until it ends; `heard` is kept at when the last byte came."""
        parser = Parser()
        headers = {"Accept": "text/event-stream"}
        async with await self._get(session, WATCH_PATH, headers) as response:
            if response.status != 200 or response.content_type != "text/event-stream":
                raise NotASidecar(f"{WATCH_PATH} answered {response.status}")
            ends = time.monotonic() + self._timeout_s
            while True:
                # Without a snapshot in time something in between keeps the stream for itself.
                begun = self._source is Source.WATCH
                patience_s = self._silence_s if begun else ends - time.monotonic()
                async with asyncio.timeout(patience_s):
                    chunk = await response.content.readany()
                if not chunk:
                    raise NotASidecar("the stream ended")
                heard[0] = time.monotonic()
                for event in parser.feed(chunk):
                    self._hear(event)
                if self._source is Source.WATCH:
                    tried.set()

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                async with await self._get(session, self._path, {}) as response:
                    self._answered(response.status, await _body(response))
        except FAULTS as fault:
            if isinstance(fault, NoSuchBreaker):
                self._fault = f"NoSuchBreaker: {fault}"
            self._unanswered()

    async def _get(
        self, session: aiohttp.ClientSession, path: str, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """The head of an answer, from the first place that takes the connection."""
        fault: Exception = ConnectionError("nowhere to look")
        async with asyncio.timeout(self._timeout_s):
            for place in self._places:
                try:
                    return await session.get(
                        place.base_url + path,
                        headers=headers,
                        allow_redirects=False,
                        timeout=aiohttp.ClientTimeout(),
                    )
                except aiohttp.ClientConnectorError as error:
                    fault = error
        raise fault

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise NotASidecar(f"an answer of more than {ANSWER_BYTES} bytes")
    return body


def _connector(place: Place) -> aiohttp.BaseConnector:
    if place.socket_path is not None:
        return aiohttp.UnixConnector(place.socket_path, force_close=True)
    return aiohttp.TCPConnector(force_close=True)
