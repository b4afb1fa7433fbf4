"""Finding a service in Consul: one that passes its checks, remembered while Consul is away."""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp

KEEP_S = 5.0
"""How long an answer is used again."""
TIMEOUT_S = 2.0


class NotFound(LookupError):
    """Nobody of that name passes its checks, and nobody ever did."""


class Discovery:
    """Asks the local agent.

    Args:
        consul: its `host:port`.
    """

    def __init__(self, consul: str, session: aiohttp.ClientSession) -> None:
        self._url = f"http://{consul}/v1/health/service/"
        self._session = session
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asking = asyncio.Lock()

    async def find(self, name: str) -> str:
        """`http://host:port` of one of them. Raises NotFound."""
        async with self._asking:
            asked, found = self._known.get(name, (float("-inf"), []))
            if time.monotonic() - asked > KEEP_S:
                # The last known are better than nobody: Consul may be away, or all checks may fail.
                found = await self._ask(name) or found
                if not found:
                    raise NotFound(f"nobody called {name} passes its checks")
                self._known[name] = (time.monotonic(), found)
        return random.choice(found)  # noqa: S311 - spreads load, guards nothing

    async def _ask(self, name: str) -> list[str]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with self._session.get(self._url + name, params={"passing": ""}) as answer:
                    listed = await answer.json() if answer.status == 200 else []
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return []
        return [_place(entry) for entry in listed]


def _place(entry: dict[str, dict[str, object]]) -> str:
    service = entry["Service"]
    return f"http://{service['Address'] or entry['Node']['Address']}:{service['Port']}"
