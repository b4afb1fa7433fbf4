"""Several breakers: each is evaluated by a sidecar that knows it, whoever started first."""

from __future__ import annotations

import contextlib

import pytest

from tests.acceptance.support import Consumers, Place, fleet, timing
from tests.daemon import Daemon
from tests.servers import poll_until_sync

pytestmark = pytest.mark.consul

QUICK = timing(open_duration="500ms", half_open={"initial": 0.1, "ramp": "500ms", "max": "10s"})
KNOWS: dict[str, tuple[str, ...]] = {"A": ("a",), "B": ("b",), "C": ("a", "b")}


@pytest.mark.parametrize("order", ["ABC", "CBA", "BCA"])
def test_each_breaker_trips_and_heals_whoever_started_first(place: Place, order: str) -> None:
    """A knows `a`, B knows `b`, C both; `a` opens while `b` goes on, then the other way round."""
    with contextlib.ExitStack() as stack:
        daemons = {
            who: stack.enter_context(Daemon(place.config(dict.fromkeys(KNOWS[who], QUICK))))
            for who in order
        }
        for breaker, other in (("a", "b"), ("b", "a")):
            knowing = [daemons[who] for who in "ABC" if breaker in KNOWS[who]]
            others = [daemons[who] for who in "ABC" if other in KNOWS[who]]
            _all(knowing, breaker, "CLOSED")
            place.report("c-1", fail=25, breaker=breaker)
            _all(knowing, breaker, "OPEN")
            assert {d.allowed(other).status for d in others} == {200}
            with Consumers(place, 1, every_s=0.1, breaker=breaker):
                _all(knowing, breaker, "CLOSED")
            assert {d.allowed(breaker).status for d in knowing} == {200}
            edges = [(entry["from"], entry["to"]) for entry in place.history(breaker)]
            assert edges == [
                ("CLOSED", "OPEN"),
                ("OPEN", "HALF_OPEN"),
                ("HALF_OPEN", "CLOSED"),
            ]


def _all(daemons: list[Daemon], breaker: str, state: str) -> None:
    poll_until_sync(
        lambda: {d.allowed(breaker, peek=True).body["state"] for d in daemons} == {state},
        10,
        f"{breaker} is {state} everywhere",
    )


def test_names_and_the_default(place: Place) -> None:
    """One breaker is the default; of two, none is; the literal name always is, with short keys."""
    with (
        fleet(place.config({"a": QUICK}), size=1) as (one,),
        fleet(place.config({"a": QUICK, "b": QUICK}), size=1) as (two,),
        fleet(place.config({"default": QUICK, "a": QUICK}), size=1) as (named,),
    ):
        assert one.allowed().body["breaker"] == "a"
        assert one.allowed("default").body["breaker"] == "a"
        unknown = one.allowed("b")
        assert unknown.status == 404
        assert unknown.headers["content-type"] == "application/problem+json"
        assert unknown.body["breakers"] == ["a"]
        assert "a" in unknown.body["detail"]

        for none in (two.allowed(), two.allowed("default"), two.post("/v1/report", {})):
            assert none.status == 404
            assert none.body["breakers"] == ["a", "b"]
        assert two.allowed("b").body["breaker"] == "b"
        listed = two.get("/v1/breakers").body["breakers"]
        assert [breaker["name"] for breaker in listed] == ["a", "b"]

        assert named.allowed().body["breaker"] == "default"
        poll_until_sync(
            lambda: (
                {"leader", "state", "a/leader", "a/state", "b/leader", "b/state"}
                <= {
                    key.removeprefix(f"{place.state_prefix}/")
                    for key in place.consul.kv_keys(f"{place.state_prefix}/")
                }
            ),
            5,
            "only the literal default has the short keys",
        )


def test_a_breaker_nobody_knows_any_more_is_left_alone(place: Place) -> None:
    """The last sidecar that knew it stops: its state stays, its lock is free, others go on."""
    with (
        fleet(place.config({"a": QUICK}), size=1) as (one,),
        fleet(place.config({"b": QUICK}), size=1) as (other,),
    ):
        poll_until_sync(lambda: place.state("a") == place.state("b") == "CLOSED", 10, "records")
        before = place.record("a")
        assert one.stop() == 0
        lock = place.consul.kv_entry(place.key("leader", "a"))
        assert lock is not None
        assert "Session" not in lock
        assert place.record("a") == before
        assert other.allowed("b").status == 200
