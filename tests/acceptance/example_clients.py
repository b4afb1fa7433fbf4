"""Builds the example clients outside the checkout, and talks to the programs."""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.daemon import Answer
from tests.servers import ROOT

EXAMPLES = ROOT / "examples" / "clients"
HELPERS = Path(__file__).resolve().parent / "clients"
BUILD_DEADLINE_S = 300.0
ANSWER_DEADLINE_S = 20.0
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "JAVA_HOME")


def cached(name: str, sources: Sequence[Path], build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled from these very sources; other sources get another one."""
    digest = hashlib.sha256()
    for file in sources:
        digest.update(file.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    kept = Path(home) / "breaker-sidecar" / "tools" / f"{name}-{digest.hexdigest()[:12]}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Built aside and moved: another run may be building the same.
        fresh = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=kept.parent))
        try:
            build(fresh)
            fresh.rename(kept)
        except OSError:
            if not kept.exists():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return kept


def run(*command: str | Path, cwd: Path) -> None:
    """Run a compiler; fails with what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"


# Each of these returns the command line that starts a client.


def bash() -> list[str]:
    return ["bash", str(EXAMPLES / "bash.sh")]


def by_requests() -> list[str]:
    return [sys.executable, str(EXAMPLES / "requests_client.py")]


def by_asyncio() -> list[str]:
    return [sys.executable, str(EXAMPLES / "asyncio_client.py")]


def javascript() -> list[str]:
    return ["node", str(EXAMPLES / "client.mjs")]


def go() -> list[str]:
    source = EXAMPLES / "client.go"

    def build(folder: Path) -> None:
        run("go", "vet", source, cwd=folder)
        run("go", "build", "-o", folder / "client", source, cwd=folder)

    return [str(cached("example-go", [source], build) / "client")]


def rust() -> list[str]:
    source = EXAMPLES / "client.rs"

    def build(folder: Path) -> None:
        run("rustc", "--edition", "2021", "-O", "-D", "warnings", source, cwd=folder)

    return [str(cached("example-rust", [source], build) / "client")]


def java() -> list[str]:
    source = EXAMPLES / "Client.java"

    def build(folder: Path) -> None:
        run("javac", "-Xlint:all", "-Werror", "-d", folder, source, cwd=folder)

    # What `java Client.java` does, but compiled once.
    return ["java", "-Xshare:auto", "-cp", str(cached("example-java", [source], build)), "Client"]


# Each of these returns the command line that starts a server behind the middleware.


def go_middleware() -> list[str]:
    sources = [EXAMPLES / "breaker.go", HELPERS / "serve.go"]

    def build(folder: Path) -> None:
        (folder / "go.mod").write_text("module example\n\ngo 1.22\n", "utf-8")
        (folder / "breaker").mkdir()
        shutil.copy(sources[0], folder / "breaker")
        shutil.copy(sources[1], folder)
        run("go", "vet", "./...", cwd=folder)
        run("go", "build", "-o", "serve", ".", cwd=folder)

    return [str(cached("example-go-middleware", sources, build) / "serve")]


def servlet_filter() -> list[str]:
    pom = HELPERS / "pom.xml"
    sources = [EXAMPLES / "BreakerFilter.java", HELPERS / "Serve.java"]

    def fetch(folder: Path) -> None:
        shutil.copy(pom, folder)
        run("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", cwd=folder)

    def build(folder: Path) -> None:
        lint = ("-Xlint:all,-serial", "-Werror")
        run("javac", *lint, "-cp", f"{jetty}/*", "-d", folder, *sources, cwd=folder)

    jetty = cached("jetty", [pom], fetch) / "lib"
    classes = cached("example-servlet", [*sources, pom], build)
    return ["java", "-Xshare:auto", "-cp", f"{classes}:{jetty}/*", "Serve"]


class Program:
    """A running example: what it prints line by line, and its stdin. A context manager."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        own = {key: os.environ[key] for key in INHERITED if key in os.environ}
        self._process = subprocess.Popen(
            command,
            env={**own, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def line(self) -> str:
        """The next line it prints; fails with its stderr if there is none in time."""
        try:
            return self._lines.get(timeout=ANSWER_DEADLINE_S)
        except queue.Empty:
            raise AssertionError(f"it said nothing:\n{''.join(self._errors)}") from None

    def ask(self) -> str:
        """Hand it one message; what it decided."""
        assert self._process.stdin is not None
        self._process.stdin.write("message\n")
        self._process.stdin.flush()
        return self.line()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def end(self) -> tuple[int, str]:
        """Close its input and wait; its exit status and what it said on stderr."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(ANSWER_DEADLINE_S)
        for thread in self._threads:
            thread.join(ANSWER_DEADLINE_S)
        return status, "".join(self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(ANSWER_DEADLINE_S)
        for thread in self._threads:
            thread.join(ANSWER_DEADLINE_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def send(port: int, method: str = "POST") -> Answer:
    """One request to a server behind the middleware."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_DEADLINE_S)
    try:
        connection.request(method, "/orders", b"" if method == "POST" else None)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()
