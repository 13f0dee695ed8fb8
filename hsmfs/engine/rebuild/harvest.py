"""What was taken off discs so far, in a folder of its own: no disc is visited twice.

A disc's record is written last and says that all of it is there, so a killed rebuild goes on with
the next disc. Blocking: called in threads.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
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
from ...errors import Conflict, HsmError, MediaError, NotFound
from ...types import SECTOR

log = logs.get(__name__)
DRAFT = "draft.db"
_SNAPSHOT = "snapshot"


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
    """The newest snapshot of an archive that was found."""

    uuid: str
    """Of the disc that it lies on; empty for a backup."""
    barcode: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class _Held:
    """A snapshot, its file, and the discs that it holds, barcode to uuid."""

    snapshot: Snapshot
    path: Path
    covered: dict[str, str]


class Harvest:
    """The folder, and what is in it.

    Inode numbers of two archives say nothing of each other, so all of it must be of one.

    Attributes:
        archive: whose catalog is made; None while that is not known.
        blank: barcodes of blank discs. unread: discs that could not be read, and why.
        unknown: discs that are gone, and what was on them with them; by barcode, why.
        broken: drives that were used no more, and why.
    """

    def __init__(self, folder: Path, archive: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.archive = folder, archive
        self._snapshots: dict[str | None, _Held] = {}
        self.blank: dict[str, int] = {}
        self.unread: dict[str, tuple[int, str]] = {}
        self.unknown: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self._seen: dict[str, Record] = {}
        self._foreign: dict[str, tuple[int, str]] = {}
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
        for path in self.folder.glob("foreign-*.json"):
            found = json.loads(path.read_text())
            if not self.ours(found["archive"]):
                self._foreign[found["barcode"]] = (found["capacity"], found["archive"])
        for path in self.folder.glob(f"{_SNAPSHOT}*.json"):
            packed = path.with_suffix(".zst")
            archive, covered = covered_in(packed, self.folder / "new.db")
            found = Snapshot(**json.loads(path.read_text()))
            self._snapshots[archive] = _Held(found, packed, covered)

    def ours(self, archive: str | None) -> bool:
        """Whether a disc of that archive may belong to the catalog that is made."""
        return self.archive is None or archive is None or archive == self.archive

    @property
    def _held(self) -> _Held | None:
        """The newest snapshot of ours."""
        held_all = list(self._snapshots.items())  # a drive's thread may bring one at any moment
        mine = [held for archive, held in held_all if self.ours(archive)]
        return max(mine, key=lambda held: held.snapshot.created_ns, default=None)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot, or None so far."""
        return self._held.snapshot if self._held else None

    @property
    def snapshot_path(self) -> Path | None:
        """The snapshot's file, if there is one."""
        return self._held.path if self._held else None

    @property
    def covered(self) -> dict[str, str]:
        """Discs that the newest snapshot holds, barcode to uuid: they need no visit."""
        return self._held.covered if self._held else {}

    @property
    def foreign(self) -> dict[str, tuple[int, str]]:
        """Discs of other archives by barcode: their capacity, and the archive."""
        found, covered = dict(self._foreign), self.covered
        for record in self._seen.values():
            disc = record.disc
            if disc.archive is not None and not self.ours(disc.archive):
                found[disc.barcode] = (disc.capacity, disc.archive)
        return {code: what for code, what in found.items() if code not in covered}

    def decide(self, discs: Iterable[tuple[str, str, str | None]] = ()) -> None:
        """Whose catalog it is, by discs that were visited, and these: name, uuid and archive.

        Raises Conflict if they are of several archives and none was asked for, NotFound if none is
        of the one that was.
        """
        found: dict[str, dict[str, str]] = {}
        for name, uuid, archive in (*discs, *self._whose()):
            if archive is not None:
                found.setdefault(archive, {})[uuid] = name
        if self.archive is None and len(found) > 1:
            self.archive = self._owner(found)
        there = "; ".join(
            f"{archive} ({len(names)} discs, {min(names.values())} among them)"
            for archive, names in sorted(found.items())
        )
        if self.archive is None and len(found) > 1:
            raise Conflict(
                f"the discs are of several archives: {there}",
                next_step="name yours with --archive; discs of another one are taken over by"
                " 'hsmctl volume adopt' afterwards",
            )
        if self.archive is not None and found and self.archive not in found:
            raise NotFound(
                f"no disc is of archive {self.archive}, but of {there}",
                next_step="name yours with --archive",
            )
        self.archive = self.archive or next(iter(found), None)

    def _owner(self, found: Mapping[str, Mapping[str, str]]) -> str | None:
        """The archive whose snapshot knows the discs of all others: it took them over once."""
        owners = [
            archive for archive, held in self._snapshots.items()
            if all(archive == other or set(held.covered.values()) >= names.keys()
                   for other, names in found.items())
        ]  # fmt: skip
        return owners[0] if len(owners) == 1 else None

    def _whose(self) -> Iterator[tuple[str, str, str | None]]:
        for record in self._seen.values():
            yield record.disc.barcode, record.disc.uuid, record.disc.archive
        for barcode, (_, archive) in self._foreign.items():
            yield barcode, barcode, archive
        for whose, held in self._snapshots.items():
            yield held.snapshot.barcode, held.snapshot.uuid, whose

    @property
    def draft_begun(self) -> bool:
        """The draft was begun: its base, and so the snapshot, must not change any more."""
        return (self.folder / DRAFT).exists()

    def needs(self, barcode: str) -> bool:
        """True if the disc with that label has to be visited (again)."""
        return (
            barcode not in self._seen
            and barcode not in self.blank
            and barcode not in self._foreign
            and barcode not in self.covered
        )

    def written(self, barcode: str) -> bool:
        """True if the disc is known to have been written."""
        return barcode in self._seen or barcode in self._foreign or barcode in self.covered

    def known(self) -> dict[str, str]:
        """Discs of which all is known, uuid to barcode."""
        discs = [record.disc for record in self._seen.values()]
        covered = {uuid: barcode for barcode, uuid in self.covered.items()}
        return covered | {d.uuid: d.barcode for d in discs if self.ours(d.archive)}

    def free_name(self, barcode: str, uuid: str) -> str:
        """What a disc is called that is gone: its barcode, if no other disc bears it now."""
        taken = barcode in self.blank or barcode in self.unread or self.written(barcode)
        return f"{barcode}-{uuid[:8]}" if taken else barcode

    def records(self) -> list[Record]:
        """Discs to be laid on the draft, the oldest first.

        A disc that was made anew from parity bears the uuid of the lost one, not its barcode.
        """
        covered = self.covered
        wanted = [
            r for r in self._seen.values()
            if self.ours(r.disc.archive) and covered.get(r.disc.barcode) != r.disc.uuid
        ]  # fmt: skip
        return sorted(wanted, key=lambda r: (r.disc.created_ns, r.disc.uuid))

    @property
    def lines(self) -> int:
        """Lines of files in the manifests so far; also while drives bring more."""
        return sum(record.files for record in list(self._seen.values()))

    def manifest(self, disc: Disc) -> Path:
        """The disc's manifest. By its label: two drives may have discs of one uuid in hand."""
        return self.folder / f"{_safe(disc.barcode)}.jsonl"

    def places(self, disc: Disc) -> Path:
        """The disc's database of what lies where."""
        return self.folder / f"{_safe(disc.barcode)}.places"

    def extract(self, disc: Disc) -> Path:
        """The disc's part of the audit log; there is none of some discs."""
        return self.folder / f"{_safe(disc.barcode)}.audit"

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

        One of another archive is only noted. Raises MediaError and what the drive raises.
        """
        if (archive := reader.label.archive) is not None and not self.ours(archive):
            self.note_foreign(barcode, capacity, archive)
            return
        if snapshot:
            self.take_snapshot(reader)
        if self.covered.get(barcode) == reader.label.uuid:
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
        held = self._snapshots.get(label.archive)
        older = held is not None and held.snapshot.created_ns >= label.created_ns
        if not self.ours(label.archive) or older or self.draft_begun:
            return False
        if not described.has_snapshot(reader):
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
        """Take the newest backup in a folder as the snapshot, and its archive as ours.

        Raises NotFound, CatalogDamaged.
        """
        found = backup.find(dest, None)
        older = self.snapshot is not None and self.snapshot.created_ns >= found.created_ns
        if older or self.draft_begun:
            return
        plain = self.folder / "new.db"
        backup.plain_copy(dest, found, plain)
        pack(plain, self.folder / "new.zst", level=1)
        archive = self._install(Snapshot("", f"backup {found.name}", found.created_ns))
        self.archive = self.archive or archive

    def _install(self, found: Snapshot) -> str | None:
        """What lies in new.zst is a snapshot; of which archive.

        Raises CatalogDamaged, SchemaTooNew.
        """
        new = self.folder / "new.zst"
        archive, covered = covered_in(new, self.folder / "new.db")
        path = self.folder / (f"{_SNAPSHOT}-{archive}.zst" if archive else f"{_SNAPSHOT}.zst")
        # The record first: a record without its snapshot would be worse than none.
        path.with_suffix(".json").unlink(missing_ok=True)
        new.rename(path)
        self._write(path.with_suffix(".json").name, asdict(found))
        self._snapshots[archive] = _Held(found, path, covered)
        crash.point("rebuild.snapshot.taken")
        return archive

    def note_blank(self, barcode: str, capacity: int) -> None:
        """The disc is blank."""
        self._write(f"blank-{_safe(barcode)}.json", {"barcode": barcode, "capacity": capacity})
        self.blank[barcode] = capacity

    def note_foreign(self, barcode: str, capacity: int, archive: str) -> None:
        """The disc is of another archive."""
        found = {"barcode": barcode, "capacity": capacity, "archive": archive}
        self._write(f"foreign-{_safe(barcode)}.json", found)
        self._foreign[barcode] = (capacity, archive)

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
        audit_head=label.audit_head, archive=label.archive,
    )  # fmt: skip


def _safe(name: str) -> str:
    return quote(name, safe="")
