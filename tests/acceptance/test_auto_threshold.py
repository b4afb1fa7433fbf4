"""`failure_threshold: auto` on a real Consul: learned, explained, known to the next evaluator."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.acceptance.support import Consumers, Place, timing
from tests.daemon import Daemon
from tests.servers import poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.slow]  # what is normal takes its time to be learned

LEARNS = timing(
    evaluation_interval="200ms",
    report_interval="500ms",
    failure_threshold="auto",
    auto_threshold={"initial": 60, "floor": 5, "history": "1m"},
)


def evidence(daemon: Daemon) -> dict[str, Any]:
    """What the signal `failures` rests on; empty where this one doesn't evaluate."""
    signals = daemon.get("/v1/breakers/default").body["signals"]
    found: dict[str, Any] = signals[0]["evidence"] if signals else {}
    return found


def test_what_was_learned_outlives_its_evaluator(place: Place) -> None:
    config = place.config({"default": LEARNS}, consul={"fast_takeover": "2s"})
    key = f"{place.state_prefix}-normal/default"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Daemon(config))
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        second = stack.enter_context(Daemon(config))
        consumers = stack.enter_context(Consumers(place))
        consumers.fail = 1
        poll_until_sync(lambda: evidence(first).get("normal") is not None, 60, "it is learned")
        learned = evidence(first)
        assert learned["normal_samples"] >= 24
        assert learned["floor"] <= learned["threshold"] < 60
        assert learned["normal"] == pytest.approx(3, abs=0.5)
        poll_until_sync(lambda: place.consul.kv_get(key), 30, "it is kept")

        first.kill()
        poll_until_sync(lambda: evidence(second), 30, "another evaluates")
        taken_over = evidence(second)
        assert taken_over["normal_samples"] >= 24
        assert taken_over["normal"] == pytest.approx(3, abs=0.5)
        consumers.fail = 12
        poll_until_sync(lambda: place.state() == "OPEN", 10, "36 failures, below the initial 60")
        (opened,) = place.history()
        assert opened["reason"] == "failures"
        # What failed is counted among the messages, of which two in a hundred are expected to.
        assert opened["evidence"]["normal"] == pytest.approx(186 * 3 / 153, abs=0.5)
        assert "normal are 3." in opened["detail"]
