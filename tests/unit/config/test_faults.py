"""Every fault: its key, its line, its value and what would be right; all of them at once."""

import pytest

from sidecar.config.faults import ConfigFaults, Fault
from sidecar.config.load import load


def faults_of(text: str, **environ: str) -> list[Fault]:
    """The faults of a text that has some."""
    with pytest.raises(ConfigFaults) as caught:
        load(text, path="f.yaml", environ=environ)
    return caught.value.faults


def breaker(*lines: str) -> str:
    """A configuration with a few lines of one breaker, from line 3 on."""
    return "breakers:\n  a:\n" + "".join(f"    {line}\n" for line in lines)


KAFKA = "kafka: {bootstrap_servers: k}\n"
# text, key, line, value, a part of the problem, a part of the fix
TABLE = [
    ("stor: memory", "stor", 1, None, "unknown key", "did you mean store?"),
    ("a: 1\nb: 2\nqqq: 3", "qqq", 3, None, "unknown key", "known here: store, role"),
    ("server: {a: 1}", "server", 1, None, "unknown key", "only beside circuit_breaker"),
    ("server: {a: 1}", "server", 1, None, "unknown key", "only beside circuit_breaker"),
    ("store: etcd", "store", 1, "etcd", "none of its values", "memory or consul"),
    ("role:", "role", 1, None, "has no value", "leave the key out"),
    ("role: {a: 1}", "role", 1, None, "is not one value", "write one value"),
    ("data_dir: ''", "data_dir", 1, "", "is not a path", "null for none"),
    ("reports: socket", "reports", 1, "socket", "isn't there", "set listen.socket"),
    ("listen: 9100", "listen", 1, None, "is no mapping", "indented"),
    ("listen:\n  adress: x", "listen.adress", 2, None, "unknown key", "did you mean address?"),
    ("listen:\n  address: 9100", "listen.address", 2, "9100", "", "write localhost:9100"),
    ("listen: {address: 'a:b'}", "listen.address", 1, "a:b", "no number", "host:port"),
    ("listen: {address: '0.0.0.0:1'}", "listen.address", 1, "0.0.0.0:1", "other", "allow_remote"),
    ("listen: {address: ':1'}", "listen.address", 1, ":1", "other machines", "allow_remote"),
    ("listen: {address: 'web:1'}", "listen.address", 1, "web:1", "other machines", "allow_remote"),
    ("listen: {socket_mode: 0800}", "listen.socket_mode", 1, "0800", "file mode", "octal"),
    ("listen: {socket: 'unix:///a'}", "listen.socket", 1, "unix:///a", "not a path", "write /a"),
    (f"listen: {{socket: {'a' * 108}}}", "listen.socket", 1, None, "too long", "107"),
    ("listen: {diagnostics: a}", "listen.diagnostics", 1, "a", "has no port", "write a:9101"),
    ("listen: {diagnostics: 'localhost:9100'}", "listen.diagnostics", 1, None, "too", "another"),
    ("listen: {diagnostics: '0.0.0.0:9100'}", "listen.diagnostics", 1, None, "too", "another"),
    ("listen: {allow_remote: maybe}", "listen.allow_remote", 1, "maybe", "neither", "true or"),
    ("listen: {allowed_hosts: [a, {b: 1}]}", "listen.allowed_hosts", 1, None, "list of", "write"),
    ("listen: {allowed_hosts: ['http://a']}", "listen.allowed_hosts", 1, None, "no host", "scheme"),
    ("listen: {allowed_hosts: ['a:1']}", "listen.allowed_hosts", 1, "a:1", "port", "write a"),
    ("consul: {address: 'ftp://a'}", "consul.address", 1, "ftp://a", "scheme", "host:port"),
    ("consul: {address: 'http://a:b@c'}", "consul.address", 1, "***@c", "user", "token_file"),
    ("store: memory\nregister: {name: a}", "register.name", 2, "a", "no Consul", "store: consul"),
    ("register: {name: a_b}", "register.name", 1, "a_b", "not a service's", "letters, digits"),
    ("register: {check: health}", "register.check", 1, "health", "no check", "readyz, livez or"),
    ("register: {address: 'a/b'}", "register.address", 1, "a/b", "not a host", "without a port"),
    ("register: {port: 0}", "register.port", 1, "0", "out of range", "from 1"),
    (
        "consul:\nlisten: {address: 'localhost:0'}\nregister: {name: a, port: 80}",
        "register.name",
        3,
        "a",
        "the system chooses",
        "a URL as register.check",
    ),
    ("consul: {state_prefix: /b}", "consul.state_prefix", 1, "/b", "slash", "write b"),
    ("consul: {state_prefix: a//b}", "consul.state_prefix", 1, "a//b", "not a key", "single /"),
    ("consul: {state_prefix: a/../b}", "consul.state_prefix", 1, "a/../b", "step", "directly"),
    ("consul: {state_prefix: a%b}", "consul.state_prefix", 1, "a%b", "not a key", "letters"),
    ("consul: {session_ttl: 9s}", "consul.session_ttl", 1, "9s", "too short", "10s or more"),
    ("consul: {fast_takeover: 2}", "consul.fast_takeover", 1, "2", "no unit", "write 2s"),
    ("consul: {fast_takeover: 9ms}", "consul.fast_takeover", 1, "9ms", "too short", "1s or more"),
    (
        "consul: {fast_takeover: 10s}",
        "consul.fast_takeover",
        1,
        "10s",
        "not shorter than session_ttl (10s)",
        "set fast_takeover to 2s",
    ),
    ("consul: {session_ttl: 25h}", "consul.session_ttl", 1, "25h", "too long", "24h or less"),
    ("consul: {lock_delay: 2m}", "consul.lock_delay", 1, "2m", "too long", "1m or less"),
    ("consul: {on_loss: panic}", "consul.on_loss", 1, "panic", "none", "keep, allow or deny"),
    ("consul: {max_stale: 4s}", "consul.max_stale", 1, "4s", "too short", "5s or more"),
    ("consul: {client_cert: a}", "consul.client_cert", 1, "a", "half", "consul.client_key"),
    ("consul: {client_key: a}", "consul.client_key", 1, "a", "half", "consul.client_cert"),
    (
        "consul:\n  address: https://a\n  scheme: http",
        "consul.scheme",
        3,
        "http",
        "says otherwise than consul.address",
        "leave",
    ),
    ("breakers: [a]", "breakers", 1, None, "is no mapping", "indented"),
    ("breakers: {a: 1}", "breakers.a", 1, None, "is no mapping", "indented"),
    ("breakers:\n  state: {}", "breakers.state", 2, None, "reserved", "state-flow"),
    ("breakers: {override: {}}", "breakers.override", 1, None, "reserved", "otherwise"),
    ("breakers: {leader: {}}", "breakers.leader", 1, None, "reserved", "otherwise"),
    ("breakers: {-a: {}}", "breakers.-a", 1, None, "breaker's name", "letters"),
    (f"breakers: {{{'a' * 65}: {{}}}}", "breakers." + "a" * 65, 1, None, "name", "up to 64"),
    (breaker("mod: x"), "breakers.a.mod", 3, None, "unknown key", "did you mean mode?"),
    (breaker("mode: off"), "breakers.a.mode", 3, "off", "none", "enforce or shadow"),
    (breaker("topic: a b"), "breakers.a.topic", 3, "a b", "topic", "249"),
    (breaker("consul_key_prefix: a/"), "breakers.a.consul_key_prefix", 3, "a/", "slash", "write a"),
    (
        breaker("consul_key_prefix: breaker"),
        "breakers.a.consul_key_prefix",
        3,
        "breaker",
        "lie in one another",
        "a prefix of their own",
    ),
    (
        breaker("consul_key_prefix: breaker/reports"),
        "breakers.a.consul_key_prefix",
        3,
        "breaker/reports",
        "holds the state",
        "a prefix of their own",
    ),
    (
        breaker("consul_key_prefix: breaker-normal"),
        "breakers.a.consul_key_prefix",
        3,
        "breaker-normal",
        "holds the learned normal",
        "a prefix of their own",
    ),
    (
        breaker("shed: {start: 60s}"),
        "breakers.a.shed.start",
        3,
        "60s",
        "not shorter than shed.full (1m)",
        "set shed.full to 6m",
    ),
    (
        breaker("shed: {least: 1}"),
        "breakers.a.shed.least",
        3,
        "1",
        "not between 0.001 and 1",
        "such as 0.05",
    ),
    (
        breaker("failure_threshold: automatic"),
        "breakers.a.failure_threshold",
        3,
        "automatic",
        "whole number",
        "or auto",
    ),
    (
        breaker("auto_threshold: {floor: 11, cap: 10}"),
        "breakers.a.auto_threshold.floor",
        3,
        "11",
        "above cap (10)",
        "set cap to 11 or more",
    ),
    (
        breaker("auto_threshold: {initial: 9}"),
        "breakers.a.auto_threshold.initial",
        3,
        "9",
        "not between floor (10) and cap (1000)",
        "a number from 10 to 1000",
    ),
    (
        "breakers:\n  a:\n    failure_threshold: auto\n    auto_threshold: {history: 4m}",
        "breakers.a.auto_threshold.history",
        4,
        "4m",
        "fewer than 60 report_interval",
        "5m or more",
    ),
    (
        breaker("consul_key_prefix: breaker-history/x"),
        "breakers.a.consul_key_prefix",
        3,
        "breaker-history/x",
        "holds the history",
        "a prefix of their own",
    ),
    (
        "consul: {state_prefix: service-metrics/kafka-consumer/state}",
        "consul.state_prefix",
        1,
        None,
        "lie in one another",
        "a prefix of their own",
    ),
    (breaker("evaluation_interval: 5"), "breakers.a.evaluation_interval", 3, "5", "", "write 5s"),
    (breaker("evaluation_interval: 99ms"), "breakers.a.evaluation_interval", 3, None, "", "100ms"),
    (breaker("evaluation_interval: 5 s"), "breakers.a.evaluation_interval", 3, None, "", "1m30s"),
    (breaker("evaluation_interval: -5s"), "breakers.a.evaluation_interval", 3, None, "", "100ms"),
    (breaker("failure_threshold: 0"), "breakers.a.failure_threshold", 3, "0", "range", "from 1"),
    (breaker("failure_threshold: 2.5"), "breakers.a.failure_threshold", 3, "2.5", "whole", "1 or"),
    (breaker("report_interval: 0"), "breakers.a.report_interval", 3, "0", "too short", "100ms"),
    (breaker("report_gc: 14s"), "breakers.a.report_gc", 3, "14s", "before they are stale", "15s"),
    (breaker("report_gc: 1ms"), "breakers.a.report_gc", 3, "1ms", "too short", "0 for never"),
    (breaker("open_duration: 6m"), "breakers.a.open_duration", 3, "6m", "max_open", "6m or more"),
    (breaker("max_open_duration: 9s"), "breakers.a.max_open_duration", 3, "9s", "longer", "30s"),
    (breaker("half_open: {initial: 0}"), "breakers.a.half_open.initial", 3, "0", "range", "0.05"),
    (breaker("half_open: {initial: 5%}"), "breakers.a.half_open.initial", 3, "5%", "ratio", "0.05"),
    (breaker("half_open: {initial: .nan}"), "breakers.a.half_open.initial", 3, None, "ratio", ""),
    (breaker("half_open: {ramp: 3m}"), "breakers.a.half_open.ramp", 3, "3m", "longer", "3m or"),
    (breaker("half_open: {max: 10s}"), "breakers.a.half_open.max", 3, "10s", "longer", "30s or"),
    (breaker("on_unknown: open"), "breakers.a.on_unknown", 3, "open", "none", "hold or healthy"),
    (breaker("foreign_writes: no"), "breakers.a.foreign_writes", 3, "no", "none", "reassert"),
    (breaker("deny_status: 500"), "breakers.a.deny_status", 3, "500", "none", "401, 403, 429 or"),
    (
        f"{KAFKA}{breaker('signals: {probe: {max_latency: 5s}}')}",
        "breakers.a.signals.probe.max_latency",
        4,
        "5s",
        "half of interval",
        "below 5s",
    ),
    (
        f"{KAFKA}{breaker('{topic: t, signals: {probe: {topic: t}}}')}",
        "breakers.a.signals.probe.topic",
        4,
        "t",
        "messages of t",
        "topic of their own",
    ),
    (
        (
            f"{KAFKA}breakers:\n  a: {{signals: {{probe: {{}}}}}}\n"
            "  b: {consul_key_prefix: m, signals: {probe: {topic: t}}}"
        ),
        "breakers.b.signals.probe.topic",
        4,
        "t",
        "one prober",
        "topic: breaker-sidecar-probe",
    ),
    (
        breaker("signals: {delivery: {local: {shut: 15s}}}"),
        "breakers.a.signals.delivery.local.shut",
        3,
        "15s",
        "outlive",
        "set shut to 5s",
    ),
    (breaker("signals: {qq: {}}"), "breakers.a.signals.qq", 3, None, "signal", "failure_ratio"),
    (
        KAFKA + breaker("topic: t", "group: g", "signals: {lag: {window: 14s}}"),
        "breakers.a.signals.lag.window",
        6,
        "14s",
        "three evaluation_interval (5s)",
        "15s or more",
    ),
    ("circuit_breaker: {x: 1}", "circuit_breaker.x", 1, None, "unknown", "consul_address"),
    ("circuit_breaker: []", "circuit_breaker", 1, None, "no mapping", "indented"),
    (
        "circuit_breaker: {}\nbreakers: {a: {}}",
        "circuit_breaker",
        1,
        None,
        "beside breakers",
        "breakers.default",
    ),
    (
        "circuit_breaker:\n  failure_threshold: many",
        "circuit_breaker.failure_threshold",
        2,
        "many",
        "whole number",
        "1 or more",
    ),
    (
        "circuit_breaker:\n  consul_address: a:1\nconsul:\n  address: b:1",
        "consul.address",
        4,
        "b:1",
        "says otherwise than circuit_breaker.consul_address (a:1)",
        "keep one",
    ),
    ("kafka: {brokers: [a]}", "kafka.brokers", 1, None, "unknown", "only beside circuit_breaker"),
    ("kafka: {bootstrap_servers: [a:b]}", "kafka.bootstrap_servers", 1, "a:b", "port", "host:port"),
    ("kafka: {tls: {client_cert: a}}", "kafka.tls.client_cert", 1, "a", "half", "client_key too"),
    (
        "kafka: {tls: {enabled: false, ca_file: a}}",
        "kafka.tls.enabled",
        1,
        "false",
        "is off",
        "to true",
    ),
    ("kafka: {sasl: {username: a}}", "kafka.sasl.username", 1, "a", "is missing", "PLAIN"),
    (
        "kafka: {sasl: {mechanism: PLAIN, username: a}}",
        "kafka.sasl.mechanism",
        1,
        "PLAIN",
        "is missing",
        "password_file",
    ),
]


