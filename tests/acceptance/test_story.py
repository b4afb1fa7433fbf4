"""The whole story: reports reach the threshold, the fleet opens, and it heals.

Three daemons, one Consul, and consumers that know nothing of us: they PUT their reports.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable

import pytest

from tests.acceptance.support import (
    Caller,
    Consumers,
    Place,
    Record,
    Witness,
    all_answer,
    at,
    body,
    events,
    fleet,
    holds,
    measured,
    series,
    timing,
)
from tests.daemon import Daemon
from tests.servers import poll_until_sync

pytestmark = pytest.mark.consul

TRIP_S = 0.1
"""From the PUT that reaches the threshold until the last of three daemons answers 503."""
MAX_STEPS = 8


def _settled(place: Place, daemons: list[Daemon]) -> Callable[[], bool]:
    """A record is there, somebody evaluates, and everybody admits."""

    def look() -> bool:
        return place.state() == "CLOSED" and all_answer(daemons, 200)() and _evaluators(daemons) > 0

    return look


def _evaluators(daemons: list[Daemon]) -> int:
    return sum(bool(d.get("/v1/breakers/default").body["evaluating"]) for d in daemons)


def _in_state(place: Place, state: str) -> Callable[[], Record]:
    """The record once it is in this state."""

    def look() -> Record:
        record = place.record()
        return record if record.get("current_state") == state else {}

    return look


def _seen(witness: Witness, state: str) -> Callable[[], tuple[float, Record] | None]:
    return lambda: witness.last(state)


def _trip_s(callers: list[Caller], sent: float) -> float:
    """Poll all callers as fast as they answer until each had a 503; seconds since `sent`."""
    waiting = list(callers)
    while waiting:
        waiting = [caller for caller in waiting if caller.ask() != 503]
        time.sleep(0.001)  # three daemons that answer without pause would leave Consul no core
        assert time.monotonic() < sent + 5, f"{len(waiting)} still admit after 5 s"
    return time.monotonic() - sent


def test_the_whole_story(place: Place) -> None:
    """Closed, open, half open without any traffic, ramped, closed: and every write told of."""
    with fleet(place.config()) as daemons, Witness(place) as witness:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        created = place.record()
        for instance in ("c-1", "c-2"):
            place.report(instance, fail=9)
        poll_until_sync(
            lambda: any(
                series(d.get("/metrics")).get(
                    'breaker_reporters{breaker="default",freshness="fresh"}'
                )
                == 2
                for d in daemons
            ),
            3,
            "two reports are known",
        )
        assert all_answer(daemons, 200)()
        assert place.record() == created, "18 failures of 20 are no transition"

        place.report("c-3", fail=2)
        opened_at, opened = poll_until_sync(_seen(witness, "OPEN"), 2, "OPEN")
        poll_until_sync(all_answer(daemons, 503), 1, "all three reject")
        assert opened["seq"] == created["seq"] + 1
        assert opened["reason"] == "failures"
        assert opened["evidence"]["failures"] == 20
        assert opened["evidence"]["threshold"] == 20
        assert opened["evidence"]["reporters"] == 3
        assert opened["open_count"] == 1
        assert opened["open_for"] == 1.0
        assert at(opened["retry_at"]) == pytest.approx(at(opened["last_changed"]) + 1, abs=0.01)
        assert [(e["from"], e["to"], e["seq"]) for e in place.history()] == [
            ("CLOSED", "OPEN", opened["seq"])
        ]
        rejection = daemons[0].allowed()
        assert rejection.body["state"] == "OPEN"
        assert rejection.body["seq"] == opened["seq"]
        assert int(rejection.headers["retry-after"]) in {1, 2}

        # Nobody asks /allowed from here on: only time moves it.
        half_at, half = poll_until_sync(_seen(witness, "HALF_OPEN"), 3, "HALF_OPEN")
        assert 0.95 <= half_at - opened_at <= 1.5
        assert half["reason"] == "open_elapsed"
        assert half["seq"] == opened["seq"] + 1
        assert half["admit_ratio"] == 0.05

        with Consumers(place):
            poll_until_sync(_seen(witness, "CLOSED"), 10, "healthy reports close it")
        poll_until_sync(all_answer(daemons, 200), 1, "all three admit")
        _check_ramp([r for r in witness.records if r["seq"] >= half["seq"]])
        seqs = [record["seq"] for record in witness.records]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "no seq is left out or reused"
        edges = [("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN"), ("HALF_OPEN", "CLOSED")]
        assert [(e["from"], e["to"]) for e in place.history()] == edges
        told = [
            (line["from_state"], line["to_state"])
            for daemon in daemons
            for line in events(daemon, "transition")
        ]
        assert told == edges, "each transition is one line of one sidecar"
        assert len({record["epoch"] for record in witness.records}) == 1


def _check_ramp(records: list[Record]) -> None:
    """From the first HALF_OPEN record to CLOSED."""
    half, *steps, closed = records
    assert closed["current_state"] == "CLOSED"
    assert closed["reason"] == "recovered"
    assert closed["open_count"] == 0
    assert closed["admit_ratio"] == 1.0
    assert {step["current_state"] for step in steps} == {"HALF_OPEN"}
    assert {step["last_changed"] for step in steps} == {half["last_changed"]}
    ratios = [record["admit_ratio"] for record in records]
    assert ratios == sorted(set(ratios)), f"each step admits more: {ratios}"
    # The step to 1.0 is the one that closes.
    assert len(steps) + 1 <= MAX_STEPS, ratios
    # Steps are 250 ms apart, so closing takes at least eight of them.
    assert at(closed["last_changed"]) - at(half["last_changed"]) >= 1.9


def test_the_report_that_reaches_the_threshold_turns_all_within_100_ms(
    place: Place,
) -> None:
    """Ten trips on keep-alive connections: one transition and one seq step each."""
    settings = timing(
        report_interval="500ms",
        open_duration="300ms",
        half_open={"initial": 0.05, "ramp": "400ms", "max": "20s"},
    )
    took: list[float] = []
    with (
        fleet(place.config({"default": settings})) as daemons,
        contextlib.ExitStack() as stack,
    ):
        callers = [stack.enter_context(Caller(daemon)) for daemon in daemons]
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        for _ in range(10):
            for instance in ("c-1", "c-2"):
                place.report(instance, fail=9)
            before = place.record()
            assert [caller.ask() for caller in callers] == [200, 200, 200]
            took.append(_trip_s(callers, place.report("c-3", fail=2)))
            opened = place.record()
            assert opened["current_state"] == "OPEN"
            assert opened["seq"] == before["seq"] + 1
            assert place.history()[-1]["seq"] == opened["seq"]
            with Consumers(place, every_s=0.05):
                poll_until_sync(_in_state(place, "CLOSED"), 10, "healed")
            poll_until_sync(all_answer(daemons, 200), 1, "all admit")
        edges = [(entry["from"], entry["to"]) for entry in place.history()]
        assert edges.count(("CLOSED", "OPEN")) == 10
        assert edges.count(("HALF_OPEN", "OPEN")) == 0
    said = measured("trips", sorted(took))
    assert statistics.median(took) <= TRIP_S, said
    assert max(took) <= 1.0, said


def test_a_bad_report_while_half_open_opens_at_once_and_for_longer(place: Place) -> None:
    """0.6 s, then 1.2 s, then 1.5 s for ever: doubled, then capped."""
    took: list[float] = []
    settings = timing(open_duration="600ms", max_open_duration="1500ms")
    with fleet(place.config({"default": settings})) as daemons, Witness(place) as witness:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        place.report("c-1", fail=25)
        opened_at, opened = poll_until_sync(_seen(witness, "OPEN"), 2, "OPEN")
        openings = [opened]
        for expected in (0.6, 1.2, 1.5):
            half_at, half = poll_until_sync(_seen(witness, "HALF_OPEN"), 5, "HALF_OPEN")
            assert expected - 0.05 <= half_at - opened_at <= expected + 0.5
            assert half["seq"] == openings[-1]["seq"] + 1
            sent = place.report("c-1", fail=25)
            opened_at, opened = poll_until_sync(_seen(witness, "OPEN"), 2, "OPEN again")
            took.append(opened_at - sent)
            assert opened["seq"] == half["seq"] + 1
            poll_until_sync(all_answer(daemons, 503), 1, "all reject")
            openings.append(opened)
        assert [record["open_count"] for record in openings] == [1, 2, 3, 4]
        assert [record["open_for"] for record in openings] == [0.6, 1.2, 1.5, 1.5]
        retry_after = int(daemons[1].allowed().headers["retry-after"])
        assert retry_after in {1, 2}
    said = measured("openings out of HALF_OPEN", took)
    assert statistics.median(took) <= TRIP_S, said


def test_a_trickle_that_fails_whole_is_not_healthy(place: Place) -> None:
    """At 5% of the traffic the threshold is 5% too, where failures outnumber the successes."""
    with fleet(place.config(), size=1) as daemons, Witness(place) as witness:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        place.report("c-1", fail=25)
        poll_until_sync(_seen(witness, "HALF_OPEN"), 5, "HALF_OPEN")
        place.report("c-1", fail=2, ok=0)
        _, opened = poll_until_sync(_seen(witness, "OPEN"), 2, "OPEN again")
        assert opened["open_count"] == 2


def test_silence_never_closes_and_old_evidence_never_trips_again(place: Place) -> None:
    """Its dead consumers' last words still lie there, one is even repeated: nothing moves."""
    settings = timing(
        report_interval="500ms", half_open={"initial": 0.05, "ramp": "1s", "max": "1500ms"}
    )
    with fleet(place.config({"default": settings})) as daemons, Witness(place) as witness:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        same = body(fail=30)
        repeated = f"{place.reports()}/c-1"
        place.consul.kv_put(repeated, same)
        place.report("c-2", fail=30)
        poll_until_sync(_seen(witness, "HALF_OPEN"), 5, "HALF_OPEN")

        def unmoved() -> bool:
            place.consul.kv_put(repeated, same)
            newest = witness.records[-1]
            return (newest["current_state"], newest["admit_ratio"]) == ("HALF_OPEN", 0.05)

        holds(unmoved, 3.5, "HALF_OPEN at its first ratio: past max, past all freshness")
        assert [d.allowed(peek=True).body["admit_ratio"] for d in daemons] == [0.05] * 3
        edges = [(entry["from"], entry["to"]) for entry in place.history()]
        assert edges == [("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN")]


