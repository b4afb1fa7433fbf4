"""The committed job files as this machine can run them: without Docker, and in a hurry.

A file is read by Nomad itself and changed as data, so that all else of it is what users run. What
is not known here is an error, never left out in silence.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Job = dict[str, Any]
Task = dict[str, Any]

SECOND = 1_000_000_000
"""Nomad counts in nanoseconds."""
OF_DOCKER_ALONE = {"cap_drop", "image", "network_mode", "ports", "readonly_rootfs", "volumes"}
"""What `raw_exec` has no counterpart for: it sees the host's files and runs what is there."""
SIDECAR = "breaker-sidecar"


class UnknownConfig(ValueError):
    """A job file uses what the transformation doesn't know."""


def raw_exec(
    job: Job, programs: Mapping[str, Sequence[str]], env: Mapping[str, str] | None = None
) -> Job:
    """A copy of a job in which every task runs by `raw_exec`.

    Args:
        job: as `nomad job run -output` prints it, below `Job`.
        programs: what stands for each image: a command and its first arguments.
        env: added to the environment of each sidecar; beats the file that it reads.

    Raises:
        UnknownConfig: a driver, an image or a setting that isn't known here.
    """
    made = copy.deepcopy(job)
    for task in tasks(made):
        config = task["Config"]
        sidecar = is_sidecar(task)
        if task["Driver"] == "docker":
            task["Config"] = _command(config, programs)
        elif task["Driver"] != "exec" or set(config) - {"command", "args"}:
            raise UnknownConfig(f"{task['Name']}: {task['Driver']} with {sorted(config)}")
        task["Driver"] = "raw_exec"
        if sidecar:
            task["Env"] = {**(task.get("Env") or {}), **(env or {})}
    return made


def _command(config: Mapping[str, Any], programs: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    if unknown := set(config) - OF_DOCKER_ALONE - {"args"}:
        raise UnknownConfig(f"docker's {', '.join(sorted(unknown))}")
    if config["image"] not in programs:
        raise UnknownConfig(f"the image {config['image']}")
    command, *first = programs[config["image"]]
    return {"command": command, "args": [*first, *config.get("args", [])]}


def is_sidecar(task: Task) -> bool:
    """Whether this task runs our program, of the image or of the bundle."""
    config = task["Config"]
    image = str(config.get("image", "")).rpartition("/")[2]
    command = str(config.get("command", "")).rpartition("/")[2]
    return SIDECAR in {image.partition(":")[0], command}


def hurried(job: Job, *, seconds: float = 0.2) -> Job:
    """A copy whose pauses that only guard against flapping are this short."""
    made = copy.deepcopy(job)
    short = int(seconds * SECOND)
    for holder in (made, *made["TaskGroups"]):
        if holder.get("Update"):
            holder["Update"]["MinHealthyTime"] = short
    for group in made["TaskGroups"]:
        for service in group.get("Services") or []:
            for check in service.get("Checks") or []:
                check["Interval"] = SECOND  # the shortest that Nomad takes
    for task in tasks(made):
        for template in task.get("Templates") or []:
            template["Splay"] = 0
    return made


def tasks(job: Job) -> Iterator[Task]:
    """All tasks of all groups."""
    for group in job["TaskGroups"]:
        yield from group["Tasks"]
