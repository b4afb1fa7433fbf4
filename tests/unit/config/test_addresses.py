"""Where to listen and where Consul is."""

import pytest

from sidecar.config.addresses import (
    AddressError,
    bind_targets,
    is_loopback,
    join_host_port,
    parse_consul_address,
    split_host_port,
    with_scheme,
)
from sidecar.config.model import Consul, Listen, consul_endpoint, listen_targets


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:9100", "localhost", 9100),
        ("localhost", "localhost", None),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:9100", "::1", 9100),
        ("[::1]", "::1", None),
        ("::1", "::1", None),
        (":9100", "", 9100),
        ("consul_1.example:0", "consul_1.example", 0),
    ],
)
def test_splits(text: str, host: str, port: int | None) -> None:
    assert split_host_port(text) == (host, port)
    if port is not None:
        assert split_host_port(join_host_port(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "a:b", "a:65536", "a:-1", "a b:1", "[::1", "[x]:1", "[::1]x", "1:2:3", "a:", "/a:1"],
)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        split_host_port(text)


def test_localhost_is_both_loopback_addresses() -> None:
    assert listen_targets(Listen()) == [("127.0.0.1", 9100), ("::1", 9100)]
    assert listen_targets(Listen(address="[::1]:7")) == [("::1", 7)]
    assert bind_targets(":9100") == [("0.0.0.0", 9100), ("::", 9100)]
    with pytest.raises(AddressError):
        bind_targets("localhost")


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "::2"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_v4_loopback_written_as_v6_is_loopback() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:10.0.0.1")


@pytest.mark.parametrize(
    ("address", "scheme", "url"),
    [
        ("127.0.0.1:8500", "http", "http://127.0.0.1:8500"),
        ("127.0.0.1", "http", "http://127.0.0.1:8500"),
        ("consul.example", "https", "https://consul.example:8501"),
        ("http://consul.example", "http", "http://consul.example:80"),
        ("https://consul.example", "https", "https://consul.example:443"),
        ("https://consul.example:8501", "https", "https://consul.example:8501"),
        ("http://h:8500/consul", "http", "http://h:8500/consul"),
        ("http://h:8500/consul/eu/", "http", "http://h:8500/consul/eu"),
        ("h:8500/consul", "http", "http://h:8500/consul"),
        ("[::1]:8500", "http", "http://[::1]:8500"),
        ("unix:///run/consul.sock", "http", "http://localhost"),
    ],
)
def test_consul_endpoints(address: str, scheme: str, url: str) -> None:
    assert with_scheme(address, scheme).base_url == url


def test_a_socket_keeps_its_path() -> None:
    endpoint = consul_endpoint(Consul(address="unix:///run/consul.sock"))
    assert endpoint.socket == "/run/consul.sock"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://",
        "unix://run/consul.sock",
        "ftp://h:1",
        "HTTP://h",
        "h:0",
        "h:1/a/../b",
        "h:1/a//b",
        "h:1/?q=1",
        "http://h:1/#f",
        "unix:///a\0b",
    ],
)
def test_refuses_consul_addresses(address: str) -> None:
    with pytest.raises(AddressError):
        parse_consul_address(address)
