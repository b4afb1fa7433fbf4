"""What others do to the state record and its history, and what the store does to both."""

from __future__ import annotations

import json
import time

import pytest

from tests.integration.fleet import Fleet, events, metric, seconds, stamp, stays, view
from tests.integration.proxy import LossyProxy
from tests.servers import ConsulServer, poll_until_sync

pytestmark = pytest.mark.slow  # a fleet of real daemons for each oddity

LONG = {"open_duration": "60s", "max_open_duration": "60s"}
"""Open until the test is over."""
JUNK = (
    b"",
    b"junk",
    b"[]",
    b"null",
    b'{"current_state": "AJAR"}',
    b'{"seq": 1}',
    b'{"current_state": "OPEN", "seq": -1}',
    b"{" * 2000,
    b"\xff\xfe",
)
ENTRY = {"reason": "failures", "detail": "", "evidence": {}, "epoch": 1, "evaluator": "old"}


def test_a_deleted_state_is_created_anew_and_fresh_evidence_trips_at_once(
    consul: ConsulServer, prefix: str
) -> None:
    """As CLOSED, seq and epoch going on; what tripped it before doesn't trip it again."""
    with Fleet(consul, prefix, report_interval="20s", **LONG) as fleet:
        fleet.start(2)
        fleet.wait_for("CLOSED")
        opened = fleet.trip()
        fleet.all_answer(503)
        consul.kv_delete(f"{prefix}/state")
        created = fleet.wait_for("CLOSED", reason="created")
        assert created["seq"] == opened["seq"] + 1
        assert created["epoch"] == opened["epoch"]
        assert created["open_count"] == 0
        fleet.all_answer(200)
        assert fleet.edges() == [("CLOSED", "OPEN"), ("OPEN", "CLOSED")]
        stays(lambda: fleet.record() == created, 0.7, "old evidence doesn't trip again")
        again = fleet.trip()
        assert again["seq"] == created["seq"] + 1
        fleet.all_answer(503)


def test_a_deleted_state_goes_on_from_the_history(consul: ConsulServer, prefix: str) -> None:
    """Sidecars that have seen nothing yet find the highest seq and epoch there."""
    entry = {"seq": 41, "at": stamp(), "from": "CLOSED", "to": "OPEN", **ENTRY, "epoch": 17}
    consul.kv_put(f"{prefix}-history/default", json.dumps([entry]))
    with Fleet(consul, prefix) as fleet:
        fleet.start(1)
        created = fleet.wait_for("CLOSED", reason="created")
        assert (created["seq"], created["epoch"]) == (42, 18)


