"""YAML with its lines, and with bounds: nothing but ConfigFaults comes of any text."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.document import Scalar, Sequence, Table, read_document
from sidecar.config.faults import Collector, ConfigFaults
from sidecar.config.load import load
from sidecar.config.model import Config


def test_scalars_stay_text_and_lines_are_kept() -> None:
    faults = Collector()
    root = read_document("a: off\nb:\n  - 0600\n  - 1:30\nc: ~\nd: '~'\n", "f", faults)
    assert isinstance(root, Table)
    assert not faults
    a, b, c, d = (root.entries[key] for key in "abcd")
    assert isinstance(a.node, Scalar)
    assert isinstance(b.node, Sequence)
    assert (a.node.text, a.line) == ("off", 1)
    assert [item.text for item in b.node.items if isinstance(item, Scalar)] == ["0600", "1:30"]
    assert isinstance(c.node, Scalar)
    assert isinstance(d.node, Scalar)
    assert (c.node.null, d.node.null, d.line) == (True, False, 6)


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: [1", 1, "is not YAML"),
        ("a:\n\tb: 1", 2, "is not YAML"),
        ("a: 1\nb: \x07", 2, "is not YAML"),
        ("a: *nobody", 1, "names no anchor"),
        ("a: &a {b: *a}", 1, "names no anchor"),
        ("a: 1\n---\nb: 1", 2, "second YAML document"),
        ("[" * 100, 1, "nested too deep"),
        ("[" * 100_000, 1, "nested too deep"),
        ("{a: " * 500, 1, "nested too deep"),
        (LAUGHS, 5, "more than 50000"),
        ("#" * (1 << 20) + "#", None, "larger than 1MiB"),
        ("é" * (1 << 19) + "é", None, "larger than 1MiB"),
        ("a: 1\na: 2", 2, "given twice"),
        ("breakers:\n  x: {}\n  x: {}", 3, "given twice"),
        ("? [a]\n: 1", 1, "a key that is no text"),
        ("role: !!python/object:os.system x", 1, "a tag that means nothing"),
        ("<<: 1", 1, "merges what is no mapping"),
        ("- a", 1, "is no mapping"),
        ("just text", 1, "is no mapping"),
        ('a: "\\UFFFFFFFF"', None, "is not YAML"),
    ],
)
def test_refuses(text: str, line: int | None, problem: str) -> None:
    with pytest.raises(ConfigFaults) as caught:
        load(text, environ={})
    found = [f for f in caught.value.faults if problem in f.problem and f.line == line]
    assert found, str(caught.value)


def test_a_broken_file_is_told_with_the_bad_variables() -> None:
    with pytest.raises(ConfigFaults) as caught:
        load("a: [", environ={"BREAKER_SIDECAR__ROLE": "king"})
    assert len(caught.value.faults) == 2


def loads_or_faults(text: str, environ: dict[str, str] | None = None) -> None:
    """Anything else than a configuration or faults fails the test."""
    refused = None
    try:
        assert isinstance(load(text, environ=environ or {}), Config)
    except ConfigFaults as faults:
        refused = faults
    if refused is not None:
        assert refused.faults
        assert len(str(refused).splitlines()) == len(refused.faults)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    loads_or_faults(text)


WORDS = st.sampled_from(
    [
        *("store", "memory", "consul", "listen", "address", "breakers", "default", "half_open"),
        *("ramp", "max", "circuit_breaker", "server", "signals", "5s", "0", "a/b", "true", "~"),
        *("localhost:1", "unix:///a", "state", "token", "allowed_hosts", "<<", "failure_threshold"),
    ]
)
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_any_tree(tree: dict[str, object]) -> None:
    loads_or_faults(yaml.safe_dump(tree))


@given(st.lists(st.sampled_from(list("ab:-[]{}&*!|>'\"#%@,?<~ \t\n")), max_size=40).map("".join))
def test_any_punctuation(text: str) -> None:
    loads_or_faults(text)


PARTS = st.lists(WORDS.map(str.upper) | st.text(max_size=4), max_size=4).map("__".join)
NAMES = PARTS.map(lambda parts: f"BREAKER_SIDECAR__{parts}")
CONSUL = st.sampled_from(["CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL", "NOMAD_PORT_breaker"])


@given(st.dictionaries(NAMES | CONSUL, WORDS | st.text(max_size=8), max_size=4))
def test_any_environment(environ: dict[str, str]) -> None:
    loads_or_faults("consul:", environ)
