"""The plugin that turns a skip into a failure where everything is meant to run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PASSES = "def test_passes():\n    pass\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='no')\ndef test_skips():\n    pass\n"
SKIPS_WHOLE = "import pytest\npytest.skip('no', allow_module_level=True)\n"
EXPECTED_TO_FAIL = "import pytest\n@pytest.mark.xfail\ndef test_fails():\n    assert 0\n"


def run(folder: Path, source: str, switch: str) -> subprocess.CompletedProcess[str]:
    """A pytest session of its own over this source and one test that passes."""
    folder.joinpath("test_passes.py").write_text(PASSES, "utf-8")
    folder.joinpath("test_it.py").write_text(source, "utf-8")
    folder.joinpath("pytest.ini").write_text("[pytest]\n", "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.noskip", "-c", folder / "pytest.ini", folder],
        # Bare pytest starts in a fraction of the time that the installed plugins take.
        env={
            **os.environ,
            "BREAKER_TEST_NO_SKIP": switch,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("source", "switch", "code"),
    [
        (SKIPS, "1", 1),
        (SKIPS_WHOLE, "1", 1),
        (EXPECTED_TO_FAIL, "1", 0),
        (PASSES, "1", 0),
        (SKIPS, "", 0),
    ],
)
def test_only_a_skip_fails_and_only_when_asked(
    tmp_path: Path, source: str, switch: str, code: int
) -> None:
    done = run(tmp_path, source, switch)
    assert done.returncode == code, done.stdout
    assert ("may be skipped" in done.stdout) == (code == 1)
