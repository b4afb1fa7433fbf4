"""Calls side by side: how many, and that none is left behind."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.loops.abreast import MOST, together, wider
from tests.unit.loops.virtual import now, virtual


def test_more_go_together_while_all_is_granted_and_one_after_a_refusal() -> None:
    width, widths = 1, []
    for _ in range(6):
        width = wider(width, [True] * width)
        widths.append(width)
    assert widths == [2, 4, 8, 8, 8, 8]
    assert max(widths) == MOST
    assert wider(8, [True] * 7 + [False]) == 1


@virtual
async def test_answers_come_in_the_order_of_the_names() -> None:
    """After the time of the slowest, by tasks that say what they do."""

    async def call(name: str) -> bool:
        task = asyncio.current_task()
        assert task is not None
        assert task.get_name() == f"stand for {name}"
        await asyncio.sleep(float(name))
        return name == "3"

    began = now()
    assert await together(call, ["3", "1", "2"], "stand for") == [True, False, False]
    assert now() - began == pytest.approx(3.0)


@virtual
async def test_a_defect_in_one_call_is_told_by_its_own_name_and_ends_the_others() -> None:
    ended: list[str] = []

    async def call(name: str) -> bool:
        try:
            await asyncio.sleep(1.0 if name == "bad" else 60.0)
        finally:
            ended.append(name)
        raise KeyError(name)

    began = now()
    with pytest.raises(KeyError, match="bad"):
        await together(call, ["a", "bad", "b"], "stand for")
    assert now() - began < 2.0
    assert sorted(ended) == ["a", "b", "bad"]
