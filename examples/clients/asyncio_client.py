"""Asks before every line it would send, by asyncio; sidecar.client needs no request at all."""

import asyncio
import os
import sys

import aiohttp

ADDRESS = os.environ.get("BREAKER_SIDECAR_ADDRESS", "localhost:9100")
URL = f"http://{ADDRESS}/allowed/{os.environ.get('BREAKER', 'default')}"
NO_ANSWER = f"{os.environ.get('BREAKER_DEFAULT', 'admit')} no-answer"  # admit or reject


async def main() -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(0.25)) as session:
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                async with session.head(URL) as answer:
                    _breaker, after = answer.headers["X-Breaker"], answer.headers.get("Retry-After")
                    print("admit" if answer.ok else f"reject {after}", flush=True)
            except (aiohttp.ClientError, TimeoutError, KeyError):  # no X-Breaker: somebody else
                print(NO_ANSWER, flush=True)


asyncio.run(main())
