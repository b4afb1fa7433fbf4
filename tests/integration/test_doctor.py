"""Broken set-ups, each made for real: what doctor says of it, and what it says would mend it."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.integration.doctoring import (
    Certificates,
    Diagnosis,
    answering,
    examine,
    leaderless,
    page,
    shifted,
)
from tests.servers import ROOT, AclToken, ConsulServer, free_port, poll_until_sync

Doctor = Callable[..., Diagnosis]
WAIT_S = 60.0

pytestmark = [
    pytest.mark.consul,
    pytest.mark.slow,
]  # fifty broken set-ups, each with servers of its own


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Examines a configuration that listens on a free port unless it says otherwise."""

    def run(config: Any, **more: Any) -> Diagnosis:
        if isinstance(config, dict):
            listen = {"address": f"127.0.0.1:{free_port()}", **config.get("listen", {})}
            config = {**config, "listen": listen}
        return examine(config, tmp_path, **more)

    return run


@pytest.fixture(scope="module")
def guarded() -> Iterator[ConsulServer]:
    """A Consul that denies what no policy allows."""
    with ConsulServer(acl=True) as server:
        yield server


def settings(server: ConsulServer, prefix: str, /, **more: Any) -> dict[str, Any]:
    """A configuration on keys of its own."""
    return {
        "consul": {
            "address": server.address,
            "state_prefix": prefix,
            **more.pop("consul", {}),
        },
        "breakers": {
            "default": {"consul_key_prefix": f"{prefix}-reports", **more.pop("breaker", {})}
        },
        **more,
    }


def report(consul: ConsulServer, prefix: str, instance: str, age_s: float = 0.0) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age_s))
    said = {"timestamp": at, "rate_ok": 5.0, "count_fail": 0}
    consul.kv_put(f"{prefix}-reports/{instance}", said)


# --- what is well --------------------------------------------------------------------------------


def test_a_sound_set_up(doctor: Doctor, consul: ConsulServer, prefix: str, tmp_path: Path) -> None:
    report(consul, prefix, "c-1")
    files = {"socket": str(tmp_path / "socket"), "state_file": str(tmp_path / "state.json")}
    found = doctor(settings(consul, prefix, data_dir=str(tmp_path / "data"), listen=files))
    assert found.of("fault") == found.of("warning") == []
    checks = {finding["check"] for finding in found.findings}
    assert {"consul", "clock", "token", "session", "rights", "reports", "listen"} <= checks
    assert {"data_dir", "listen.socket", "listen.state_file"} <= checks


def test_a_live_fleet_notices_nothing(doctor: Doctor, consul: ConsulServer, prefix: str) -> None:
    config = settings(consul, prefix)
    report(consul, prefix, "c-1")
    with Daemon(config) as daemon:
        poll_until_sync(lambda: consul.kv_get(f"{prefix}/state"), WAIT_S, "a state record")
        config["listen"] = {"address": f"127.0.0.1:{daemon.port}"}

        def trace() -> tuple[list[tuple[str, bytes]], list[str]]:
            """All keys with the index that a watch goes by, and doctor's sessions."""
            below = [f"/v1/kv/{start}?recurse" for start in (f"{prefix}/", f"{prefix}-")]
            seen = [consul.request("GET", path) for path in below]
            keys = [(headers["x-consul-index"], body) for _, headers, body in seen]
            names = [str(session["Name"]) for session in consul.sessions()]
            return keys, [name for name in names if "doctor" in name]

        before = trace()
        found = doctor(config)
        assert trace() == before
        assert before[1] == []
        assert found.of("fault") == []
        said = [str(finding["said"]) for finding in found.findings]
        assert any("the running sidecar answers there" in each for each in said)
        assert any(each.startswith("is CLOSED") for each in said)


# --- configuration and files ---------------------------------------------------------------------


def test_a_faulty_file(doctor: Doctor) -> None:
    found = doctor("consul: {adress: here}\nbreakers: {orders: {open_duration: 30}}\n")
    assert {finding["check"] for finding in found.findings} == {"configuration"}
    found.expect("fault", "consul.adress", None, "unknown key .*:1", "address")
    found.expect("fault", "breakers.orders.open_duration", "30", "no unit .*:2", "write 30s")


