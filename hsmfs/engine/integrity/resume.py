"""What a verification has done, written down now and then, so that a restart takes it up again.

The same order goes on where the last one stood, whoever gives it: the same trees, as deep. Files
are compared in the order of inode numbers and discs one by one, so a number and the discs that were
read say it all. A disc that was being read is read anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import trio

from ... import clock, crash
from ...catalog.catalog import Catalog
from ...catalog.verification import Stand, Verification
from ...types import InodeNo, VolumeId
from .report import Disc, Report

EVERY_S = 5.0
"""What a crash of the daemon costs."""
OLD_NS = 86_400 * 10**9
"""What was compared so long before the rest is compared anew."""
_NONE = InodeNo(0)


@dataclass(slots=True)
class Course:
    """How far it is.

    Attributes:
        found, discs: what was found, and the discs that have copies.
        after: files up to this number are compared on disk.
        read: discs that were read.
    """

    asked: str
    found: Report
    discs: dict[VolumeId, Disc] = field(default_factory=dict)
    after: InodeNo = _NONE
    read: set[VolumeId] = field(default_factory=set)

    def facts(self) -> dict[str, Any]:
        """As JSON; paths and totals are found again."""
        return {
            "report": asdict(self.found),
            "discs": [[number, asdict(disc)] for number, disc in self.discs.items()],
            "read": sorted(self.read),
        }

    @classmethod
    def of(cls, stand: Stand) -> Course:
        """As it was written down."""
        facts = json.loads(stand.found)
        discs = {VolumeId(number): Disc(**disc) for number, disc in facts["discs"]}
        found = Report(**{**facts["report"], "discs": [], "files": 0, "bytes": 0})
        found.resumed += 1
        return cls(stand.asked, found, discs, stand.after, set(facts["read"]))


class Resume:
    """Notes the course of one verification."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._row = catalog, Verification(catalog.db)
        self._noted = 0.0

    async def begin(self, roots: Sequence[InodeNo], *, deep: bool, anew: bool) -> Course:
        """A new course, or that of the same order that was cut off within a day."""
        asked = json.dumps({"roots": sorted(roots), "deep": deep})
        await self._catalog.settled()
        stand, now = self._row.get(), clock.now_ns()
        self._noted = trio.current_time()
        same = stand is not None and stand.asked == asked and not anew
        if stand is not None and same and 0 <= now - stand.noted_ns < OLD_NS:
            return await clock.blocking(lambda: Course.of(stand), clock.HASH)
        return Course(asked, Report(deep, now))

    async def note(self, course: Course, *, now: bool = False) -> None:
        """Write it down, if that was not done just now."""
        if not now and trio.current_time() - self._noted < EVERY_S:
            return
        self._noted = trio.current_time()
        # There may be thousands of discs and findings; nothing of it changes meanwhile.
        found = await clock.blocking(lambda: json.dumps(course.facts()), clock.HASH)
        async with self._catalog.write():
            self._row.put(Stand(course.asked, course.after, clock.now_ns(), found))
        crash.point("verify.noted")

    def end(self) -> None:
        """In the transaction that puts its result on record."""
        self._row.end()
