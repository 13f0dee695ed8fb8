"""fsck: the catalog against itself, the pools, the library and the spool.

Works without a daemon on an open catalog, and inside one: then what is in use is left alone (but
told, if bytes are lost), and a finding counts only if it is seen twice. Nothing is ever deleted but
the rows of what is gone: files that nobody knows go to the pool's lost+found, inodes without a name
to /lost+found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...catalog import check
from ...catalog.catalog import Catalog
from ...catalog.check import CHECKS, Finding, Severity
from ...library.ports import Element
from ...pool.pools import Pools
from ..files import Files
from ..spool import is_old
from . import library as shelf
from .pools import POOL_CHECKS, PoolCheck, Problem, purge_orphan

__all__ = ["Finding", "Report", "Severity", "fsck"]

PASSES = 6
"""Looks after repairs: putting one thing right can bring the next to light, a few times."""


@dataclass(slots=True)
class Report:
    """What was found, what was put right, and what is left.

    Attributes:
        checks: findings by check, 0 for those that found nothing.
        findings: what the first look found.
        left: what the last look found; the same as findings without a repair.
        repaired: repairs carried out.
        deep: whether bytes on disk were compared with their checksums.
    """

    checks: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    repaired: int = 0
    deep: bool = False

    @property
    def clean(self) -> bool:
        """True if nothing is wrong (any more); notes do not count."""
        return all(finding.severity is Severity.NOTE for finding in self.left)

    @property
    def worst(self) -> Severity | None:
        """The worst that is left, or None."""
        return max((finding.severity for finding in self.left), default=None)

    @property
    def verdict(self) -> str:
        """One line for people."""
        found, left = len(self.findings), len(self.left)
        text = f"{len(self.checks)} checks, {found} findings"
        if self.repaired:
            text += f", {self.repaired} repairs, {left} left"
        if self.worst is Severity.LOSS:
            return f"{text}: DATA IS MISSING"
        return f"{text}: {'clean' if self.clean else 'NOT CLEAN'}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "clean": self.clean,
            "verdict": self.verdict,
            "checks": self.checks,
            "repaired": self.repaired,
            "deep": self.deep,
            "findings": [_plain(finding) for finding in self.findings],
            "left": [_plain(finding) for finding in self.left],
        }


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity.name.lower(),
        "object": finding.object,
        "inode": finding.ino,
        "message": finding.message,
        "repair": finding.repair,
    }


Begun = Callable[[str], None]


async def fsck(
    catalog: Catalog,
    pools: Pools,
    library: Iterable[Element] | None = None,
    *,
    repair: bool = False,
    deep: bool = False,
    files: Files | None = None,
    spool: Path | None = None,
    kept: shelf.Kept = is_old,
    begun: Begun = lambda name: None,
) -> Report:
    """Look at everything; with repair put right what can be, and look again.

    library: the robot's inventory, if one was taken. files: given inside the daemon. spool: its
    folder; kept: which names there belong to no burn on the list and are right all the same. deep:
    read the bytes of archived files on disk and compare their checksums. begun is called with each
    check's name before it starts.
    """
    elements = list(library) if library is not None else None
    look = _Look(catalog, pools, elements, files, spool, kept)
    report = Report(deep=deep)
    problems = await look.all(deep, begun)
    report.findings = report.left = [problem.finding for problem in problems]
    report.checks = dict.fromkeys(look.names(deep), 0)
    for finding in report.findings:
        report.checks[finding.check] = report.checks.get(finding.check, 0) + 1
    for _ in range(PASSES if repair and not _damaged(report.findings) else 0):
        done = await look.mend(problems)
        report.repaired += done
        if not done:
            break
        problems = await look.all(deep, begun)
        report.left = [problem.finding for problem in problems]
    return report


def _damaged(findings: list[Finding]) -> bool:
    """Pages are broken: a repair would write more on sand. A backup is needed."""
    return any(
        finding.object == "catalog" and finding.repair is None for finding in findings
    )


class _Look:
    """One fsck's means."""

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        elements: list[Element] | None,
        files: Files | None,
        spool: Path | None,
        kept: shelf.Kept,
    ) -> None:
        self._catalog, self._pools, self._files = catalog, pools, files
        self._elements, self._spool, self._kept = elements, spool, kept

    def names(self, deep: bool) -> list[str]:
        """The checks that are made."""
        names = [one.__name__ for one in CHECKS] + list(POOL_CHECKS)
        if deep:
            names.append("archived_bytes_match_their_checksums")
        if self._elements is not None:
            names.append("volumes_are_where_they_should_be")
        if self._spool is not None:
            names.append("spool_holds_only_burns")
        return names

    async def all(self, deep: bool, begun: Begun) -> list[Problem]:
        """Everything that is not as it must be now."""
        findings = await check.run(self._catalog, begun)
        if findings and self._files is not None:
            again = set(await check.run(self._catalog, begun))
            findings = [one for one in findings if one in again and self._sure(one)]
        problems = [Problem(finding, self._mender(finding)) for finding in findings]
        if any(finding.object == "catalog" for finding in findings):
            return problems
        begun("pools")
        problems += await PoolCheck(self._catalog, self._pools, self._files).run(deep)
        if self._elements is not None:
            begun("volumes_are_where_they_should_be")
            problems += shelf.volumes(self._catalog, self._elements)
        if self._spool is not None:
            begun("spool_holds_only_burns")
            problems += await shelf.spool(
                self._catalog, self._spool, self._kept, self._files is not None
            )
        return problems

    def _sure(self, finding: Finding) -> bool:
        """What is lost is lost for those who use the file, too; the rest may be their doing."""
        return finding.severity is Severity.LOSS or not self._in_use(finding)

    def _in_use(self, finding: Finding) -> bool:
        return (
            self._files is not None
            and finding.ino is not None
            and self._files.live(finding.ino) is not None
        )

    def _mender(self, finding: Finding) -> Callable[[], Awaitable[None]] | None:
        if finding.check == "unlinked_are_in_the_trash" and finding.ino is not None:
            ino = finding.ino
            return lambda: purge_orphan(self._catalog, self._pools, self._files, ino)
        return None

    async def mend(self, problems: list[Problem]) -> int:
        """Carry out what can be; how many."""
        todo = [one for one in problems if one.locks or not self._in_use(one.finding)]
        done = await check.repair(self._catalog, [problem.finding for problem in todo])
        for problem in todo:
            if problem.mend is not None:
                await problem.mend()
                done += 1
        if self._files is not None:
            for problem in todo:
                if problem.finding.ino is not None and problem.finding.repair:
                    self._files.changed(problem.finding.ino)
        return done
