"""TLS, SASL and rights with a real broker: who comes in and may do what is documented to be enough.

What each failure is told as.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import CreateAclsRequest

from sidecar.consumer import Event, Limits, Permanent, RetryPolicy, Runner, SinkFailed
from sidecar.consumer.dlq import DeadLetters
from sidecar.consumer.letters import Wanted
from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.core.spooling import NewRecord
from sidecar.kafka.canaries import Canaries
from sidecar.kafka.client import Client
from sidecar.kafka.connection import Connection
from sidecar.kafka.lag import Asking
from sidecar.kafka.offsets import Flow
from sidecar.kafka.publisher import Publisher
from sidecar.kafka.reach import fault
from tests.authority import Authority
from tests.kafka import Kafka
from tests.servers import ROOT, free_port, poll_until
from tests.telemetry import RecordedTelemetry

# Consul's own command makes the certificates.
pytestmark = [pytest.mark.kafka, pytest.mark.consul]

PASSWORD = "open-sesame"
CALL_S = 10.0
PATIENCE_S = 30.0
USERS = ("sidecar", "nobody", "kit", "letters", "daemon")
KINDS = {"topic": 2, "group": 3}
OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Delete": 6,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
}
LITERAL, ALLOW = 3, 3


def pem(*files: str) -> str:
    """PEM files as one value of a properties file."""
    return "\\n".join(Path(file).read_text("utf-8").strip().replace("\n", "\\n") for file in files)


def pkcs8(key: str) -> str:
    """A private key in the only form that Kafka reads."""
    command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", key]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    return made.stdout.strip().replace("\n", "\\n")


@dataclass(frozen=True)
class Guarded:
    """A broker behind TLS and a password, and the connection that is right for it."""

    kafka: Kafka
    right: Connection
    strangers: Authority


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("kafka-tls")
    ours, strangers = Authority(folder / "ours"), Authority(folder / "strangers")
    cert, key = ours.pair("server")
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:sidecar",  # the brokers themselves, and the tests
        "listener.name.client.ssl.keystore.type": "PEM",
        "listener.name.client.ssl.keystore.certificate.chain": pem(cert, ours.ca),
        "listener.name.client.ssl.keystore.key": pkcs8(key),
        "listener.name.client.ssl.truststore.type": "PEM",
        "listener.name.client.ssl.truststore.certificates": pem(ours.ca),
        "listener.name.client.ssl.client.auth": "required",
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f"{login} {users};",
    }
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    client_cert, client_key = ours.pair("client")
    right = Connection(
        bootstrap_servers=(),
        tls=True,
        ca_file=ours.ca,
        client_cert=client_cert,
        client_key=client_key,
        mechanism="PLAIN",
        username="sidecar",
        password_file=str(password),
    )
    admin = {k: v for k, v in right.options().items() if k != "bootstrap_servers"}
    with Kafka(protocol="SASL_SSL", config=config, admin=admin) as kafka:
        yield Guarded(kafka, replace(right, bootstrap_servers=(kafka.bootstrap,)), strangers)


async def topics(connection: Connection) -> list[str]:
    """What the sidecar's own client sees."""
    client = Client[AIOKafkaAdminClient](
        lambda: AIOKafkaAdminClient(**connection.options()),
        AIOKafkaAdminClient.close,
        now=time.monotonic,
        draw=lambda: 0.5,
    )
    try:
        return await client.call(AIOKafkaAdminClient.list_topics, CALL_S)
    finally:
        await client.close()


async def test_who_has_certificate_and_password_comes_in(guarded: Guarded) -> None:
    guarded.kafka.create_topic("guarded")
    assert "guarded" in await topics(guarded.right)
    assert await fault(guarded.right, guarded.kafka.bootstrap) is None


async def test_each_refusal_is_told_as_what_it_is(guarded: Guarded) -> None:
    cert, key = guarded.strangers.pair("client")
    wrong: dict[str, dict[str, str | None]] = {
        "Invalid username or password": {"password_file": None, "password": "guess"},
        "its certificate is not trusted": {"ca_file": guarded.strangers.ca},
        "TLS failed": {"client_cert": cert, "client_key": key},
    }
    for said, settings in wrong.items():
        connection = replace(guarded.right, **settings)  # type: ignore[arg-type]
        found = await fault(connection, guarded.kafka.bootstrap)
        assert isinstance(found, KafkaDenied), said
        assert said in str(found)
        with pytest.raises(KafkaUnavailable):
            await topics(connection)


async def test_where_nobody_listens_nobody_said_no(guarded: Guarded) -> None:
    found = await fault(guarded.right, f"127.0.0.1:{free_port()}")
    assert isinstance(found, KafkaUnavailable)
    assert not isinstance(found, KafkaDenied)


# --- rights -----------------------------------------------------------------------------------


