"""Write constraints.txt: the exact version of everything `.[dev]` pulls in, resolved afresh."""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools.programs import ROOT

DEADLINE_S = 900.0
HEADER = """\
# Exact versions of everything `.[dev]` pulls in. Made by `make lock`; change setup.cfg, not this.
"""


def resolve(folder: Path) -> str:
    """Install the newest allowed versions into an empty environment and list them."""
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--editable", f"{ROOT}[dev]"], check=True, timeout=DEADLINE_S
    )
    listed = subprocess.run(
        [*pip, "freeze", "--exclude-editable"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
    )
    return listed.stdout


def main() -> int:
    """Replace constraints.txt once the versions are known to go together; 0 or 1."""
    with tempfile.TemporaryDirectory(prefix="breaker-sidecar-lock-") as folder:
        try:
            versions = resolve(Path(folder))
        except subprocess.SubprocessError as fault:
            print(f"constraints.txt is as it was: {fault}", file=sys.stderr)
            return 1
    (ROOT / "constraints.txt").write_text(HEADER + versions, "utf-8")
    print(f"constraints.txt: {len(versions.splitlines())} versions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
