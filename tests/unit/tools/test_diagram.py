"""The committed page shows the table the breaker runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.core.table import SIGNALS, TABLE
from tools import diagram
from tools.pages import PageBrokenError


def test_the_page_is_up_to_date() -> None:
    assert diagram.main(["--check"]) == 0


def test_every_edge_and_reason_is_drawn_and_explained() -> None:
    drawn, told = diagram.diagram(), diagram.table()
    for (before, after), reasons in TABLE.items():
        (signals,) = [
            row.split("|")[3]
            for row in told.splitlines()
            if row.startswith(f"| {before} | {after} | ") and "`failures`" in row
        ] or [""]
        assert (f"{before} --> {after}: a signal" in drawn) == bool(reasons & SIGNALS)
        for reason in reasons:
            if reason in SIGNALS:
                assert f"`{reason}`" in signals
            else:
                assert f"{before} --> {after}: {reason}" in drawn
                assert diagram.MEANINGS[reason]


def test_an_outdated_page_is_told_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{diagram.BEGIN}\nold\n{diagram.END}\nafter\n")
    monkeypatch.setattr(diagram, "PAGE", page)
    assert diagram.main(["--check"]) == 1
    assert "python -m tools.diagram" in capsys.readouterr().err
    assert diagram.main([]) == 0
    assert diagram.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(PageBrokenError):
        diagram.render("no marks")
