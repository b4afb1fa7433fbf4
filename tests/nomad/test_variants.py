"""What the Nomad tests run is the committed file but for what is said here. Needs no Nomad."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.nomad import variants

PROGRAMS = {"breaker-sidecar:1": ("/opt/python", "-m", "sidecar"), "app:1": ("/bin/app",)}


def job(**config: object) -> dict[str, Any]:
    """One task with this configuration, and all that goes with it."""
    docker = {"image": "breaker-sidecar:1", "args": ["run"], "network_mode": "host", **config}
    return {
        "ID": "j",
        "Update": {"MaxParallel": 1, "MinHealthyTime": 5 * variants.SECOND},
        "TaskGroups": [
            {
                "Count": 3,
                "Services": [{"Checks": [{"Path": "/readyz", "Interval": 10 * variants.SECOND}]}],
                "Tasks": [
                    {
                        "Name": "breaker",
                        "Driver": "docker",
                        "Config": docker,
                        "Env": {"A": "file", "B": "file"},
                        "Templates": [{"DestPath": "local/x", "Splay": 5 * variants.SECOND}],
                    }
                ],
            }
        ],
    }


def the_task(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["TaskGroups"][0]["Tasks"][0]
    return found


def test_an_image_becomes_its_program_and_nothing_else_changes() -> None:
    before = job()
    kept = copy.deepcopy(before)
    made = variants.raw_exec(before, PROGRAMS, {"A": "test"})
    assert before == kept
    assert the_task(made)["Driver"] == "raw_exec"
    assert the_task(made)["Config"] == {
        "command": "/opt/python",
        "args": ["-m", "sidecar", "run"],
    }
    assert the_task(made)["Env"] == {"A": "test", "B": "file"}
    for task in (the_task(made), the_task(kept)):
        del task["Driver"], task["Config"], task["Env"]
    assert made == kept


def test_only_sidecars_get_the_environment() -> None:
    made = variants.raw_exec(job(image="app:1"), PROGRAMS, {"A": "test"})
    assert the_task(made)["Env"] == {"A": "file", "B": "file"}


@pytest.mark.parametrize(
    ("config", "ours"),
    [
        ({"image": "breaker-sidecar:0.1.0"}, True),
        ({"image": "registry.example:5000/team/breaker-sidecar"}, True),
        ({"image": "registry.example/breaker-sidecar-app:1"}, False),
        ({"command": "${NOMAD_TASK_DIR}/breaker-sidecar/bin/breaker-sidecar"}, True),
        ({"command": "${NOMAD_TASK_DIR}/bin/consumer"}, False),
    ],
)
def test_our_program_is_known_by_its_name(config: dict[str, str], ours: bool) -> None:
    assert variants.is_sidecar({"Config": config}) == ours


def test_exec_keeps_its_command() -> None:
    made = job()
    the_task(made).update(Driver="exec", Config={"command": "/bin/x", "args": ["-y"]})
    assert the_task(variants.raw_exec(made, {}))["Config"] == {"command": "/bin/x", "args": ["-y"]}


@pytest.mark.parametrize(
    ("driver", "config"),
    [
        ("docker", {"privileged": True}),
        ("docker", {"image": "other:1"}),
        ("exec", {}),
        ("podman", {}),
    ],
)
def test_what_is_not_known_is_refused(driver: str, config: dict[str, object]) -> None:
    made = job(**config)
    the_task(made)["Driver"] = driver
    with pytest.raises(variants.UnknownConfig):
        variants.raw_exec(made, PROGRAMS)


def test_a_hurry_shortens_pauses_alone() -> None:
    before = job()
    made = variants.hurried(before, seconds=0.5)
    assert made["Update"]["MinHealthyTime"] == variants.SECOND // 2
    check = made["TaskGroups"][0]["Services"][0]["Checks"][0]
    assert check == {"Path": "/readyz", "Interval": variants.SECOND}
    assert the_task(made)["Templates"] == [{"DestPath": "local/x", "Splay": 0}]
    made["Update"]["MinHealthyTime"] = before["Update"]["MinHealthyTime"]
    check["Interval"] = 10 * variants.SECOND
    the_task(made)["Templates"][0]["Splay"] = 5 * variants.SECOND
    assert made == before
