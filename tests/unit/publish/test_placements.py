"""Numbers of partitions that outlive the process, in a folder that several share."""

from __future__ import annotations

import stat
from pathlib import Path

from sidecar.publish.placements import FILE, Placements


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_sidecars_that_share_a_folder_keep_each_others_numbers(tmp_path: Path) -> None:
    one, other = Placements(tmp_path), Placements(tmp_path)
    one.keep("orders", 3)
    await one.close()
    other.keep("payments", 6)
    await other.close()
    again = Placements(tmp_path)
    assert (again.known("orders"), again.known("payments")) == (3, 6)
    again.keep("orders", 4)
    await again.close()
    assert Placements(tmp_path).known("orders") == 4
    assert listed(tmp_path) == [FILE]
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_what_can_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    placements = Placements(tmp_path)
    (tmp_path / FILE).mkdir()  # nothing can take its place
    placements.keep("orders", 3)
    await placements.close()
    assert placements.known("orders") == 3
    assert listed(tmp_path) == [FILE]


async def test_a_file_of_no_use_is_written_anew(tmp_path: Path) -> None:
    for junk in (b"\xff", b"[]", b'{"orders": -1, "payments": "x"}'):
        (tmp_path / FILE).write_bytes(junk)
        placements = Placements(tmp_path)
        assert placements.known("orders") is None
        placements.keep("orders", 3)
        await placements.close()
        assert Placements(tmp_path).known("orders") == 3
