"""Bring Apache Kafka's jars to `.tools/kafka`: from the cache, else by Maven.

Kafka is no single program, so it takes another way than the rest of `get_tools`; like that, this
needs nothing but the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.programs import ROOT
from tools.shelf import BuildFailedError, ToolMissingError, cache_folder, link, only_one_build

TITLE = "Apache Kafka"
FOLDER = ROOT / "tools" / "kafka"
LINK = ROOT / ".tools" / "kafka"
FETCH_DEADLINE_S = 900.0


def pinned_version() -> str:
    """The version that pom.xml pins. Raises ValueError if it pins none."""
    text = (FOLDER / "pom.xml").read_text("utf-8")
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)</version>", text)
    if found is None:
        raise ValueError(f"{FOLDER / 'pom.xml'} pins no Kafka")
    return found.group(1)


def cached() -> Path:
    """Where its jars are kept, shared by every checkout of this user."""
    return cache_folder(f"kafka-{pinned_version()}") / "libs"


def ensure() -> Path:
    """Find or fetch the jars and link them.

    Raises ToolMissingError without Java or Maven, BuildFailedError where Maven fails.
    """
    if shutil.which("java") is None:
        raise ToolMissingError("no `java` on PATH to run it (on Debian: default-jdk-headless)")
    return link(LINK, cached() if cached().is_dir() else _fetch())


def _fetch() -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissingError(f"none at {cached()}, and no `mvn` on PATH (on Debian: maven)")
    target = cached()
    with only_one_build(target.parent):
        if target.is_dir():  # the fetch we waited for brought it
            return target
        print(f"Fetching {TITLE} {pinned_version()} with {maven}.", file=sys.stderr)
        unfinished = target.with_name(f"libs.{os.getpid()}")
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        command = [maven, "-q", "-B", "-f", str(FOLDER / "pom.xml"), goal]
        try:
            subprocess.run(
                [*command, f"-DoutputDirectory={unfinished}"], check=True, timeout=FETCH_DEADLINE_S
            )
            unfinished.replace(target)
        except (OSError, subprocess.SubprocessError) as fault:
            raise BuildFailedError(f"{fault}. It needs Maven's central repository") from fault
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target
