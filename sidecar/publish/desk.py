"""Takes records in: places them, hands them to their lanes, and answers in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

from sidecar.core.errors import SpoolFault, SpoolUnknown
from sidecar.core.idempotency import MemoryKeys
from sidecar.core.outage import Fate, Outage, fate
from sidecar.core.publishing import (
    ANY_TOPIC,
    Carrier,
    DeliveryFault,
    Described,
    Draft,
    Dropped,
    NeverDelivered,
    Outcome,
    PublishPolicy,
    Refusal,
    Refused,
    TopicPolicy,
)
from sidecar.core.spooling import Keys, Spool
from sidecar.publish.around import Around
from sidecar.publish.claims import Claims
from sidecar.publish.handed import Handing
from sidecar.publish.lane import Lane
from sidecar.publish.pair import Pair
from sidecar.publish.placements import Placements
from sidecar.publish.priming import prime
from sidecar.publish.probing import probe
from sidecar.publish.replay import Replay
from sidecar.publish.sight import Sight
from sidecar.publish.ticket import Ticket
from sidecar.publish.topic import Topic
from sidecar.publish.writing import Writer, place, size_of
from sidecar.telemetry import names

ADOPT_S: Final = 60.0
"""How often spools that others have left are looked for."""
NOTHING: Final = Refused(Refusal.UNKNOWN_OUTCOME, "there was no word of it in time")
LEFT_OVER: Final = TopicPolicy(outage=Outage.SPOOL_FAILED)
"""How a topic is replayed that the spool still holds and nobody publishes to any more."""
CLOSING: Final = Refused(Refusal.UNAVAILABLE, "the sidecar stops")


class Starter(Protocol):
    """Who runs the tasks, and starts one again that ends with a defect."""

    def start(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop under a name of its own."""