def test_a_consumer_that_repeats_itself_goes_stale(place: Place) -> None:
    """Its failures stop counting, so that somebody else's few don't reach the threshold."""
    settings = timing(report_interval="500ms")
    with fleet(place.config({"default": settings}), size=1) as (daemon,):
        poll_until_sync(_settled(place, [daemon]), 10, "the sidecar is ready")
        same = body(fail=15)

        def stale() -> bool:
            place.consul.kv_put(f"{place.reports()}/c-1", same)
            metrics = series(daemon.get("/metrics"))
            return metrics.get('breaker_reporters{breaker="default",freshness="stale"}') == 1

        assert not stale()
        poll_until_sync(stale, 4, "the one that repeats itself is stale")
        place.report("c-2", fail=15)
        poll_until_sync(
            lambda: (
                series(daemon.get("/metrics"))[
                    'breaker_reporters{breaker="default",freshness="fresh"}'
                ]
                == 1
            ),
            2,
            "the other one is fresh",
        )
        holds(lambda: daemon.allowed().status == 200, 1.0, "15 + 15 is not 30")
        place.report("c-1", fail=15)
        poll_until_sync(lambda: daemon.allowed().status == 503, 1, "but 15 + 15 new ones are")


def test_at_the_longest_stay_healthy_closes_and_unknown_holds(place: Place) -> None:
    """The ramp stops where the reports stop; past `max` the first healthy word closes."""
    settings = timing(
        report_interval="300ms", half_open={"initial": 0.05, "ramp": "2s", "max": "2500ms"}
    )
    config = place.config({"default": settings})
    with fleet(config, size=2) as daemons, Witness(place) as witness:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        place.report("c-1", fail=25)
        half_at, half = poll_until_sync(_seen(witness, "HALF_OPEN"), 5, "HALF_OPEN")
        place.report("c-1")
        poll_until_sync(lambda: len(witness.records) >= 5, 3, "a step or two")
        # The report is fresh for 0.9 s, three or four steps of 250 ms.
        poll_until_sync(
            lambda: any(
                d.get("/v1/breakers/default").body["verdict"] == "unknown" for d in daemons
            ),
            3,
            "silence",
        )
        held = witness.records[-1]
        assert 0.05 < held["admit_ratio"] < 0.5
        assert held["last_changed"] == half["last_changed"]
        holds(lambda: witness.records[-1] == held, 2.0, "unknown holds the ratio")
        assert time.monotonic() - half_at > 2.6, "past half_open.max"

        place.report("c-1")
        _, closed = poll_until_sync(_seen(witness, "CLOSED"), 2, "a healthy word closes")
        assert closed["seq"] == held["seq"] + 1, "without going through the rest of the ramp"


