"""A three-server cluster loses its leader, its quorum, an agent: what the daemons make of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.support import Background
from tests.cluster import Cluster, Node
from tests.daemon import Daemon
from tests.integration.fleet import Fleet, events, stays, view
from tests.integration.takeover import reign, until_tripped
from tests.servers import poll_until_sync

pytestmark = [pytest.mark.consul, pytest.mark.slow]

MAX_STALE_S = 6.0
RECOVERY_S = 60.0
"""No claim but an end to waiting; the figures are logged."""

PATIENT = {"evaluation_interval": "5s", "open_duration": "60s", "max_open_duration": "60s"}
"""An evaluator gives up what it can't read for three of the usual intervals, not of a test's."""

SESSION_OUTLIVES_S = 4.0
"""Without a leader: a renewal is due after a third of 10 s, so this is left in any case."""
GIVEN_BACK_S = 15.0
"""A new leader lets each session live for 20 s anew; what evaluators left is given back sooner."""

FIGURES = logging.getLogger("figures")
"""What was measured: `pytest --log-cli-level=info` shows it."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def agents(cluster: Cluster) -> list[Node]:
    return [cluster.agent("a"), cluster.agent("b")]


class Watched(Background):
    """Asks daemons for their decision all the time. A context manager.

    Attributes:
        answers: every status seen, by daemon.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._daemons = list(fleet.daemons)
        self.answers: list[set[object]] = [set() for _ in self._daemons]

    def _turn(self) -> None:
        for seen, daemon in zip(self.answers, self._daemons, strict=True):
            try:
                seen.add(daemon.allowed(peek=True).status)
            except OSError as fault:
                seen.add(repr(fault))
        self._ended.wait(0.05)


def section(node: Node, prefix: str, **more: object) -> dict[str, object]:
    return {
        "address": node.address,
        "state_prefix": prefix,
        "max_stale": f"{MAX_STALE_S:g}s",
        **more,
    }


def spread(fleet: Fleet, agents: list[Node], **more: object) -> list[Daemon]:
    """A daemon at each agent; the first of them evaluates."""
    started = []
    for agent in agents:
        started += fleet.start(1, consul=section(agent, fleet.prefix, **more))
        fleet.wait_for("CLOSED", 15)
        reign(fleet)
    return started


def stale(daemon: Daemon) -> bool:
    return daemon.allowed(peek=True).headers["x-breaker-stale"] == "true"


def since(began: float, done: Callable[[], object], what: str) -> float:
    """Seconds until `done`, counted from `began`."""
    poll_until_sync(done, RECOVERY_S, what)
    return time.monotonic() - began


def test_the_leader_is_killed(cluster: Cluster, agents: list[Node], prefix: str) -> None:
    """Nobody's decision changes by it; the next trip comes with the next leader, once."""
    with Fleet(agents[0], prefix, **PATIENT) as fleet:
        spread(fleet, agents)
        before = fleet.record()
        old = reign(fleet)
        leader = cluster.leader()
        with Watched(fleet) as watched:
            began = time.monotonic()
            leader.kill()
            able_s = since(began, agents[0].works, "there is another leader")
        assert watched.answers == [{200}, {200}]
        assert cluster.leader() is not leader
        until_tripped(fleet, RECOVERY_S)
        opened_s = time.monotonic() - began
        fleet.all_answer(503, 15)
        FIGURES.info("leader killed: writes after %.2f s, a trip after %.2f s", able_s, opened_s)
        record = fleet.record()
        assert fleet.edges() == [("CLOSED", "OPEN")]
        assert record["seq"] == before["seq"] + 1
        if able_s < SESSION_OUTLIVES_S:
            assert reign(fleet).session == old.session, "the evaluator stayed"
        leader.start()
        poll_until_sync(cluster.whole, RECOVERY_S, "the cluster is whole again")