def documented(page: str) -> Iterator[list[tuple[str, str, str]]]:
    """Kind, name and operation of all rights that a page asks for, table by table."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    (section,) = re.findall(r"^## Rights in Kafka\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        found = []
        for row in table.splitlines():
            named = re.search(r"\| (topic|group)s? ((?:(?:, )?`[^`]+`)+)([^|]*)\|([^|]*)", row)
            if named is not None:
                kind, names, _, operations = named.groups()
                found += [
                    (kind, name, operation)
                    for name in re.findall("`(.*?)`", names)
                    for operation in re.findall(r"\w+", operations.split("(")[0])
                    if operation in OPERATIONS
                ]
        yield found


def grant(guarded: Guarded, user: str, rights: Sequence[tuple[str, str, str]]) -> Connection:
    """Give a user these rights and no others; the connection that it has."""

    async def write(admin: AIOKafkaAdminClient) -> None:
        for kind, name, operation in rights:
            code = OPERATIONS[operation]
            asked = CreateAclsRequest(KINDS[kind], name, LITERAL, f"User:{user}", "*", code, ALLOW)
            answer = await admin._send_request(asked)
            assert [error for error, *_ in answer.creation_responses] == [0]

    guarded.kafka.ask(write)
    return replace(guarded.right, username=user)


def runner(connection: Connection, seen: list[bytes]) -> Runner[bytes]:
    """The documentation's example: three retry topics, of which the first is used."""

    async def handle(event: Event[bytes]) -> None:
        if event.value == b"never":
            raise Permanent("never")
        if event.value == b"later" and event.tier == 0:
            raise OSError("away")
        seen.append(event.value)

    return Runner(
        "orders",
        group="billing",
        handler=handle,
        bootstrap_servers=list(connection.bootstrap_servers),
        retry=RetryPolicy(in_place=0, delays_s=(0.1, 5.0, 6.0)),
        limits=Limits(commit_every_s=0.1),
        client={k: v for k, v in connection.options().items() if k != "bootstrap_servers"},
    )


async def test_the_kit_needs_no_more_rights_than_is_documented(guarded: Guarded) -> None:
    kafka, seen = guarded.kafka, list[bytes]()
    kafka.create_topic("orders", max_message_bytes="2000000")
    kafka.produce("orders", [b"at once", b"later", b"never"])
    with pytest.raises(SinkFailed, match="there is no topic orders"):
        await runner(replace(guarded.right, username="nobody"), seen).run(signals=False)

    rights, of_letters = documented("consumer.md")
    running = runner(grant(guarded, "kit", rights), seen)
    counts = running.flow.counts_of("orders")
    task = asyncio.create_task(running.run(signals=False))
    try:
        await poll_until(
            lambda: task.done() or (len(seen), counts["dead"], running.flow.open) == (2, 1, 0),
            PATIENCE_S,
            "all are done with",
        )
    finally:
        running.stop()
        await task
    assert sorted(seen) == [b"at once", b"later"]
    assert kafka.committed("billing", "orders") == {0: 3}
    assert kafka.committed("billing.retry", "orders.retry.1") == {0: 1}
    assert [letter.value for letter in kafka.read("orders.dlq", 1)] == [b"never"]

    async def size(admin: AIOKafkaAdminClient) -> int:
        asked = ConfigResource(ConfigResourceType.TOPIC, "orders.dlq", {"max.message.bytes": None})
        ((told,),) = [answer.resources for answer in await admin.describe_configs([asked])]
        return int(told[4][0][1])

    assert kafka.ask(size) > 2_000_000, "as large as the events' own, and room for headers"
    await letters_are_put_back_and_deleted(grant(guarded, "letters", of_letters))


async def letters_are_put_back_and_deleted(connection: Connection) -> None:
    dead = DeadLetters(connection.options(), CALL_S)
    assert await dead.topics() == {"orders.dlq": 1}
    sink = dead.sink()
    done = await dead.replay("orders.dlq", Wanted(), sink)
    await sink.stop()
    assert (done.seen, done.put_back, done.failed) == (1, 1, None)
    assert await dead.purge("orders.dlq", time.time() + 60, dry_run=False) == 1
    assert await dead.topics() == {"orders.dlq": 0}


async def test_the_daemon_needs_no_more_rights_than_is_documented(guarded: Guarded) -> None:
    kafka, now = guarded.kafka, time.monotonic
    (rights,) = documented("security.md")
    kafka.create_topic("page-views")
    if "orders" not in await topics(guarded.right):
        kafka.create_topic("orders")
    kafka.commit("billing", "orders", {0: 1})
    connection, telemetry = grant(guarded, "daemon", rights), RecordedTelemetry()

    asking = Asking(connection, telemetry, now)
    await asking.start()
    flow = Flow("orders", "billing", 0)
    reading = (await asking.round({flow}))[flow]
    await asking.close()
    assert (reading.fault, reading.committed) == (None, [1])

    canaries = Canaries(
        connection,
        "breaker-sidecar-probe",
        telemetry,
        instance="i-1",
        create=True,
        interval_s=20.0,
        now=now,
        draw=lambda: 0.25,
    )
    done = await canaries.round()
    await canaries.close()
    assert (done.fault, [canary.fault for canary in done.canaries]) == (None, [""])

    publisher = Publisher(connection.options, now=now, draw=random.random)
    record = NewRecord(b"k", b"v", (), 1_700_000_000_000, 0.0)
    assert await publisher.look("page-views", CALL_S) == 1
    assert await publisher.send("page-views", 0, [record], CALL_S) == 0
    await publisher.close()
