"""Backups of the catalog in a folder, also one of another host that is mounted here, or in a file.

A backup is a list of pieces of the database file, 1 MiB each, and a piece is a compressed file
named by the SHA-256 of its bytes. A piece that did not change since is there already, so a further
backup writes only what changed. The list gets its name last, all it names being durable: a backup
that was cut off leaves the ones before it. Blocking.

    DEST/hsmfs-catalog-backup       marks the folder as ours
    DEST/20261124T221500.000Z.json  a backup: format, created_ns, size, sha256 of the whole, pieces
    DEST/pieces/ab/abcd...zst       a piece, zstd

A mount that went away leaves an empty folder: where backups went before, a folder without the mark
is refused. A backup as a single file is the whole of it (backup_file.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw
import zstandard

from .. import clock, crash, durable, logs
from ..errors import CatalogDamaged, ConfigError, Conflict, NotFound
from . import backup_file, migrate
from .backup_file import Told
from .catalog import FILE
from .connection import Database, faults
from .inodes import NUMBERS
from .lock import locked
from .past import BEGINS
from .reports import Reports

log = logs.get(__name__)
PIECE = 1 << 20
"""Bytes of the database in one piece."""
FORMAT = 1
MARK = "hsmfs-catalog-backup"
_PIECES = "pieces"
_LEVEL = 3
_WENT = "backup:"
"""Facts in `meta` begin so that name a folder which backups went to."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as its list, or its single file, describes it; sizes bytes, times UTC ns."""

    name: str
    created_ns: int
    size: int
    sha256: str
    pieces: tuple[str, ...]
    """None in a single file."""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was just made: what it wrote, and which it removed."""

    name: str
    size: int
    pieces: int
    new_pieces: int
    new_bytes: int
    """As stored."""
    removed: tuple[str, ...]


def went_to(reports: Reports, dest: Path) -> bool:
    """Whether backups of this catalog went to that folder before."""
    rows = reports.db.execute("SELECT 1 FROM meta WHERE key = ?", (f"{_WENT}{dest}",))
    return bool(rows.fetchall())


def note(db: Database, dest: Path, now_ns: int) -> None:
    """A first backup went to a folder; in a write transaction."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_WENT}{dest}", now_ns))


def store_file(
    plain: Path, dest: Path, *, now_ns: int, told: Told = lambda done, total: None
) -> Made:
    """Back up a plain copy of the catalog to a single file; the copy goes in any case.

    Raises ConfigError if dest is there and no such file, OSError.
    """
    try:
        whole, stored = backup_file.write(plain, dest, name=_name(now_ns), now_ns=now_ns, told=told)
        return Made(whole.name, whole.size, 1, 1, stored, ())
    finally:
        plain.unlink(missing_ok=True)


def store(
    plain: Path,
    dest: Path,
    *,
    keep: int,
    now_ns: int,
    begin: bool = True,
    told: Told = lambda done, total: None,
) -> Made:
    """Back up a plain copy of the catalog (`snapshot.copy`), which goes in any case.

    keep: how many backups stay, this one among them. begin: dest may be empty, or not there.
    Raises Conflict if another backup to dest goes on, ConfigError if dest is something else,
    NotFound if it is to hold backups and holds none, OSError.
    """
    try:
        with _opened(dest, begin):
            found, new, stored = _store(plain, dest, _after_all(dest, now_ns), told)
            _write(dest / f"{found.name}.json", json.dumps(asdict(found)).encode())
            crash.point("backup.listed")
            removed = _prune(dest, keep)
            return Made(found.name, found.size, len(found.pieces), new, stored, removed)
    finally:
        plain.unlink(missing_ok=True)


def _after_all(dest: Path, now_ns: int) -> int:
    """The date of a new backup: behind that of any other, though a clock was ahead for a time.

    Else it would be taken for an old one, and removed before those that are older.
    """
    try:
        return max(now_ns, find(dest, None).created_ns + 10**6)
    except (NotFound, CatalogDamaged):
        return now_ns


