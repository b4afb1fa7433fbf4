"""Flag beats environment beats file beats default, and what each kind of variable may say."""

import pytest

from sidecar.config.faults import ConfigFaults
from sidecar.config.load import load
from sidecar.config.model import Config, Shed, Stalled, Tls, consul_endpoint

TEXT = "consul: {address: 'file:1'}\n"


def keys_at_fault(text: str | None, environ: dict[str, str], **flags: object) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        load(text, environ=environ, flags=flags)
    return [f"{fault.source}: {fault.problem}" for fault in caught.value.faults]


def test_each_layer_beats_the_one_below() -> None:
    consul = {"CONSUL_HTTP_ADDR": "standard:1"}
    own = consul | {"BREAKER_SIDECAR__CONSUL__ADDRESS": "own:1"}
    flags = {"consul.address": "flag:1"}
    assert load("store: consul", environ={}).consul.address == "127.0.0.1:8500"
    assert load(TEXT, environ={}).consul.address == "file:1"
    assert load(TEXT, environ=consul).consul.address == "standard:1"
    assert load(TEXT, environ=own).consul.address == "own:1"
    assert load(TEXT, environ=own, flags=flags).consul.address == "flag:1"


def test_a_flag_not_given_says_nothing() -> None:
    assert load("role: follower", environ={}, flags={"role": None}).role == "follower"
    config = load(
        None, environ={}, flags={"listen.allow_remote": True, "breakers.a.b.mode": "shadow"}
    )
    assert config.listen.allow_remote
    assert config.breakers["a.b"].mode == "shadow"
    hosts = load(None, environ={}, flags={"listen.allowed_hosts": ("a", "b")}).listen.allowed_hosts
    assert hosts == ("a", "b")


def test_variables_have_no_case() -> None:
    assert load(None, environ={"breaker_sidecar__Role": "follower"}).role == "follower"


def test_an_empty_variable_says_nothing() -> None:
    assert load("role: follower", environ={"BREAKER_SIDECAR__ROLE": ""}).role == "follower"
    assert load(TEXT, environ={"CONSUL_HTTP_ADDR": ""}).consul.address == "file:1"


def test_null_takes_a_value_back() -> None:
    environ = {"BREAKER_SIDECAR__DATA_DIR": "null"}
    assert load("data_dir: /a", environ=environ).data_dir is None


def test_a_list_is_written_with_commas() -> None:
    environ = {"BREAKER_SIDECAR__LISTEN__ALLOWED_HOSTS": "a, B"}
    assert load(None, environ=environ).listen.allowed_hosts == ("a", "b")


def test_the_client_variable_is_no_configuration() -> None:
    assert load(None, environ={"BREAKER_SIDECAR_ADDRESS": "localhost:1"}) == Config()


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ORDERS", "Orders"),
        ("ORDERS_EU", "orders-eu"),
        ("A__B", "a__b"),
        ("NEW", "new"),
        ("V1_X", "v1.x"),
    ],
)
def test_a_variable_finds_its_breaker(variable: str, name: str) -> None:
    text = "breakers: {Orders: {}, orders-eu: {}, a__b: {}, v1.x: {}}"
    environ = {f"BREAKER_SIDECAR__BREAKERS__{variable}__FAILURE_THRESHOLD": "5"}
    breakers = load(text, environ=environ).breakers
    assert [each for each, b in breakers.items() if b.failure_threshold == 5] == [name]


def test_a_variable_reaches_nested_keys() -> None:
    environ = {"BREAKER_SIDECAR__BREAKERS__A__HALF_OPEN__RAMP": "10s"}
    breakers = load(None, environ=environ).breakers
    assert list(breakers) == ["a"]
    assert breakers["a"].half_open.ramp_s == 10.0


@pytest.mark.parametrize("text", ["{}", "true"])
def test_a_variable_switches_a_section_on(text: str) -> None:
    environ = {
        "BREAKER_SIDECAR__BREAKERS__A__SIGNALS__STALLED": text,
        "BREAKER_SIDECAR__BREAKERS__A__SHED": text,
        "BREAKER_SIDECAR__KAFKA__TLS": "true",
    }
    config = load(None, environ=environ)
    assert config.breakers["a"].signals.stalled == Stalled()
    assert config.breakers["a"].shed == Shed()
    assert config.kafka.tls == Tls(enabled=True)


