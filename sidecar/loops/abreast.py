"""Some calls side by side: few enough for a store that a whole fleet may ask in the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

MOST = 8
"""At once at most: a quarter of the calls that a sidecar has open at its Consul."""


def wider(width: int, granted: Sequence[bool]) -> int:
    """How many to send together next: twice as many while all is granted, else one.

    Who is refused has others beside it, and each call that they win is one of ours for nothing:
    the more stand for the same locks, the more this is one call after the other.
    """
    return min(MOST, 2 * width) if all(granted) else 1


async def together(
    call: Callable[[str], Coroutine[object, object, bool]], names: Sequence[str], what: str
) -> list[bool]:
    """Call with each name at once; the answers in their order. Leaves no task behind.

    Raises:
        Exception: what the first of them raised; the others are cancelled then.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(name), name=f"{what} {name}") for name in names]
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None  # told by its own name
    return [task.result() for task in tasks]
