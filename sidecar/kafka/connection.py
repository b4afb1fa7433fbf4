"""How this daemon's clients reach Kafka: addresses, TLS, SASL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.core.errors import KafkaDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where Kafka is and how it is spoken to; the configuration's `kafka` in this part's words."""

    section: str = "kafka"
    """What the configuration calls it, for what a person is told."""
    bootstrap_servers: tuple[str, ...]
    client_id: str = "breaker-sidecar"
    request_timeout_s: float = 5.0
    tls: bool = False
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_verify: bool = True
    mechanism: str | None = None
    username: str | None = None
    password: str | None = None
    password_file: str | None = None

    def options(self) -> dict[str, Any]:
        """What every client of aiokafka's takes. Reads the files anew, since they get renewed.

        Raises:
            KafkaDenied: a file of its `tls` or `sasl` can't be used.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_timeout_s * 1000),
            "security_protocol": ("SASL_" if self.mechanism else "")
            + ("SSL" if self.tls else "PLAINTEXT"),
        }
        if self.tls:
            options["ssl_context"] = self._trust()
        if self.mechanism:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self._secret()
        return options

    def _trust(self) -> ssl.SSLContext:
        try:
            made = ssl.create_default_context(cafile=self.ca_file)
        except OSError as fault:  # ssl's errors are of that kind
            said = f"{self.section}.tls.ca_file {self.ca_file}: {_reason(fault)}"
            raise KafkaDenied(said) from fault
        if not self.tls_verify:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            try:
                made.load_cert_chain(self.client_cert, self.client_key)
            except OSError as fault:
                pair = f"{self.client_cert} and {self.client_key}"
                said = f"{self.section}.tls.client_cert and client_key {pair}: {_reason(fault)}"
                raise KafkaDenied(said) from fault
        return made

    def _secret(self) -> str | None:
        if self.password_file is None:
            return self.password
        try:
            return Path(self.password_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            said = fault.strerror if isinstance(fault, OSError) else "is not UTF-8 text"
            at = f"{self.section}.sasl.password_file {self.password_file}"
            raise KafkaDenied(f"{at}: {said}") from fault


def _reason(fault: OSError) -> str:
    if isinstance(fault, ssl.SSLError):
        return "not in PEM format, or another kind of file, or not a pair"
    return fault.strerror or str(fault)