def test_a_variable_does_not_switch_a_section_off() -> None:
    environ = {"BREAKER_SIDECAR__BREAKERS__A__SHED": "false"}
    assert keys_at_fault("breakers: {a: {shed: {}}}", environ) == [
        "BREAKER_SIDECAR__BREAKERS__A__SHED: is a section"
    ]


@pytest.mark.parametrize("text", ["a,b:1", "[a, b:1]", """["a", 'b:1']"""])
def test_a_list_in_a_variable_has_commas_with_or_without_brackets(text: str) -> None:
    environ = {"BREAKER_SIDECAR__KAFKA__BOOTSTRAP_SERVERS": text}
    assert load(None, environ=environ).kafka.bootstrap_servers == ("a:9092", "b:1")


def test_a_variable_that_may_mean_two_breakers_is_a_fault() -> None:
    environ = {"BREAKER_SIDECAR__BREAKERS__A_B__MODE": "shadow"}
    (told,) = keys_at_fault("breakers: {a-b: {}, a.b: {}}", environ)
    assert "may mean the breakers a-b or a.b" in told


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("LISTEN", "is a section"),
        ("BREAKERS", "is a section"),
        ("BREAKERS__A", "is a section"),
        ("BREAKERS____MODE", "is a section"),
        ("LISTEN__ADRESS", "is an unknown key"),
        ("BREAKERS__A__SIGNALS__LEG", "is an unknown key"),
        ("STORE__X", "goes on after a key"),
        ("CIRCUIT_BREAKER__X", "is an unknown key"),
        ("BREAKERS__STATE__MODE", "is a reserved name"),
        ("", "is an unknown key"),
    ],
)
def test_an_unknown_variable_is_a_fault(variable: str, problem: str) -> None:
    assert keys_at_fault(None, {f"BREAKER_SIDECAR__{variable}": "shadow"}) == [
        f"BREAKER_SIDECAR__{variable}: {problem}"
    ]


def test_two_spellings_of_a_variable_must_agree() -> None:
    environ = {"BREAKER_SIDECAR__ROLE": "auto", "breaker_sidecar__role": "follower"}
    (told,) = keys_at_fault(None, environ)
    assert "says otherwise than BREAKER_SIDECAR__ROLE (auto)" in told
    environ["breaker_sidecar__role"] = "auto"
    assert load(None, environ=environ).role == "auto"


def test_the_block_through_variables() -> None:
    environ = {
        "BREAKER_SIDECAR__CIRCUIT_BREAKER__CONSUL_ADDRESS": "c:1",
        "BREAKER_SIDECAR__CIRCUIT_BREAKER__OPEN_DURATION": "10m",
    }
    config = load(None, environ=environ)
    assert (config.store, config.consul.address) == ("consul", "c:1")
    assert config.breakers["default"].open_duration_s == 600.0
    (told,) = keys_at_fault(
        "breakers: {a: {}}", {"BREAKER_SIDECAR__CIRCUIT_BREAKER__FAILURE_THRESHOLD": "9"}
    )
    assert "stands beside the file's breakers" in told


@pytest.mark.parametrize("key", ["CIRCUIT_BREAKER__FAILURE_THRESHOLD", "CONSUL__STATE_PREFIX"])
def test_any_key_of_a_section_calls_for_its_store(key: str) -> None:
    assert load(None, environ={f"BREAKER_SIDECAR__{key}": "9"}).store == "consul"
    assert load("store: memory", environ={f"BREAKER_SIDECAR__{key}": "9"}).store == "memory"


def test_a_variable_beats_the_block() -> None:
    text = "circuit_breaker: {consul_address: 'a:1', failure_threshold: 9}"
    environ = {
        "BREAKER_SIDECAR__BREAKERS__DEFAULT__FAILURE_THRESHOLD": "11",
        "CONSUL_HTTP_ADDR": "b:1",
    }
    config = load(text, environ=environ)
    assert config.consul.address == "b:1"
    assert config.breakers["default"].failure_threshold == 11


def test_the_long_form_in_variables_chooses_consul() -> None:
    assert load(None, environ={"BREAKER_SIDECAR__CONSUL__ADDRESS": "a:1"}).store == "consul"


