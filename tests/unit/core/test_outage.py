"""Strategies, gate and circuit."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.outage import (
    HOLD_S,
    TRIAL_EVERY_S,
    Circuit,
    Fate,
    Gate,
    Outage,
    Route,
    fate,
    route,
)


@pytest.mark.parametrize("outage", Outage)
def test_what_kafka_never_takes_never_enters_the_spool(outage: Outage) -> None:
    assert fate(outage, permanent=True) is Fate.DEAD


def test_what_fails_for_now_goes_by_the_strategy() -> None:
    fates = {str(outage): fate(outage, permanent=False) for outage in Outage}
    assert fates == {
        "drop": Fate.DROP,
        "reject": Fate.UNKNOWN,
        "spool_all": Fate.SPOOL,
        "spool_failed": Fate.SPOOL,
        "breaker": Fate.SPOOL,
        "dual": Fate.SPOOL,
    }


def test_without_trouble_all_but_one_go_straight() -> None:
    for outage in Outage:
        straight = route(outage, Gate(), Circuit(), 0.0)
        assert straight is (Route.SPOOL if outage is Outage.SPOOL_ALL else Route.DIRECT)


def test_a_broken_circuit_lets_one_attempt_a_second_through() -> None:
    circuit = Circuit()
    assert circuit.failed(10.0)
    assert not circuit.failed(10.1), "no news"
    for outage, meanwhile in ((Outage.REJECT, Route.REFUSE), (Outage.DROP, Route.DROP)):
        assert route(outage, Gate(), circuit, 10.2) is meanwhile
        later = 10.1 + TRIAL_EVERY_S
        circuit.failed(10.1)
        assert route(outage, Gate(), circuit, later) is Route.DIRECT
        assert route(outage, Gate(), circuit, later) is meanwhile
    assert circuit.delivered()
    assert route(Outage.REJECT, Gate(), circuit, 10.2) is Route.DIRECT


def test_only_the_breaker_goes_to_disk_at_once_for_the_whole_topic() -> None:
    circuit = Circuit()
    circuit.failed(0.0)
    assert route(Outage.BREAKER, Gate(), circuit, 0.0) is Route.SPOOL
    assert route(Outage.SPOOL_FAILED, Gate(), circuit, 0.0) is Route.DIRECT


class Gates(RuleBasedStateMachine):
    """Whatever happens to a gate, nothing goes straight while something waits, and no record is
    held for longer than it may be."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.circuit, self.now = Gate(), Circuit(), 0.0
        self.waiting = False
        self.held_since: float | None = None

    @rule()
    def unresolved(self) -> None:
        self.gate.unresolved()
        self.waiting = True

    @precondition(lambda self: self.waiting)
    @rule()
    def hold(self) -> None:
        self.gate.hold(self.now)

    @rule()
    def give_up(self) -> None:
        self.gate.hold_no_more()

    @rule()
    def time_passes(self) -> None:
        self.now += HOLD_S / 3

    @rule()
    def emptied(self) -> None:
        self.gate.emptied()
        self.waiting = False

    @invariant()
    def order_holds(self) -> None:
        taken = route(Outage.BREAKER, self.gate, self.circuit, self.now)
        assert (taken is Route.DIRECT) is not self.waiting
        self.held_since = (self.held_since or self.now) if taken is Route.HOLD else None
        assert self.held_since is None or self.now - self.held_since <= HOLD_S


TestGates = Gates.TestCase
TestGates.settings = settings(deadline=None)
