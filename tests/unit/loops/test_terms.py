"""Each lock that is gained is evaluated by somebody, and one that is lost by nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from sidecar.loops.terms import SETTLE_S
from tests.unit.loops.machine import POLICY, World
from tests.unit.loops.virtual import now, virtual


@virtual
async def test_a_term_begins_with_the_lock_and_ends_with_it() -> None:
    world = World()
    first = world.add().start()
    async with asyncio.timeout(5):
        await first.terms.all_ready([POLICY.name])
    assert first.leads
    terms = [first.terms.of(POLICY.name)]
    first.terms.wake("a breaker that is evaluated elsewhere")
    first.terms.lost(POLICY.name)
    terms.append(first.terms.of(POLICY.name))
    first.terms.gained(POLICY.name, 7)
    terms.append(first.terms.of(POLICY.name))
    assert [term is not None for term in terms] == [True, False, True]
    assert terms[0] is not terms[2], "each term has an evaluator of its own"
    await first.die()


@virtual
async def test_all_are_ready_only_when_each_is_evaluated() -> None:
    first = World(replace(POLICY, name="a")).add().start()
    await first.terms.all_ready(["a"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await first.terms.all_ready(["a", "b"])
    await first.die()


@virtual
async def test_a_report_of_a_breaker_without_an_evaluator_is_waited_for_but_not_for_ever() -> None:
    first = World().add()
    asked = now()
    await first.terms.settle(POLICY.name)
    assert now() - asked == pytest.approx(SETTLE_S)
