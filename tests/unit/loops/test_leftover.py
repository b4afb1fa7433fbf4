"""What could not be given back at once: tried again, bounded, never a lock that is ours again."""

from __future__ import annotations

import asyncio
import math

from sidecar.core.errors import SessionLost, StoreDenied, StoreUnreachable
from sidecar.loops.abreast import MOST
from sidecar.loops.leftover import Leftovers
from tests.unit.loops.machine import Before, World
from tests.unit.loops.virtual import now, virtual


class _Book:
    """Leftovers over a store on which calls can fail, and what they released."""

    def __init__(self) -> None:
        self.machine = World().add()
        self.link = self.machine.link
        self.released: list[str] = []
        self.answer_s = 0.0
        self.most = self._now = 0
        """How many were being released at once at most, and are now."""
        self.fault: Exception | None = None
        self.leftovers = Leftovers(self.machine.around, self._release)

    async def _release(self, name: str, since_at: float, session: str) -> None:
        if self.fault is not None:
            raise self.fault
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(self.answer_s)
        self._now -= 1
        self.released.append(name)

    async def settle_all(self, within_s: float) -> None:
        """Settle whenever something is due."""
        ends = now() + within_s
        while self.leftovers.next <= ends:
            await asyncio.sleep(max(0.0, self.leftovers.next - now()))
            await self.leftovers.settle()
        await asyncio.sleep(max(0.0, ends - now()))


@virtual
async def test_a_lock_of_a_living_session_is_released_without_ending_it() -> None:
    """The session goes on with its other locks."""
    book = _Book()
    book.leftovers.add("s", {"a": 1.0}, ends=None, wait_s=0.25)
    await book.leftovers.settle()
    assert book.released == [], "not due"
    await book.settle_all(1.0)
    assert book.released == ["a"]
    assert book.link.calls["destroy"] == 0
    assert book.leftovers.next == math.inf


@virtual
async def test_a_lock_that_is_ours_again_is_not_released() -> None:
    """The same session has taken it once more."""
    book = _Book()
    book.leftovers.add("s", {"a": 1.0, "b": 1.0}, ends=None, wait_s=0.25)
    book.leftovers.reclaimed("s", "a")
    book.leftovers.reclaimed("other", "b")
    await book.settle_all(1.0)
    assert book.released == ["b"]


@virtual
async def test_many_locks_are_given_back_a_few_at_a_time_and_then_their_session() -> None:
    """One after the other, those of sixty breakers are free only after as many round trips."""
    book = _Book()

    async def slow(*_: object) -> None:
        assert len(book.released) == 60, "that order needs no lock-delay"

    book.link.hooks["destroy"] = slow
    book.answer_s = 0.1
    book.leftovers.add("s", {str(number): 1.0 for number in range(60)}, ends=now() + 20.0)
    began = now()
    await book.leftovers.settle()
    assert now() - began < 1.0
    assert book.most == MOST
    assert len(set(book.released)) == 60
    assert book.link.calls["destroy"] == 1
    assert book.leftovers.next == math.inf


@virtual
async def test_release_comes_before_destroy_and_both_are_tried_until_the_end() -> None:
    """With growing pauses; once its ttl has ended the session, nothing is owed."""
    book = _Book()
    book.link.always["destroy"] = Before(StoreDenied("the token was revoked"))
    book.leftovers.add("s", {"a": 1.0}, ends=now() + 20.0)
    await book.settle_all(60.0)
    assert book.released == ["a"]
    assert 8 <= book.link.calls["destroy"] <= 25
    assert book.leftovers.next == math.inf


@virtual
async def test_without_an_answer_no_session_is_taken_for_over() -> None:
    """Servers without a leader end none, and the next leader lets each live a ttl anew."""
    book = _Book()
    book.link.always["destroy"] = Before(StoreUnreachable("no leader"))
    book.leftovers.add("s", {"a": 1.0}, ends=now() + 20.0)
    await book.settle_all(300.0)
    tried = book.link.calls["destroy"]
    assert 100 <= tried <= 300
    book.link.mend()
    await book.settle_all(2.5)
    assert book.link.calls["destroy"] == tried + 1
    assert book.leftovers.next == math.inf


@virtual
async def test_a_session_that_is_gone_owes_nothing() -> None:
    """Its locks went with it."""
    book = _Book()
    book.fault = SessionLost("no such session")
    book.leftovers.add("s", {"a": 1.0}, ends=now() + 20.0)
    await book.leftovers.settle()
    assert book.leftovers.next == math.inf
    assert book.link.calls["destroy"] == 0
