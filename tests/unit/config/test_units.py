"""Durations as Go reads them, and sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.units import (
    UnitError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("5s", 5.0),
        ("+5s", 5.0),
        ("-5s", -5.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("1h15m30.918273645s", 4530.918273645),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10μs", 1e-5),
        ("7ns", 7e-9),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("0.3333333333333333333h", 1200.0),
        ("1ms1s", 1.001),
        ("1s1s", 2.0),
        ("0100000s", 100000.0),
        ("9223372036854775807ns", 9223372036.854776),
        ("2562047h47m16.854775807s", 9223372036.854776),
    ],
)
def test_reads_what_go_reads(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=2e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "-",
        "+",
        "s",
        ".",
        ".s",
        "-.s",
        "+.s",
        "5 s",
        " 5s",
        "5s ",
        "5S",
        "5d",
        "1h5",
        "1hs",
        "--5s",
        "+-5s",
        "5s-3s",
        "1e3s",
        "1_000s",
        "٣s",  # digits, but not ASCII ones
        "infs",
        "1:30",
        "9223372036854775808ns",
        "2562048h",
        "9" * 101 + "s",
    ],
)
def test_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(UnitError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (5.0, "5s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (3600.0, "1h"),
        (86_400.0, "24h"),
        (0.5, "500ms"),
        (1.5, "1s500ms"),
        (0.000_25, "250us"),
        (7e-9, "7ns"),
        (-2.0, "-2s"),
    ],
)
def test_writes_the_shortest_form(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1))
def test_what_is_written_reads_back_the_same(nanoseconds: int) -> None:
    seconds = nanoseconds / 10**9
    text = format_duration(seconds)
    if abs(seconds) < 2**63 / 1e9:
        assert parse_duration(text) == seconds


@given(st.text(alphabet="0123456789.+-hmsunµ ", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_duration(text), float)
    except UnitError:
        assert text != "0"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("0B", 0),
        ("100B", 100),
        ("64KiB", 65_536),
        ("1GiB", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("8MiB", 8 << 20),
    ],
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "5", "KiB", "1 KiB", "64kib", "64KB", "-1KiB", ".5KiB", "0.3B", "1" * 101 + "B"]
)
def test_refuses_sizes(text: str) -> None:
    with pytest.raises(UnitError):
        parse_size(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_sizes_read_back_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert format_size(65_536) == "64KiB"
