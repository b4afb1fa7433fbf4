"""A real browser for tests: Chromium without a window, driven over its DevTools protocol.

    async with Browser() as browser:
        await browser.open("http://localhost:9100/")
        assert await browser.js("document.title") == "all closed"

`complaints` is what a person would see in its console: errors, exceptions, violated policies.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.servers import poll_until

START_DEADLINE_S = 60.0
ANSWER_DEADLINE_S = 30.0
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests may be run by root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
Node = dict[str, Any]


class Browser:
    """One browser with one tab and a profile of its own."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="breaker-browser-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Node]] = {}
        self._loaded = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            self._process = self._start()
            await self._connect()
            for domain in ("Page", "Runtime", "Log", "DOM"):
                await self.call(f"{domain}.enable")
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    def _start(self) -> subprocess.Popen[bytes]:
        program = shutil.which("chromium")
        assert program is not None, "no Chromium on PATH (on Debian: chromium)"
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [program, *FLAGS, f"--user-data-dir={self._folder / 'profile'}", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _connect(self) -> None:
        told = self._folder / "profile" / "DevToolsActivePort"

        def port() -> str | None:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "log").read_text("utf-8")[-2000:]
            lines = told.read_text().splitlines() if told.exists() else []
            return lines[0] if lines else None

        found = await poll_until(port, START_DEADLINE_S, "Chromium says where to reach it")
        self._http = aiohttp.ClientSession()

        async def tab() -> str | None:
            assert self._http is not None
            async with self._http.get(f"http://127.0.0.1:{found}/json/list") as answer:
                listed: list[dict[str, str]] = await answer.json()
            pages = [one["webSocketDebuggerUrl"] for one in listed if one["type"] == "page"]
            return pages[0] if pages else None

        url = await poll_until(tab, START_DEADLINE_S, "Chromium has a tab")
        self._socket = await self._http.ws_connect(url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read(self._socket), name="browser")

    async def _close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=ANSWER_DEADLINE_S)
        if self._http is not None:
            await self._http.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(ANSWER_DEADLINE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            told: Node = message.json()
            if "id" in told:
                asked = self._asked.pop(told["id"], None)
                if asked is not None and not asked.done():
                    asked.set_result(told)
            else:
                self._heard(told["method"], told["params"])

    def _heard(self, method: str, params: Node) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{params['entry']['source']}: {params['entry']['text']}")

    async def call(self, method: str, **params: object) -> Node:
        """One command of the protocol; what it answers."""
        assert self._socket is not None
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            told = await asked
        assert "error" not in told, told
        result: Node = told["result"]
        return result

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded.clear()
        told = await self.call("Page.navigate", url=url)
        assert "errorText" not in told, told
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            await self._loaded.wait()

    async def js(self, expression: str) -> Any:
        """What it evaluates to in the page."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, expression: str, timeout_s: float, what: str) -> Any:
        """Evaluate it until it is true."""

        async def look() -> Any:
            return await self.js(expression)

        return await poll_until(look, timeout_s, what)

    async def html(self) -> str:
        """The document as the browser has understood it; also where scripts are off."""
        root = await self.call("DOM.getDocument", depth=0)
        told = await self.call("DOM.getOuterHTML", nodeId=root["root"]["nodeId"])
        text: str = told["outerHTML"]
        return text
