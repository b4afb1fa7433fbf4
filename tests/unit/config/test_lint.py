"""What is legal and unwise."""

import pytest

from sidecar.config.lint import warnings
from sidecar.config.load import load

KAFKA = "kafka: {bootstrap_servers: ['127.0.0.1:9092']}"


@pytest.mark.parametrize("text", [None, "circuit_breaker:", "consul:", "breakers: {a: {}}"])
def test_the_defaults_are_sound(text: str | None) -> None:
    assert warnings(load(text, environ={})) == []


LAG = """\
{kafka: {bootstrap_servers: k}, breakers: {a: {evaluation_interval: 2s,
  topic: t, group: g, signals: {lag: """


PUBLISH = f"{KAFKA}\nspool: {{dir: /s}}\n"
DUAL = "publish: {topics: {a: {outage: dual}}}"
SMALL = "topics: {a: {max_bytes: 64KiB}}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{PUBLISH}store: consul\npublish: {{topics: {{a: {{}}}}}}", "publish"),
        (
            f"{PUBLISH}publish: {{max_outstanding: 1MiB, topics: {{a: {{}}}}}}",
            "publish.max_outstanding",
        ),
        (
            f"{PUBLISH}kafka_second: {{bootstrap_servers: ['127.0.0.1:9092']}}\n{DUAL}",
            "kafka_second.bootstrap_servers",
        ),
        (
            f"{PUBLISH}publish: {{topics: {{a: {{}}}}}}".replace("/s", f"/s, {SMALL}"),
            "spool.topics.a.max_bytes",
        ),
        ("listen: {address: 'localhost:0'}", "listen.address"),
        ("listen: {allow_remote: true}", "listen.allow_remote"),
        ("listen: {allow_remote: true, address: '0.0.0.0:1'}", "reports"),
        ("listen: {socket: /a, socket_mode: 0666}", "listen.socket_mode"),
        ("role: follower", "role"),
        ("store: memory\nconsul: {address: 'a:1'}", "store"),
        ("consul: {session_ttl: 31s}", "consul.max_stale"),
        ("consul: {session_ttl: 2m, max_stale: 2m}", "consul.session_ttl"),
        ("consul: {on_loss: deny}", "consul.on_loss"),
        ("register: {port: 80}", "register"),
        ("consul:\nregister: {name: api, port: 80, address: a}", "register.check"),
        ("consul:\nregister: {name: breaker-sidecar}", "register.address"),
        ("consul: {address: 'https://a', tls_verify: false}", "consul.tls_verify"),
        ("consul: {token: a, token_file: b}", "consul.token"),
        ("consul: {token_file: b, address: '10.0.0.1:8500'}", "consul.address"),
        ("breakers: {a: {failure_threshold: 2}}", "breakers.a.failure_threshold"),
        (
            "breakers: {a: {failure_threshold: 5, signals: {missing: {min_consumers: 6}}}}",
            "breakers.a.failure_threshold",
        ),
        ("breakers: {a: {auto_threshold: {cap: 99}}}", "breakers.a.auto_threshold"),
        (
            "breakers: {a: {failure_threshold: auto, auto_threshold: {floor: 1}}}",
            "breakers.a.auto_threshold.floor",
        ),
        ("breakers: {a: {shed: {full: 30s}}}", "breakers.a.shed"),
        (
            f"{KAFKA}\nbreakers: {{a: {{topic: t, group: g, shed: {{}}, signals: {{lag: {{}}}}}}}}",
            "breakers.a.signals.lag.for",
        ),
        ("breakers: {a: {report_interval: 12s, shed: {}}}", "breakers.a.shed"),
        ("breakers: {a: {evaluation_interval: 1s}}", "breakers.a.report_interval"),
        ("breakers: {a: {open_duration: 4s}}", "breakers.a.open_duration"),
        ("breakers: {a: {half_open: {ramp: 1s, max: 4s}}}", "breakers.a.half_open.max"),
        ("breakers: {a: {half_open: {initial: 1}}}", "breakers.a.half_open.initial"),
        ("breakers: {a: {on_unknown: healthy}}", "breakers.a.on_unknown"),
        (
            "breakers: {a: {signals: {delivery: {local: {}}}}}",
            "breakers.a.signals.delivery.local",
        ),
        (
            "{reports: off, breakers: {a: {signals: {delivery: {quorum: 2, local: {}}}}}}",
            "breakers.a.signals.delivery.local",
        ),
        (f"{LAG}{{window: 14s}}}}}}}}}}", "breakers.a.signals.lag.window"),
        ("{store: consul, breakers: {a: {}, b: {}}}", "breakers.b.consul_key_prefix"),
        (
            "breakers: {a: {consul_key_prefix: m}, b: {consul_key_prefix: m/x}}",
            "breakers.b.consul_key_prefix",
        ),
    ],
)
def test_each_warning_names_its_key(text: str, key: str) -> None:
    (warning,) = warnings(load(text, environ={}))
    assert warning.startswith(f"{key}: ")


def test_a_secret_over_loopback_or_a_socket_is_fine() -> None:
    assert warnings(load("consul: {token_file: b, address: '127.0.0.1:1'}", environ={})) == []
    assert warnings(load("consul: {token: b, address: 'unix:///a'}", environ={})) == []


@pytest.mark.parametrize("inner_first", [False, True])
def test_the_inner_prefix_is_the_one_that_is_wrong(inner_first: bool) -> None:
    """Whichever comes first in the file."""
    sections = ["a: {consul_key_prefix: m}", "b: {consul_key_prefix: m/x}"]
    breakers = ", ".join(reversed(sections) if inner_first else sections)
    (warning,) = warnings(load(f"{{store: consul, breakers: {{{breakers}}}}}", environ={}))
    assert warning.startswith("breakers.b.consul_key_prefix: lies in that of a (m)")


def test_in_memory_breakers_that_say_no_prefix_share_no_reports() -> None:
    assert warnings(load("breakers: {a: {}, b: {}}", environ={})) == []
