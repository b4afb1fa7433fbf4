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

_TEXT = CompactString("utf-8")
GROUP = 0
"""The kind of coordinator that consumer groups have."""
_NO_TAGS: dict[int, bytes] = {}


def _tagged(*fields: tuple[str, Any]) -> Any:
    """A structure of these fields, which ends as all do since brokers may add to them."""
    return Schema(*fields, ("tags", TaggedFields))


def _several(*fields: tuple[str, Any]) -> Any:
    """An array of such structures."""
    return CompactArray(*fields, ("tags", TaggedFields))


# aiokafka ships no types, so that mypy takes each of its classes for Any: hence the ignores below.


class OffsetFetchResponse_v8(Response):  # type: ignore[misc]  # noqa: N801 - named as aiokafka's are
    """What each group has committed."""

    API_KEY = 9
    API_VERSION = 8
    SCHEMA = _tagged(
        ("throttle_time_ms", Int32),
        (
            "groups",
            _several(
                ("group", _TEXT),
                (
                    "topics",
                    _several(
                        ("topic", _TEXT),
                        (
                            "partitions",
                            _several(
                                ("partition", Int32),
                                ("offset", Int64),
                                ("leader_epoch", Int32),
                                ("metadata", _TEXT),
                                ("error_code", Int16),
                            ),
                        ),
                    ),
                ),
                ("error_code", Int16),
            ),
        ),
    )


class OffsetFetchRequest_v8(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks what several groups have committed."""

    API_KEY = 9
    API_VERSION = 8
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse_v8
    SCHEMA = _tagged(
        (
            "groups",
            _several(
                ("group", _TEXT),
                (
                    "topics",
                    _several(
                        ("topic", _TEXT),
                        ("partitions", CompactArray(Int32)),
                    ),
                ),
            ),
        ),
        ("require_stable", Boolean),
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
    SCHEMA = _tagged(
        ("throttle_time_ms", Int32),
        (
            "coordinators",
            _several(
                ("key", _TEXT),
                ("node_id", Int32),
                ("host", _TEXT),
                ("port", Int32),
                ("error_code", Int16),
                ("error_message", _TEXT),
            ),
        ),
    )


class FindCoordinatorRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks for the coordinators of several groups."""

    API_KEY = 10
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = FindCoordinatorResponse_v4
    SCHEMA = _tagged(
        ("key_type", Int8),
        ("keys", CompactArray(_TEXT)),
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
    SCHEMA = _tagged(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "groups",
            _several(
                ("group", _TEXT),
                ("protocol_type", _TEXT),
                ("state", _TEXT),
            ),
        ),
    )


class ListGroupsRequest_v4(RequestStruct):  # type: ignore[misc]  # noqa: N801
    """Asks for the groups in some states."""

    API_KEY = 16
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = ListGroupsResponse_v4
    SCHEMA = _tagged(
        ("states", CompactArray(_TEXT)),
    )


class ListGroups(Request[ListGroupsRequest_v4]):  # type: ignore[misc]
    """The groups of one broker that are in one of some states: most are not, so this is short."""

    API_KEY: ClassVar[int] = 16

    def __init__(self, states: Sequence[str]) -> None:
        self._states = states

    def build(self, request_struct_class: Any) -> Any:
        """The request as it is sent."""
        return request_struct_class(list(self._states), _NO_TAGS)
