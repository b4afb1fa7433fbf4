"""TLS and SASL with a real broker: who comes in, and what each failure is told as."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from sidecar.core.errors import KafkaDenied, KafkaUnavailable
from sidecar.kafka.client import Client
from sidecar.kafka.connection import Connection
from sidecar.kafka.reach import fault
from tests.authority import Authority
from tests.kafka import Kafka
from tests.servers import free_port

# Consul's own command makes the certificates.
pytestmark = [pytest.mark.kafka, pytest.mark.consul]

PASSWORD = "open-sesame"
CALL_S = 10.0


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
    config = {
        "listener.name.client.ssl.keystore.type": "PEM",
        "listener.name.client.ssl.keystore.certificate.chain": pem(cert, ours.ca),
        "listener.name.client.ssl.keystore.key": pkcs8(key),
        "listener.name.client.ssl.truststore.type": "PEM",
        "listener.name.client.ssl.truststore.certificates": pem(ours.ca),
        "listener.name.client.ssl.client.auth": "required",
        "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": f'{login} user_sidecar="{PASSWORD}";',
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
