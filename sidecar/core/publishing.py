"""Publishing as the parts see it: what comes in, what is answered, and what Kafka must offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from sidecar.core.absence import Presence
from sidecar.core.outage import Outage
from sidecar.core.spooling import Headers, NewRecord

ID_HEADER: Final = "breaker-id"
"""The record header with an id of its own, by which consumers tell a duplicate."""
SEQUENCE_HEADER: Final = "breaker-sequence"
"""Of what goes to two clusters: `producer/incarnation/counter`, counted by partition from 1."""
ANY_TOPIC: Final = "*"
"""The entry of `publish.topics` that stands for each topic without its own."""


class Draft(NamedTuple):
    """A record as a client hands it over."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None
    """None: it is chosen by the key, or by turns."""
    timestamp_ms: int | None = None
    """None: when it is accepted."""


class Refusal(StrEnum):
    """Why a record was not accepted."""

    INVALID = "invalid-record"
    TOO_LARGE = "record-too-large"
    UNKNOWN_TOPIC = "unknown-kafka-topic"
    UNKNOWN_PARTITION = "unknown-partition"
    REFUSED = "refused-by-kafka"
    """Kafka said no in another way that no repetition changes."""
    UNAVAILABLE = "kafka-unavailable"
    """Nothing was sent: come back later."""
    OVERLOADED = "too-much-outstanding"
    UNKNOWN_OUTCOME = "unknown-outcome"
    """It may or may not be in Kafka."""
    SPOOL_FULL = "spool-full"
    DISK_FULL = "disk-full"
    SPOOL_FAILED = "spool-unusable"
    IN_PROGRESS = "in-progress"
    """Another request with the same idempotency key is still on its way."""
    OTHER_CONTENT = "key-reused"


class Delivered(NamedTuple):
    """It is in Kafka."""

    partition: int
    offset: int | None
    """None where Kafka's answer didn't say."""
    cluster: str | None = None
    """Of two clusters the one that confirmed it first, and whose offset that is."""


class Spooled(NamedTuple):
    """It is on this node's disk, and goes to Kafka from there."""

    partition: int | None
    """None while the number of partitions isn't known."""
    seq: int | None
    """None where another's spool gave it, which was adopted."""


class Dropped(NamedTuple):
    """It was given up, as the topic's strategy wants it."""

    reason: str


class Refused(NamedTuple):
    """It was not accepted."""

    why: Refusal
    detail: str


Outcome = Delivered | Spooled | Dropped | Refused


class DeliveryFault(Exception):
    """Kafka didn't confirm the records; whether it has them is unknown unless `unsent`.

    Args:
        detail: what happened, in words.
        unsent: they never left this process.
    """

    def __init__(self, detail: str, *, unsent: bool = False) -> None:
        super().__init__(detail)
        self.unsent = unsent


class NeverDelivered(DeliveryFault):
    """Kafka refused the records for good; `why` says how. None of them is in Kafka."""

    def __init__(self, why: Refusal, detail: str) -> None:
        super().__init__(detail, unsent=True)
        self.why = why


class NotListed(DeliveryFault):
    """The cluster answers and doesn't list the topic now, which need not stay so."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"Kafka doesn't list the topic {topic}", unsent=True)


class Confirmed(NamedTuple):
    """Kafka has a batch."""

    offset: int | None
    """Of its first record; None where Kafka's answer didn't say."""
    cluster: str | None = None
    """Of two clusters the one that said so first."""


class Carrier(Protocol):
    """What carries records to Kafka. Every call is bounded by the time it is given."""

    def partitions(self, topic: str) -> int | None:
        """How many the topic has, by what Kafka said last; None: unknown."""

    async def look(self, topic: str, within_s: float) -> int:
        """Ask Kafka how many partitions the topic has.

        Raises:
            NeverDelivered: the cluster answers, and there is no such topic.
            DeliveryFault: no answer came in time.
        """

    async def presence(self, topic: str, within_s: float) -> Presence:
        """Ask several brokers, each for itself, whether there is such a topic; makes none."""

    async def send(
        self, topic: str, partition: int, records: Sequence[NewRecord], within_s: float
    ) -> int | None:
        """Send records as one batch, in order; the offset of the first (None: not told).

        One call at a time for a partition. After a fault the connection they went by is not used
        any more.

        Raises:
            NeverDelivered: none is in Kafka, nor ever will be as it is. With several records it may
                be the fault of one.
            NotListed: there may be no such topic, or not yet; nothing was sent.
            DeliveryFault: it is unknown.
        """

    async def close(self) -> None:
        """Let go of all connections, within a second or so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPolicy:
    """How one topic's records are handled."""

    outage: Outage = Outage.BREAKER
    breaker: str | None = None
    """The consumers' breaker that is asked before anything is accepted."""
    max_outstanding: int = 10_000
    """Records accepted and not yet resolved; past it new ones are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """How publishing behaves; durations in seconds, sizes in bytes."""

    timeout_s: float = 5.0
    """A publish is answered within this."""
    delivery_timeout_s: float = 2.0
    """A record unconfirmed for so long has failed."""
    max_record_bytes: int = 1_000 * 1024
    max_request_bytes: int = 8 * 1024 * 1024
    max_outstanding_bytes: int = 64 * 1024 * 1024
    """Of all requests together."""
    replay_rate: float = 20_000.0
    missing_topic_after_s: float = 3600.0
    """A topic counts as gone when the cluster has said nothing else for so long; 0: never."""
    topics: Mapping[str, TopicPolicy]

    def topic(self, name: str) -> TopicPolicy | None:
        """How a topic is handled; None where it isn't configured."""
        return self.topics.get(name) or self.topics.get(ANY_TOPIC)


class Described(NamedTuple):
    """What `GET /v1/spool` says."""

    whole: Mapping[str, object]
    topics: Iterator[Mapping[str, object]]
    """Made as they are taken: of thousands of topics it takes long."""


class Publishing(Protocol):
    """What the HTTP layer asks of whoever publishes."""

    @property
    def policy(self) -> PublishPolicy:
        """The limits in force."""

    async def publish(
        self,
        topic: str,
        drafts: Sequence[Draft],
        *,
        delivered: bool,
        idempotency: tuple[str, bytes] | None,
    ) -> list[Outcome]:
        """Have records accepted; one outcome each, in order, within `policy.timeout_s`.

        Args:
            delivered: wait for Kafka's word where there is time, also for spooled ones.
            idempotency: the client's key and a digest of what came with it.
        """

    def hand_over(self, topic: str, draft: Draft, answered: Callable[[Outcome], None]) -> bool:
        """Have one record accepted, where nothing has to be waited for before it has its place.

        Args:
            answered: called with its outcome, once, within `policy.timeout_s`.

        Returns:
            False: nothing has happened, `publish` is to be asked.
        """

    async def describe(self) -> Described:
        """Backlogs, rates and states for `GET /v1/spool`; others have their turn in between."""

    async def pause(self, topic: str, paused: bool) -> None:
        """Let a topic's replay stand still, or go on. Raises SpoolFault, SpoolUnknown."""