def test_a_successor_does_not_trip_on_what_tripped_before_the_deletion(
    consul: ConsulServer, prefix: str
) -> None:
    """The evidence's index is in the history, for who has never seen the record."""
    with Fleet(consul, prefix, report_interval="20s", **LONG) as fleet:
        (first,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        opened = fleet.trip()
        assert first.stop() == 0
        consul.kv_delete(f"{prefix}/state")
        fleet.start(1)
        created = fleet.wait_for("CLOSED", reason="created")
        assert created["seq"] == opened["seq"] + 1
        stays(lambda: fleet.record() == created, 1.0, "old evidence doesn't trip again")
        fleet.trip()
        assert fleet.edges() == [("CLOSED", "OPEN"), ("OPEN", "CLOSED"), ("CLOSED", "OPEN")]


def test_a_successor_tells_the_history_what_was_written_between_two_terms(
    consul: ConsulServer, prefix: str
) -> None:
    """It has seen nothing but a foreign record: from where that came, the history knows."""
    with Fleet(consul, prefix, **LONG) as fleet:
        (first,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        fleet.trip()
        fleet.put_state({"current_state": "CLOSED", "last_changed": stamp()})
        fleet.wait_for("CLOSED", reason="foreign")
        assert first.stop() == 0
        fleet.put_state({"current_state": "OPEN", "last_changed": stamp()})
        fleet.start(1)
        adopted = fleet.wait_for("OPEN", reason="foreign")
        assert fleet.edges() == [("CLOSED", "OPEN"), ("OPEN", "CLOSED"), ("CLOSED", "OPEN")]
        assert fleet.history()[-1]["seq"] == adopted["seq"]


def test_junk_in_the_state_changes_nothing_and_is_replaced(
    consul: ConsulServer, prefix: str
) -> None:
    """OPEN stays in force on all, the junk is counted and logged, and the time goes on."""
    with Fleet(consul, prefix, **LONG) as fleet:
        fleet.start(2)
        fleet.wait_for("CLOSED")
        opened = fleet.trip()
        fleet.all_answer(503)
        evaluator = fleet.evaluator()
        admitted = [view(daemon)["decisions"]["admitted"] for daemon in fleet.daemons]
        for number, junk in enumerate(JUNK, 1):
            fleet.put_state(junk)
            repaired = fleet.wait_for("OPEN", reason="repaired", seq=opened["seq"] + number)
            assert repaired["open_count"] == 1
            assert repaired["last_changed"] == opened["last_changed"]
            retry_at = seconds(repaired["retry_at"])
            assert retry_at == pytest.approx(seconds(opened["retry_at"]), abs=0.5)
            assert set(fleet.statuses()) == {503}
            # The others may read late enough to see only what took the junk's place.
            assert metric(evaluator, "breaker_bad_records_total", kind="state") == number
            lines = [line for line in events(evaluator, "bad_state") if "fault" in line]
            assert len(lines) == number
        assert fleet.edges() == [("CLOSED", "OPEN")]
        assert [view(d)["decisions"]["admitted"] for d in fleet.daemons] == admitted


@pytest.mark.parametrize("edge", [{"seq": 2**53 - 1}, {"epoch": 2**53}, {"open_count": 2**53}])
def test_numbers_that_leave_no_room_are_junk(
    consul: ConsulServer, prefix: str, edge: dict[str, int]
) -> None:
    """What would follow them could not be read by ourselves: it would be repaired for ever."""
    with Fleet(consul, prefix, **LONG) as fleet:
        fleet.start(1)
        created = fleet.wait_for("CLOSED")
        fleet.put_state(json.dumps({**created, **edge}).encode())
        repaired = fleet.wait_for("CLOSED", reason="repaired", seq=created["seq"] + 1)
        stays(lambda: fleet.record() == repaired, 0.7, "one repair is enough")
        assert fleet.trip()["seq"] == repaired["seq"] + 1


def test_a_newer_schema_is_followed_and_the_evaluator_lets_go(
    consul: ConsulServer, prefix: str
) -> None:
    """Who can't write it doesn't stand; deleting the key is the way back."""
    with Fleet(consul, prefix) as fleet:
        fleet.start(2)
        fleet.wait_for("CLOSED")
        fleet.evaluator()
        newer: dict[str, object] = {
            **fleet.record(),
            "current_state": "OPEN",
            "automaton": {"is": "different"},
            "admit_ratio": 0.0,
            "schema": 2,
            "seq": 100,
            "open_for": 0.1,
        }
        fleet.put_state(newer)
        fleet.all_answer(503)
        poll_until_sync(lambda: not fleet.holder() and not fleet.sessions(), 3, "nobody stands")
        fleet.start(1)
        stays(
            lambda: fleet.record() == newer and not fleet.holder(), 1.0, "nobody stands or writes"
        )
        assert all(events(daemon, "newer_schema") for daemon in fleet.daemons)
        consul.kv_delete(f"{prefix}/state")
        created = fleet.wait_for("CLOSED", reason="created")
        assert created["seq"] == 101
        assert created["epoch"] > newer["epoch"]


def test_foreign_records_are_in_force_at_once_and_adopted(
    consul: ConsulServer, prefix: str
) -> None:
    """OPEN, HALF_OPEN and CLOSED by plain PUTs of two fields, one after the other."""
    with Fleet(consul, prefix, **LONG) as fleet:
        fleet.start(2)
        created = fleet.wait_for("CLOSED")
        changed = time.time() - 20
        fleet.put_state({"current_state": "OPEN", "last_changed": stamp(changed)})
        opened = fleet.wait_for("OPEN", reason="foreign")
        fleet.all_answer(503)
        assert opened["seq"] == created["seq"] + 1
        assert opened["open_count"] == 1
        assert seconds(opened["last_changed"]) == pytest.approx(changed, abs=0.001)
        assert seconds(opened["retry_at"]) == pytest.approx(changed + 60, abs=0.1)
        assert opened["open_for"] == pytest.approx(40, abs=1)

        fleet.put_state({"current_state": "HALF_OPEN", "last_changed": stamp()})
        half = fleet.wait_for("HALF_OPEN", reason="foreign")
        assert half["seq"] == opened["seq"] + 1
        assert half["open_count"] == 1
        assert half["admit_ratio"] == 0.05

        fleet.put_state({"current_state": "CLOSED", "last_changed": stamp()})
        closed = fleet.wait_for("CLOSED", reason="foreign")
        fleet.all_answer(200)
        assert closed["seq"] == half["seq"] + 1
        assert closed["open_count"] == 1
        assert [edge[1] for edge in fleet.edges()] == ["OPEN", "HALF_OPEN", "CLOSED"]
        assert fleet.trip()["open_count"] == 1, "the first trip out of CLOSED starts at one"
        evaluator = fleet.evaluator()
        assert metric(evaluator, "breaker_foreign_writes_total") == 3
        others = [daemon for daemon in fleet.daemons if daemon is not evaluator]
        assert [metric(daemon, "breaker_foreign_writes_total") for daemon in others] == [0]


def test_a_foreign_open_from_another_clock_lasts_no_longer_than_open_duration(
    consul: ConsulServer, prefix: str
) -> None:
    """Its `last_changed` an hour ahead, and one without any."""
    with Fleet(consul, prefix, open_duration="2s") as fleet:
        fleet.start(1)
        fleet.wait_for("CLOSED")
        bodies: list[dict[str, object]] = [
            {"current_state": "OPEN", "last_changed": stamp(time.time() + 3600)},
            {"current_state": "OPEN"},
        ]
        for body in bodies:
            fleet.put_state(body)
            began = time.monotonic()
            adopted = fleet.wait_for("OPEN", reason="foreign")
            assert adopted["open_for"] == pytest.approx(2, abs=0.2)
            assert seconds(adopted["retry_at"]) == pytest.approx(time.time() + 2, abs=0.5)
            fleet.wait_for("HALF_OPEN", 4, reason="open_elapsed")
            assert 1.5 < time.monotonic() - began < 3.0


def test_looser_foreign_writes_are_reasserted_once_a_second(
    consul: ConsulServer, prefix: str
) -> None:
    """A flood of CLOSED against an OPEN; a foreign OPEN is taken over as by `adopt`."""
    with Fleet(consul, prefix, foreign_writes="reassert", open_duration="30s") as fleet:
        fleet.start(2)
        fleet.wait_for("CLOSED")
        opened = fleet.trip()
        flood_s = 2.5
        began = time.monotonic()

        def flood() -> bool:
            if fleet.record():  # write only over ours, so that every correction counts
                fleet.put_state({"current_state": "CLOSED", "last_changed": stamp()})
            return time.monotonic() - began > flood_s

        poll_until_sync(flood, flood_s + 1, "the flood is over")
        last = fleet.wait_for("OPEN", 1.5, reason="reasserted")
        fleet.all_answer(503)
        corrections = last["seq"] - opened["seq"]
        assert 2 <= corrections <= flood_s + 2
        assert last["open_count"] == 1
        assert seconds(last["retry_at"]) == pytest.approx(seconds(opened["retry_at"]), abs=0.5)
        # A reader that counts `open_duration` from `last_changed` ends when we do.
        assert seconds(last["last_changed"]) + 30 == pytest.approx(
            seconds(last["retry_at"]), abs=0.1
        )
        assert fleet.edges() == [("CLOSED", "OPEN")]

        fleet.put_state({"current_state": "OPEN", "last_changed": stamp()})
        assert fleet.wait_for("OPEN", reason="foreign")["seq"] == last["seq"] + 1


def test_no_history_can_block_a_transition(consul: ConsulServer, prefix: str) -> None:
    """Junk there, no history at all, and one that somebody has made too long and too large."""
    key = f"{prefix}-history/default"
    consul.kv_put(key, "junk")
    with Fleet(consul, prefix, **LONG) as fleet:
        (daemon,) = fleet.start(1)
        fleet.wait_for("CLOSED")
        assert metric(daemon, "breaker_bad_records_total", kind="history") == 1
        assert events(daemon, "bad_history")
        fleet.trip()
        assert fleet.edges() == [("CLOSED", "OPEN")]
        consul.kv_delete(key)
        consul.kv_delete(f"{prefix}/state")
        fleet.wait_for("CLOSED", reason="created")
        assert fleet.edges()[-1] == ("OPEN", "CLOSED")
        assert daemon.stop() == 0

        entries: list[object] = [
            {"seq": n, "at": stamp(), "from": "CLOSED", "to": "OPEN", **ENTRY, "detail": "x" * 5000}
            for n in range(100, 170)
        ]
        entries[30] = {"junk": True}
        consul.kv_put(key, json.dumps(entries))
        (second,) = fleet.start(1)
        fleet.daemons.remove(daemon)
        opened = fleet.trip(seq=170)
        history = fleet.history()
        assert len(history) == 64
        assert history[-1]["seq"] == opened["seq"]
        assert max(len(json.dumps(e, separators=(",", ":")).encode()) for e in history) <= 2048
        assert history[-2]["seq"] == 169
        assert metric(second, "breaker_bad_records_total", kind="history") == 1


def test_the_epoch_never_falls(consul: ConsulServer, prefix: str) -> None:
    """A plain PUT sets the lock's own count back; terms go on counting all the same."""
    with Fleet(consul, prefix) as fleet:
        epochs = []
        for _ in range(3):
            (daemon,) = fleet.start(1)
            fleet.evaluator()
            epochs.append(fleet.trip()["epoch"])
            fleet.heal()
            entry = consul.kv_entry(fleet.lock)
            assert entry is not None
            consul.kv_put(fleet.lock, "junk")
            poll_until_sync(fleet.holder, 3, "the lock's value is restored")
            assert daemon.stop() == 0
            fleet.daemons.clear()
        assert epochs == sorted(set(epochs))
        assert [entry["epoch"] for entry in fleet.history()] == sorted(
            entry["epoch"] for entry in fleet.history()
        )


def test_a_write_whose_answer_was_lost_is_one_transition(consul: ConsulServer, prefix: str) -> None:
    """Applied by Consul, never confirmed: read again, found, and neither repeated nor lost."""
    with (
        LossyProxy(consul.address) as proxy,
        Fleet(consul, prefix, address=proxy.address, **LONG) as fleet,
    ):
        fleet.start(2)
        created = fleet.wait_for("CLOSED")
        evaluator = fleet.evaluator()
        proxy.losing = 1
        opened = fleet.trip()
        fleet.all_answer(503)
        assert proxy.lost == 1
        assert opened["seq"] == created["seq"] + 1
        poll_until_sync(lambda: events(evaluator, "transition"), 5, "it knows that it was written")
        stays(lambda: fleet.record() == opened, 1.0, "nothing is written twice")
        assert fleet.edges() == [("CLOSED", "OPEN")]
        assert metric(evaluator, "breaker_transitions_total") == 1

        # Its next write goes through, with the history whole.
        consul.kv_delete(f"{prefix}/state")
        proxy.losing = 1
        closed = fleet.wait_for("CLOSED", reason="created")
        assert closed["seq"] == opened["seq"] + 1
        again = fleet.trip()
        assert again["seq"] == closed["seq"] + 1
        assert proxy.lost == 2
        assert fleet.edges() == [("CLOSED", "OPEN"), ("OPEN", "CLOSED"), ("CLOSED", "OPEN")]


@pytest.mark.parametrize("taken", ["before the fleet", "while closed", "while open"])
def test_consul_restored_from_an_older_snapshot(prefix: str, taken: str) -> None:
    """Its index goes back: seen and said, and the breaker trips and heals as before."""
    with ConsulServer() as consul, Fleet(consul, prefix) as fleet:
        snapshot = _snapshot(consul) if taken == "before the fleet" else b""
        fleet.start(2)
        fleet.wait_for("CLOSED")
        if taken == "while closed":
            snapshot = _snapshot(consul)
        fleet.trip()
        if taken == "while open":
            snapshot = _snapshot(consul)
        fleet.heal()
        for n in range(40):
            consul.kv_put(f"elsewhere/{n}", str(n))
        before = fleet.record()
        status, _, body = consul.request("PUT", "/v1/snapshot", snapshot)
        assert status == 200, body
        poll_until_sync(
            lambda: all(events(daemon, "store_rewound") for daemon in fleet.daemons),
            2,
            "both have noticed",
        )
        closed = fleet.heal(15)
        fleet.all_answer(200)
        fleet.evaluator()
        assert closed["evaluator"]
        opened = fleet.trip()
        fleet.all_answer(503)
        assert opened["seq"] > before["seq"], "seq goes on from what was seen"
        assert opened["epoch"] >= before["epoch"]
        fleet.heal()
        fleet.all_answer(200)
        assert len(fleet.sessions()) == 1
        assert not [line for d in fleet.daemons for line in events(d, "task_failed")]


def _snapshot(consul: ConsulServer) -> bytes:
    status, _, body = consul.request("GET", "/v1/snapshot")
    assert status == 200, body
    return body
