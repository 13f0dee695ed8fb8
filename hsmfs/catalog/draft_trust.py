"""Retention, holds and the audit log of a catalog that is made again from discs.

Three sources, each of which may only make retention longer: the snapshot's tables, what manifests
say of each file, and the audit records that discs newer than the snapshot bear, done again in their
order. Relies on `Draft` for the inodes; what is locked is worked out at the end from the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import clock
from ..states import Lock, RetentionMode
from ..types import HoldId, InodeNo
from .audit import AuditLog, Record
from .connection import Database
from .holds import Holds
from .retention import ClockRow, Folder, Retained, Retentions

WHO = "hsmctl rebuild"


def lay(db: Database, kept: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """What lines of a manifest say of (inode, its keys); in a transaction."""
    tables = Retentions(db)
    for ino, said in kept:
        if (found := said.get("retention")) is not None:
            _retain(tables, InodeNo(ino), found)
        if (found := said.get("retention_folder")) is not None:
            known = {folder.ino for folder in tables.folders()}
            if ino not in known:
                tables.set_folder(_folder(InodeNo(ino), found))
        for name in said.get("holds", ()):
            _hold(Holds(db), name, [InodeNo(ino)], "on a disc")


def _retain(tables: Retentions, ino: InodeNo, said: Mapping[str, Any]) -> None:
    known = tables.get(ino)
    mode, until = RetentionMode[said["mode"].upper()], said["until_ns"]
    if known is not None:
        mode, until = max(mode, known.mode), max(until, known.until_ns)
    folder = InodeNo(said["folder"])
    tables.put(Retained(ino, folder, mode, until, said["committed_ns"]))


def _folder(ino: InodeNo, said: Mapping[str, Any]) -> Folder:
    return Folder(
        ino, RetentionMode[said["mode"].upper()], said["min_ns"], said["default_ns"],
        said["max_ns"], said["autocommit_ns"],
    )  # fmt: skip


def _hold(holds: Holds, name: str, inos: Sequence[InodeNo], reason: str) -> None:
    known = holds.named(name)
    if known is None:
        scope = json.dumps({"inos": [], "searches": []})
        hold = holds.place(name, reason, scope, WHO, clock.now_ns())
    elif not known.stands:
        return
    else:
        hold = known.id
    holds.add(hold, inos)


def replay(db: Database, records: Sequence[Record]) -> tuple[int, int | None]:
    """Take records over that the log lacks, and do again what they say; in a transaction.

    records: of all discs, in order of numbers, each once. Returns how many were taken into the
    chain, and the first number that no disc had, if any: acts behind it are done again, but their
    records cannot stand in the chain.
    """
    log = AuditLog(db)
    first = log.head().seq
    taken = log.load(records)
    last = first + taken
    behind = [record for record in records if record.seq > last]
    tables, holds = Retentions(db), Holds(db)
    for record in records:
        if record.seq > first and record.outcome == "done":
            _again(tables, holds, record, json.loads(record.detail))
    return taken, last + 1 if behind else None


def _again(tables: Retentions, holds: Holds, record: Record, said: Mapping[str, Any]) -> None:
    match record.kind:
        case "retention.committed":
            _retain(tables, InodeNo(said["ino"]), said)
        case "retention.extended":
            tables.extend(InodeNo(said["ino"]), said["until_ns"])
        case "retention.privileged_delete":
            tables.drop(InodeNo(said["ino"]))
        case "retention.folder":
            tables.set_folder(_folder(InodeNo(said["ino"]), said))
        case "retention.folder_dropped":
            tables.drop_folder(InodeNo(said["ino"]))
        case "hold.placed":
            placed = (said["reason"], said["scope"], record.actor, record.at_ns)
            if (known := holds.named(record.object)) is None:
                holds.place(record.object, *placed)
            else:  # a manifest said its name, and no more
                holds.restate(known.id, *placed)
        case "hold.widened":
            if (wider := holds.named(record.object)) is not None:
                holds.set_scope(wider.id, said["scope"])
        case "hold.added":
            _hold(holds, record.object, [InodeNo(ino) for ino in said["inos"]], "on record")
        case "hold.released":
            known = holds.named(record.object)
            if known is not None and known.stands:
                holds.release(known.id, record.actor, record.at_ns, said["reason"])
                _free(holds, known.id)


def _free(holds: Holds, hold: HoldId) -> None:
    while holds.free(hold, 1000):
        pass


def finish(db: Database) -> None:
    """Locks from the tables, the clock, and the record of the rebuild; in a transaction."""
    for table in ("retained", "retention_wishes", "held"):
        db.execute(f"DELETE FROM {table} WHERE ino NOT IN (SELECT ino FROM inodes)")
    db.execute(
        "UPDATE inodes SET locked = (locked & ?1) | iif(ino IN (SELECT ino FROM retained), ?2, 0)"
        " | iif(ino IN (SELECT ino FROM held), ?3, 0) WHERE locked != 0"
        " OR ino IN (SELECT ino FROM retained) OR ino IN (SELECT ino FROM held)",
        (int(Lock.APPEND), int(Lock.RECORD), int(Lock.HELD)),
    )
    db.execute(
        "UPDATE inodes SET atime_ns = r.until_ns FROM retained r WHERE r.ino = inodes.ino"
    )
    tables, log = Retentions(db), AuditLog(db)
    seen: int = db.execute("SELECT coalesce(max(worm_ns), 0) FROM audit").get
    row = tables.clock_row()
    worm = max(seen, row.worm_ns if row is not None else 0) or clock.now_ns()
    here = ClockRow(worm, clock.BOOT.boot_id(), clock.BOOT.now_ns(), clock.now_ns())
    tables.put_clock(here)
    log.append(worm, "rebuild.done", WHO, "", "done", {"behind": log.head().seq})
