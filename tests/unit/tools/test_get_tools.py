"""Where a program comes from: PATH if new enough, else the cache, else a build that is atomic."""

import shutil
from pathlib import Path

import pytest

from tools import get_tools, shelf
from tools.programs import CADDY, CONSUL, GATEWAYS, NOMAD, OPA, TRAEFIK, GoProgram


def fake(path: Path, script: str) -> Path:
    """An executable shell script at this path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


def fake_consul(path: Path, version: str) -> Path:
    """A program that says it is this Consul."""
    return fake(path, f"echo 'Consul v{version}'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: an empty PATH (`bin`), an empty cache and its own `.tools/bin`."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(get_tools, "BIN", tmp_path / "tools" / "bin")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Consul v1.22.3\nBuild Date", (1, 22)),
        ("Consul v1.9.17+ent\n", (1, 9)),
        ("Nomad v1.10.5", None),
        ("", None),
    ],
)
def test_version_is_read_from_what_consul_prints(
    text: str, version: tuple[int, int] | None
) -> None:
    assert CONSUL.parse_version(text) == version


def test_path_wins_over_the_cache(folder: Path) -> None:
    fake_consul(get_tools.cached_binary(CONSUL), "1.22.3")
    on_path = fake_consul(folder / "bin" / "consul", "1.20.0")
    assert get_tools.find(CONSUL) == on_path


@pytest.mark.parametrize("script", ["echo 'Consul v1.19.2'", "exit 1", "echo hello"])
def test_what_is_too_old_or_no_consul_is_passed_over(folder: Path, script: str) -> None:
    cached = fake_consul(get_tools.cached_binary(CONSUL), "1.22.3")
    fake(folder / "bin" / "consul", script)
    assert get_tools.find(CONSUL) == cached


def test_its_own_link_on_path_is_not_a_find(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_tools.link(CONSUL, fake_consul(folder / "gone", "1.22.3"))
    monkeypatch.setenv("PATH", str(get_tools.BIN))
    assert get_tools.find(CONSUL) is None


def test_linking_replaces_a_link_that_points_elsewhere(folder: Path) -> None:
    get_tools.link(CONSUL, folder / "nowhere")
    binary = fake_consul(folder / "bin" / "consul", "1.22.3")
    assert get_tools.ensure(CONSUL).resolve() == binary


def test_without_consul_and_go_both_are_named(folder: Path) -> None:
    with pytest.raises(shelf.ToolMissingError, match=r"Install Consul .* or Go "):
        get_tools.ensure(CONSUL)
    assert not folder.joinpath("cache").exists()


def test_a_failed_build_leaves_nothing_in_the_cache(folder: Path) -> None:
    fake(folder / "bin" / "go", 'echo half > "$3"; exit 1')
    with pytest.raises(shelf.BuildFailedError, match="module cache"):
        get_tools.build(CONSUL)
    assert [path.name for path in get_tools.cached_binary(CONSUL).parent.iterdir()] == [".lock"]


def test_a_build_lands_in_the_cache_and_is_not_made_twice(folder: Path) -> None:
    copy = shutil.which("cp", path="/usr/bin:/bin")
    product = fake_consul(folder / "product", "1.22.3")
    fake(folder / "bin" / "go", f'{copy} {product} "$3"')
    assert get_tools.build(CONSUL) == get_tools.cached_binary(CONSUL)
    fake(folder / "bin" / "go", "exit 1")
    assert get_tools.build(CONSUL) == get_tools.find(CONSUL)


@pytest.mark.parametrize(
    "program", [CONSUL, NOMAD, OPA, *GATEWAYS], ids=lambda program: program.name
)
def test_the_pinned_version_is_one_that_the_tests_accept(program: GoProgram) -> None:
    major, minor = program.pinned_version().split(".")[:2]
    assert (int(major), int(minor)) >= program.oldest


@pytest.mark.parametrize(
    ("program", "text", "version"),
    [
        (CADDY, "v2.11.4 h1:abc=\n", (2, 11)),
        (CADDY, "unknown", None),
        (NOMAD, "Nomad v1.10.5\nBuildDate 2025-09-09\n", (1, 10)),
        (NOMAD, "Consul v1.22.3\n", None),
        (TRAEFIK, "Version:      3.5.3\nCodename:     x\n", (3, 5)),
        (TRAEFIK, "Version:      dev\n", None),
        (OPA, "Version: 1.22.0\nBuild Commit: \n", (1, 22)),
    ],
)
def test_each_is_known_by_its_answer(
    program: GoProgram, text: str, version: tuple[int, int] | None
) -> None:
    assert program.parse_version(text) == version


def test_the_version_is_told_to_the_build(folder: Path) -> None:
    fake(folder / "bin" / "go", f'echo "$@" > {folder}/said; exit 1')
    with pytest.raises(shelf.BuildFailedError):
        get_tools.build(CADDY)
    assert f"CustomVersion=v{CADDY.pinned_version()}" in (folder / "said").read_text("utf-8")


@pytest.mark.parametrize(("program", "cgo"), [(NOMAD, "1"), (CADDY, "0")])
def test_only_what_needs_c_is_built_with_it(folder: Path, program: GoProgram, cgo: str) -> None:
    fake(folder / "bin" / "go", f'echo "$CGO_ENABLED" > {folder}/said; exit 1')
    with pytest.raises(shelf.BuildFailedError) as failed:
        get_tools.build(program)
    assert (folder / "said").read_text("utf-8").strip() == cgo
    assert ("a C compiler" in str(failed.value)) == program.cgo


def test_packages_are_named_for_what_is_not_on_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_tools, "DAEMON_FOLDERS", ())
    fake(folder / "bin" / "haproxy", "exit 0")
    assert get_tools.missing_packages() == ["nginx-light"]


def test_all_are_tried_and_each_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(get_tools, "DAEMON_FOLDERS", ())
    assert get_tools.main([]) == 1
    said = capsys.readouterr().err
    assert all(title in said for title in ("Consul: ", "Nomad: ", "Caddy: ", "nginx-light"))


def test_what_only_the_measurements_need_is_brought_by_name_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(get_tools, "DAEMON_FOLDERS", ())
    assert get_tools.main([]) == 1
    assert "OPA" not in capsys.readouterr().err
    fake(get_tools.cached_binary(OPA), "echo 'Version: 1.22.0'")
    monkeypatch.setattr(get_tools, "ROOT", folder)
    assert get_tools.main(["opa"]) == 0
    assert (folder / "tools" / "bin" / "opa").exists()
