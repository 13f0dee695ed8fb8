"""Whether the catalog still keeps what the audit log says was committed and held.

The tables of retention and holds can be edited by whoever has the disk; the log is a chain that
discs anchor. So the log is asked what every record was committed for, which holds stand on what,
and how retention folders are set, and the tables must say no less.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...catalog.audit import Break, Record
from ...catalog.catalog import Catalog
from ...catalog.holds import Holds
from ...catalog.reports import Reports
from ...catalog.retention import Folder, Retentions
from ...states import Lock, RetentionMode
from ...types import InodeNo

PAGE = 5000
"""Records of the log, or files, in one step."""
COMPLIANCE = "compliance"
_PERIODS = ("min_ns", "default_ns", "max_ns", "autocommit_ns")


@dataclass(slots=True)
class Standing:
    """A hold that stands: the record that placed or widened it, what it is applied to, and for
    each file the record that says so."""

    seq: int
    scope: str
    files: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Promises:
    """What the log says is to be kept.

    Attributes:
        kept: for each file until when, the record that says so, and the mode.
        appendable: those of them that may grow.
        folders: settings of retention folders, and the record that says so.
        holds: by name, those that stand.
    """

    kept: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    appendable: set[int] = field(default_factory=set)
    folders: dict[int, tuple[Folder, int]] = field(default_factory=dict)
    holds: dict[str, Standing] = field(default_factory=dict)
    breaks: list[Break] = field(default_factory=list)

    def feed(self, record: Record) -> None:
        """The next record of the log."""
        family, _, what = record.kind.partition(".")
        if family == "retention" and record.outcome == "done":
            self._retention(record, what, json.loads(record.detail))
        elif family == "hold":
            self._hold(record, what, json.loads(record.detail))
        elif record.kind == "file.purged":
            for ino in json.loads(record.detail)["inos"]:
                self._purged(record, ino)

    def _retention(self, record: Record, what: str, said: dict[str, Any]) -> None:
        ino, seq = said["ino"], record.seq
        match what:
            case "committed":
                self.kept[ino] = (said["until_ns"], seq, said["mode"])
                self.appendable.discard(ino)
            case "extended":
                self.kept[ino] = (said["until_ns"], seq, self.kept.get(ino, (0, 0, ""))[2])
            case "appendable":
                self.appendable.add(ino)
            case "privileged_delete":
                if self.kept.pop(ino, (0, 0, ""))[2] == COMPLIANCE:
                    why = f"inode {ino} was deleted by order in compliance mode"
                    self.breaks.append(Break(seq, why))
            case "folder":
                mode = RetentionMode[said["mode"].upper()]
                made = Folder(InodeNo(ino), mode, *(said[name] for name in _PERIODS))
                self.folders[ino] = (made, seq)
            case "folder_dropped":
                self.folders.pop(ino, None)

    def _hold(self, record: Record, what: str, said: dict[str, Any]) -> None:
        match what:
            case "placed":
                self.holds[record.object] = Standing(record.seq, said["scope"])
            case "widened" if (hold := self.holds.get(record.object)) is not None:
                hold.seq, hold.scope = record.seq, said["scope"]
            case "added" if (hold := self.holds.get(record.object)) is not None:
                hold.files.update((ino, record.seq) for ino in said["inos"])
            case "released":
                self.holds.pop(record.object, None)

    def _purged(self, record: Record, ino: int) -> None:
        until = self.kept.pop(ino, (0, 0, ""))[0]
        if until > record.worm_ns:
            why = f"inode {ino} was purged, and was to be kept until {until}"
            self.breaks.append(Break(record.seq, why))
        for name, hold in self.holds.items():
            if hold.files.pop(ino, None) is not None:
                why = f"inode {ino} was purged, and was held by {name}"
                self.breaks.append(Break(record.seq, why))


async def compare(catalog: Catalog, promises: Promises) -> list[Break]:
    """Where the catalog keeps less than was promised; each names the record of the promise."""
    breaks = list(promises.breaks)
    kept = list(promises.kept.items())
    for at in range(0, len(kept), PAGE):
        some = kept[at : at + PAGE]
        breaks += await catalog.read(
            partial(_records, todo=some, appendable=promises.appendable)
        )
    breaks += await catalog.read(partial(_folders, promises=promises))
    for name, hold in promises.holds.items():
        breaks += await catalog.read(partial(_hold, name=name, said=hold))
        files = list(hold.files.items())
        for at in range(0, len(files), PAGE):
            breaks += await catalog.read(partial(_held, name=name, files=files[at : at + PAGE]))
    return breaks


def _records(
    reports: Reports, todo: list[tuple[int, tuple[int, int, str]]], appendable: set[int]
) -> list[Break]:
    tables = Retentions(reports.db)
    breaks: list[Break] = []
    for ino, (until, seq, mode) in todo:
        attr = reports.inodes.get_raw(ino)
        try:
            row = tables.get(ino)
        except ValueError as fault:  # a row that hsmfs cannot have written
            breaks.append(Break(seq, f"inode {ino}, which it commits: {fault}"))
            continue
        if attr is None:
            breaks.append(Break(seq, f"inode {ino}, which it commits, is gone from the catalog"))
        elif row is None or not attr.locked & Lock.RECORD:
            breaks.append(Break(seq, f"inode {ino}, which it commits, is no record in the catalog"))
        elif row.until_ns < until:
            what = f"inode {ino} is kept until {row.until_ns} by the catalog, not until {until}"
            breaks.append(Break(seq, what))
        elif mode == COMPLIANCE and row.mode is not RetentionMode.COMPLIANCE:
            breaks.append(Break(seq, f"inode {ino} is not in compliance mode any more"))
        elif attr.locked & Lock.APPEND and ino not in appendable:
            breaks.append(Break(seq, f"inode {ino} takes bytes at its end by the catalog alone"))
    return breaks


def _folders(reports: Reports, promises: Promises) -> list[Break]:
    tables = Retentions(reports.db)
    return [
        Break(seq, f"the retention folder inode {ino} is none, or set otherwise, in the catalog")
        for ino, (folder, seq) in promises.folders.items()
        if tables.folder(ino) != folder
    ]


def _hold(reports: Reports, name: str, said: Standing) -> list[Break]:
    known = Holds(reports.db).named(name)
    if known is None:
        what = "is gone from"
    elif not known.stands:
        what = "was released in"
    elif known.scope != said.scope:
        what = "is applied to something else in"
    else:
        return []
    return [Break(said.seq, f"the hold {name} {what} the catalog, and no record says so")]


def _held(reports: Reports, name: str, files: list[tuple[int, int]]) -> list[Break]:
    holds, breaks = Holds(reports.db), list[Break]()
    for ino, seq in files:
        attr = reports.inodes.get_raw(ino)
        if attr is None:
            breaks.append(Break(seq, f"inode {ino}, held by {name}, is gone from the catalog"))
        elif name not in holds.of(ino) or not attr.locked & Lock.HELD:
            breaks.append(Break(seq, f"inode {ino}, held by {name}, is not held in the catalog"))
    return breaks
