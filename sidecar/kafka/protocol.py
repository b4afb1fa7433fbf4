"""Three requests that ask of many groups at once, in the words of aiokafka's own descriptions.

aiokafka knows older versions of them, which ask of one group each, or don't tell its state. With
these the number of requests doesn't depend on how many breakers there are. Brokers know them from
Kafka 3.0 on (KIP-518, KIP-699 and KIP-709).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

GROUP = 0
"""The kind of coordinator that consumer groups have."""
_NO_TAGS: dict[int, bytes] = {}

# aiokafka ships no types, so that mypy takes each of its classes for Any: hence the ignores below.


class OffsetFetchResponse_v8(Response):  # type: ignore[misc]  # noqa: N801 - named as aiokafka's are
    """What each group has committed."""

    API_KEY = 9
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            CompactArray(
                ("group", CompactString("utf-8")),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")),
                        (
                            "partitions",
                            CompactArray(
                                ("partition", Int32),
                                ("offset", Int64),
                                ("leader_epoch", Int32),
                                ("metadata", CompactString("utf-8")),
                                ("error_code", Int16),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("error_code", Int16),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class OffsetFetchRequest_v8(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks what several groups have committed."""

    API_KEY = 9
    API_VERSION = 8
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v8
    SCHEMA = Schema(
        (
            "groups",
            CompactArray(
                ("group", CompactString("utf-8")),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")),
                        ("partitions", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class OffsetFetch(Request[OffsetFetchRequest_v8]):  # type: ignore[misc]
    """What groups have committed; asked of the broker that coordinates them.

    Args:
        groups: the topics of each group, each with how many partitions it has.
    """

    API_KEY: ClassVar[int] = 9

    def __init__(self, groups: Mapping[str, Mapping[str, int]]) -> None:
        self._groups = groups

    def build(self, request_struct_class: Any) -> Any:
        """The request as it is sent."""
        asked = [
            (
                group,
                [(topic, list(range(count)), _NO_TAGS) for topic, count in topics.items()],
                _NO_TAGS,
            )
            for group, topics in self._groups.items()
        ]
        return request_struct_class(asked, False, _NO_TAGS)


class FindCoordinatorResponse_v4(Response):  # type: ignore[misc]  # noqa: N801
    """The coordinator of each group."""

    API_KEY = 10
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "coordinators",
            CompactArray(
                ("key", CompactString("utf-8")),
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FindCoordinatorRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks for the coordinators of several groups."""

    API_KEY = 10
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = FindCoordinatorResponse_v4
    SCHEMA = Schema(
        ("key_type", Int8),
        ("keys", CompactArray(CompactString("utf-8"))),
        ("tags", TaggedFields),
    )


class FindCoordinators(Request[FindCoordinatorRequest_v4]):  # type: ignore[misc]
    """Which broker coordinates each group; any broker knows."""

    API_KEY: ClassVar[int] = 10

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups

    def build(self, request_struct_class: Any) -> Any:
        """The request as it is sent."""
        return request_struct_class(GROUP, list(self._groups), _NO_TAGS)


class ListGroupsResponse_v4(Response):  # type: ignore[misc]  # noqa: N801
    """Groups and the state of each."""

    API_KEY = 16
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "groups",
            CompactArray(
                ("group", CompactString("utf-8")),
                ("protocol_type", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class ListGroupsRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks for the groups in some states."""

    API_KEY = 16
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ListGroupsResponse_v4
    SCHEMA = Schema(
        ("states", CompactArray(CompactString("utf-8"))),
        ("tags", TaggedFields),
    )


class ListGroups(Request[ListGroupsRequest_v4]):  # type: ignore[misc]
    """The groups of one broker that are in one of some states: most are not, so this is short."""

    API_KEY: ClassVar[int] = 16

    def __init__(self, states: Sequence[str]) -> None:
        self._states = states

    def build(self, request_struct_class: Any) -> Any:
        """The request as it is sent."""
        return request_struct_class(list(self._states), _NO_TAGS)
