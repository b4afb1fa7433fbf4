"""What a store can answer instead of a value.

Absent, conflicting and unreachable are three different things and never share one `None`:
*absent* is `None` as a value, *conflicting* is a `Refused` result (see `ports`), and
*unreachable* is one of the exceptions below.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of every fault a store raises."""


class StoreUnreachable(StoreError):
    """No usable answer came: refused, timed out, 5xx, no leader. A write's outcome is unknown."""


class StoreThrottled(StoreUnreachable):
    """The server asked for less (429, or 503 by its rate limit); back off with jitter."""


class StoreDenied(StoreError):
    """The server answered and said no: the token lacks a right (401, 403)."""


class StoreRejected(StoreError):
    """The request itself was wrong for the server (other 4xx, redirects): retrying won't help."""


class SessionLost(StoreError):
    """The session no longer exists; every lock it held is gone."""


class CheckLost(StoreError):
    """The check is not known (any more) or critical: no session bound to it can live."""


class Contradicted(Exception):
    """An order would lift a live `open` without saying that it means to."""


class StillEvaluated(Exception):
    """A breaker can't be forgotten while another sidecar evaluates it; the text names that one."""


class IllegalTransition(Exception):
    """A transition that the table does not contain was asked for; nothing was changed."""


class SpoolFault(Exception):
    """Base of every fault of the spool: the disk does not do what it should; the text says what."""


class SpoolFull(SpoolFault):
    """A budget of the spool is used up, and its rule is to refuse; nothing was kept."""


class SpoolDiskFull(SpoolFault):
    """The disk has no room; nothing was kept, and it goes on when there is some again."""


class SpoolClosed(SpoolFault):
    """The spool takes nothing more: it was closed, or a sync failed and a restart is needed."""


class SpoolUnknown(SpoolFault):
    """There is no such topic, or no spool at all; no repetition changes that."""


class SpoolTaken(SpoolFault):
    """Another process has the spool's folder."""


class SpoolFormat(SpoolFault):
    """The folder was written by a newer version, or is no spool; it was left as it is."""


class KafkaUnavailable(Exception):
    """Kafka gave no usable answer in time. What was sent may have arrived or not: unknown."""


class KafkaDenied(KafkaUnavailable):
    """Kafka answered and said no: credentials or rights are missing."""