def test_the_quorum_is_lost_and_comes_back(
    cluster: Cluster, agents: list[Node], prefix: str
) -> None:
    """Closed stays closed; open stays so for its time, then admits a little; both say stale."""
    with (
        Fleet(agents[0], f"{prefix}-closed") as closed,
        Fleet(agents[0], f"{prefix}-open", open_duration="20s", max_open_duration="20s") as opened,
    ):
        for fleet in (closed, opened):
            spread(fleet, agents)
        until_tripped(opened, 30)
        record = opened.record()
        opened.all_answer(503, 15)
        both = [*closed.daemons, *opened.daemons]
        leader = cluster.leader()
        other = next(server for server in cluster.servers if server is not leader)
        with Watched(closed) as seen_closed:
            with Watched(opened) as seen_opened:
                began = time.monotonic()
                leader.kill()
                other.kill()
                stale_s = since(began, lambda: all(map(stale, both)), "all say that it is stale")
            assert seen_opened.answers == [{503}, {503}]
            poll_until_sync(
                lambda: all(view(d)["admit_ratio"] > 0 for d in opened.daemons),
                20 + MAX_STALE_S + RECOVERY_S,
                "nobody is locked out for ever",
            )
            shares = {view(daemon)["admit_ratio"] for daemon in opened.daemons}
        assert shares == {0.05}
        assert seen_closed.answers == [{200}, {200}]
        assert not agents[0].works()

        began = time.monotonic()
        leader.start()
        other.start()
        able_s = since(began, agents[0].works, "there is a quorum")
        fresh_s = since(began, lambda: not any(map(stale, both)), "nobody is stale")
        half = opened.wait_for("HALF_OPEN", RECOVERY_S)
        led_s = time.monotonic() - began
        FIGURES.info(
            "quorum lost: stale after %.2f s; back: writes after %.2f s, "
            "nobody stale after %.2f s, evaluated after %.2f s",
            *(stale_s, able_s, fresh_s, led_s),
        )
        assert fresh_s < GIVEN_BACK_S
        assert half["seq"] == record["seq"] + 1
        assert opened.edges() == [("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN")]
        assert closed.edges() == []
        opened.heal(60)
        assert opened.edges()[2:] == [("HALF_OPEN", "CLOSED")]
        until_tripped(closed, RECOVERY_S)
        poll_until_sync(cluster.whole, RECOVERY_S, "the cluster is whole again")


@pytest.mark.parametrize("fast", [None, "2s"])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_agent_is_restarted(
    cluster: Cluster, agents: list[Node], prefix: str, how: str, fast: str | None
) -> None:
    """The evaluator's own: whoever evaluates afterwards, a trip is one transition."""
    more = {} if fast is None else {"fast_takeover": fast}
    with Fleet(cluster.servers[0], prefix, **PATIENT) as fleet:
        spread(fleet, agents, **more)
        old = reign(fleet)
        agent = agents[fleet.daemons.index(old.daemon)]
        before = fleet.record()
        with Watched(fleet) as watched:
            began = time.monotonic()
            getattr(agent, how)()
            agent.start()
            since(began, agent.works, "the agent works again")
            until_tripped(fleet, RECOVERY_S)
            led_s = time.monotonic() - began
            now = reign(fleet)
        fleet.all_answer(503, 30)
        FIGURES.info(
            "agent %s, fast_takeover %s: a trip after %.2f s, by %s",
            *(how, fast, led_s, "the same" if old.session == now.session else "another term"),
        )
        assert all(seen <= {200, 503} for seen in watched.answers)
        assert fleet.edges() == [("CLOSED", "OPEN")]
        assert fleet.record()["seq"] == before["seq"] + 1
        poll_until_sync(lambda: not any(map(stale, fleet.daemons)), RECOVERY_S, "nobody is stale")
        stays(lambda: len(fleet.edges()) == 1, 1.0, "nothing else happens")
        assert not any(events(daemon, "task_failed") for daemon in fleet.daemons)