@pytest.mark.parametrize(
    ("text", "environ", "address"),
    [
        (None, {}, "localhost:9100"),
        (None, {"NOMAD_PORT_breaker": "25000"}, "localhost:25000"),
        ("listen: {address: 127.0.0.1}", {"NOMAD_PORT_breaker": "25000"}, "127.0.0.1:25000"),
        ("listen: {address: '::1'}", {}, "[::1]:9100"),
        ("listen: {address: 'localhost:7'}", {"NOMAD_PORT_breaker": "25000"}, "localhost:7"),
        ("listen: {address: 'localhost:7'}", {"NOMAD_PORT_breaker": "junk"}, "localhost:7"),
        (None, {"NOMAD_PORT_breaker": ""}, "localhost:9100"),
    ],
)
def test_nomads_port(text: str | None, environ: dict[str, str], address: str) -> None:
    assert load(text, environ=environ).listen.address == address


def test_consuls_variables_do_not_choose_consul() -> None:
    environ = {"CONSUL_HTTP_ADDR": "not an address", "CONSUL_HTTP_SSL": "maybe"}
    assert load(None, environ=environ) == Config()
    assert load("consul: {}\nstore: memory", environ=environ) == Config()


def test_consuls_variables_all() -> None:
    environ = {
        "CONSUL_HTTP_ADDR": "consul.example:8501",
        "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_HTTP_TOKEN_FILE": "/t",
        "CONSUL_HTTP_SSL": "1",
        "CONSUL_HTTP_SSL_VERIFY": "f",
        "CONSUL_CACERT": "/ca",
        "CONSUL_CLIENT_CERT": "/c",
        "CONSUL_CLIENT_KEY": "/k",
        "CONSUL_NAMESPACE": "n",
    }
    consul = load("consul:", environ=environ).consul
    assert consul_endpoint(consul).base_url == "https://consul.example:8501"
    assert (consul.token, consul.token_file, consul.tls_verify) == ("t", "/t", False)
    assert (consul.ca_file, consul.client_cert, consul.client_key) == ("/ca", "/c", "/k")
    assert consul.namespace == "n"


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_verification_stays_on_for_whatever_go_calls_true(text: str) -> None:
    config = load("consul:", environ={"CONSUL_HTTP_SSL_VERIFY": text})
    assert config.consul.tls_verify


def test_a_switch_that_go_does_not_know_is_a_fault() -> None:
    environ = {"CONSUL_HTTP_SSL_VERIFY": "yes", "CONSUL_HTTP_ADDR": "ftp://x"}
    told = keys_at_fault("consul:", environ)
    assert [line.partition(":")[0] for line in told] == [
        "CONSUL_HTTP_ADDR",
        "CONSUL_HTTP_SSL_VERIFY",
    ]


@pytest.mark.parametrize(
    ("text", "environ", "url"),
    [
        ("consul:", {"CONSUL_HTTP_ADDR": "http://h:1", "CONSUL_HTTP_SSL": "true"}, "https://h:1"),
        ("consul:", {"CONSUL_HTTP_ADDR": "https://h:1", "CONSUL_HTTP_SSL": "0"}, "https://h:1"),
        ("consul: {address: 'https://f'}", {"CONSUL_HTTP_ADDR": "h:1"}, "http://h:1"),
        ("consul: {scheme: https}", {"CONSUL_HTTP_ADDR": "h:1"}, "https://h:1"),
        ("consul: {scheme: https}", {"CONSUL_HTTP_ADDR": "http://h:1"}, "http://h:1"),
        ("consul: {address: 'http://f:1'}", {"CONSUL_HTTP_SSL": "1"}, "https://f:1"),
        ("consul:", {"CONSUL_HTTP_ADDR": "http://h:8500/consul"}, "http://h:8500/consul"),
        ("consul:", {"CONSUL_HTTP_ADDR": "127.0.0.1"}, "http://127.0.0.1:8500"),
        (
            "consul:",
            {"CONSUL_HTTP_ADDR": "unix:///run/c.sock", "CONSUL_HTTP_SSL": "1"},
            "http://localhost",
        ),
    ],
)
def test_the_scheme_settles(text: str, environ: dict[str, str], url: str) -> None:
    assert consul_endpoint(load(text, environ=environ).consul).base_url == url


def test_a_token_file_outlives_the_token_that_nomad_sets() -> None:
    text = "consul: {token_file: /secrets/consul_token}"
    nomad = load(text, environ={"CONSUL_HTTP_TOKEN": "old"}).consul
    assert nomad.token_file == "/secrets/consul_token"
    own = load(text, environ={"BREAKER_SIDECAR__CONSUL__TOKEN": "now"}).consul
    assert (own.token, own.token_file) == ("now", None)
