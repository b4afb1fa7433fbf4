"""Why Kafka can't be reached: what aiokafka's bootstrap says only to its log."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.kafka.connection import Connection
from sidecar.kafka.link import Link, end

DENIALS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
"""Kafka's own words for no."""


async def fault(connection: Connection, server: str) -> KafkaUnavailable | None:
    """What is wrong with the way to one `host:port`; None where it takes and knows us.

    Bounded by the connection's `request_timeout_s`. Raises KafkaDenied where a file of the
    configuration can't be used.
    """
    options = connection.options()
    del options["bootstrap_servers"]
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(connection.request_timeout_s):
            made = await create_conn(host.strip("[]"), int(port), **options)
    except TimeoutError:
        return KafkaUnavailable(f"{server}: no answer within {connection.request_timeout_s:g} s")
    except (KafkaError, OSError) as error:
        return named(error, server)
    made.close()
    return None


async def has_topics(connection: Connection, topics: Collection[str]) -> Mapping[str, bool | None]:
    """Whether the cluster has these topics, by one broker's word; None: it doesn't say. Makes none.

    Connects as whoever publishes does. Raises KafkaUnavailable, KafkaDenied.
    """
    within_s = connection.request_timeout_s
    try:
        link = await Link.open(connection.options(), within_s)
    except (TimeoutError, KafkaError, OSError) as error:
        raise named(error, "Kafka") from error
    try:
        async with asyncio.timeout(within_s):
            told = await asyncio.gather(*(link.has(link.brokers()[0], each) for each in topics))
    except TimeoutError as error:
        raise named(error, "Kafka") from error
    finally:
        await end(link.producer)
    return dict(zip(topics, told, strict=True))


def named(error: BaseException, place: str) -> KafkaUnavailable:
    """An error of aiokafka's in our own terms, with whom it concerns."""
    found: BaseException | None = error
    while found is not None:  # aiokafka wraps what the system said
        if isinstance(found, ssl.SSLError):
            return KafkaDenied(f"{place}: {_tls(found)}")
        if isinstance(found, DENIALS):
            return KafkaDenied(f"{place}: {_said(found)}")
        found = found.__cause__ or found.__context__
    return KafkaUnavailable(f"{place}: {_said(error)}")


def _tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return f"TLS failed: {error.reason or error}"


def _said(error: Any) -> str:
    if isinstance(error, KafkaConnectionError) and "bootstrap" in str(error):
        return "none of the bootstrap servers can be reached"  # it lists objects of its own
    strerror = getattr(error, "strerror", None)
    return strerror or str(error) or type(error).__name__
