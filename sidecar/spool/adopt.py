"""Taking over the spools of daemons that are gone, by moving their segments.

A segment moves by one rename into the log it belongs to now, and its new name says which of its
frames count there and under which sequences. So each segment is at every moment either there or
here, whole, and an interrupted adoption is simply gone on with. A folder's lock is held meanwhile,
and the folder is deleted when nothing is left in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sidecar.core.errors import SpoolFault, SpoolTaken
from sidecar.core.spooling import Adopted
from sidecar.spool.folder import Folder, others_beside
from sidecar.spool.log import Log
from sidecar.spool.recovery import Found, recover
from sidecar.spool.segments import segment_name
from sidecar.spool.vault import Surroundings, Vault, fault_of
from sidecar.telemetry import names


class Adoption:
    """What has been tried beside one vault."""

    def __init__(self, vault: Vault, segment_bytes: Callable[[str], int]) -> None:
        self._vault, self._segment_bytes = vault, segment_bytes
        self._around: Surroundings = vault.around
        self.orphans = 0
        self._told: set[Path] = set()

    def run(self) -> Sequence[Adopted]:
        """Take over what can be. Raises SpoolFault where even a look is not possible."""
        taken: list[tuple[Folder, Found]] = []
        failed: list[tuple[Path, Exception]] = []
        for path in others_beside(self._around.folder.path):
            try:
                taken.append(self._take(path))
            except SpoolTaken:
                continue
            except (SpoolFault, OSError, sqlite3.Error) as error:
                failed.append((path, error))
        adopted: list[Adopted] = []
        for folder, found in sorted(taken, key=_oldest_at):
            try:
                adopted += self._move(folder, found)
            except (SpoolFault, OSError, sqlite3.Error) as error:
                failed.append((folder.path, error))
            finally:
                found.ledger.close()
                folder.release()
        self.orphans = len(failed)
        self._tell(failed)
        return adopted

    def _take(self, path: Path) -> tuple[Folder, Found]:
        folder = Folder.take(path, self._around.files)
        try:
            return folder, recover(folder, self._around.files, self._segment_bytes)
        except BaseException:
            folder.release()
            raise

    def _move(self, folder: Folder, found: Found) -> list[Adopted]:
        """Move everything, keys and flags first: a record never is here without its key."""
        notebook = self._vault.notebook
        self._vault.note_spoiled(found.spoiled)
        found.ledger.write_keys(found.keys)
        for keys in found.ledger.all_keys():
            notebook.note_keys(key._replace(seq=None) for key in keys)
            notebook.write()
        for topic in found.ledger.paused():
            notebook.pause(topic, paused=True)
        adopted: list[Adopted] = []
        for where, log in sorted(found.logs.items()):
            before = (here := self._vault.log(*where)).waiting
            self._move_log(log, here)
            if records := here.waiting - before:
                adopted.append(Adopted(topic=where[0], partition=where[1], records=records))
        notebook.write()
        self._keep_quarantine(folder)
        folder.remove()
        records = sum(one.records for one in adopted)
        self._around.telemetry.event(
            names.SPOOL_ADOPTED, spool=folder.path.name, records=records, logs=len(adopted)
        )
        return adopted

    def _move_log(self, log: Log, here: Log) -> None:
        files = self._around.files
        here.seal()
        for segment in log.segments:
            if segment.last_seq <= log.done_seq:
                continue
            first = max(segment.first_seq, log.done_seq + 1)
            skip = segment.ordinal(first)
            path = here.folder / segment_name(here.next_seq, skip, segment.marker)
            files.make_folder(here.folder)
            files.rename(segment.path, path)
            files.sync_folder(here.folder)
            here.adopt(segment, path, skip)

    def _keep_quarantine(self, folder: Folder) -> None:
        """Damaged bytes stay to be looked at, as far as that is easily done."""
        with suppress(OSError):
            own = self._around.folder.quarantine
            for path in folder.quarantine.iterdir() if folder.quarantine.is_dir() else ():
                self._around.files.make_folder(own)
                self._around.files.rename(path, own / f"{folder.path.name[:60]}.{path.name}")

    def _tell(self, failed: Sequence[tuple[Path, Exception]]) -> None:
        for path, error in failed:
            if path not in self._told:
                said = str(fault_of(error) if isinstance(error, OSError) else error)
                self._around.telemetry.event(
                    names.SPOOL_ORPHANED, level="warning", spool=str(path), error=said
                )
        self._told = {path for path, _ in failed}


def _oldest_at(taken: tuple[Folder, Found]) -> float:
    ages = [log.view.oldest_at for log in taken[1].logs.values()]
    return min((at for at in ages if at is not None), default=0.0)
