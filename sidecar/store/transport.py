"""How py-consul's requests are sent: one aiohttp session, a deadline for every call, no surprises.

py-consul's endpoints build path, parameters and body and hand them here with a callback that would
parse the answer and drop its metadata. The callback is not run: every call returns the raw
`Answer`, so that index, leader and status reach the adapter, and no error of aiohttp or py-consul
escapes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Final

import aiohttp
from yarl import URL

from sidecar.core.errors import StoreRejected, StoreUnreachable
from sidecar.store import tls
from sidecar.store.slim import base

SHORT_S: Final = 5.0
"""Deadline of a call that doesn't block, from asking for it to the last byte of its answer."""
SHORT_CALLS: Final = 32
"""As many short calls at once; more wait, within their deadline. Blocking queries wait nowhere:
there are as many as breakers evaluated here, and one."""
TOKEN_CHECK_S: Final = 1.0
"""The token file is looked at as often as this at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulSettings:
    """Where Consul is and as whom to speak to it. The environment is not consulted beyond this.

    Where both are given, the token file wins, as in Consul's own clients: under Nomad the
    environment's token ages while the file is renewed.
    """

    scheme: str = "http"
    host: str = "127.0.0.1"
    port: int = 8500
    unix_path: str | None = None
    path_prefix: str = ""
    """What a proxy wants in front of `/v1`."""
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_verify: bool = True
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. `began` is when its headers were there, by `time.perf_counter`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    began: float


class TokenSource:
    """The token to send now. A file that can't be read leaves the last token in use."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._token = settings.token
        self._path = Path(settings.token_file) if settings.token_file else None
        self._seen: tuple[int, int, int] | None = None
        self._look_at = 0.0

    def current(self) -> str | None:
        """The token; a changed file takes effect within `TOKEN_CHECK_S`."""
        if self._path is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + TOKEN_CHECK_S
            with contextlib.suppress(OSError, UnicodeError):
                self._read(self._path)
        return self._token

    def doubt(self) -> None:
        """The server refused the token: look at the file before the next call."""
        self._look_at = 0.0

    def _read(self, path: Path) -> None:
        # A renewal may replace the file within one tick of its clock: size and inode tell too.
        stat = path.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen == self._seen:
            return
        text = path.read_text("utf-8").strip()
        if text:  # an empty file is one that is just being written
            self._token, self._seen = text, seen


class Transport(base.HTTPClient):  # type: ignore[misc] # py-consul is untyped
    """py-consul's HTTP client on aiohttp. Made outside of the loop, opened by the first call."""

    def __init__(self, settings: ConsulSettings) -> None:
        super().__init__(settings.host, settings.port, settings.scheme, settings.tls_verify)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        place = "http://localhost" if settings.unix_path else f"{settings.scheme}://{host}"
        port = "" if settings.unix_path else f":{settings.port}"
        self._base = f"{place}{port}/{settings.path_prefix.strip('/')}".rstrip("/")
        self._settings = settings
        self.tokens = TokenSource(settings)
        self._session: aiohttp.ClientSession | None = None
        self._stamps = tls.stamps(settings)
        self._short_calls = asyncio.Semaphore(SHORT_CALLS)

    def get(
        self,
        _callback: object,
        path: str,
        params: Sequence[tuple[str, object]] = (),
        headers: Mapping[str, str] | None = None,
        connections_timeout: float | None = None,
    ) -> object:
        """A coroutine that GETs; `connections_timeout` is the deadline of a blocking query."""
        return self._send("GET", path, params, headers, deadline_s=connections_timeout)

    def _write(
        self,
        method: str,
        _callback: object,
        path: str,
        params: Sequence[tuple[str, object]] = (),
        data: str | bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> object:
        """A coroutine that sends, by one of the three methods below."""
        return self._send(method, path, params, headers, data=data)

    put = partialmethod(_write, "PUT")
    delete = partialmethod(_write, "DELETE")
    post = partialmethod(_write, "POST")

    async def close(self) -> None:
        """Close all connections. Idempotent; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, object]] | None,
        headers: Mapping[str, str] | None,
        *,
        data: str | bytes = b"",
        deadline_s: float | None = None,
    ) -> Answer:
        url = self._base + urllib.parse.quote(path, safe="/:")
        if params:
            url = f"{url}?{urllib.parse.urlencode(list(params))}"
        body = data.encode() if isinstance(data, str) else data
        turn = self._short_calls if deadline_s is None else contextlib.nullcontext()
        try:
            async with (
                asyncio.timeout(deadline_s or SHORT_S),
                turn,
                self._open().request(
                    method,
                    URL(url, encoded=True),
                    data=body or None,
                    headers={**(headers or {}), **self._own_headers()},
                    allow_redirects=False,
                ) as response,
            ):
                began = time.perf_counter()
                answer = await response.read()
                return Answer(response.status, response.headers, answer, began)
        except TimeoutError as fault:
            raise StoreUnreachable(f"no answer within {deadline_s or SHORT_S:.3g} s") from fault
        except tls.Unusable as fault:
            raise StoreUnreachable(str(fault)) from fault
        except (aiohttp.ClientError, OSError) as fault:
            raise await self._broken(fault) from fault
        except StoreUnreachable as fault:  # from `_send_once`
            raise await self._broken(fault.__cause__ or fault) from fault
        except ValueError as fault:  # a token with a line break inside, say
            raise StoreRejected("the request can't be sent: is the token one line?") from fault

    async def _broken(self, fault: BaseException) -> StoreUnreachable:
        """What a failed connection is told as.

        Certificates live shorter than daemons: after a failure, files that were replaced count.
        """
        if self._stamps != tls.stamps(self._settings):
            await self.close()
        said = tls.meaning(fault, self._settings)
        return StoreUnreachable(said or f"{type(fault).__name__}: {fault}")

    def _own_headers(self) -> dict[str, str]:
        # Compressing 5 MB costs both ends more than sending them over loopback.
        headers = {"Accept-Encoding": "identity"}
        if token := self.tokens.current():
            headers["X-Consul-Token"] = token
        if self._settings.namespace:
            headers["X-Consul-Namespace"] = self._settings.namespace
        return headers

    def _open(self) -> aiohttp.ClientSession:
        """The session, made inside the loop. Raises OSError where a TLS file can't be used."""
        if self._session is None:
            # No limit here: the semaphore bounds the short calls, the callers the long ones, and so
            # a short call never waits for a blocking query to end.
            connector: aiohttp.BaseConnector
            if self._settings.unix_path:
                connector = aiohttp.UnixConnector(self._settings.unix_path, limit=0)
            else:
                secure = self._settings.scheme == "https"
                self._stamps = tls.stamps(self._settings)
                context = tls.context(self._settings) if secure else True
                connector = aiohttp.TCPConnector(limit=0, ssl=context)
            self._session = aiohttp.ClientSession(
                connector=connector,
                # Each call has a deadline of its own; aiohttp's total is shorter than Consul's
                # longest wait.
                timeout=aiohttp.ClientTimeout(total=None, connect=SHORT_S),
                middlewares=(_send_once,),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


async def _send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again when its connection breaks.

    It takes PUT for idempotent, but a transaction that was applied before the break would be
    refused the second time, and look as if nothing had been written.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as fault:
        raise StoreUnreachable(f"{type(fault).__name__}: {fault}") from fault


def tls_context(settings: ConsulSettings) -> ssl.SSLContext:
    """Who is trusted and what is shown. Raises OSError."""
    return tls.context(settings)