def _store(plain: Path, dest: Path, now_ns: int, told: Told) -> tuple[Backup, int, int]:
    total, whole = plain.stat().st_size, hashlib.sha256()
    pieces: list[str] = []
    touched: set[Path] = set()
    new = stored = 0
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    with plain.open("rb") as source:
        while data := source.read(PIECE):
            whole.update(data)
            pieces.append(hashlib.sha256(data).hexdigest())
            path = _piece(dest, pieces[-1])
            touched.add(path.parent)
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                packed = packer.compress(data)
                _write(path, packed)
                new, stored = new + 1, stored + len(packed)
                crash.point("backup.piece.written")
            told(source.tell(), total)
    for folder in touched:
        durable.sync(folder)
    durable.sync(dest / _PIECES)
    made = Backup(_name(now_ns), now_ns, total, whole.hexdigest(), tuple(pieces))
    return made, new, stored


def _name(now_ns: int) -> str:
    moment = datetime.fromtimestamp(now_ns / 1e9, UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"


def backups(dest: Path) -> tuple[list[Backup], list[CatalogDamaged]]:
    """The backups in a folder or file, the newest first, and what ails those that are damaged.

    Raises NotFound if it is no such folder.
    """
    found, damaged = list[Backup](), list[CatalogDamaged]()
    for path in [dest] if dest.is_file() else _lists(dest):
        try:
            found.append(_single(path) if path is dest else _read(path))
        except CatalogDamaged as fault:
            damaged.append(fault)
    return found, damaged


def find(dest: Path, name: str | None) -> Backup:
    """The backup of that name, or the newest, in a folder or file; the others may be damaged.

    Raises NotFound, CatalogDamaged.
    """
    if dest.is_file():
        single = _single(dest)
        if name in (None, single.name):
            return single
    else:
        for path in _lists(dest):
            if name is None or path.name == f"{name}.json":
                return _read(path)
    raise NotFound(f"no backup {name or ''} is in {dest}")


def _single(dest: Path) -> Backup:
    return Backup(**asdict(backup_file.about(dest)), pieces=())


def _lists(dest: Path) -> list[Path]:
    if not (dest / MARK).exists():
        raise NotFound(f"no backups of a catalog are in {dest}")
    return sorted(dest.glob("*Z.json"), reverse=True)


def verify(dest: Path, backup: Backup, told: Told = lambda done, total: None) -> list[str]:
    """Read all of a backup and compare every checksum; what is wrong, a line each."""
    if dest.is_file():
        return _verify_file(dest, backup, told)
    wrong: list[str] = []
    whole, done = hashlib.sha256(), 0
    for number, piece in enumerate(backup.pieces):
        try:
            data = _load(dest, piece)
        except CatalogDamaged as fault:
            wrong.append(f"bytes from {number * PIECE}: {fault.message}")
            continue
        whole.update(data)
        done += len(data)
        told(done, backup.size)
    if not wrong and (whole.hexdigest() != backup.sha256 or done != backup.size):
        wrong.append("the pieces are whole, but put together are not what was backed up")
    return wrong


def _verify_file(dest: Path, backup: Backup, told: Told) -> list[str]:
    done = 0
    try:
        for data in backup_file.read(dest):
            done += len(data)
            told(done, backup.size)
    except CatalogDamaged as fault:
        return [fault.message]
    return []


def restore(
    dest: Path, backup: Backup, state: Path, told: Told = lambda done, total: None
) -> None:
    """Put a backup into a state directory without a catalog, every checksum compared; durable.

    Numbers of inodes that may have been given since are passed over. Raises Conflict if there is a
    catalog, CatalogDamaged if a piece is missing or wrong, SchemaTooNew, CatalogInUse, OSError.
    """
    state.mkdir(parents=True, exist_ok=True)
    with locked(state):
        if (state / FILE).exists():
            raise Conflict(
                f"{state} holds a catalog already",
                next_step="move it away first if it is not good any more; nothing was changed",
            )
        part = state / f"{FILE}.restore"
        try:
            plain_copy(dest, backup, part, told)
            _pass_numbers(part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.rename(state / FILE)
        durable.sync(state)
        crash.point("backup.restored")


def plain_copy(
    dest: Path, backup: Backup, path: Path, told: Told = lambda done, total: None
) -> None:
    """A backup as a database file. Raises CatalogDamaged, OSError."""
    whole = hashlib.sha256()
    with path.open("wb") as out:
        for data in _blocks(dest, backup):
            whole.update(data)
            out.write(data)
            told(out.tell(), backup.size)
        out.flush()
        os.fsync(out.fileno())
    if whole.hexdigest() != backup.sha256:
        path.unlink()
        raise CatalogDamaged(f"backup {backup.name} is not what was backed up")


def _blocks(dest: Path, backup: Backup) -> Iterator[bytes]:
    if dest.is_file():
        return backup_file.read(dest)
    return (_load(dest, piece) for piece in backup.pieces)


def _pass_numbers(path: Path) -> None:
    db = apsw.Connection(str(path))
    try:
        with faults(path):
            migrate.check(db, str(path))
            db.pragma("synchronous", "FULL")
            with db:
                db.execute(
                    "UPDATE meta SET value = value + ? WHERE key = 'ino_ceiling'", (NUMBERS,)
                )
                db.execute("DELETE FROM meta WHERE key LIKE 'snapshot_%'")
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (BEGINS, clock.now_ns()))
    finally:
        db.close()


@contextmanager
def _opened(dest: Path, begin: bool) -> Iterator[None]:
    """The folder, made or known as ours, and nobody else at it."""
    mark = dest / MARK
    if not mark.exists():
        if not begin:
            raise NotFound(
                f"{dest} held backups of the catalog, and holds none now",
                next_step="mount it; if it is to begin anew: hsmctl catalog backup --new-folder",
            )
        if dest.exists() and any(dest.iterdir()):
            raise ConfigError(
                f"{dest} is not empty and holds no backups of a catalog",
                next_step="choose an empty folder",
            )
        dest.mkdir(parents=True, exist_ok=True)
        mark.write_text("backups of a catalog of hsmfs: hsmctl catalog restore\n")
    (dest / _PIECES).mkdir(exist_ok=True)
    with mark.open("rb+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another backup to {dest} goes on") from None
        yield


def _piece(dest: Path, sha256: str) -> Path:
    return dest / _PIECES / sha256[:2] / f"{sha256}.zst"


def _load(dest: Path, sha256: str) -> bytes:
    path = _piece(dest, sha256)
    try:
        data = zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=PIECE)
    except (OSError, zstandard.ZstdError) as fault:
        raise CatalogDamaged(
            f"piece {path}: {fault}", next_step="restore another backup"
        ) from fault
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CatalogDamaged(
            f"piece {path} is not what was backed up", next_step="restore another backup"
        )
    return data


