"""Asks Kafka now and then whether it is there, so that an outage is known before it costs anybody,
and its end where nobody sends anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from sidecar.core.outage import Outage
from sidecar.core.publishing import DeliveryFault, NeverDelivered
from sidecar.publish.around import Around
from sidecar.publish.topic import Topic

PROBE_S: Final = 5.0
"""Between two questions."""
ENOUGH: Final = 2
"""So many without an answer, in a row, count as one delivery that failed."""


async def probe(around: Around, topics: Mapping[str, Topic]) -> None:
    """Ask for ever, about one of the topics in use for all of them."""
    missed = 0
    while True:
        await asyncio.sleep(PROBE_S)
        asked = [topic for topic in topics.values() if _wants(topic)]
        if not asked:
            continue
        fault = await _fault(around, asked[0])
        missed = 0 if fault is None else missed + 1
        for topic in asked:
            if fault is None and not topic.waiting:
                topic.delivered()
            elif missed >= ENOUGH and topic.policy.outage is Outage.BREAKER:
                topic.failed(f"the probe: {fault}")


def _wants(topic: Topic) -> bool:
    """Whether it wants to know beforehand, or nothing but a record could say that it is well."""
    outage, broken = topic.policy.outage, topic.circuit.broken_since is not None
    return outage is Outage.BREAKER or (broken and not outage.spools)


async def _fault(around: Around, topic: Topic) -> DeliveryFault | None:
    """Why Kafka gives no answer; None: it gives one."""
    try:
        await around.carrier.look(topic.name, around.policy.delivery_timeout_s)
    except NeverDelivered:
        return None  # which is an answer
    except DeliveryFault as fault:
        return fault
    return None