def test_half_open_admits_exactly_its_share(place: Place) -> None:
    """1000 calls at 0.05 are 50, one after the other or from eight connections at once."""
    config = place.config({"default": timing(half_open={"initial": 0.05, "ramp": "2s"})})
    with fleet(config, size=2) as daemons:
        poll_until_sync(_settled(place, daemons), 10, "the fleet is ready")
        place.report("c-1", fail=25)
        poll_until_sync(
            lambda: all(d.allowed(peek=True).body["state"] == "HALF_OPEN" for d in daemons),
            5,
            "HALF_OPEN",
        )
        with Caller(daemons[0]) as caller:
            statuses = [caller.ask("/allowed", "HEAD" if n % 3 else "GET") for n in range(1000)]
            assert abs(statuses.count(200) - 50) <= 1
            gaps = [n for n, status in enumerate(statuses) if status == 200]
            apart = {b - a for a, b in itertools.pairwise(gaps)}
            assert apart <= {19, 20, 21}, "evenly spread"
        assert abs(_concurrently(daemons[1], threads=8, each=125).count(200) - 50) <= 1
        decisions = series(daemons[1].get("/metrics"))
        admitted = decisions['breaker_decisions_total{breaker="default",decision="admit"}']
        rejected = decisions['breaker_decisions_total{breaker="default",decision="reject"}']
        assert admitted + rejected == 1000, "peeks are not counted"


def _concurrently(daemon: Daemon, *, threads: int, each: int) -> list[int]:
    """The statuses of `threads` x `each` calls."""
    statuses: list[int] = []

    def call() -> None:
        with Caller(daemon) as caller:
            statuses.extend([caller.ask("/allowed") for _ in range(each)])

    workers = [threading.Thread(target=call) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(statuses) == threads * each
    return statuses
