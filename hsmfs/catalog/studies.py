"""Which files belong to which DICOM study and patient, and which were brought in beforehand.

What the headers said when files were archived; kept as long as the inode. Written by the migrator
and by `hsmctl prefetch --index`, read by whoever looks for the files of a patient or a study.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..states import CopyState, FileState
from ..types import InodeNo, PoolId, VolumeId
from .connection import Database
from .inodes import LISTED

_OFFLINE = f"i.nlink > 0 AND i.state IN ({int(FileState.PARTIAL)}, {int(FileState.MIGRATED)})"

_UNREAD = (
    "FROM prefetched p JOIN inodes i ON i.ino = p.ino WHERE i.atime_ns <= p.ordered_ns"
    f" AND i.state = {int(FileState.PREMIGRATED)} AND i.pinned = 0 AND i.nlink > 0"
)


@dataclass(frozen=True, slots=True)
class Study:
    """A study: StudyInstanceUID (0020,000D), PatientID (0010,0020), StudyDate (0008,0020)."""

    uid: str
    patient: str = ""
    date: str = ""


class Prefetched(NamedTuple):
    """A file that was brought in beforehand; bytes that came, and when it was ordered (UTC ns)."""

    ino: InodeNo
    pool: PoolId
    bytes: int
    ordered_ns: int


class Studies:
    """Rows of `studies`, `study_files` and `prefetched`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Studies

    def put(self, ino: InodeNo, study: Study) -> None:
        """The file is of this study, and of no other."""
        self._db.execute(
            "INSERT INTO studies (uid, patient, date) VALUES (?, ?, ?)"
            " ON CONFLICT (uid) DO UPDATE SET patient = excluded.patient, date = excluded.date",
            (study.uid, study.patient, study.date),
        )
        self._db.execute(
            "INSERT INTO study_files (ino, study) SELECT ?, id FROM studies WHERE uid = ?"
            " ON CONFLICT (ino) DO UPDATE SET study = excluded.study",
            (ino, study.uid),
        )

    def of(self, ino: InodeNo) -> Study | None:
        """The study of a file."""
        for row in self._db.execute(
            "SELECT uid, patient, date FROM study_files f JOIN studies s ON s.id = f.study"
            " WHERE ino = ?",
            (ino,),
        ):
            return Study(*row)
        return None

    def of_patient(self, patient: str) -> list[Study]:
        """The patient's studies, newest first."""
        rows = self._db.execute(
            "SELECT uid, patient, date FROM studies WHERE patient = ? ORDER BY date DESC, id DESC",
            (patient,),
        )
        return [Study(*row) for row in rows]

    def files(self, uid: str) -> list[InodeNo]:
        """The files of a study."""
        rows = self._db.execute(
            "SELECT ino FROM study_files WHERE study = (SELECT id FROM studies WHERE uid = ?)"
            " ORDER BY ino",
            (uid,),
        )
        return [InodeNo(ino) for (ino,) in rows]

    def counts(self) -> tuple[int, int]:
        """Studies, and files of them."""
        return (
            int(self._db.execute("SELECT count(*) FROM studies").get),
            int(self._db.execute("SELECT count(*) FROM study_files").get),
        )

    def beside(self, ino: InodeNo, volume: VolumeId, limit: int) -> list[InodeNo]:
        """Other files of the study that are not on disk and wholly on that disc, by sector."""
        return self._on_disc(
            "study_files f WHERE f.study = (SELECT study FROM study_files WHERE ino = ?1)",
            ino, volume, limit,
        )  # fmt: skip

    def in_folder(self, ino: InodeNo, volume: VolumeId, limit: int) -> list[InodeNo]:
        """As `beside`, of the file's folder."""
        return self._on_disc(
            "dentries f WHERE f.parent = (SELECT parent FROM dentries WHERE ino = ?1 LIMIT 1)",
            ino, volume, limit,
        )  # fmt: skip

    def _on_disc(self, which: str, ino: InodeNo, volume: VolumeId, limit: int) -> list[InodeNo]:
        rows = self._db.execute(
            f"SELECT c.ino FROM (SELECT f.ino FROM {which}) s JOIN inodes i ON i.ino = s.ino"
            " JOIN copies c ON c.ino = i.ino AND c.version = i.base_version"
            f" WHERE c.volume = ?2 AND c.parts = 1 AND c.state = {int(CopyState.VALID)}"
            f" AND i.ino != ?1 AND {_OFFLINE} ORDER BY c.sector LIMIT ?3",
            (ino, volume, limit),
        )
        return [InodeNo(found) for (found,) in rows]

    # Brought in beforehand

    def mark(self, rows: Iterable[Prefetched]) -> None:
        """These were ordered before anybody read them."""
        for row in rows:
            self._db.execute("INSERT OR REPLACE INTO prefetched VALUES (?, ?, ?, ?)", row)

    def unmark(self, inos: Sequence[InodeNo]) -> list[Prefetched]:
        """They are files like others; those of them that were marked."""
        rows = self._db.execute(
            f"DELETE FROM prefetched WHERE ino IN {LISTED} RETURNING ino, pool, bytes, ordered_ns",
            (json.dumps(inos),),
        ).fetchall()
        return [Prefetched(*row) for row in rows]

    def held(self) -> dict[PoolId, int]:
        """Bytes that are marked, by pool."""
        rows = self._db.execute("SELECT pool, sum(bytes) FROM prefetched GROUP BY pool")
        return {PoolId(pool): size for pool, size in rows}

    def marked(self) -> int:
        """Files that are marked."""
        return int(self._db.execute("SELECT count(*) FROM prefetched").get)

    def unread(self, pool: PoolId, limit: int) -> list[InodeNo]:
        """Those on disk that nobody has read since, the oldest order first."""
        rows = self._db.execute(
            f"SELECT p.ino {_UNREAD} AND p.pool = ? ORDER BY p.ordered_ns, p.ino LIMIT ?",
            (pool, limit),
        )
        return [InodeNo(ino) for (ino,) in rows]

    def unread_count(self) -> int:
        """How many those are, in all pools."""
        return int(self._db.execute(f"SELECT count(*) {_UNREAD}").get)

    def settled(self) -> list[InodeNo]:
        """Marks that mean nothing any more: read since, or neither on disk nor on its way."""
        rows = self._db.execute(
            "SELECT p.ino FROM prefetched p LEFT JOIN inodes i ON i.ino = p.ino"
            " WHERE i.ino IS NULL OR i.atime_ns > p.ordered_ns"
            f" OR (i.state = {int(FileState.MIGRATED)}"
            " AND NOT EXISTS (SELECT 1 FROM recalls r WHERE r.ino = p.ino))"
        )
        return [InodeNo(ino) for (ino,) in rows]
