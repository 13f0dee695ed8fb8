"""Whether the catalog still keeps what the audit log says was committed.

The tables of retention can be edited by whoever has the disk; the log is a chain that discs anchor.
So the log is asked what every record was committed for, and the tables must say no less.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial

from ...catalog.audit import Break, Record
from ...catalog.catalog import Catalog
from ...catalog.reports import Reports
from ...catalog.retention import Retentions
from ...states import RetentionMode

PAGE = 5000
"""Records of the log, or files, in one step."""
COMPLIANCE = "compliance"
_KINDS = ("retention.committed", "retention.extended", "retention.privileged_delete", "file.purged")


@dataclass(slots=True)
class Promises:
    """What the log says is to be kept: for each file until when, the record that says so, and the
    mode."""

    kept: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    breaks: list[Break] = field(default_factory=list)

    def feed(self, record: Record) -> None:
        """The next record of the log."""
        if record.kind not in _KINDS:
            return
        said = json.loads(record.detail)
        if record.kind == "retention.committed":
            self.kept[said["ino"]] = (said["until_ns"], record.seq, said["mode"])
        elif record.kind == "retention.extended":
            mode = self.kept.get(said["ino"], (0, 0, ""))[2]
            self.kept[said["ino"]] = (said["until_ns"], record.seq, mode)
        elif record.kind == "retention.privileged_delete":
            if self.kept.pop(said["ino"], (0, 0, ""))[2] == COMPLIANCE:
                what = f"inode {said['ino']} was deleted by order in compliance mode"
                self.breaks.append(Break(record.seq, what))
        else:
            for ino in said["inos"]:
                until = self.kept.pop(ino, (0, 0, ""))[0]
                if until > record.worm_ns:
                    what = f"inode {ino} was purged, and was to be kept until {until}"
                    self.breaks.append(Break(record.seq, what))


async def compare(catalog: Catalog, promises: Promises) -> list[Break]:
    """Where the catalog keeps less than was promised; each names the record of the promise."""
    breaks = list(promises.breaks)
    todo = list(promises.kept.items())
    for at in range(0, len(todo), PAGE):
        breaks += await catalog.read(partial(_compare, todo=todo[at : at + PAGE]))
    return breaks


def _compare(reports: Reports, todo: list[tuple[int, tuple[int, int, str]]]) -> list[Break]:
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
        elif row is None or not attr.locked:
            breaks.append(Break(seq, f"inode {ino}, which it commits, is no record in the catalog"))
        elif row.until_ns < until:
            what = f"inode {ino} is kept until {row.until_ns} by the catalog, not until {until}"
            breaks.append(Break(seq, what))
        elif mode == COMPLIANCE and row.mode is not RetentionMode.COMPLIANCE:
            breaks.append(Break(seq, f"inode {ino} is not in compliance mode any more"))
    return breaks
