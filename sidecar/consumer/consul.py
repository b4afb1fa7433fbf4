"""One key in Consul, over plain HTTP: what is left to do where no sidecar is."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from sidecar.client.blocking import UnixConnection

DEFAULT_ADDRESS = "127.0.0.1:8500"
DEFAULT_PREFIX = "service-metrics/kafka-consumer"
YES, NO = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})
"""How Consul's own variables say so."""


class NotWritten(Exception):
    """Consul did not take it, or nobody knows whether it did."""


def _environment() -> Mapping[str, str]:
    return os.environ


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulKeys:
    """Where reports lie, by the variables that all of Consul's clients know.

    Args:
        prefix: the breaker's `consul_key_prefix`.
        address: `host:port`, an http or https URL, perhaps with a path, or `unix://PATH`; None:
            CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
        environ: CONSUL_HTTP_TOKEN, _TOKEN_FILE (read each time: it is renewed), _SSL, _SSL_VERIFY,
            CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE.
    """

    prefix: str = DEFAULT_PREFIX
    address: str | None = None
    environ: Mapping[str, str] = field(default_factory=_environment, repr=False)

    def put(self, instance: str, value: bytes, timeout_s: float) -> None:
        """Write the key. Blocks as long as `timeout_s` for each step. Raises NotWritten."""
        self._do("PUT", instance, value, timeout_s)

    def delete(self, instance: str, timeout_s: float) -> None:
        """Delete the key. Raises NotWritten."""
        self._do("DELETE", instance, None, timeout_s)

    def _do(self, method: str, instance: str, body: bytes | None, timeout_s: float) -> None:
        key = f"{quote(self.prefix.rstrip('/'))}/{quote(instance)}"
        path = f"{self._front()}/v1/kv/{key}"
        if namespace := self.environ.get("CONSUL_NAMESPACE"):
            path += f"?ns={quote(namespace)}"
        connection = None
        try:
            connection = self._connection(timeout_s)
            connection.request(method, path, body, self._headers())
            answer = connection.getresponse()
            said = answer.read(200)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotWritten(f"Consul: {type(error).__name__}: {error}") from error
        finally:
            if connection is not None:
                connection.close()
        if answer.status != 200 or said.strip() != b"true":
            raise NotWritten(f"Consul answered {answer.status} to {path}: {said!r}")

    def _headers(self) -> dict[str, str]:
        token = self.environ.get("CONSUL_HTTP_TOKEN")
        if not token and (file := self.environ.get("CONSUL_HTTP_TOKEN_FILE")):
            token = Path(file).read_text("utf-8").strip()
        return {"X-Consul-Token": token} if token else {}

    def _where(self) -> str:
        return self.address or self.environ.get("CONSUL_HTTP_ADDR") or DEFAULT_ADDRESS

    def _front(self) -> str:
        """The path that a proxy has Consul below."""
        address = self._where()
        if address.startswith("unix://"):
            return ""
        return urlsplit(address if "://" in address else f"http://{address}").path.rstrip("/")

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        address = self._where()
        if address.startswith("unix://"):
            return UnixConnection(address.removeprefix("unix://"), timeout_s)
        written = "://" in address
        url = urlsplit(address if written else f"http://{address}")
        if url.hostname is None:
            raise ValueError(f"{address!r} is no address of Consul's")
        # As the daemon has it: a URL without a port has its scheme's, a bare host has Consul's.
        if url.scheme == "https" or self.environ.get("CONSUL_HTTP_SSL", "").lower() in YES:
            port = url.port or (443 if written else 8501)
            return http.client.HTTPSConnection(
                url.hostname, port, timeout=timeout_s, context=self._tls()
            )
        port = url.port or (80 if written else 8500)
        return http.client.HTTPConnection(url.hostname, port, timeout=timeout_s)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.environ.get("CONSUL_CACERT") or None)
        if certificate := self.environ.get("CONSUL_CLIENT_CERT"):
            context.load_cert_chain(certificate, self.environ.get("CONSUL_CLIENT_KEY") or None)
        if self.environ.get("CONSUL_HTTP_SSL_VERIFY", "").lower() in NO:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
