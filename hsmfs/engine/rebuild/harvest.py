"""What was taken off discs so far, in a folder of its own: no disc is visited twice.

A disc's record is written last and says that all of it is there, so a killed rebuild goes on with
the next disc. Blocking: called in threads.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ... import crash, logs
from ...catalog import audit_extract, backup
from ...catalog.audit import Record as AuditRecord
from ...catalog.draft import Disc, covered_in
from ...catalog.places import write_places
from ...catalog.snapshot import pack
from ...disc import described
from ...disc.parity_image import parity_place
from ...disc.reader import DiscReader
from ...errors import HsmError, MediaError
from ...types import SECTOR

log = logs.get(__name__)
DRAFT = "draft.db"
_SNAPSHOT, _SNAPSHOT_RECORD = "snapshot.zst", "snapshot.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A disc that was visited; sizes bytes, times UTC ns."""

    disc: Disc
    files: int
    """Lines of kind file in its manifest."""
    parity: dict[str, Any] | None = None
    """What its VOLUME.json tells of its set, if it is a parity disc."""
    parity_sector: int | None = None
    """Where on it the parity begins."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest snapshot that was found."""

    uuid: str
    """Of the disc that it lies on; empty for a backup."""
    barcode: str
    created_ns: int


class Harvest:
    """The folder, and what is in it.

    Attributes:
        covered: discs that the newest snapshot holds, uuid to barcode: they need no visit.
        snapshot: the newest snapshot, or None so far.
        blank: barcodes of blank discs. unread: discs that could not be read, and why.
        unknown: discs that are gone, and what was on them with them; by barcode, why.
        broken: drives that were used no more, and why.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.covered: dict[str, str] = {}
        self.snapshot: Snapshot | None = None
        self.blank: dict[str, int] = {}
        self.unread: dict[str, tuple[int, str]] = {}
        self.unknown: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self._seen: dict[str, Record] = {}
        self._one = threading.Lock()
        self._load()

    def _load(self) -> None:
        for path in self.folder.glob("disc-*.json"):
            found = json.loads(path.read_text())
            record = Record(**found | {"disc": Disc(**found["disc"])})
            self._seen[record.disc.barcode] = record
        for path in self.folder.glob("blank-*.json"):
            found = json.loads(path.read_text())
            self.blank[found["barcode"]] = found["capacity"]
        record_path = self.folder / _SNAPSHOT_RECORD
        if record_path.exists():
            self._use(Snapshot(**json.loads(record_path.read_text())))

    @property
    def snapshot_path(self) -> Path | None:
        """The snapshot's file, if there is one."""
        return self.folder / _SNAPSHOT if self.snapshot else None

    @property
    def draft_begun(self) -> bool:
        """The draft was begun: its base, and so the snapshot, must not change any more."""
        return (self.folder / DRAFT).exists()

    def needs(self, barcode: str) -> bool:
        """True if the disc with that label has to be visited (again)."""
        return (
            barcode not in self._seen
            and barcode not in self.blank
            and barcode not in set(self.covered.values())
        )

    def written(self, barcode: str) -> bool:
        """True if the disc is known to have been written."""
        return barcode in self._seen or barcode in set(self.covered.values())

    def known(self) -> dict[str, str]:
        """Discs of which all is known, uuid to barcode."""
        return self.covered | {r.disc.uuid: r.disc.barcode for r in self._seen.values()}

    def free_name(self, barcode: str, uuid: str) -> str:
        """What a disc is called that is gone: its barcode, if no other disc bears it now."""
        taken = barcode in self.blank or barcode in self.unread or self.written(barcode)
        return f"{barcode}-{uuid[:8]}" if taken else barcode

    def records(self) -> list[Record]:
        """Discs to be laid on the draft, the oldest first.

        A disc that was made anew from parity bears the uuid of the lost one, not its barcode.
        """
        wanted = [r for r in self._seen.values() if self.covered.get(r.disc.uuid) != r.disc.barcode]
        return sorted(wanted, key=lambda r: (r.disc.created_ns, r.disc.uuid))

    def manifest(self, disc: Disc) -> Path:
        """The disc's manifest."""
        return self.folder / f"{_safe(disc.uuid)}.jsonl"

    def places(self, disc: Disc) -> Path:
        """The disc's database of what lies where."""
        return self.folder / f"{_safe(disc.uuid)}.places"

    def extract(self, disc: Disc) -> Path:
        """The disc's part of the audit log; there is none of some discs."""
        return self.folder / f"{_safe(disc.uuid)}.audit"

    def audit(self) -> list[AuditRecord]:
        """The audit records of all discs that were visited, each once, in order."""
        found: dict[int, AuditRecord] = {}
        for record in self.records():
            path = self.extract(record.disc)
            if path.exists():
                found.update((one.seq, one) for one in audit_extract.read(path))
        return [found[seq] for seq in sorted(found)]

    # Taking

    def take(
        self, reader: DiscReader, barcode: str, capacity: int, *, snapshot: bool = True
    ) -> None:
        """Take a disc's manifest and places, and its snapshot if that is wanted and the newest.

        Raises MediaError and what the drive raises.
        """
        if snapshot:
            self.take_snapshot(reader)
        if self.covered.get(reader.label.uuid) == barcode:
            return
        disc = _disc(reader, barcode, capacity)
        described.copy_manifest(reader, self.manifest(disc))
        described.copy_audit(reader, self.extract(disc))
        write_places(self.places(disc), described.places(reader.iso))
        crash.point("rebuild.disc.taken")
        parity = reader.volume.get("parity")
        place = parity_place(reader.iso) if parity else None
        record = Record(disc, reader.volume["files"], parity, place)
        self._write(f"disc-{_safe(barcode)}.json", asdict(record))
        self._seen[barcode] = record
        crash.point("rebuild.disc.recorded")

    def take_snapshot(self, reader: DiscReader) -> bool:
        """Take a disc's snapshot if it is newer than the one that is there; True if it was.

        One that cannot be read is passed over: an older one and manifests do as well.
        """
        with self._one:
            return self._take_snapshot(reader)

    def _take_snapshot(self, reader: DiscReader) -> bool:
        label = reader.label
        older = self.snapshot is not None and self.snapshot.created_ns >= label.created_ns
        if older or self.draft_begun or not described.has_snapshot(reader):
            return False
        new = self.folder / "new.zst"
        try:
            described.copy_snapshot(reader, new)
            self._install(Snapshot(label.uuid, label.barcode, label.created_ns))
        except HsmError as fault:
            new.unlink(missing_ok=True)
            log.warning("snapshot passed over", volume=label.barcode, error=fault.message)
            return False
        return True

    def take_backup(self, dest: Path) -> None:
        """Take the newest backup in a folder as the snapshot. Raises NotFound, CatalogDamaged."""
        found = backup.find(dest, None)
        older = self.snapshot is not None and self.snapshot.created_ns >= found.created_ns
        if older or self.draft_begun:
            return
        plain = self.folder / "new.db"
        backup.plain_copy(dest, found, plain)
        pack(plain, self.folder / "new.zst", level=1)
        self._install(Snapshot("", f"backup {found.name}", found.created_ns))

    def _install(self, found: Snapshot) -> None:
        """What lies in new.zst is the snapshot. Raises CatalogDamaged, SchemaTooNew."""
        covered = covered_in(self.folder / "new.zst", self.folder / "new.db")
        # The record first: a record without its snapshot would be worse than none.
        (self.folder / _SNAPSHOT_RECORD).unlink(missing_ok=True)
        (self.folder / "new.zst").rename(self.folder / _SNAPSHOT)
        self._write(_SNAPSHOT_RECORD, asdict(found))
        self.snapshot, self.covered = found, covered
        crash.point("rebuild.snapshot.taken")

    def _use(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.covered = covered_in(self.folder / _SNAPSHOT, self.folder / "new.db")

    def note_blank(self, barcode: str, capacity: int) -> None:
        """The disc is blank."""
        self._write(f"blank-{_safe(barcode)}.json", {"barcode": barcode, "capacity": capacity})
        self.blank[barcode] = capacity

    def note_unread(self, barcode: str, capacity: int, fault: HsmError) -> None:
        """The disc does not read now; the next run tries it again."""
        log.warning("disc passed over", volume=barcode, error=fault.message)
        self.unread[barcode] = (capacity, fault.message)

    def note_unknown(self, barcode: str, fault: HsmError) -> None:
        """The disc is gone, and its set's parity does not bear it."""
        log.error("files of a lost disc do not come back", volume=barcode, error=fault.message)
        self.unknown[barcode] = fault.message

    def _write(self, name: str, value: object) -> None:
        part = self.folder / f"{name}.part"
        with part.open("w") as out:
            json.dump(value, out)
            out.flush()
            os.fsync(out.fileno())
        part.rename(self.folder / name)


def _disc(reader: DiscReader, barcode: str, capacity: int) -> Disc:
    label = reader.label
    alone = label.k + label.m == 1
    if not label.uuid:
        raise MediaError(f"disc {barcode} has no uuid inside")
    return Disc(
        uuid=label.uuid, barcode=barcode, inside=label.barcode, created_ns=label.created_ns,
        root_hash=reader.root_hash.hex(), used=reader.iso.sectors * SECTOR, capacity=capacity,
        copy_no=label.copy_no, set_name=None if alone else label.set_name,
        set_uuid=label.set_uuid, index=label.index, k=label.k, m=label.m,
        audit_head=label.audit_head,
    )  # fmt: skip


def _safe(name: str) -> str:
    return quote(name, safe="")
