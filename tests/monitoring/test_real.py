"""A real Prometheus scrapes real sidecars on a real Consul, and a breaker trips."""

from __future__ import annotations

import functools
import json
import subprocess
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.acceptance.support import Consumers, Place, body, fleet, measured, timing
from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.monitoring import handing
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.promql import asked
from tests.monitoring.sources import annotation_queries, expressions, panel_queries, rules
from tests.servers import ConsulServer, poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.kafka, pytest.mark.promtool]

DEADLINE_S = 60.0
SILENT = {"panel Restarts A", "panel Canaries lost A"}
"""What has nothing to show, because no sidecar has been restarted and no canary got lost."""
BY_PROMETHEUS = {"up", "ALERTS"}


def _breakers(topic: str) -> dict[str, dict[str, object]]:
    quick = {"initial": 0.1, "ramp": "800ms", "max": "20s"}
    signals = {
        "lag": {},
        "probe": {"interval": "1s", "topic": f"{topic}-probe"},
        "delivery": {"quorum": 2, "local": {}},
    }
    return {
        "orders": timing(half_open=quick, topic=topic, group=topic, signals=signals),
        "refunds": timing(mode="shadow"),
    }


class Producers(Consumers):
    """One that delivers, so that the signal for it has something to go by."""

    def _turn(self) -> None:
        key = f"{self._place.reports(self._breaker)}/api-1"
        self._place.consul.kv_put(key, json.dumps({**json.loads(body()), "role": "producer"}))
        self._ended.wait(self._every_s)


class Scene:
    """Three sidecars, their consumers, and who watches them."""

    def __init__(self, place: Place, daemons: list[Daemon], prometheus: Prometheus) -> None:
        self.place = place
        self.daemons = daemons
        self.prometheus = prometheus

    def quiet(self) -> bool:
        """All scraped, every rule evaluated without a fault, and no alert even pending."""
        groups = self.prometheus.ask("rules")["groups"]
        health = {rule["health"] for group in groups for rule in group["rules"]}
        return (
            health == {"ok"}
            and len(self.prometheus.now('up{fleet="dc1"} == 1')) == len(self.daemons) + 2
            and len(self.prometheus.now("breaker_evaluations_total{result='unchanged'} > 0")) == 2
            and not self.prometheus.ask("alerts")["alerts"]
        )

    def fired(self, alert: str, breaker: str) -> bool:
        """That alert has been firing at some time."""
        labels = f'alertname="{alert}", alertstate="firing", breaker="{breaker}", fleet="dc1"'
        return bool(self.prometheus.ever(f"ALERTS{{{labels}}}"))

    def ask_and_see(self, alert: str, breaker: str) -> bool:
        """Producers ask everywhere, and the alert has been firing."""
        for daemon in self.daemons:
            daemon.allowed(breaker)
        return self.fired(alert, breaker)

    def over(self, alert: str) -> bool:
        """Nothing of that name is firing or pending, and the breaker is closed everywhere."""
        return not self.prometheus.now(f'ALERTS{{alertname="{alert}"}}') and {
            d.allowed("orders", peek=True).body["state"] for d in self.daemons
        } == {"CLOSED"}


