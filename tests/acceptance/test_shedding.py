"""A closed breaker that sheds, on a real Consul: obeyed by all, closed for legacy readers."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.acceptance.support import Consumers, Place, body, events, holds, series, timing
from tests.daemon import Daemon
from tests.servers import poll_until_sync

pytestmark = pytest.mark.consul

# Three consumers handle 300 a second: a backlog of 1200 is a wait of 4 s, in the middle.
SHEDS = timing(shed={"start": "1s", "full": "7s", "least": 0.04})
MIDDLE = 0.2


class Behind(Consumers):
    """Consumers that say how far behind they are."""

    lag = 0

    def _turn(self) -> None:
        for name in self._names:
            report = {**json.loads(body(fail=self.fail)), "lag": self.lag / len(self._names)}
            key = f"{self._place.reports(self._breaker)}/{name}"
            self._place.consul.kv_put(key, json.dumps(report))
        self._ended.wait(self._every_s)


def ratio(daemon: Daemon) -> float:
    return float(daemon.allowed(peek=True).body["admit_ratio"])


def test_all_admit_the_share_and_the_next_evaluator_goes_on(place: Place) -> None:
    config = place.config({"default": SHEDS})
    with contextlib.ExitStack() as stack:
        evaluator = stack.enter_context(Daemon(config))
        poll_until_sync(lambda: place.state() == "CLOSED", 10, "a record")
        began = place.record()["last_changed"]
        follower = stack.enter_context(Daemon(config))
        consumers = stack.enter_context(Behind(place))
        consumers.lag = 1200
        both = (evaluator, follower)
        poll_until_sync(
            lambda: all(ratio(daemon) == pytest.approx(MIDDLE, abs=0.02) for daemon in both),
            30,
            "the share that goes with a wait of four seconds",
        )
        record = place.record()
        assert (record["current_state"], record["automaton"]) == ("CLOSED", "CLOSED")
        assert record["reason"] == "shed"
        assert record["evidence"]["backlog"] == pytest.approx(1200, abs=3)
        assert record["last_changed"] == began
        assert place.history() == []
        holds(lambda: place.record()["seq"] == record["seq"], 4, "at rest, it writes no more")

        answers = [follower.allowed() for _ in range(1000)]
        admitted = sum(answer.status == 200 for answer in answers)
        assert abs(admitted - 1000 * record["admit_ratio"]) <= 1
        rejected = next(answer for answer in answers if answer.status != 200)
        assert rejected.headers["x-breaker-state"] == "CLOSED"
        assert 1 <= int(rejected.headers["retry-after"]) <= 4
        shown = series(follower.get("/metrics"))
        assert shown['breaker_admit_ratio{breaker="default"}'] == record["admit_ratio"]
        assert shown['breaker_state{breaker="default",state="CLOSED"}'] == 1
        assert len(events(evaluator, "ratio_step")) >= 2

        consumers.lag = 0
        assert evaluator.stop() == 0
        assert ratio(follower) >= record["admit_ratio"]
        poll_until_sync(lambda: ratio(follower) == 1.0, 40, "all, by the next evaluator")
        after = place.record()
        assert (after["reason"], after["last_changed"]) == ("recovered", began)
        assert place.history() == []