@pytest.mark.parametrize("case", TABLE)
def test_each_fault(case: tuple[str, str, int, str | None, str, str]) -> None:
    text, key, line, value, problem, fix = case
    found = {fault.key: fault for fault in faults_of(text)}
    assert key in found
    fault = found[key]
    assert fault.line == line
    assert problem in fault.problem
    assert fix in fault.fix
    if value is not None:
        assert fault.value == value
    assert str(fault).startswith(f"f.yaml:{line}: {key[:60]}")


def test_a_fault_is_one_sentence() -> None:
    (fault,) = faults_of("\n\nstore: etcd\n")
    expected = "f.yaml:3: store: is none of its values (got 'etcd'); write memory or consul"
    assert str(fault) == expected


def test_all_at_once_and_in_the_order_of_the_file() -> None:
    text = "\n".join(line for line, *_ in TABLE[:2] + TABLE[4:5])
    text += "\nlisten:\n  address: 9100\n  address: 9200\nbreakers:\n  state: {}\n"
    found = faults_of(
        text,
        BREAKER_SIDECAR__ROLE="king",
        BREAKER_SIDECAR__LISTEN__SOKET="x",
        NOMAD_PORT_breaker="http",
    )
    assert [(fault.source, fault.line, fault.key) for fault in found] == [
        ("f.yaml", 1, "stor"),
        ("f.yaml", 2, "a"),
        ("f.yaml", 3, "b"),
        ("f.yaml", 4, "qqq"),
        ("f.yaml", 5, "store"),
        ("f.yaml", 7, "listen.address"),
        ("f.yaml", 8, "listen.address"),
        ("f.yaml", 10, "breakers.state"),
        ("BREAKER_SIDECAR__LISTEN__SOKET", None, "listen.soket"),
        ("BREAKER_SIDECAR__ROLE", None, "role"),
        ("NOMAD_PORT_breaker", None, "listen.address"),
    ]
    with pytest.raises(ConfigFaults) as caught:
        load(text, environ={})
    assert len(str(caught.value).splitlines()) == 8


