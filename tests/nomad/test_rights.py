"""Consul with access control: a token by workload identity, and one that is rotated in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.nomad.agent import NomadAgent
from tests.nomad.fleet import (
    CHANGE_S,
    START_S,
    Usual,
    ask_ready,
    holder,
    statuses,
    variant,
)
from tests.servers import ROOT, ConsulServer, free_port, poll_until_sync

pytestmark = pytest.mark.nomad

RULES = (ROOT / "policies" / "auto.hcl").read_text("utf-8")


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    """With access control: who shows no token may do nothing."""
    with ConsulServer(acl=True) as server:
        yield server


@pytest.fixture(scope="module")
def agent(consul: ConsulServer) -> Iterator[NomadAgent]:
    """A Nomad that knows this Consul, and whose identities it believes."""
    config = f'consul {{ address = "{consul.address}" token = "{consul.token}" }}\n'
    with NomadAgent(config=config) as made:
        trust(consul, made)
        yield made


@pytest.fixture
def nomad(agent: NomadAgent, consul: ConsulServer) -> Iterator[NomadAgent]:
    yield agent
    agent.stop_all()
    for prefix in ("breaker", "service-metrics"):
        consul.kv_delete(prefix, recurse=True)


def trust(consul: ConsulServer, nomad: NomadAgent) -> None:
    """What the job file's head says has to be done once a cluster, and `nomad setup consul`."""
    claims = ("nomad_namespace", "nomad_job_id", "nomad_task", "nomad_service")
    put(
        consul,
        "auth-method",
        Name="nomad-workloads",
        Type="jwt",
        Config={
            "JWKSURL": f"{nomad.url}/.well-known/jwks.json",
            "JWTSupportedAlgs": ["RS256"],
            "BoundAudiences": ["consul.io"],
            "ClaimMappings": {claim: claim for claim in claims},
        },
    )
    put(consul, "policy", Name="breaker-sidecar", Rules=RULES)
    put(consul, "role", Name="breaker-sidecar", Policies=[{"Name": "breaker-sidecar"}])
    put(
        consul,
        "binding-rule",
        AuthMethod="nomad-workloads",
        BindType="role",
        BindName="breaker-sidecar",
        Selector='value.nomad_task == "breaker"',
    )


def put(consul: ConsulServer, kind: str, **body: object) -> None:
    status, _, answer = consul.request("PUT", f"/v1/acl/{kind}", json.dumps(body).encode())
    assert status == 200, answer


def works(place: Usual, port: int) -> bool:
    """Whether the sidecar reads, holds the lock and writes: fresh, elected, with a record."""
    return ask_ready(port, strict=True) == 200 and bool(holder(place)) and bool(place.state())


def test_a_workload_identity_gets_the_rights_and_loses_them_at_the_end(
    nomad: NomadAgent, consul: ConsulServer
) -> None:
    place = Usual(consul, "")
    job = variant(nomad, "workload-identity", place.env())
    before = tokens(consul)
    nomad.run(job)
    [alloc] = nomad.running(job, 1, START_S)
    port = nomad.port_of(alloc, "breaker")
    poll_until_sync(lambda: works(place, port), CHANGE_S, "it may all that it needs")
    place.report("c-1", fail=25)
    poll_until_sync(lambda: statuses([port]) == [503], CHANGE_S, "the breaker opens")
    [secret] = tokens(consul) - before
    file = nomad.folder_of(alloc, "breaker") / "secrets" / "consul_token"
    assert file.read_text() == secret
    assert (file.stat().st_uid, file.stat().st_mode & 0o007) == (0, 0), "as the job file says"
    told = nomad.log_of(alloc, "breaker") + nomad.log_of(alloc, "breaker", "stdout")
    assert secret not in told
    nomad.stop_all()
    poll_until_sync(lambda: tokens(consul) == before, CHANGE_S, "the token is revoked")


def tokens(consul: ConsulServer) -> set[str]:
    """The secrets of all tokens."""
    status, _, body = consul.request("GET", "/v1/acl/tokens")
    assert status == 200
    return {token["SecretID"] for token in json.loads(body)}


def test_a_rotated_token_is_read_again(nomad: NomadAgent, consul: ConsulServer) -> None:
    place = Usual(consul, "")
    first, second = consul.make_token(RULES), consul.make_token(RULES)
    job = variant(nomad, "token-file", place.env())
    variable = "nomad/jobs/breaker-with-token"
    nomad.put_variable(variable, consul_token=first.secret)
    nomad.run(job)
    [alloc] = nomad.running(job, 1, START_S)
    port = nomad.port_of(alloc, "breaker")
    poll_until_sync(lambda: works(place, port), CHANGE_S, "it may all that it needs")
    file = nomad.folder_of(alloc, "breaker") / "secrets" / "breaker-token"
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o400, 65532)
    nomad.put_variable(variable, consul_token=second.secret)
    poll_until_sync(lambda: file.read_text() == second.secret, CHANGE_S, "the file has the new one")
    consul.set_rules(first, "")  # as a secret that ends: the old one is good for nothing
    before = place.record()["seq"]
    place.report("c-1", fail=25)
    poll_until_sync(
        lambda: statuses([port]) == [503] and place.record()["seq"] > before,
        CHANGE_S,
        "it reads and writes with the new one",
    )
    [after] = nomad.allocs(job["ID"])
    assert after["TaskStates"]["breaker"]["Restarts"] == 0


def test_without_a_token_it_answers_by_its_loss_policy(
    nomad: NomadAgent, consul: ConsulServer
) -> None:
    """So that the two above prove something: nothing works without."""
    place = Usual(consul, "")
    env = place.env(BREAKER_SIDECAR__LISTEN__ADDRESS=f"localhost:{free_port()}")
    job = variant(nomad, "breaker-sidecar", env, app_image="app:1")
    job["TaskGroups"][0]["Count"] = 1
    port = int(env["BREAKER_SIDECAR__LISTEN__ADDRESS"].rpartition(":")[2])
    nomad.run(job)
    poll_until_sync(lambda: statuses([port]) == [200], START_S, "it answers all the same")
    assert ask_ready(port, strict=True) == 503
    assert holder(place) is None
    assert place.state() == ""
