"""What goes wrong with events is told, and a flood of it in a few lines."""

from __future__ import annotations

import logging

import pytest
from aiokafka.errors import KafkaConnectionError

from sidecar.consumer.told import EVERY_S, Told, words


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_told_at_once_and_the_rest_by_its_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    told = Told(clock)
    for n in range(5):
        told.note("to o.dlq", f"o[0]@{n}")
    told.note("to p.dlq", "p[0]@7")
    clock.now += EVERY_S
    told.tell()
    told.tell()
    told.note("to o.dlq", "o[0]@5")
    told.note("to o.dlq", "o[0]@6\nand a second line")
    told.tell()
    told.tell(at_once=True)
    told.tell(at_once=True)
    assert [record.getMessage() for record in caplog.records] == [
        "to o.dlq: o[0]@0",
        "to p.dlq: p[0]@7",
        "to o.dlq: 4 more, the last: o[0]@4",
        "to o.dlq: 2 more, the last: o[0]@6 and a second line",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_an_error_in_one_line() -> None:
    assert [words(ValueError("no")), words(TimeoutError())] == ["ValueError: no", "TimeoutError"]
    assert words(KafkaConnectionError("gone")) == "KafkaConnectionError: gone"
    away = KafkaConnectionError("Unable to bootstrap from [('127.0.0.1', 1, 2)]")
    assert words(away) == "KafkaConnectionError: none of the bootstrap servers can be reached"