@pytest.fixture(scope="module")
def scene(
    consul: ConsulServer, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The whole story, so that the tests below only look: quiet, tripped, forced, healed."""
    place = Place(consul, f"test-{uuid.uuid4().hex[:12]}")
    folder = tmp_path_factory.mktemp("prometheus")
    topic = kafka.create_topic(place.prefix)
    kafka.commit(topic, topic, {0: 0})
    config = place.config(_breakers(topic), kafka={"bootstrap_servers": [kafka.bootstrap]})
    with (
        fleet(config) as daemons,
        handing.handing(config, kafka, topic, folder) as records,
        Consumers(place, breaker="orders") as orders,
        Consumers(place, breaker="refunds") as refunds,
        Producers(place, breaker="orders"),
        Prometheus(
            folder, {f"n{d.port}": f"{d.host}:{d.port}" for d in (*daemons, *records.daemons)}
        ) as prometheus,
    ):
        scene = Scene(place, daemons, prometheus)
        poll_until_sync(scene.quiet, DEADLINE_S, "a healthy fleet raises no alert")
        records.hand()
        # Each relapse opens it again, so that no slow scrape can miss it.
        began = time.monotonic()
        orders.fail = refunds.fail = 25
        for alert, breaker in (("BreakerOpen", "orders"), ("BreakerShadowRejecting", "refunds")):
            seen = functools.partial(scene.ask_and_see, alert, breaker)
            poll_until_sync(seen, DEADLINE_S, f"{alert} fires")
            measured(f"from the first failure to {alert} firing", [time.monotonic() - began])
        _force(place, "refunds")
        poll_until_sync(
            lambda: scene.fired("BreakerOverride", "refunds"), DEADLINE_S, "BreakerOverride fires"
        )
        orders.fail = refunds.fail = 0
        poll_until_sync(lambda: scene.over("BreakerOpen"), DEADLINE_S, "BreakerOpen is resolved")
        yield scene


def _force(place: Place, breaker: str) -> None:
    """As an operator without a sidecar does it."""
    order = {"mode": "closed", "ttl_s": 600, "reason": "a test", "author": "test"}
    place.consul.kv_put(place.key("override", breaker), dict(order))


def test_a_trip_raises_the_alert_and_its_end_takes_it_back(scene: Scene) -> None:
    """What fired says whose breaker it is, and for how many."""
    (series,) = scene.prometheus.ever('ALERTS{alertname="BreakerOpen", alertstate="firing"}')
    assert series["metric"] == {
        "__name__": "ALERTS",
        "alertname": "BreakerOpen",
        "alertstate": "firing",
        "breaker": "orders",
        "fleet": "dc1",
        "severity": "warning",
    }
    assert scene.place.history("orders")[0]["to"] == "OPEN"


def test_nothing_else_has_fired(scene: Scene) -> None:
    fired = scene.prometheus.ever('ALERTS{alertstate="firing"}')
    assert {series["metric"]["alertname"] for series in fired} <= {
        "BreakerOpen",
        "BreakerShadowRejecting",
        "BreakerOverride",
        "BreakerFlapping",  # while it was kept failing, it opened again and again
        *handing.ALERTS,
    }


def test_every_metric_and_label_is_really_exported(scene: Scene) -> None:
    """As Prometheus has stored them, the scrape's own labels included."""
    exported: dict[str, set[str]] = defaultdict(set)
    for labels in scene.prometheus.ask("series", **{"match[]": '{job="breaker-sidecar"}'}):
        exported[labels.pop("__name__")] |= labels.keys()
    for where, expr in expressions().items():
        needs = asked(expr)
        metrics = needs.metrics - BY_PROMETHEUS - rules("record").keys()
        assert metrics <= exported.keys(), where
        if metrics:
            assert needs.grouped <= set[str]().union(*(exported[m] for m in metrics)) | {"__name__"}
        for metric, label, _, _ in needs.matchers:
            if metric in metrics:
                assert label in exported[metric], where


def test_every_panel_and_mark_has_something_to_show(scene: Scene) -> None:
    """With the variables as Grafana fills them in for All."""

    def empty() -> set[str]:
        shown = {**panel_queries(), **annotation_queries()}
        for name in ("job", "fleet", "breaker"):
            shown = {where: expr.replace(f"${name}", ".*") for where, expr in shown.items()}
        shown = {where: e.replace("$__rate_interval", "30s") for where, e in shown.items()}
        return {where for where, expr in shown.items() if not scene.prometheus.ever(expr)}

    poll_until_sync(lambda: empty() <= SILENT, DEADLINE_S, "every query has had an answer")
    assert empty() == SILENT


def test_every_rule_is_healthy(scene: Scene) -> None:
    groups = scene.prometheus.ask("rules")["groups"]
    faults = {r["name"]: r["lastError"] for g in groups for r in g["rules"] if r.get("lastError")}
    assert faults == {}
    assert {r["name"] for g in groups for r in g["rules"]} == {*rules("alert"), *rules("record")}


def test_promtool_finds_no_fault_with_the_metrics(scene: Scene) -> None:
    """Of evaluators and of the others."""
    for daemon in scene.daemons:
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=daemon.get("/metrics").content,
            capture_output=True,
            check=False,
            timeout=DEADLINE_S,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
