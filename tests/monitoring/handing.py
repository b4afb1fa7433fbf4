"""Two more of a fleet, which take records for Kafka, of which each becomes something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.daemon import Daemon
from tests.kafka import Kafka
from tests.servers import free_port

TOKEN = "a-token-of-these-tests"
RAW = {
    "Content-Type": "application/octet-stream",
    "Kafka-Partition": "0",
    "Authorization": f"Bearer {TOKEN}",
}
LARGE = b"x" * 30_000
PATIENCE_S = 60.0
ALERTS = {"BreakerPublishFailing", "BreakerPublishDeadLetters", "BreakerSpoolLosing"}
"""What what is handed over here may raise."""


class Handing:
    """One sidecar reaches Kafka, and a second cluster is nobody's; the other reaches no Kafka."""

    def __init__(self, near: Daemon, far: Daemon, name: str) -> None:
        self.daemons = [near, far]
        self._name = name

    def hand(self) -> None:
        """Some are delivered, one to one cluster of two alone; one is too large, some too many."""
        near, far = self.daemons
        for kind, value, status in (("spooled", b"1", 2), ("both", b"1", 2), ("small", LARGE, 4)):
            self._one(near, kind, value, status)
        for _ in range(4):  # more than the spool may hold of it
            self._one(far, "away", LARGE, 2)

    def _one(self, daemon: Daemon, kind: str, value: bytes, status: int) -> None:
        path = f"/v1/publish/{self._name}-{kind}"
        answer = daemon.request("POST", path, value, RAW, timeout_s=PATIENCE_S)
        assert answer.status // 100 == status, (kind, answer)


@contextmanager
def handing(
    fleet: Mapping[str, object], kafka: Kafka, name: str, folder: Path
) -> Iterator[Handing]:
    """Both, with topics of that name.

    Args:
        fleet: its configuration; these two only follow it.
    """
    kafka.create_topic(f"{name}-spooled")
    kafka.create_topic(f"{name}-both")
    kafka.create_topic(f"{name}-small", max_message_bytes="2000")
    token = folder / "token"
    token.write_text(TOKEN)
    nobody = f"127.0.0.1:{free_port()}"
    common = {**fleet, "role": "follower", "admin": {"token_file": str(token)}}
    near = {
        **common,
        **_publishing(name, {"spooled": "spool_all", "both": "dual", "small": "reject"}),
        "kafka_second": {"bootstrap_servers": [nobody]},
        "spool": {"dir": str(folder / "near")},
    }
    keeps = {"max_bytes": "64KiB", "when_full": "drop_oldest"}
    far = {
        **common,
        **_publishing(name, {"away": "breaker"}),
        "kafka": {"bootstrap_servers": [nobody]},
        "spool": {"dir": str(folder / "far"), "topics": {f"{name}-away": keeps}},
    }
    with Daemon(near) as one, Daemon(far) as other:
        yield Handing(one, other, name)


def _publishing(name: str, outages: Mapping[str, str]) -> dict[str, object]:
    return {
        "publish": {
            "timeout": "3s",
            "delivery_timeout": "500ms",
            "topics": {f"{name}-{kind}": {"outage": outage} for kind, outage in outages.items()},
        },
    }