def test_a_data_dir_that_another_sidecar_uses(doctor: Doctor, tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    with Daemon({"data_dir": folder}) as daemon:
        found = doctor({"data_dir": folder})
    said = rf"in use by another sidecar \(process {daemon.pid}\)"
    found.expect("fault", "data_dir", folder, said, "a data_dir of its own")


def test_a_data_dir_that_is_not_ours(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    (tmp_path / "closed").mkdir(mode=0o500)
    inside, below = str(tmp_path / "data"), str(tmp_path / "closed" / "data")
    owner = str(os.geteuid())
    found = doctor({"data_dir": inside}, ordinary=True)
    found.expect("fault", "data_dir", inside, "can't write", f"chown {owner} {inside}")
    found = doctor({"data_dir": below}, ordinary=True)
    found.expect("fault", "data_dir", below, "can't make it", f"install -d -m 0700 -o {owner}")


def test_a_data_dir_that_is_no_folder_of_its_own(doctor: Doctor, tmp_path: Path) -> None:
    file, link, open_ = tmp_path / "file", tmp_path / "link", tmp_path / "open"
    file.write_text("")
    link.symlink_to(tmp_path)
    open_.mkdir()
    open_.chmod(0o777)
    doctor({"data_dir": str(file)}).expect("fault", "data_dir", str(file), "no folder", "move")
    found = doctor({"data_dir": str(link)})
    found.expect("warning", "data_dir", str(link), f"a symlink to {tmp_path}", "the folder itself")
    found = doctor({"data_dir": str(open_)})
    found.expect("warning", "data_dir", str(open_), r"others may write .*0777", "chmod 0700")


@pytest.mark.packages
def test_a_full_disk(doctor: Doctor, tmp_path: Path) -> None:
    """A disk of a mebibyte, which only this process sees."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
    before = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(disk))
    found = doctor({"data_dir": str(disk)}, before=before)
    found.expect("fault", "data_dir", str(disk), "^1 MiB are free", "make room")


def test_a_state_file_without_its_folder(doctor: Doctor, tmp_path: Path) -> None:
    path = str(tmp_path / "gone" / "state.json")
    found = doctor({"listen": {"state_file": path}})
    found.expect("fault", "listen.state_file", path, "isn't there", f"install -d .*{tmp_path}/gone")
    link = tmp_path / "state.json"
    link.symlink_to("/etc/hostname")
    found = doctor({"listen": {"state_file": str(link)}})
    found.expect("fault", "listen.state_file", str(link), "a symlink lies there", "remove")


def test_a_socket_that_can_not_be_bound(doctor: Doctor, tmp_path: Path) -> None:
    path, gone = tmp_path / "socket", str(tmp_path / "gone" / "socket")
    found = doctor({"listen": {"socket": gone}})
    found.expect("fault", "listen.socket", gone, "isn't there", "install -d")
    path.write_text("not a socket")
    found = doctor({"listen": {"socket": str(path)}})
    found.expect("fault", "listen.socket", str(path), "a file lies there", "remove")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        found = doctor({"listen": {"socket": str(path)}})
    found.expect("fault", "listen.socket", str(path), "another process answers", "stop it")


def test_a_token_file_that_is_no_good(
    doctor: Doctor, consul: ConsulServer, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    config = settings(consul, prefix, consul={"token_file": str(path)})
    key = "consul.token_file"
    doctor(config).expect("fault", key, str(path), "No such file", "write the token there")
    path.touch(mode=0o600)
    doctor(config).expect("fault", key, str(path), "is empty", "one line")
    path.write_text("one two\nthree\n")
    doctor(config).expect("fault", key, str(path), "more than one word", "alone")
    path.write_text("5f0c8d2e-0000-0000-0000-000000000000\n")
    path.chmod(0o644)
    doctor(config).expect("warning", key, str(path), r"every user .*0644", "chmod 0600")
    admin = doctor({"admin": {"token_file": str(tmp_path / "nothing")}})
    admin.expect("fault", "admin.token_file", str(tmp_path / "nothing"), "No such file", "write")


# --- ports ---------------------------------------------------------------------------------------


def test_a_port_that_is_taken(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        found = doctor({"listen": {"address": address}})
    said = rf"is taken by .+ \(process {os.getpid()}\)"
    found.expect("fault", "listen.address", address, said, "BREAKER_SIDECAR__LISTEN__ADDRESS")


@pytest.mark.packages
def test_a_port_that_node_exporter_has(doctor: Doctor) -> None:
    """Its process can't be seen from here, as is usual for another user's."""
    port = free_port()
    unseen = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")

    def metrics(handler: BaseHTTPRequestHandler) -> None:
        page(handler, b'node_exporter_build_info{version="1.8.2"} 1\n')

    with answering(port, metrics):
        found = doctor({"listen": {"address": f"127.0.0.1:{port}"}}, before=unseen)
    said = f"port {port} on 127.0.0.1 is taken by node_exporter, by its /metrics"
    found.expect("fault", "listen.address", f"127.0.0.1:{port}", said, "localhost:9108")


def test_an_address_of_another_machine(doctor: Doctor) -> None:
    address = f"192.0.2.1:{free_port()}"
    found = doctor({"listen": {"address": address, "allow_remote": True}})
    said, mend = "can't listen on 192.0.2.1", "set listen.address"
    found.expect("fault", "listen.address", address, said, mend)
    found.expect("warning", "listen.address", address, "other machines reach it", "localhost")


# --- reaching Consul -----------------------------------------------------------------------------


def test_no_consul(doctor: Doctor) -> None:
    address = f"127.0.0.1:{free_port()}"
    found = doctor({"consul": {"address": address}})
    said, mend = "nobody listens there", "start a Consul agent .*CONSUL_HTTP_ADDR"
    found.expect("fault", "consul.address", address, said, mend)


def test_no_consul_behind_a_name(doctor: Doctor) -> None:
    found = doctor({"store": "consul"}, env={"CONSUL_HTTP_ADDR": "consul.invalid:8500"})
    found.expect("fault", "consul.address", "consul.invalid:8500", "name isn't known", "resolver")


def test_something_else_in_consuls_place(doctor: Doctor) -> None:
    port = free_port()
    with answering(port, page):
        found = doctor({"consul": {"address": f"127.0.0.1:{port}"}})
    found.expect("fault", "consul.address", f"127.0.0.1:{port}", "is no Consul", "port 8500")


def test_a_consul_that_hangs(doctor: Doctor, prefix: str) -> None:
    with ConsulServer() as own:
        own.freeze()
        found = doctor(settings(own, prefix))
        own.thaw()
    found.expect("fault", "consul.address", own.address, "no answer within 5 s", "hangs")


def test_a_consul_without_a_leader(
    doctor: Doctor, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, port = tmp_path_factory.mktemp("alone"), free_port()

    def found() -> Diagnosis | None:
        told = doctor({"consul": {"address": f"127.0.0.1:{port}", "state_prefix": prefix}})
        return told if "knows of no leader" in str(told) else None

    with leaderless(folder, port, (free_port(), free_port())):
        told = poll_until_sync(found, WAIT_S, "the agent says that nobody leads")
    told.expect("fault", "consul.address", f"127.0.0.1:{port}", "knows of no leader", "majority")


def test_a_unix_socket_that_is_not_there_or_not_for_us(
    doctor: Doctor, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "consul"
    config = {"consul": {"address": f"unix://{path}", "state_prefix": prefix}}
    key, value = "consul.address", f"unix://{path}"
    doctor(config).expect("fault", key, value, "no socket is there", "addresses.http")
    with ConsulServer(unix_path=path):
        assert doctor(config).of("fault") == []
        path.chmod(0)
        found = doctor(config, ordinary=True)
    found.expect("fault", key, value, "may not open it", f"chmod/chgrp {path}")


def test_tls_where_there_is_none(doctor: Doctor, consul: ConsulServer) -> None:
    found = doctor({"consul": {"address": f"https://{consul.address}"}})
    value = f"https://{consul.address}"
    found.expect("fault", "consul.address", value, "speaks no TLS", "http://")


def test_tls_that_does_not_fit(
    doctor: Doctor, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Certificates(tmp_path_factory.mktemp("tls"))
    port = free_port()
    with ConsulServer(config=made.agent(port, mutual=False)):
        place, other = f"127.0.0.1:{port}", f"https://127.0.0.2:{port}"
        trusted = {"ca_file": made.authority, "state_prefix": prefix}
        key = "consul.address"
        plain = doctor({"consul": {"address": place}})
        plain.expect("fault", key, place, "speaks TLS, and was asked without", "consul.scheme")
        secure = f"https://{place}"
        unknown = doctor({"consul": {"address": secure}})
        unknown.expect("fault", key, secure, "isn't trusted", "consul.ca_file")
        wrong = doctor({"consul": {"address": other, **trusted}})
        wrong.expect("fault", key, other, "isn't trusted: .*mismatch", "by a name")
        assert doctor({"consul": {"address": secure, **trusted}}).of("fault") == []
    gone = doctor({"consul": {"address": secure, "ca_file": "/gone.pem"}})
    gone.expect("fault", "consul.ca_file", "/gone.pem", "No such file", "readable file")


def test_tls_that_wants_to_know_us(
    doctor: Doctor, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Certificates(tmp_path_factory.mktemp("tls"))
    port = free_port()
    cert, key = made.client
    with ConsulServer(config=made.agent(port, mutual=True)):
        place = f"https://127.0.0.1:{port}"
        shown = {"address": place, "ca_file": made.authority, "state_prefix": prefix}
        found = doctor({"consul": shown})
        mend = "consul.client_cert and consul.client_key"
        found.expect("fault", "consul.address", place, "wants a certificate of ours", mend)
        good = {**shown, "client_cert": cert, "client_key": key}
        assert doctor({"consul": good}).of("fault") == []
        bad = {**shown, "client_cert": cert, "client_key": cert}
        found = doctor({"consul": bad})
    found.expect("fault", "consul.client_cert", cert, "can't be used", "PEM files")


@pytest.mark.parametrize(("shift_s", "level"), [(-3600, "warning"), (2 * 86400, "fault")])
def test_clocks_that_differ(
    doctor: Doctor, consul: ConsulServer, prefix: str, shift_s: int, level: str
) -> None:
    port = free_port()
    config = settings(consul, prefix, consul={"address": f"127.0.0.1:{port}"})
    with answering(port, shifted(consul.address, shift_s)):
        found = doctor(config)
    said = (
        r"this machine's is (59m\S+|1h\S*) ahead of" if shift_s < 0 else "behind Consul's: reports"
    )
    found.expect(level, None, None, said, "NTP")


def test_a_consul_that_refuses_us_midway(doctor: Doctor, consul: ConsulServer, prefix: str) -> None:
    """By its rate limit, say: that isn't told as a lack of rights."""
    port = free_port()
    forward = shifted(consul.address, 0)

    def limited(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/v1/txn"):
            page(handler, b"rate limit exceeded, try again later", 503)
        else:
            forward(handler)

    with answering(port, limited):
        found = doctor(settings(consul, prefix, consul={"address": f"127.0.0.1:{port}"}))
    said = "stopped answering: 503 rate limit"
    found.expect("fault", "consul.address", f"127.0.0.1:{port}", said, "run this again")
    assert "doctor" not in str([session["Name"] for session in consul.sessions()])


# --- the token and its rights --------------------------------------------------------------------


def rules(
    prefix: str, *, state: str = "write", history: str = "write", reports: str = "write"
) -> str:
    wanted = (
        (f"{prefix}/", state),
        (f"{prefix}-history/", history),
        (f"{prefix}-reports/", reports),
    )
    return "\n".join(f'key_prefix "{p}" {{ policy = "{right}" }}' for p, right in wanted)


RULE = r'{} "{}" \{{ policy = "{}" \}}'
"""How a rule is told, as a pattern."""
SESSION = 'session_prefix "" { policy = "write" }'


def with_token(guarded: ConsulServer, prefix: str, token: AclToken, **more: Any) -> dict[str, Any]:
    return settings(guarded, prefix, consul={"token": token.secret}, **more)


def test_the_rights_that_are_enough(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    report(guarded, prefix, "c-1")
    full = guarded.make_token(rules(prefix) + SESSION)
    found = doctor(with_token(guarded, prefix, full))
    assert found.of("fault") == found.of("warning") == []
    assert full.secret not in str(found)
    least = guarded.make_token(rules(prefix, state="read", history="read"))
    found = doctor(with_token(guarded, prefix, least, role="follower"))
    assert found.of("fault") == found.of("warning") == []
    bare = guarded.make_token(rules(prefix, state="read", history="read", reports="deny"))
    found = doctor(with_token(guarded, prefix, bare, role="follower", reports="off"))
    assert found.of("fault") == found.of("warning") == []
    found = doctor(with_token(guarded, prefix, bare, role="follower"))
    mend = f"{RULE.format('key_prefix', prefix + '-reports/', 'write')}, or set reports: off"
    key, value = "breakers.default.consul_key_prefix", f"{prefix}-reports"
    found.expect("warning", key, value, "reports through this sidecar are lost", mend)


@pytest.mark.parametrize("role", ["auto", "follower"])
def test_the_policies_that_we_hand_out(doctor: Doctor, guarded: ConsulServer, role: str) -> None:
    """Their prefixes are the defaults."""
    token = guarded.make_token((ROOT / "policies" / f"{role}.hcl").read_text("utf-8"))
    consul = {"address": guarded.address, "token": token.secret, "fast_takeover": "2s"}
    reports = "tcp" if role == "auto" else "off"
    found = doctor({"consul": consul, "role": role, "reports": reports})
    assert found.of("fault") == []
    assert {str(finding["check"]) for finding in found.of("warning")} <= {"reports"}


@pytest.mark.parametrize(
    ("lacking", "right", "wanted"),
    [
        ("state", "read", {"key /leader": "write", "key /state": "write"}),
        ("state", "deny", {"key /state": "write", "key_prefix /": "read"}),
        ("history", "read", {"key -history/default": "write"}),
        ("history", "deny", {"key -history/default": "write"}),
        ("reports", "read", {"key_prefix -reports/": "write"}),
        ("reports", "deny", {"key_prefix -reports/": "write"}),
    ],
)
def test_a_right_that_is_lacking(  # noqa: PLR0917 - pytest passes its fixtures by name
    doctor: Doctor,
    guarded: ConsulServer,
    prefix: str,
    lacking: str,
    right: str,
    wanted: dict[str, str],
) -> None:
    token = guarded.make_token(rules(prefix, **{lacking: right}) + SESSION)
    found = doctor(with_token(guarded, prefix, token))
    lost = "key:read, key:write" if right == "deny" else "key:write"
    key = "breakers.default.consul_key_prefix" if lacking == "reports" else "consul.state_prefix"
    area = prefix if lacking == "state" else f"{prefix}-{lacking}"
    for rule, policy in wanted.items():
        resource, _, where = rule.partition(" ")
        mend = f"the token's policy: .*{RULE.format(resource, prefix + where, policy)}"
        found.expect("fault", key, area, f"lacks {lost} on .*{prefix}{where}", mend)
    assert len(found.of("fault")) == 1
    assert guarded.kv_keys(prefix) == []


def test_auto_wants_its_key(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    token = guarded.make_token(rules(prefix) + SESSION)
    found = doctor(with_token(guarded, prefix, token, breaker={"failure_threshold": "auto"}))
    assert found.of("fault") == []
    mend = RULE.format("key", f"{prefix}-normal/default", "write")
    said = f"lacks key:write on {prefix}-normal/default, so what auto has learned is lost"
    found.expect("warning", "consul.state_prefix", f"{prefix}-normal", said, mend)


def test_a_follower_that_may_not_read(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    token = guarded.make_token(rules(prefix, state="deny", history="read"))
    found = doctor(with_token(guarded, prefix, token, role="follower"))
    mend = RULE.format("key_prefix", f"{prefix}/", "read")
    found.expect("fault", "consul.state_prefix", prefix, f"lacks key:read on {prefix}/", mend)


def test_no_right_to_make_sessions(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    token = guarded.make_token(rules(prefix))
    found = doctor(with_token(guarded, prefix, token))
    mend = r'session_prefix "test" \{ policy = "write" \}, or set role: follower'
    found.expect("fault", "role", "auto", "may make no session", mend)
    assert len(found.of("fault")) == 1


def test_no_right_to_a_fast_takeover(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    report(guarded, prefix, "c-1")
    service = 'service "breaker-sidecar-evaluator" { policy = "write" }'
    for more, warned in ((SESSION, 1), (SESSION + service, 0)):
        token = guarded.make_token(rules(prefix) + more)
        config = with_token(guarded, prefix, token)
        config["consul"]["fast_takeover"] = "2s"
        found = doctor(config)
        assert (len(found.of("warning")), found.of("fault")) == (warned, [])
        if warned:
            said = "may register no check"
            found.expect("warning", "consul.fast_takeover", "2s", said, f"policy: {service}")


def test_no_right_to_be_found(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    report(guarded, prefix, "c-1")
    service = 'service "tasks-api" { policy = "write" }'
    for more, faults in ((SESSION, 1), (SESSION + service, 0)):
        config = with_token(guarded, prefix, guarded.make_token(rules(prefix) + more))
        config["register"] = {"name": "tasks-api", "port": 80, "check": "http://127.0.0.1/livez"}
        found = doctor(config)
        assert len(found.of("fault")) == faults
        if faults:
            found.expect("fault", "register.name", "tasks-api", "may not register", service)


def test_a_token_that_nobody_knows(
    doctor: Doctor, guarded: ConsulServer, prefix: str, tmp_path: Path
) -> None:
    secret = "0c0ffee0-9a57-4c35-8a5b-6f6d1c1a7e11"
    found = doctor(settings(guarded, prefix, consul={"token": secret}))
    said, mend = "isn't known to Consul: expired, deleted", "consul acl token create"
    found.expect("fault", "consul.token", None, said, mend)
    assert secret not in str(found)
    file = tmp_path / "token"
    file.write_text(secret)
    file.chmod(0o600)
    found = doctor(settings(guarded, prefix, consul={"token_file": str(file)}))
    found.expect("fault", "consul.token_file", str(file), said, mend)


def test_no_token_at_all(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    found = doctor(settings(guarded, prefix))
    mend = rf'consul.token_file .* a token whose policy has .*key_prefix "{prefix}/"'
    found.expect("fault", "consul.state_prefix", prefix, "lacks key:read, key:write", mend)
    found.expect("fault", "role", "auto", "may make no session", "consul.token_file")


def test_a_token_that_is_about_to_end(doctor: Doctor, guarded: ConsulServer, prefix: str) -> None:
    lasting = guarded.make_token(rules(prefix) + SESSION)
    wanted = {"Policies": [{"ID": lasting.policy_id}], "ExpirationTTL": "600s"}
    _, _, body = guarded.request("PUT", "/v1/acl/token", json.dumps(wanted).encode())
    secret = json.loads(body)["SecretID"]
    found = doctor(settings(guarded, prefix, consul={"token": secret}))
    said = r"expires in \d+m\S*, and nothing renews it"
    found.expect("warning", "consul.token", None, said, "consul.token_file")


def test_a_session_shorter_than_the_servers_take(doctor: Doctor, prefix: str) -> None:
    with ConsulServer(config='session_ttl_min = "30s"') as own:
        found = doctor(settings(own, prefix))
    said, mend = "from 30s to 24h", "consul.session_ttl: 30s"
    found.expect("fault", "consul.session_ttl", "10s", said, mend)


# --- the fleet -----------------------------------------------------------------------------------


def test_reporters_that_say_nothing(doctor: Doctor, consul: ConsulServer, prefix: str) -> None:
    config = settings(consul, prefix)
    key, value = "breakers.default.consul_key_prefix", f"{prefix}-reports"
    found = doctor(config)
    found.expect("warning", key, value, "nobody reports there", "correct the prefix")
    report(consul, prefix, "c-1", age_s=3600)
    report(consul, prefix, "c-2", age_s=3600)
    found = doctor(config)
    found.expect("warning", key, value, r"all 2 reporters are stale .*15 s", "consumers run")
    report(consul, prefix, "c-3", age_s=-5)
    consul.kv_put(f"{prefix}-reports/c-4", '{"timestamp": "now"}')
    found = doctor(config)
    found.expect("warning", key, value, r"1 reports can't be used \(c-4: ", "count_fail")
    assert "1 reporters are fresh, 2 stale" in str(found)


def test_a_threshold_below_the_number_of_reporters(
    doctor: Doctor, consul: ConsulServer, prefix: str
) -> None:
    for number in range(6):
        report(consul, prefix, f"c-{number}", age_s=-60)
    found = doctor(settings(consul, prefix, breaker={"failure_threshold": 5}))
    key = "breakers.default.failure_threshold"
    found.expect("warning", key, "5", r"below the number of reporters \(6\)", "well above 6")


def test_records_that_are_no_good(doctor: Doctor, consul: ConsulServer, prefix: str) -> None:
    consul.kv_put(f"{prefix}/state", "junk")
    found = doctor(settings(consul, prefix))
    found.expect("warning", "breakers.default", None, "can't be read", "role: auto")
    found.expect("warning", "breakers.default", None, "nobody holds its lock", "start a sidecar")


def test_a_configuration_unlike_the_fleets(
    doctor: Doctor, consul: ConsulServer, prefix: str
) -> None:
    with Daemon(settings(consul, prefix)) as daemon:
        poll_until_sync(lambda: consul.kv_get(f"{prefix}/state"), WAIT_S, "a state record")
        found = doctor(settings(consul, prefix, breaker={"failure_threshold": 50}))
        said = f"configured otherwise than {daemon.get('/v1/status').body['instance']}"
        found.expect("warning", "breakers.default", None, said, "the same `breakers.default`")


def test_a_sidecar_that_has_not_read_its_file(
    doctor: Doctor, consul: ConsulServer, prefix: str
) -> None:
    config = settings(consul, prefix)
    with Daemon(config) as daemon:
        config["listen"] = {"address": f"127.0.0.1:{daemon.port}"}
        assert "SIGHUP" not in str(doctor(config))
        config["breakers"]["default"]["open_duration"] = "45s"
        said, mend = "the running sidecar has other settings", "SIGHUP"
        doctor(config).expect("warning", "breakers.default", None, said, mend)
        config["breakers"]["more"] = {"consul_key_prefix": f"{prefix}-more"}
        said = "the running sidecar knows the breakers default"
        doctor(config).expect("warning", "breakers", "default, more", said, mend)
        memory = {"listen": config["listen"]}
        doctor(memory).expect("warning", "store", "memory", "uses store consul", "restart")


def test_a_sidecar_whose_consul_went_away(doctor: Doctor, prefix: str) -> None:
    with ConsulServer() as own:
        config = settings(own, prefix, consul={"max_stale": "5s"})
        with Daemon(config) as daemon:
            config["listen"] = {"address": f"127.0.0.1:{daemon.port}"}
            own.kill()

            def stale() -> bool:
                return daemon.allowed(peek=True).headers["x-breaker-stale"] == "true"

            poll_until_sync(stale, WAIT_S, "the sidecar is stale")
            found = doctor(config)
    found.expect("fault", None, None, r"decisions are stale .*default", "store_lost")
    found.expect("fault", "consul.address", own.address, "nobody listens", "start a Consul")


LEGACY = """
kafka: {{brokers: ["{one}", "{other}"], topic: tasks-topic}}
circuit_breaker:
  consul_address: {consul}
  consul_key_prefix: {prefix}-reports
"""


def test_brokers_that_take_no_connection(doctor: Doctor, consul: ConsulServer, prefix: str) -> None:
    env = {
        "BREAKER_SIDECAR__CONSUL__STATE_PREFIX": prefix,
        "BREAKER_SIDECAR__LISTEN__ADDRESS": f"127.0.0.1:{free_port()}",
    }
    away = f"127.0.0.1:{free_port()}"
    key = "kafka.brokers"

    def told(one: str, other: str) -> Diagnosis:
        file = LEGACY.format(one=one, other=other, consul=consul.address, prefix=prefix)
        return doctor(file, env=env)

    with socket.create_server(("127.0.0.1", 0)) as broker:
        there = f"127.0.0.1:{broker.getsockname()[1]}"
        said = f"1 of 2 brokers .*{away}: Connection refused"
        told(there, away).expect("warning", key, f"{there}, {away}", said, "start them")
        assert "2 brokers take connections" in str(told(there, there))
    told(away, away).expect("fault", key, f"{away}, {away}", "2 of 2 brokers", "start them")


# --- how it is told ------------------------------------------------------------------------------


def test_for_people(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    file = tmp_path / "breaker.yaml"
    file.write_text(f"listen: {{address: '127.0.0.1:0'}}\nconsul: {{address: '{address}'}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "-c", str(file)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    at = lines.index(
        f"FAULT    consul: consul.address = {address}: nobody listens there (connection refused)"
    )
    assert lines[at + 1].startswith("         mend: start a Consul agent there")
    assert any(line.startswith("WARNING  configuration: listen.address: port 0") for line in lines)
    assert done.stderr.strip() == "1 fault, 1 warning"
    assert done.returncode == 1
    assert "\x1b" not in done.stdout


def test_what_stands_in_consul_moves_no_cursor(
    doctor: Doctor, consul: ConsulServer, prefix: str, tmp_path: Path
) -> None:
    """Names in Consul come from anybody."""
    consul.kv_put(f"{prefix}-reports/c-1", '{"timestamp": "\\u001b[2J"}')
    config = settings(consul, prefix, listen={"address": f"127.0.0.1:{free_port()}"})
    assert "can't be used" in str(doctor(config))
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "-c", str(tmp_path / "doctor.yaml")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert b"\x1b" not in done.stdout
    assert b"can't be used" in done.stdout
    assert base64.b64encode(b"x") not in done.stdout
