"""Taking over the spools of daemons that are gone, by moving their segments.

A segment moves by one rename into the log it belongs to now, and its new name says which of its
frames count there and under which sequences. So each segment is at every moment either there or
here, whole, and an interrupted adoption is simply gone on with. A folder's lock is held meanwhile,
and the folder is deleted when nothing is left in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
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
        failed: dict[Path, Exception] = {}
        taken: list[tuple[Folder, Found]] = []
        for path in others_beside(self._around.folder.path):
            try:
                taken.append(self._take(path))
            except SpoolTaken:
                continue
            except (SpoolFault, OSError, sqlite3.Error) as error:
                failed[path] = error
        try:
            return self._move(taken, failed)
        finally:
            for folder, found in taken:
                found.ledger.close()
                folder.release()
            self.orphans = len(failed)
            self._tell(failed)

    def _take(self, path: Path) -> tuple[Folder, Found]:
        folder = Folder.take(path, self._around.files)
        try:
            return folder, recover(folder, self._around.files, self._segment_bytes)
        except BaseException:
            folder.release()
            raise

    def _move(
        self, taken: Sequence[tuple[Folder, Found]], failed: dict[Path, Exception]
    ) -> list[Adopted]:
        """Move everything, keys and flags first: a record never is here without its key."""
        logs: list[tuple[Folder, Log]] = []
        for folder, found in taken:
            try:
                self._bring_along(found)
            except (SpoolFault, OSError, sqlite3.Error) as error:
                failed[folder.path] = error
            else:
                logs += [(folder, log) for log in found.logs.values()]
        adopted: dict[tuple[str, int], int] = {}
        # An interrupted adoption leaves parts of one log in two folders: the older comes first.
        for folder, log in sorted(logs, key=lambda one: one[1].view.oldest_at or 0.0):
            here = self._vault.log(log.topic, log.partition)
            before = here.waiting
            try:
                if folder.path not in failed:
                    self._move_log(log, here)
            except OSError as error:
                failed[folder.path] = error
            where = (log.topic, log.partition)
            adopted[where] = adopted.get(where, 0) + here.waiting - before
        self._vault.notebook.write()
        for folder, found in taken:
            if folder.path not in failed:
                self._keep_quarantine(folder)
                found.ledger.close()
                folder.remove()
        said = [
            Adopted(topic=topic, partition=partition, records=records)
            for (topic, partition), records in sorted(adopted.items())
            if records
        ]
        if said:
            self._around.telemetry.event(
                names.SPOOL_ADOPTED,
                spools=[folder.path.name for folder, _ in taken if folder.path not in failed],
                records=sum(one.records for one in said),
            )
        return said

    def _bring_along(self, found: Found) -> None:
        notebook = self._vault.notebook
        self._vault.note_spoiled(found.spoiled)
        found.ledger.write_keys(found.keys)
        for keys in found.ledger.all_keys():
            notebook.note_keys(key._replace(seq=None) for key in keys)
            notebook.write()
        for topic in found.ledger.paused():
            notebook.pause(topic, paused=True)

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

    def _tell(self, failed: Mapping[Path, Exception]) -> None:
        for path, error in failed.items():
            if path not in self._told:
                said = str(fault_of(error) if isinstance(error, OSError) else error)
                self._around.telemetry.event(
                    names.SPOOL_ORPHANED, level="warning", spool=str(path), error=said
                )
        self._told = set(failed)
