"""The snapshot that everybody reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.board import Board
from sidecar.core.decision import OnLoss
from sidecar.core.intake import Post
from sidecar.core.signal_settings import Delivery, Local, SignalSettings
from sidecar.core.types import Foreign, LockHolder, Policy, State
from tests.unit.core.kit import CONTACT, POLICY, WALL_AT

OTHER = Policy(name="orders", fingerprint="p-2")


@pytest.fixture
def board() -> Board:
    return Board("i-1", [POLICY, OTHER], "default", CONTACT, now=0.0)


def saw(board: Board, state: State, index: int, *, as_of: int = 0, now: float = 1.0) -> None:
    foreign = Foreign(state, WALL_AT)
    board.observe("default", foreign, index, as_of or index, now=now, wall_at=WALL_AT)


def state(board: Board) -> State:
    board.refresh(1.0)
    return board.cells["default"].decision.state


def test_cells_are_found_by_name_or_as_the_default(board: Board) -> None:
    assert board.find(None) is board.find("default") is board.cells["default"]
    assert board.find("orders") is board.cells["orders"]
    assert board.find("nobody") is None
    nameless = Board("i", [POLICY, OTHER], None, CONTACT, now=0.0)
    assert nameless.find(None) is None


def test_a_read_older_than_our_own_write_is_passed_over(board: Board) -> None:
    saw(board, State.OPEN, 20)
    saw(board, State.CLOSED, 15)
    assert state(board) is State.OPEN
    board.rewind()
    saw(board, State.CLOSED, 15)
    assert state(board) is State.CLOSED


def test_a_poll_that_brings_nothing_new_keeps_the_times(board: Board) -> None:
    saw(board, State.OPEN, 20, now=1.0)
    before = board.cells["default"].seen
    saw(board, State.OPEN, 20, as_of=30, now=9.0)
    assert board.cells["default"].seen is before


def test_listeners_hear_of_changes_alone(board: Board) -> None:
    heard: list[str] = []
    stop = board.listen(heard.append)
    saw(board, State.OPEN, 20)
    board.refresh(1.0)
    board.refresh(1.0)
    board.synced(2.0)
    board.refresh(2.0)
    assert heard == ["default"]
    stop()
    saw(board, State.CLOSED, 21)
    board.refresh(2.0)
    assert heard == ["default"]


def test_refresh_says_when_to_look_again(board: Board) -> None:
    board.lock("default", "s", LockHolder(instance="x", address="", since_at=0), 5, now=0.0)
    saw(board, State.CLOSED, 20, now=1.0)
    assert board.refresh(1.0) == CONTACT.stale_after_s
    assert board.cells["default"].decision.changes_at == CONTACT.stale_after_s


def test_a_lock_without_a_holder_is_timed_from_when_it_was_lost(board: Board) -> None:
    holder = LockHolder(instance="x", address="", since_at=0)
    cell = board.cells["default"]
    times = [cell.unheld_since]
    for session, as_of, now in [
        ("s", 5, 3.0),
        (None, 6, 7.0),
        (None, 8, 9.0),
        ("s", 7, 9.0),  # an older read
    ]:
        board.lock("default", session, holder if session else None, as_of, now=now)
        times.append(cell.unheld_since)
    assert times == [0.0, None, 7.0, 7.0, 7.0]
    assert cell.session is None


def test_the_history_raises_what_is_known_and_never_lowers_it(board: Board) -> None:
    saw(board, State.OPEN, 20)
    board.at_least("default", 40, 6, 19)
    board.at_least("default", 3, 1)
    seen = board.cells["default"].seen
    assert seen is not None
    assert (seen.high_seq, seen.high_epoch, seen.floor_index) == (40, 6, 19)
    board.at_least("orders", 1, 1)
    assert board.cells["orders"].seen is None


def test_a_reload_keeps_state_and_counters_of_what_stays(board: Board) -> None:
    saw(board, State.OPEN, 20)
    cell = board.cells["default"]
    cell.admitted = 7
    board.synced(5.0)
    shadow = replace(POLICY, shadow=True)
    contact = replace(CONTACT, synced=None, on_loss=OnLoss.DENY)
    board.reconfigure([shadow, Policy(name="new")], "new", contact, now=6.0)
    assert set(board.cells) == {"default", "new"}
    assert board.cells["default"] is cell
    assert (cell.admitted, cell.policy, cell.decision.state) == (7, shadow, State.CLOSED)
    assert board.find(None) is board.cells["new"]
    assert (board.contact.synced, board.contact.on_loss) == (5.0, OnLoss.DENY)


def test_a_record_of_another_configuration_is_a_mismatch(board: Board) -> None:
    saw(board, State.OPEN, 20)
    assert not board.cells["default"].mismatched
    assert board.cells["default"].seq == 0


GATED = replace(POLICY, signals=SignalSettings(delivery=Delivery(local=Local(minimum=10))))


def in_force(board: Board) -> State:
    """As of the last refresh."""
    return board.cells["default"].decision.state


def test_our_own_producers_shut_and_open_our_own_gate() -> None:
    board = Board("i-1", [GATED], "default", replace(CONTACT, synced=1.0), now=0.0)
    cell, heard = board.cells["default"], list[str]()
    board.lock("default", "s", LockHolder(instance="x", address="", since_at=0), 5, now=0.0)
    saw(board, State.CLOSED, 20)
    board.refresh(1.0)
    board.listen(heard.append)
    bad = Post(instance="p", count_fail=10, role="producer")
    assert board.delivered(cell, bad, now=1.0)
    assert board.refresh(1.0) == 6.0
    assert in_force(board) is State.OPEN
    assert board.refresh(6.0) == CONTACT.stale_after_s + 1.0  # the store's, before the gate's 16.0
    assert in_force(board) is State.HALF_OPEN
    board.synced(15.0)
    board.refresh(16.0)
    assert in_force(board) is State.CLOSED
    assert heard == ["default"] * 3


def test_a_reload_without_it_opens_our_own_gate_and_another_keeps_it() -> None:
    board = Board("i-1", [GATED], "default", CONTACT, now=0.0)
    cell = board.cells["default"]
    bad = Post(instance="p", count_fail=10, role="producer")
    board.delivered(cell, bad, now=1.0)
    board.reconfigure([GATED], "default", CONTACT, now=1.0)
    assert in_force(board) is State.OPEN
    board.reconfigure([POLICY], "default", CONTACT, now=1.0)
    assert in_force(board) is State.CLOSED
    assert not board.delivered(cell, bad, now=1.0)