def test_a_bad_value_hides_only_the_rules_about_itself() -> None:
    text = "breakers:\n  a:\n    open_duration: x\n    max_open_duration: 1s\n    report_gc: 1s\n"
    assert [fault.key for fault in faults_of(text)] == [
        "breakers.a.open_duration",
        "breakers.a.report_gc",
    ]


def test_a_bad_value_is_told_though_a_variable_beats_it() -> None:
    (fault,) = faults_of("role: king", BREAKER_SIDECAR__ROLE="auto")
    assert fault.line == 1


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (
            breaker("topic: t", "group: g"),
            "kafka.bootstrap_servers",
            "signals.lag of a reads Kafka",
        ),
        (f"{KAFKA}{breaker('group: g')}", "breakers.a.topic", "signals.lag reads it"),
        (f"{KAFKA}{breaker('topic: t')}", "breakers.a.group", "signals.lag reads it"),
    ],
)
def test_what_lag_cannot_do_without(text: str, key: str, problem: str) -> None:
    (fault,) = faults_of(f"{text}    signals: {{lag: {{}}}}\n")
    assert (fault.key, fault.problem) == (key, f"is missing: {problem}")


def test_what_is_missing_has_the_line_of_what_it_is_missing_in() -> None:
    (fault,) = faults_of("breakers:\n  a:\n    signals:\n      slow: {for: 5s}\n")
    assert (fault.key, fault.line) == ("breakers.a.signals.slow.max_latency", 4)


def test_secrets_are_never_repeated() -> None:
    found = faults_of('consul: {token: "s3cret\\x01"}', BREAKER_SIDECAR__CONSUL__TOKN="s3cret")
    assert len(found) == 2
    assert "s3cret" not in "".join(map(str, found))


def test_a_flood_of_faults_is_cut() -> None:
    found = faults_of("\n".join(f"k{n}: 1" for n in range(1500)))
    assert len(found) == 1001
    assert "500 more" in str(found[-1])


def test_a_long_value_is_cut() -> None:
    (fault,) = faults_of(f"store: {'x' * 1000}")
    assert len(str(fault)) < 200


def test_canaries_need_to_know_where_kafka_is() -> None:
    """Told at the key that is missing, which no line has."""
    (fault,) = faults_of(breaker("signals: {probe: {}}"))
    assert (fault.key, fault.line) == ("kafka.bootstrap_servers", None)
    assert "signals.probe of a sends canaries" in fault.problem
    assert "kafka-1:9092" in fault.fix
