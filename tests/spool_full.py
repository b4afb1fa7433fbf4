"""`python -m tests.spool_full FOLDER`: a small file system, filled, emptied and filled again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sidecar.core.errors import SpoolDiskFull
from sidecar.core.spooling import Idempotency, NewRecord, SpoolSettings
from sidecar.spool.files import Files
from sidecar.spool.frames import pack
from sidecar.spool.spool import open_vault
from sidecar.spool.vault import Append
from tests.telemetry import RecordedTelemetry


def record(number: int) -> NewRecord:
    """One of 5 KB; some with a key."""
    once = Idempotency(str(number), b"12345678") if number % 3 == 0 else None
    return NewRecord(b"%d" % number, os.urandom(5000), (), 1, 1.7e9 + number, once)


def main(folder: Path) -> int:
    """Fill it three times; each time all that was accepted comes out again."""
    settings = SpoolSettings(segment_bytes=65_536 * 4)
    telemetry = RecordedTelemetry()
    for turn in range(3):
        vault = open_vault(folder / "me", settings, telemetry, Files(), lambda: 1.7e9)
        accepted: list[NewRecord] = []
        refused = 0
        for number in range(3000):
            new = record(number + 10_000 * turn)
            (outcome,) = vault.append([Append("t", 0, [pack(new)])])
            if isinstance(outcome, SpoolDiskFull):
                refused += 1
                if refused > 20:
                    break
            elif isinstance(outcome, range):
                accepted.append(new)
            else:
                raise outcome
        assert len(accepted) > 200, len(accepted)
        assert refused > 20
        assert vault.fault is None, vault.fault
        if turn == 1:
            vault.close()
            vault = open_vault(folder / "me", settings, telemetry, Files(), lambda: 1.7e9)
        found: list[NewRecord] = []
        while some := vault.read("t", 0, after=0, max_records=50, max_bytes=1 << 20):
            found += [stored.record for stored in some]
            vault.done([("t", 0, some[-1].seq)])
        assert found == accepted, (len(found), len(accepted))
        (outcome,) = vault.append([Append("t", 0, [pack(record(1))])])
        assert isinstance(outcome, range), outcome
        vault.done([("t", 0, outcome[-1])])
        vault.close()
    sys.stdout.write("held\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
