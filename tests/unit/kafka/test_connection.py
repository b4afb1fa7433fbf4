"""How Kafka is reached, in the words of its client."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.errors import KafkaDenied
from sidecar.kafka.connection import Connection

PLAIN = Connection(bootstrap_servers=("a:9092", "b:9093"), request_timeout_s=1.5)


def test_a_plain_one() -> None:
    assert PLAIN.options() == {
        "bootstrap_servers": ["a:9092", "b:9093"],
        "client_id": "breaker-sidecar",
        "request_timeout_ms": 1500,
        "security_protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize(
    ("tls", "mechanism", "protocol"),
    [(True, None, "SSL"), (False, "PLAIN", "SASL_PLAINTEXT"), (True, "PLAIN", "SASL_SSL")],
)
def test_the_protocol_follows_from_what_is_set(
    tls: bool, mechanism: str | None, protocol: str
) -> None:
    options = replace(PLAIN, tls=tls, mechanism=mechanism, username="u", password="p").options()
    assert options["security_protocol"] == protocol
    assert ("ssl_context" in options) == tls
    assert ("sasl_plain_password" in options) == (mechanism is not None)


def test_verification_is_on_unless_switched_off() -> None:
    trusting = replace(PLAIN, tls=True).options()["ssl_context"]
    assert trusting.verify_mode is ssl.CERT_REQUIRED
    assert trusting.check_hostname
    blind = replace(PLAIN, tls=True, tls_verify=False).options()["ssl_context"]
    assert blind.verify_mode is ssl.CERT_NONE


def test_the_password_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    with_file = replace(PLAIN, mechanism="SCRAM-SHA-512", username="u", password_file=str(file))
    assert with_file.options()["sasl_plain_password"] == "one"
    file.write_text("two\n")
    assert with_file.options()["sasl_plain_password"] == "two"


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"tls": True, "ca_file": "gone"}, "kafka.tls.ca_file gone: No such file"),
        ({"tls": True, "ca_file": __file__}, "not in PEM format"),
        ({"tls": True, "client_cert": "gone", "client_key": "away"}, "gone and away"),
        ({"mechanism": "PLAIN", "password_file": "gone"}, "kafka.sasl.password_file gone"),
    ],
)
def test_a_file_that_cant_be_used_is_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(KafkaDenied, match=named):
        replace(PLAIN, **setting).options()  # type: ignore[arg-type]
