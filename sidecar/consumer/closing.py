"""An end for an aiokafka consumer that is bounded whatever state it and its cluster are in."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.consumer.told import words

CLOSE_S = 2.0
"""For closing connections, which wait for nobody."""


async def close(consumer: Any, within_s: float) -> str:
    """Leave the group and give everything back. Says what was not in good order; empty if all was.

    In a task of its own: where a fetch has just failed, aiokafka's `stop` cancels it, awaits it and
    so ends as cancelled itself, which here would pass for a cancellation of the caller.
    """
    leaving = asyncio.create_task(consumer.stop(), name="breaker-leave")
    try:
        await asyncio.wait({leaving}, timeout=within_s)
        why = _why(leaving) if leaving.done() else "it took too long"
    finally:
        if not leaving.done():
            leaving.cancel()
            leaving.add_done_callback(_heard)
    if why:
        # It may be waiting for a group that waits for others; what it holds is closed at least.
        for part in (consumer._fetcher, consumer._client):
            if part is not None:
                await _within(CLOSE_S, part)
    return why


def hear_commits(consumer: Any) -> None:
    """Have an end of each commit heard, also of one that its caller no longer waits for.

    aiokafka shields it, so it goes on after a deadline of ours; asyncio would tell of its failure
    at length, long after we have.
    """
    coordinator = consumer._coordinator
    commit = coordinator._do_commit_offsets

    def heard(*args: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(commit(*args), name="breaker-offsets")
        task.add_done_callback(_heard)
        return task

    coordinator._do_commit_offsets = heard


async def _within(limit_s: float, part: Any) -> None:
    closing = asyncio.create_task(part.close(), name="breaker-close")
    closing.add_done_callback(_heard)
    try:
        await asyncio.wait({closing}, timeout=limit_s)
    finally:
        closing.cancel()


def _why(ended: asyncio.Task[None]) -> str:
    if ended.cancelled():
        return "a fetch of it had to be cancelled"
    error = ended.exception()
    return "" if error is None else words(error)


def _heard(ended: asyncio.Task[None]) -> None:
    """How it ended is of no interest any more."""
    if not ended.cancelled():
        ended.exception()
