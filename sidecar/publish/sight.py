"""What is to be seen of publishing: `GET /v1/spool`, and the gauges."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from sidecar.core.placing import UNPLACED
from sidecar.core.publishing import Described
from sidecar.core.spooling import Backlog
from sidecar.publish.around import Around
from sidecar.publish.topic import Topic
from sidecar.telemetry import names
from sidecar.telemetry.names import Metric

PIECE: Final = 1_000
"""Backlogs that are looked at before others have a turn."""
Sample = tuple[tuple[str, ...], float]


class Sight:
    """Reads; changes nothing."""

    def __init__(self, around: Around, topics: Mapping[str, Topic]) -> None:
        self._around = around
        self._topics = topics

    async def describe(self) -> Described:
        """See the port `Publishing`."""
        now, spool, pace = self._around.now(), self._around.spool, self._around.pace
        by_topic: dict[str, list[Backlog]] = {}
        waiting, size, oldest_at = 0, 0, math.inf
        for number, backlog in enumerate(spool.backlogs() if spool is not None else (), 1):
            by_topic.setdefault(backlog.topic, []).append(backlog)
            waiting, size = waiting + backlog.records, size + backlog.bytes
            if backlog.records and backlog.oldest_at is not None:
                oldest_at = min(oldest_at, backlog.oldest_at)
            if number % PIECE == 0:
                await asyncio.sleep(0)
        named = sorted({*self._topics, *by_topic})
        whole = {
            "usable": spool is not None and spool.fault is None,
            "fault": spool.fault if spool is not None else None,
            "records": waiting,
            "bytes": size,
            "oldest_age_s": _whole(self._since(oldest_at)),
            "orphans": spool.orphans if spool is not None else 0,
            "replay_rate": round(pace.outflow.value(now), 1),
            "inflow_rate": round(pace.inflow.value(now), 1),
            "left_s": _whole(pace.estimate_s(waiting, now)),
            "dead_letters": self._letters(),
        }
        return Described(whole, (self._topic(name, by_topic.get(name, [])) for name in named))

    def _topic(self, name: str, backlogs: list[Backlog]) -> Mapping[str, object]:
        topic, spool, now = self._topics.get(name), self._around.spool, self._around.now()
        broken = topic.circuit.broken_since if topic is not None else None
        return {
            "topic": name,
            "outage": str(topic.policy.outage) if topic is not None else None,
            "direct": broken is None and not any(b.records for b in backlogs),
            "failing_for_s": None if broken is None else round(now - broken, 1),
            "missing_for_s": _whole(topic.absence.for_s(now)) if topic is not None else None,
            "partitions": topic.placement.partitions if topic is not None else None,
            "outstanding": topic.outstanding if topic is not None else 0,
            "paused": spool is not None and spool.paused(name),
            "records": sum(backlog.records for backlog in backlogs),
            "bytes": sum(backlog.bytes for backlog in backlogs),
            "oldest_age_s": _whole(self._age(backlogs)),
            "backlogs": [self._backlog(backlog) for backlog in backlogs if backlog.records],
        }

    def _backlog(self, backlog: Backlog) -> Mapping[str, object]:
        return {
            "partition": None if backlog.partition == UNPLACED else backlog.partition,
            "records": backlog.records,
            "bytes": backlog.bytes,
            "oldest_age_s": _whole(self._age([backlog])),
            "done_sequence": backlog.done_seq,
            "last_sequence": backlog.last_seq,
        }

    def _letters(self) -> Mapping[str, object] | None:
        letters = self._around.letters
        return None if letters is None else {"bytes": letters.bytes, "max_bytes": letters.max_bytes}

    def _age(self, backlogs: Iterable[Backlog]) -> float | None:
        since = [b.oldest_at for b in backlogs if b.records and b.oldest_at is not None]
        return self._since(min(since, default=math.inf))

    def _since(self, at: float) -> float | None:
        return max(0.0, self._around.wall() - at) if at < math.inf else None

    # --- gauges ----------------------------------------------------------------------------

    def families(self) -> Mapping[Metric, Callable[[], Iterable[Sample]]]:
        """The gauges, read when somebody scrapes."""
        made: dict[Metric, Callable[[], Iterable[Sample]]] = {
            names.PUBLISH_OUTSTANDING: lambda: self._each(lambda t: float(t.outstanding), sum),
            names.PUBLISH_DIRECT: lambda: self._each(
                lambda t: float(t.circuit.broken_since is None and not t.waiting), min
            ),
        }
        return made | {
            names.SPOOL_RECORDS: lambda: self._waiting(lambda bs: sum(b.records for b in bs)),
            names.SPOOL_BYTES: lambda: self._waiting(lambda bs: sum(b.bytes for b in bs)),
            names.SPOOL_OLDEST: lambda: self._waiting(lambda bs: self._age(bs) or 0.0),
            names.SPOOL_PAUSED: self._paused,
            names.SPOOL_REPLAY_RATE: lambda: [((), self._rate())],
            names.SPOOL_END: lambda: [((), self._left())],
            names.SPOOL_ORPHANS: lambda: [((), self._orphans())],
            names.SPOOL_WRITABLE: self._writable,
            names.SPOOL_LETTERS: self._letter_bytes,
        }

    def _each(
        self, value: Callable[[Topic], float], of: Callable[[list[float]], float]
    ) -> Iterator[Sample]:
        """One series an entry of the configuration, whatever the number of its topics."""
        by_label: dict[str, list[float]] = {}
        for topic in self._topics.values():
            by_label.setdefault(topic.label, []).append(value(topic))
        for label, values in by_label.items():
            yield (label,), of(values)

    def _waiting(self, value: Callable[[list[Backlog]], float]) -> Iterator[Sample]:
        for topic, backlogs in self._by_topic().items():
            yield (topic,), float(value(backlogs))

    def _by_topic(self) -> dict[str, list[Backlog]]:
        found: dict[str, list[Backlog]] = {}
        for backlog in self._around.spool.backlogs() if self._around.spool is not None else ():
            found.setdefault(backlog.topic, []).append(backlog)
        return found

    def _paused(self) -> Iterator[Sample]:
        spool = self._around.spool
        for topic in {backlog.topic for backlog in spool.backlogs()} if spool is not None else ():
            yield (topic,), float(spool is not None and spool.paused(topic))

    def _rate(self) -> float:
        return self._around.pace.outflow.value(self._around.now())

    def _left(self) -> float:
        spool = self._around.spool
        waiting = sum(b.records for b in spool.backlogs()) if spool is not None else 0
        left = self._around.pace.estimate_s(waiting, self._around.now())
        return math.inf if left is None else left

    def _orphans(self) -> float:
        return float(self._around.spool.orphans) if self._around.spool is not None else 0.0

    def _letter_bytes(self) -> Iterator[Sample]:
        if self._around.letters is not None:
            yield (), float(self._around.letters.bytes)

    def _writable(self) -> Iterator[Sample]:
        if self._around.spool is not None:
            yield (), float(self._around.spool.fault is None)


def _whole(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
