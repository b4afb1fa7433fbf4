"""The pure part of `/allowed`: what is picked, what is spent, what is counted, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.core.board import Board, Cell
from sidecar.core.decision import OnLoss
from sidecar.core.types import Policy, State
from sidecar.http.allowed import Answer, Answers
from tests.unit.http.support import Clock, enter, make_board, make_record


def pick(
    answers: Answers, cell: Cell, clock: Clock, *, deny: int | None = None, peek: bool = False
) -> Answer:
    return answers.pick(cell, clock.now, deny_status=deny, peek=peek)


def test_closed_admits_with_the_contracts_headers_and_body(board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.CLOSED, 42))
    answer = pick(Answers(), cell, clock)
    assert answer.status == 200
    assert dict(answer.headers) == {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Breaker": "default",
        "X-Breaker-State": "CLOSED",
        "X-Breaker-Reason": "failures",
        "X-Breaker-Seq": "42",
        "X-Breaker-Stale": "false",
    }
    assert answer.body == (
        b'{"allowed":true,"breaker":"default","state":"CLOSED","reason":"failures",'
        b'"detail":"25 failures in the last interval, threshold 20","seq":42,'
        b'"admit_ratio":1.0,"stale":false,"override":null}'
    )


def test_open_rejects_and_says_when_to_come_back(board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.OPEN, 43))
    answer = pick(Answers(), cell, clock)
    body = json.loads(answer.body)
    # 30 s are left, and this instance's fixed share of a tenth of them.
    assert answer.status == 503
    assert 30 <= body["retry_after"] <= 33
    assert dict(answer.headers)["Retry-After"] == str(body["retry_after"])
    assert body["allowed"] is False
    assert str(body["retry_after"]) in body["error"]
    assert "failures" not in body["error"]


def test_retry_after_counts_down_with_the_clock(board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.OPEN, 43))
    answers = Answers()
    seen = []
    for _ in range(40):
        answer = pick(answers, cell, clock)
        seen.append(int(dict(answer.headers)["Retry-After"]))
        assert json.loads(answer.body)["retry_after"] == seen[-1]
        clock.now += 1.0
    first = seen[0]
    extra = first - 30  # the share goes on after the open time, in full seconds
    assert seen[:30] == list(range(first, first - 30, -1))
    assert set(seen[31:]) == {max(1, extra)}


def test_a_render_is_kept_until_decision_or_second_changes(board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.OPEN, 43))
    answers = Answers()
    first = pick(answers, cell, clock)
    clock.now += 1e-6
    assert pick(answers, cell, clock) is first
    assert pick(answers, cell, clock, deny=403) is not first
    assert pick(answers, cell, clock, deny=403) is pick(answers, cell, clock, deny=403)
    clock.now += 1.0
    assert pick(answers, cell, clock) is not first
    cell.decision = replace(cell.decision)  # equal, and another object
    before = pick(answers, cell, clock)
    cell.decision = replace(cell.decision)
    after = pick(answers, cell, clock)
    assert before is not after
    assert before == after


def test_an_admission_is_the_same_object_for_ever(board: Board, clock: Clock) -> None:
    cell = enter(board, clock, "default", make_record(State.CLOSED, 42))
    answers = Answers()
    first = pick(answers, cell, clock)
    clock.now += 1000
    assert pick(answers, cell, clock) is first


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_the_setting_chooses_the_status_and_the_caller_overrules_it(
    clock: Clock, status: int
) -> None:
    board = make_board(clock, Policy(name="default", deny_status=status))
    cell = enter(board, clock, "default", make_record(State.OPEN, 1))
    answers = Answers()
    assert pick(answers, cell, clock).status == status
    assert pick(answers, cell, clock, deny=401).status == 401


@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.5, 0.999, 0.000001])
def test_half_open_admits_exactly_its_share(clock: Clock, board: Board, ratio: float) -> None:
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 2, ratio=ratio))
    answers = Answers()
    admitted = sum(pick(answers, cell, clock).status == 200 for _ in range(1000))
    assert abs(admitted - 1000 * ratio) <= 1
    assert (cell.admitted, cell.rejected) == (admitted, 1000 - admitted)


def test_a_peek_tells_the_next_call_and_takes_nothing(clock: Clock, board: Board) -> None:
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 2, ratio=0.3))
    answers = Answers()
    for _ in range(50):
        peeked = {pick(answers, cell, clock, peek=True).status for _ in range(5)}
        counted = (cell.admitted, cell.rejected)
        assert peeked == {pick(answers, cell, clock).status}
        assert cell.admitted + cell.rejected == sum(counted) + 1


def test_half_open_retries_at_the_next_step(clock: Clock, board: Board) -> None:
    cell = enter(board, clock, "default", make_record(State.HALF_OPEN, 2, ratio=0.0))
    answer = pick(Answers(), cell, clock)
    assert dict(answer.headers)["Retry-After"] == "4"  # 30 s in eight steps, rounded up


def test_shadow_admits_all_and_counts_what_would_have_been(clock: Clock) -> None:
    board = make_board(clock, Policy(name="default", shadow=True))
    half = make_record(
        State.HALF_OPEN, 2, current_state=State.CLOSED, admit_ratio=1.0, automaton_ratio=0.25
    )
    cell = enter(board, clock, "default", half)
    answers = Answers()
    for _ in range(400):
        assert pick(answers, cell, clock).status == 200
        pick(answers, cell, clock, peek=True)
    assert cell.admitted == 400
    assert cell.rejected == 0
    assert abs(cell.shadow_rejected - 300) <= 1
    full = make_record(State.OPEN, 3, current_state=State.CLOSED, admit_ratio=1.0)
    before = cell.shadow_rejected
    enter(board, clock, "default", full)
    pick(answers, cell, clock)
    assert cell.shadow_rejected == before + 1


@pytest.mark.parametrize(("on_loss", "status"), [("keep", 200), ("allow", 200), ("deny", 503)])
def test_without_any_state_the_loss_policy_answers(clock: Clock, on_loss: str, status: int) -> None:
    board = make_board(clock, on_loss=OnLoss(on_loss))
    answer = pick(Answers(), board.cells["default"], clock)
    headers = dict(answer.headers)
    assert answer.status == status
    assert headers["X-Breaker-Reason"] == "no_state"
    assert headers["X-Breaker-Stale"] == "true"
    assert headers.get("Retry-After") == (None if status == 200 else "1")


def test_nothing_unsafe_gets_into_a_header(board: Board, clock: Clock) -> None:
    record = make_record(
        State.OPEN, 9, reason="x\r\nSet-Cookie: a=b\u2028", detail="d\r\nX-Evil: 1 \u00e9"
    )
    answer = pick(Answers(), enter(board, clock, "default", record), clock)
    for name, value in answer.headers:
        assert value.isascii(), name
        assert value.isprintable(), name
    assert dict(answer.headers)["X-Breaker-Reason"] == "x__Set-Cookie__a_b_"
    assert json.loads(answer.body)["detail"] == "d\r\nX-Evil: 1 \u00e9"


def test_a_breaker_that_comes_back_by_reload_is_rendered_anew(board: Board, clock: Clock) -> None:
    answers = Answers()
    enter(board, clock, "default", make_record(State.OPEN, 5))
    assert pick(answers, board.cells["default"], clock).status == 503
    policy = board.cells["default"].policy
    board.reconfigure([], None, board.contact, now=clock.now)
    board.reconfigure([policy], "default", board.contact, now=clock.now)
    assert pick(answers, board.cells["default"], clock).status == 200
