"""Where the kit looks for Consul: by the same rules as the daemon."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field

import pytest

from sidecar.consumer import ConsulKeys
from sidecar.consumer.consul import NotWritten


@dataclass
class Dialled:
    """What was connected to, and asked for."""

    places: list[tuple[str, int, bool]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Dialled:
    seen = Dialled()

    def connect(self: http.client.HTTPConnection, *_: object) -> None:
        secure = isinstance(self, http.client.HTTPSConnection)
        seen.places.append((self.host, self.port, secure))

    def request(self: http.client.HTTPConnection, method: str, url: str, *_: object) -> None:
        self.connect()
        seen.paths.append(f"{method} {url}")
        raise ConnectionResetError

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    return seen


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("consul", ("consul", 8500, False)),
        ("consul:1", ("consul", 1, False)),
        ("http://consul", ("consul", 80, False)),
        ("https://consul", ("consul", 443, True)),
        ("https://consul:8501", ("consul", 8501, True)),
        ("[::1]:1", ("::1", 1, False)),
    ],
)
def test_a_port_that_is_not_written(
    dialled: Dialled, address: str, place: tuple[str, int, bool]
) -> None:
    with pytest.raises(NotWritten):
        ConsulKeys(environ={"CONSUL_HTTP_ADDR": address}).put("w", b"{}", 1.0)
    assert dialled.places == [place]


def test_tls_by_the_variable(dialled: Dialled) -> None:
    with pytest.raises(NotWritten):
        ConsulKeys(address="consul", environ={"CONSUL_HTTP_SSL": "true"}).put("w", b"{}", 1.0)
    assert dialled.places == [("consul", 8501, True)]


@pytest.mark.parametrize("address", ["gate:1/consul", "http://gate:1/consul/"])
def test_a_path_goes_in_front(dialled: Dialled, address: str) -> None:
    with pytest.raises(NotWritten):
        ConsulKeys(prefix="p/q", address=address, environ={}).delete("w", 1.0)
    assert dialled.paths == ["DELETE /consul/v1/kv/p/q/w"]
