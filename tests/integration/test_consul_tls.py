"""TLS and mutual TLS with a real Consul: what is trusted, and what each failure is told as."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar.consumer import ConsulKeys
from sidecar.consumer.consul import NotWritten
from sidecar.core.errors import StoreError, StoreRejected, StoreUnreachable
from sidecar.store.consul import ConsulSettings, ConsulStore
from tests.authority import Authority
from tests.integration.fleet import Fleet, events, metric
from tests.servers import ConsulServer, free_port, poll_until_sync
from tests.telemetry import RecordedTelemetry

pytestmark = pytest.mark.consul

SOON_S = 15.0


@dataclass(frozen=True)
class Secured:
    """A Consul that answers only those whom its authority knows."""

    server: ConsulServer
    https: int
    ours: Authority
    other: Authority

    @property
    def right(self) -> ConsulSettings:
        cert, key = self.ours.pair("client")
        return ConsulSettings(
            scheme="https", port=self.https, ca_file=self.ours.ca, client_cert=cert, client_key=key
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    ours, other = Authority(folder / "ours"), Authority(folder / "other")
    cert, key = ours.pair("server")
    https = free_port()
    config = f"""
        addresses {{ https = "127.0.0.1 127.0.0.2" }}
        ports {{ https = {https} }}
        tls {{ https {{
          ca_file = "{ours.ca}" cert_file = "{cert}" key_file = "{key}" verify_incoming = true
        }} }}
    """
    with ConsulServer(config=config) as server:
        yield Secured(server, https, ours, other)


async def read(settings: ConsulSettings) -> StoreError | None:
    """One read; the error it met."""
    store = ConsulStore(settings, RecordedTelemetry())
    try:
        await store.read("a")
    except StoreError as fault:
        return fault
    finally:
        await store.close()
    return None


async def test_each_failure_has_words_of_its_own(secured: Secured, tmp_path: Path) -> None:
    right, other = secured.right, secured.other
    foreign, foreign_key = other.pair("client")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    wrong: list[tuple[ConsulSettings, str]] = [
        (
            replace(right, ca_file=other.ca),
            f"not signed by an authority that consul.ca_file {other.ca}",
        ),
        (replace(right, ca_file=None), "not signed by an authority that this system names"),
        (replace(right, host="127.0.0.2"), "certificate is not for 127.0.0.2"),
        (
            replace(right, client_cert=None, client_key=None),
            "wants a client certificate: set consul",
        ),
        (replace(right, client_cert=foreign, client_key=foreign_key), "does not trust the client"),
        (replace(right, port=secured.server.port), "no TLS is spoken there"),
        (replace(right, ca_file="/nowhere.pem"), "consul.ca_file /nowhere.pem: No such file"),
        (replace(right, ca_file=str(junk)), f"consul.ca_file {junk}: not in PEM format"),
        (replace(right, client_key=foreign_key), "the key is another certificate's"),
        (replace(right, client_cert="/nowhere.pem"), "/nowhere.pem and"),
    ]
    for settings, words in wrong:
        fault = await read(settings)
        assert type(fault) is StoreUnreachable
        assert words in str(fault)
    plain = await read(replace(right, scheme="http"))
    assert type(plain) is StoreRejected
    assert "HTTP request to an HTTPS server" in str(plain)
    assert await read(right) is None
    assert await read(replace(right, tls_verify=False, ca_file=None)) is None


async def test_a_replaced_certificate_is_taken_up(secured: Secured, tmp_path: Path) -> None:
    """One that Consul doesn't trust, then ours, under the same names: no restart."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(authority: Authority) -> None:
        for source, target in zip(authority.pair("client"), (cert, key), strict=True):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.rename(target)

    put(secured.other)
    settings = replace(secured.right, client_cert=str(cert), client_key=str(key))
    store = ConsulStore(settings, RecordedTelemetry())
    try:
        with pytest.raises(StoreUnreachable):
            await store.read("a")
        put(secured.ours)
        with pytest.raises(StoreUnreachable):
            await store.read("a")  # the failure that makes it look
        assert await store.read("a") is None
    finally:
        await store.close()


def test_a_daemon_behind_mutual_tls_and_one_that_is_not_let_in(
    secured: Secured, prefix: str
) -> None:
    """The whole way of a trip; the other says why it can't, and goes by its loss policy."""
    cert, key = secured.ours.pair("client")
    section: dict[str, object] = {
        "address": f"https://127.0.0.1:{secured.https}",
        "state_prefix": prefix,
        "ca_file": secured.ours.ca,
    }
    known = {**section, "client_cert": cert, "client_key": key, "fast_takeover": "5s"}
    with Fleet(secured.server, prefix) as fleet:
        (first,) = fleet.start(1, consul=known)
        (stranger,) = fleet.start(1, consul=section)
        assert fleet.evaluator() is first
        fleet.trip(SOON_S)
        poll_until_sync(lambda: fleet.statuses() == [503, 200], SOON_S, "the first one rejects")
        poll_until_sync(lambda: events(stranger, "store_lost"), SOON_S, "the other says so")
        assert "wants a client certificate" in events(stranger, "store_lost")[0]["error"]
        assert stranger.allowed(peek=True).headers["x-breaker-reason"] == "no_state"
        assert metric(first, "breaker_consul_requests_total", outcome="unreachable") == 0
        assert first.stop() == 0


def test_the_consumer_kit_reports_by_the_same_variables(secured: Secured, prefix: str) -> None:
    cert, key = secured.ours.pair("client")
    environ = {
        "CONSUL_HTTP_ADDR": f"https://127.0.0.1:{secured.https}",
        "CONSUL_CACERT": secured.ours.ca,
        "CONSUL_CLIENT_CERT": cert,
        "CONSUL_CLIENT_KEY": key,
    }
    bare = {"CONSUL_HTTP_ADDR": f"127.0.0.1:{secured.https}", "CONSUL_HTTP_SSL": "true"}
    unchecked = {**environ, "CONSUL_CACERT": "", "CONSUL_HTTP_SSL_VERIFY": "false"}
    for each in (environ, {**environ, **bare}, unchecked):
        keys = ConsulKeys(prefix=prefix, environ=each)
        keys.put("w", b"{}", SOON_S)
        assert secured.server.kv_get(f"{prefix}/w") == b"{}"
        keys.delete("w", SOON_S)
        assert secured.server.kv_get(f"{prefix}/w") is None
    for wrong in ({"CONSUL_CACERT": secured.other.ca}, {"CONSUL_CACERT": "/nowhere.pem"}):
        with pytest.raises(NotWritten, match="Consul: "):
            ConsulKeys(prefix=prefix, environ={**environ, **wrong}).put("w", b"{}", SOON_S)
    unknown = {**environ, "CONSUL_CLIENT_CERT": "", "CONSUL_CLIENT_KEY": ""}
    with pytest.raises(NotWritten, match="Consul: SSL"):
        ConsulKeys(prefix=prefix, environ=unknown).put("w", b"{}", SOON_S)