class Desk:
    """The port `Publishing`.

    Args:
        placements: how many partitions topics were taken to have before a restart.
        open_spool: opens the spool; None: there is none, or it is open.
    """

    def __init__(
        self,
        around: Around,
        tasks: Starter,
        placements: Placements,
        open_spool: Callable[[], Awaitable[Spool]] | None = None,
    ) -> None:
        self._around = around
        self._tasks = tasks
        self._placements = placements
        self._open_spool = open_spool
        self._opening: asyncio.Task[None] | None = None
        self._keys: Keys = around.spool.keys if around.spool is not None else MemoryKeys()
        self.topics: dict[str, Topic] = {}
        self.sight = Sight(around, self.topics)
        self._writer = Writer()
        self._closing = False
        self._replaying: set[str] = set()
        self._answering: set[asyncio.Task[list[Outcome]]] = set()
        self._waiting: set[Ticket] = set()
        """Whose senders want to hear of Kafka, also where a record went to the spool."""
        self._handing = Handing(around.now, NOTHING)

    @property
    def policy(self) -> PublishPolicy:
        """See the port."""
        return self._around.policy

    async def reconfigure(
        self, policy: PublishPolicy, pair: Callable[[Carrier], Pair | None] = lambda _: None
    ) -> bool:
        """Another configuration: what is on its way goes on, what comes is handled anew.

        Args:
            pair: makes two clusters of the first. A pair that is there already stays as it is.

        Returns:
            Whether there are two from now on.
        """
        paired = False
        if self._around.pair is None and (made := pair(self._around.carrier)) is not None:
            made.incarnation = await self._placements.incarnation(self._around.wall())
            self._around.pair, paired = made, True
        self._around.policy = policy
        prime(self._around.telemetry, policy)
        self._around.pace.limit = policy.replay_rate
        for name, topic in self.topics.items():
            found = policy.topic(name)
            if found is not None:
                topic.policy = found
        return paired

    # --- life ------------------------------------------------------------------------------

    async def start(self, within_s: float) -> None:
        """Begin to bring what waits to Kafka, and to look after the rest.

        A spool that takes longer to open than `within_s` is opened aside; until it is open, what
        needs it is refused.

        Raises:
            SpoolFault: the spool can't be opened, which is clear within that time.
        """
        prime(self._around.telemetry, self.policy)
        self._tasks.start("probe for publish", partial(probe, self._around, self.topics))
        if self._open_spool is not None:
            self._opening = asyncio.get_running_loop().create_task(
                self._open(self._open_spool), name="open the spool"
            )
            await asyncio.wait({self._opening}, timeout=within_s)
            if self._opening.done():
                self._opening.result()
        elif self._around.spool is not None:
            self._begin_replay()

    async def _open(self, opener: Callable[[], Awaitable[Spool]]) -> None:
        try:
            spool = await opener()
        except SpoolFault as fault:
            self._around.telemetry.event(names.SPOOL_UNUSABLE, level="error", error=str(fault))
            raise
        if self._around.pair is not None:
            self._around.pair.incarnation = await self._placements.incarnation(self._around.wall())
        # What a former process of this node has left goes before anything new.
        with contextlib.suppress(SpoolFault, OSError):
            await spool.adopt()
        if self._around.letters is not None:
            await self._around.letters.look()
        self._around.spool = spool
        self._keys = spool.keys
        self._begin_replay()

    def _begin_replay(self) -> None:
        self._resume()
        self._tasks.start("adopt spools", self._adopt)

    def _resume(self) -> None:
        spool = self._around.spool
        for backlog in spool.backlogs() if spool is not None else ():
            if backlog.records:
                lane = self._topic(backlog.topic).lane(backlog.partition)
                lane.gate.unresolved()
                self._replay(lane)
                lane.arrived.set()

    async def _adopt(self) -> None:
        while self._around.spool is not None:
            await asyncio.sleep(ADOPT_S)
            if self._around.letters is not None:
                await self._around.letters.look()
            with contextlib.suppress(SpoolFault, OSError):
                if await self._around.spool.adopt():
                    self._resume()

    def stop(self) -> None:
        """Take nothing new in, and have everybody answered within half a second or so."""
        self._closing = True
        for topic in self.topics.values():
            topic.hurry()
        for ticket in self._waiting:
            ticket.be_content()

    async def close(self) -> None:
        """Let go of Kafka and of the spool. The tasks have to be stopped before."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        for task in list(self._answering):
            task.cancel()
        self._handing.close()
        if self._around.pair is not None:
            await self._around.pair.close()
        await self._around.carrier.close()
        if self._around.spool is not None:
            await self._around.spool.close()
        await self._placements.close()

    def _topic(self, name: str) -> Topic:
        topic = self.topics.get(name)
        if topic is None:
            policy = self.policy.topic(name)
            label = name if name in self.policy.topics else ANY_TOPIC
            topic = self.topics[name] = Topic(
                self._around,
                name,
                label=label,
                policy=policy or LEFT_OVER,
                known=self._placements.known(name),
                begin=self._begin,
            )
        return topic

    def _begin(self, lane: Lane) -> None:
        self._tasks.start(f"publish {lane.topic.name}/{lane.partition}", lane.run)
        self._replay(lane)

    def _replay(self, lane: Lane) -> None:
        spool, name = self._around.spool, f"replay {lane.topic.name}/{lane.partition}"
        if spool is not None and name not in self._replaying:
            self._replaying.add(name)
            self._tasks.start(name, Replay(lane, spool).run)

    # --- taking in -------------------------------------------------------------------------

    async def publish(
        self,
        topic: str,
        drafts: Sequence[Draft],
        *,
        delivered: bool,
        idempotency: tuple[str, bytes] | None,
    ) -> list[Outcome]:
        """See the port. A caller that is cancelled leaves; its records go on all the same."""
        task = asyncio.get_running_loop().create_task(
            self._publish(self._topic(topic), drafts, delivered, idempotency),
            name=f"publish to {topic}",
        )
        self._answering.add(task)
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    def _answered(self, task: asyncio.Task[list[Outcome]]) -> None:
        self._answering.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits has it; if nobody does, nobody is to be told

    async def _publish(
        self,
        topic: Topic,
        drafts: Sequence[Draft],
        delivered: bool,
        idempotency: tuple[str, bytes] | None,
    ) -> list[Outcome]:
        ticket = Ticket(len(drafts), topic.settled, delivered)
        if delivered:
            self._waiting.add(ticket)
            ticket.done.add_done_callback(lambda _: self._waiting.discard(ticket))
        topic.outstanding += len(drafts)
        claims: Claims | None = None
        loop = asyncio.get_running_loop()
        until = loop.time() + self.policy.timeout_s
        try:
            async with asyncio.timeout_at(until):
                if refused := self._full(topic):
                    return ticket.finish(refused)
                if idempotency is not None:
                    claims = Claims(self._keys, topic, idempotency, self._around.wall())
                    await claims.take(ticket)
                    if ticket.done.done():
                        return ticket.finish(NOTHING)
                if claims is None or claims.any:
                    await self._send(topic, drafts, ticket, claims)
                await ticket.done
        except SpoolFault as fault:
            return ticket.finish(Refused(Refusal.SPOOL_FAILED, str(fault)))
        except TimeoutError:
            pass  # what is known by now is the answer
        outcomes = ticket.finish(NOTHING)
        if claims is not None:
            await claims.settle(ticket)
        return outcomes

    def hand_over(self, topic: str, draft: Draft, answered: Callable[[Outcome], None]) -> bool:
        """See the port."""
        found = self.topics.get(topic)
        if found is None or found.absence.certain or not (found.known or found.unplaced):
            return False
        if found.lacks(draft.partition):
            return False
        found.outstanding += 1
        if self._full(found) is not None:
            found.outstanding -= 1
            return False

        around = self._around
        ticket = self._handing.take(found, answered, around.policy.timeout_s)
        record = self._writer.record(draft, around.wall())
        found.lane(found.place(draft, size_of(record))).put(((record, ticket, 0),))
        self._keep_placement(found)
        return True

    def _full(self, topic: Topic) -> Refused | None:
        if self._closing:
            return CLOSING
        if topic.policy.outage.spools and self._around.spool is None:
            return Refused(Refusal.SPOOL_FAILED, "the spool is not open")
        if topic.outstanding > topic.policy.max_outstanding:
            return Refused(
                Refusal.OVERLOADED,
                f"more than {topic.policy.max_outstanding} records of this topic are on their way",
            )
        return None

    async def _send(
        self, topic: Topic, drafts: Sequence[Draft], ticket: Ticket, claims: Claims | None
    ) -> None:
        """Hand records to their lanes, at once when the topic is known to be there."""
        records = await self._writer.records(drafts, self._around.wall(), claims)
        unknown = await self._unknown(topic, len(drafts))
        if unknown is not None:
            ticket.finish(unknown)
            return
        await place(topic, drafts, records, ticket)
        self._keep_placement(topic)

    def _keep_placement(self, topic: Topic) -> None:
        if topic.placement.partitions is not None:
            self._placements.keep(topic.name, topic.placement.partitions)

    async def _unknown(self, topic: Topic, records: int) -> Outcome | None:
        """What becomes of records whose topic Kafka doesn't know, or says nothing of."""
        try:
            await topic.know()
        except NeverDelivered as fault:
            topic.dead(fault.why, records)
            if not topic.lanes:
                self.topics.pop(topic.name, None)  # a name that nothing is known of is not kept
            return Refused(fault.why, str(fault))
        except DeliveryFault as fault:
            if topic.policy.outage is Outage.DUAL:
                # What isn't placed has no counter, by which readers would tell its two copies.
                return Refused(Refusal.UNAVAILABLE, str(fault))
            match fate(topic.policy.outage, permanent=False):
                case Fate.DROP:
                    return Dropped(str(fault))
                case Fate.UNKNOWN:
                    return Refused(Refusal.UNAVAILABLE, str(fault))
        return None

    # --- sight and orders ------------------------------------------------------------------

    async def describe(self) -> Described:
        """See the port."""
        return await self.sight.describe()

    async def pause(self, topic: str, paused: bool) -> None:
        """See the port."""
        spool = self._around.spool
        if spool is None:
            if self._open_spool is None:
                raise SpoolUnknown("there is no spool here: configure `spool.dir`")
            raise SpoolFault("the spool is not open")
        left = spool.paused(topic) or any(b.topic == topic and b.records for b in spool.backlogs())
        if self.policy.topic(topic) is None and not left:
            raise SpoolUnknown(f"{topic} is not among `publish.topics`, and nothing of it waits")
        within_s = self.policy.timeout_s
        try:
            async with asyncio.timeout(within_s):
                await spool.pause(topic, paused)
        except TimeoutError as error:
            raise SpoolFault(f"the disk gave no answer within {within_s:g} s") from error
