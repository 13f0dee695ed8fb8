"""What a verification found, as plain values: the answer of the API, and what is signed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ...catalog.volumes import Volume
from ...limits import FINDINGS_SHOWN
from ..views import b64, text

Raw = bytes


@dataclass(slots=True)
class Disc:
    """One disc that bears copies of the files; parts of files and their bytes on it.

    Attributes:
        not_here: why they cannot be read, '' if they can.
    """

    barcode: str
    uuid: str | None
    root_hash: str | None
    state: str
    parts: int = 0
    bytes: int = 0
    parts_read: int = 0
    parts_bad: int = 0
    not_here: str = ""

    @classmethod
    def of(cls, volume: Volume) -> Disc:
        """With nothing read yet."""
        return cls(volume.barcode, volume.uuid, volume.root_hash, volume.state.name.lower())


@dataclass(slots=True)
class Report:
    """Counts of files unless they say otherwise.

    Attributes:
        on_disk: all whose present bytes on disk were compared with the checksums of ingest, and
            how many bytes those are. heads: bytes on disk that are part of a checksum's range
            and were not compared, because the rest of that is on discs alone.
        unarchived: without checksums: written since they were archived, or never archived.
        claimed: whose client left a checksum, and that was compared. accepted: of those, not what
            that says, and accepted as they are.
        changed: written or deleted while they were looked at: nothing is said of them.
        copies: whole copies on discs, of all files.
        away: whose bytes are not all on disk, and no copy is on discs that can be read now.
    """

    deep: bool
    begun_ns: int
    ended_ns: int = 0
    paths: list[dict[str, str | None]] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    on_disk: int = 0
    bytes_on_disk: int = 0
    heads: int = 0
    unarchived: int = 0
    claimed: int = 0
    accepted: int = 0
    changed: int = 0
    copies: int = 0
    away: int = 0
    resumed: int = 0
    """How often it was interrupted and went on; what was compared before is not compared again."""
    discs: list[Disc] = field(default_factory=list)
    failed: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)
    record: str = ""
    """The record of the audit log that says the same in short, as SEQ:HASH."""

    def find(self, what: str, ino: int, path: Raw, error: str, **where: Any) -> bool:
        """Something is not as it should be: `what` is disk, disc or client. False if it is only
        counted, because there are too many."""
        self.failed += 1
        if len(self.findings) >= FINDINGS_SHOWN:
            return False
        at = {"path": text(path), "path_b64": b64(path)}
        self.findings.append({"what": what, "ino": ino, **at, "error": error, **where})
        return True

    @property
    def unread(self) -> int:
        """Parts of files on discs that were not read."""
        return sum(disc.parts - disc.parts_read - disc.parts_bad for disc in self.discs)

    def counts(self) -> dict[str, Any]:
        """In short, for the audit log."""
        return {
            "deep": self.deep, "files": self.files, "bytes": self.bytes, "on_disk": self.on_disk,
            "unarchived": self.unarchived, "claimed": self.claimed, "changed": self.changed,
            "copies": self.copies, "unread": self.unread, "away": self.away,
            "failed": self.failed,
        }  # fmt: skip

    def view(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "unread": self.unread}
