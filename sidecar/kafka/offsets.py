"""One round over many flows: where each group stands and where each partition ends.

At most four requests a broker and round, whatever the number of flows: the offsets of all groups
that it coordinates, which of them have no members or are rebalancing, the ends of all partitions
that it leads, and the beginnings of those that lag. Who leads and who coordinates is asked when
it isn't known, and every `TOPOLOGY_S`.

Offsets are asked for before ends, so that no group is ever ahead of its partition by that alone.
What one broker doesn't answer is missing from the flows that it has a part in, and from no other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from sidecar.core.backlog import Reading
from sidecar.core.errors import KafkaUnavailable
from sidecar.core.lag import ABSENT, NO_ANSWER
from sidecar.kafka.cluster import Cluster
from sidecar.kafka.protocol import FindCoordinators, ListGroups, OffsetFetch

TOPOLOGY_S = 30.0
"""How long leaders, partitions and coordinators are taken to be as they were."""
_LATEST, _EARLIEST = -1, -2
_REBALANCING = frozenset({"PreparingRebalance", "CompletingRebalance", "Assigning"})
_DESERTED = frozenset({"Empty", "Dead"})
_NOT_COORDINATOR = frozenset({14, 15, 16})  # loading, none available, another one
_STALE = frozenset({3, 5, 6})  # no such topic or partition, no leader, another leader


class Flow(NamedTuple):
    """One topic and the group that reads it."""

    topic: str
    group: str
    floor: int
    """Lag up to here needs no further look."""


@dataclass(slots=True)
class _Topic:
    leaders: list[int] = field(default_factory=list)
    """By partition; -1 where there is none."""
    fault: str | None = None


@dataclass(slots=True)
class _Group:
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    state: str = ""
    """Empty: it has members and is at rest, as most are."""
    fault: str | None = None


class Offsets:
    """Asks a cluster. One round at a time.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._now = now
        self._topics: dict[str, _Topic] = {}
        self._coordinators: dict[str, int] = {}
        self._looked = float("-inf")
        self._refused: dict[str, str] = {}
        """Groups without a coordinator, and why."""
        self._silent: dict[int, Exception] = {}
        """Brokers that have not answered in this round, and why."""
        self._avoided: set[int] = set()
        """Those that didn't in the round before: others are asked first."""
        self._answered = False

    async def round(self, flows: Iterable[Flow]) -> dict[Flow, Reading]:
        """What each flow's group has committed and where its topic ends.

        Raises:
            KafkaError, OSError, TimeoutError: no broker answered.
            KafkaUnavailable: none of them is new enough.
        """
        began = self._now()
        wanted = list(flows)
        self._avoided, self._silent, self._answered = set(self._silent), {}, False
        await self._find({flow.topic for flow in wanted}, {flow.group for flow in wanted})
        groups = await self._committed(wanted)
        ends = await self._ends(_LATEST, self._partitions({flow.topic for flow in wanted}))
        lagging = self._lagging(wanted, groups, ends)
        begins = await self._ends(_EARLIEST, lagging) if lagging else {}
        if not self._answered:
            raise next(iter(self._silent.values()), KafkaError("no broker is known"))
        if self._silent:
            self._looked = float("-inf")
        return {flow: self._reading(flow, began, groups, ends, begins) for flow in wanted}

    # --- who is asked ----------------------------------------------------------------------

    async def _find(self, topics: set[str], groups: set[str]) -> None:
        """Learn who leads and who coordinates, where that isn't known or is old."""
        old = self._now() - self._looked >= TOPOLOGY_S
        if old or topics - self._topics.keys():
            # Never let a question make a topic anew that somebody has deleted.
            answer = await self._anybody("metadata", MetadataRequest(sorted(topics), False))
            if answer is not None:
                self._cluster.learn(answer)
                self._topics = dict(_topics(answer))
                self._looked = self._now()
        unknown = groups if old else groups - self._coordinators.keys()
        if unknown:
            answer = await self._anybody("coordinators", FindCoordinators(sorted(unknown)))
            for group, node, _, _, error, *_ in answer.coordinators if answer is not None else ():
                if error:
                    self._coordinators.pop(group, None)
                    self._refused[group] = _named(error)
                else:
                    self._coordinators[group] = node

    async def _anybody(self, op: str, request: Any) -> Any:
        """The answer of whichever broker gives one; None where none does."""
        for node in sorted(self._cluster.nodes, key=lambda node: node in self._avoided):
            answer = await self._ask(op, node, request)
            if answer is not None:
                return answer
        return None

    async def _ask(self, op: str, node: int, request: Any) -> Any:
        """A broker's answer; None where it gives none, or gave none before in this round."""
        if node in self._silent:
            return None
        try:
            answer = await self._cluster.ask(op, node, request)
        except (KafkaError, KafkaUnavailable, OSError, TimeoutError) as fault:
            self._silent[node] = fault
            return None
        self._answered = True
        return answer

    # --- groups ----------------------------------------------------------------------------

    async def _committed(self, flows: Sequence[Flow]) -> dict[str, _Group]:
        """What each group has committed, and how it is."""
        groups = {flow.group: _Group() for flow in flows}
        by_node: dict[int, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
        for topic, group, _ in flows:
            node = self._coordinators.get(group)
            known = self._topics.get(topic)
            if node is None:
                why = self._refused.get(group) or self._silence()
                groups[group].fault = f"no broker coordinates the group {group}: {why}"
            elif known is not None and known.fault is None:
                by_node[node][group][topic] = len(known.leaders)
        await _all(self._of_coordinator(node, asked, groups) for node, asked in by_node.items())
        return groups

    async def _of_coordinator(
        self, node: int, asked: Mapping[str, Mapping[str, int]], groups: Mapping[str, _Group]
    ) -> None:
        states = sorted(_REBALANCING | _DESERTED)
        offsets, listed = await asyncio.gather(
            self._ask("offsets", node, OffsetFetch(asked)),
            self._ask("groups", node, ListGroups(states)),
        )
        if offsets is None or listed is None or listed.error_code:
            why = self._silence(node) if offsets is None or listed is None else ""
            why = why or _named(listed.error_code)
            for group in asked:
                groups[group].fault = f"broker {node}, the coordinator of {group}: {why}"
                self._coordinators.pop(group, None)
            return
        for group, topics, error, _ in offsets.groups:
            if group in asked:
                self._take(groups[group], group, topics, error)
            else:
                self._cluster.junk()
        for group, _, state, _ in listed.groups:
            if group in asked:
                groups[group].state = state

    def _take(self, known: _Group, group: str, topics: Sequence[Any], error: int) -> None:
        """Note one group's part of an answer."""
        if error:
            known.fault = f"the group {group}: {_named(error)}"
            if error in _NOT_COORDINATOR:
                self._coordinators.pop(group, None)
            return
        for topic, partitions, _ in topics:
            for partition, offset, _, _, fault, _ in partitions:
                usable = not fault and offset >= ABSENT
                known.committed[topic, partition] = offset if usable else NO_ANSWER
                if not fault and not usable:
                    self._cluster.junk()

    # --- topics ----------------------------------------------------------------------------

    def _partitions(self, topics: Iterable[str]) -> list[tuple[str, int]]:
        return [
            (topic, partition)
            for topic in sorted(topics)
            if topic in self._topics
            for partition in range(len(self._topics[topic].leaders))
        ]

    async def _ends(
        self, which: int, partitions: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], int]:
        """The next offset of each partition, or the oldest that still exists; by its leader."""
        by_node: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for topic, partition in partitions:
            leader = self._topics[topic].leaders[partition]
            if leader >= 0:
                by_node[leader][topic].append((partition, which))
            else:
                self._looked = float("-inf")
        found: dict[tuple[str, int], int] = {}
        await _all(self._of_leader(node, which, asked, found) for node, asked in by_node.items())
        return found

    async def _of_leader(
        self,
        node: int,
        which: int,
        asked: Mapping[str, list[tuple[int, int]]],
        found: dict[tuple[str, int], int],
    ) -> None:
        op = "ends" if which == _LATEST else "begins"
        answer = await self._ask(op, node, OffsetRequest(-1, 0, list(asked.items())))
        for topic, partitions in answer.topics if answer is not None else ():
            for partition, error, _, offset in partitions:
                if not error and offset >= 0:
                    found[topic, partition] = offset
                elif error in _STALE:
                    self._looked = float("-inf")
                elif not error:
                    self._cluster.junk()

    def _lagging(
        self,
        flows: Iterable[Flow],
        groups: Mapping[str, _Group],
        ends: Mapping[tuple[str, int], int],
    ) -> set[tuple[str, int]]:
        """Partitions behind by more than noise: retention may have made their lag smaller."""
        return {
            place
            for flow in flows
            for place, offset in groups[flow.group].committed.items()
            if place[0] == flow.topic and 0 <= offset < ends.get(place, 0) - flow.floor
        }

    # --- what came of it -------------------------------------------------------------------

    def _reading(
        self,
        flow: Flow,
        began: float,
        groups: Mapping[str, _Group],
        ends: Mapping[tuple[str, int], int],
        begins: Mapping[tuple[str, int], int],
    ) -> Reading:
        topic, group = self._topics.get(flow.topic), groups[flow.group]
        if topic is None:
            return Reading(at=began, fault=f"nobody says who leads {flow.topic}: {self._silence()}")
        fault_found = topic.fault or group.fault
        if fault_found is not None:
            return Reading(at=began, fault=fault_found)
        places = [(flow.topic, partition) for partition in range(len(topic.leaders))]
        return Reading(
            at=began,
            committed=[group.committed.get(place, NO_ANSWER) for place in places],
            ends=[ends.get(place, NO_ANSWER) for place in places],
            begins={place[1]: begins[place] for place in places if place in begins},
            members=group.state not in _DESERTED,
            rebalancing=group.state in _REBALANCING,
        )

    def _silence(self, node: int | None = None) -> str:
        """Why there is no answer, of one broker or of any."""
        fault = self._silent.get(node) if node is not None else None
        fault = fault or next(iter(self._silent.values()), None)
        if isinstance(fault, TimeoutError):
            return "no answer in time"
        said = str(fault or "") or type(fault).__name__.removesuffix("Error")
        return said if fault is not None else "no broker is known"


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as together:
        for work in works:
            together.create_task(work)


def _topics(metadata: Any) -> Iterable[tuple[str, _Topic]]:
    """Each topic of an answer about the cluster."""
    for each in metadata.to_object()["topics"]:
        name, error = each["topic"], each["error_code"]
        leaders = {p["partition"]: p["leader"] for p in each["partitions"]}
        if error == 3:
            yield name, _Topic(fault=f"the topic {name} does not exist")
        elif error or sorted(leaders) != list(range(len(leaders))):
            yield name, _Topic(fault=f"the topic {name}: {_named(error)}")
        else:
            yield name, _Topic([leaders[p] for p in range(len(leaders))])


def _named(code: int) -> str:
    return for_code(code).__name__.removesuffix("Error") if code else "an answer that is none"