def _read(path: Path) -> Backup:
    try:
        found = json.loads(path.read_bytes())
        if found["format"] > FORMAT:
            raise CatalogDamaged(f"{path} was written by a newer hsmfs")
        return Backup(**{**found, "pieces": tuple(found["pieces"])})
    except (ValueError, TypeError, KeyError) as fault:
        raise CatalogDamaged(
            f"{path} is no list of a backup: {fault!r}",
            next_step="see 'hsmctl catalog list', and name another one with --backup",
        ) from fault


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    part.rename(path)
    if path.suffix == ".json":
        durable.sync(path.parent)


def _prune(dest: Path, keep: int) -> tuple[str, ...]:
    """Remove older backups, then pieces that none names; a name is gone before its pieces.

    Nothing is removed while nobody can tell which pieces a backup names.
    """
    found, damaged = backups(dest)
    if damaged:
        log.warning("no backup is removed", folder=dest, error=damaged[0].message)
        return ()
    removed = found[max(1, keep) :]
    for backup in removed:
        (dest / f"{backup.name}.json").unlink()
    if removed:
        durable.sync(dest)
        crash.point("backup.pruned")
    used = {piece for backup in found[: max(1, keep)] for piece in backup.pieces}
    for path in (dest / _PIECES).glob("*/*"):
        if path.name.partition(".")[0] not in used or path.suffix == ".part":
            path.unlink()
    return tuple(backup.name for backup in removed)
