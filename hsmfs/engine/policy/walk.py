"""Finds the files of a rule that looks at names: down the folders that can hold any, page by page.

A page is a snapshot of its own. What is remembered between pages is bounded by the depth of the
tree. A file with several names counts under its first one, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...catalog.reports import Entry, Query, Reports
from ...types import ROOT, Attr, InodeNo
from .select import PAGE, Selection, fits
from .way import Position, Way

FOLDERS = 200
"""Folders looked at in one page, at most."""
FEW = 50_000
"""If the index finds fewer files than these, their names are looked up instead."""
SHARE = 20
"""As FEW, but one in so many of all inodes if the patterns may lead anywhere."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to be looked at, after a cookie; path with slashes at both ends."""

    ino: InodeNo
    path: bytes
    at: Position
    after: int = 0


class Walk:
    """The search of one selection's files that one query finds.

    Attributes:
        todo: folders to be looked at; empty at the end.
    """

    def __init__(self, selection: Selection, query: Query, now_ns: int) -> None:
        self._selection, self._query, self._now_ns = selection, query, now_ns
        self._way = Way(selection.matcher.rule.path)
        self.todo = [_Folder(ROOT, b"/", self._way.start)]

    def worth_it(self, reports: Reports) -> bool:
        """True if there are too many candidates to look up the path of each."""
        most = FEW if self._way.narrow else max(FEW, reports.ino_ceiling() // SHARE)
        return reports.at_least(self._query, most)

    def page(self, reports: Reports) -> list[Attr]:
        """Matching files of the next folders."""
        found = []
        for folder, entry in self._entries(reports):
            attr = self._match(reports, folder, entry)
            if attr is not None:
                found.append(attr)
        return found

    def weigh(self, reports: Reports) -> tuple[int, int]:
        """Matching files of the next folders, and their bytes."""
        if self._selection.earlier or self._way.odd:
            attrs = self.page(reports)
            return len(attrs), sum(attr.size for attr in attrs)
        sizes = [
            entry.size
            for folder, entry in self._entries(reports)
            if entry.nlink == 1 or _first(reports, folder, entry)
        ]
        return len(sizes), sum(sizes)

    def _entries(self, reports: Reports) -> Iterator[tuple[_Folder, Entry]]:
        """Files of the next folders whose own name may match; takes from todo and adds to it."""
        way, named = self._way, self._selection.matcher.matches_own_name
        seen = 0
        for _ in range(FOLDERS):
            if not self.todo or seen >= PAGE:
                return
            folder = self.todo.pop()
            rows = reports.in_folder(self._query, folder.ino, folder.after, PAGE)
            seen += len(rows)
            if len(rows) == PAGE:
                self.todo.append(replace(folder, after=rows[-1].cookie))
            every = way.all_match(folder.at)
            for entry in rows:
                if entry.folder:
                    at = way.enter(folder.at, entry.name)
                    if not way.ends(at):
                        path = folder.path + entry.name + b"/"
                        self.todo.append(_Folder(entry.ino, path, at))
                elif (every or way.may_match(folder.at, entry.name)) and named(entry.name):
                    yield folder, entry

    def _match(self, reports: Reports, folder: _Folder, entry: Entry) -> Attr | None:
        attr = reports.inodes.get_raw(entry.ino)
        assert attr is not None
        if not fits(self._selection, attr, folder.path + entry.name, self._now_ns):
            return None
        return attr if entry.nlink == 1 or _first(reports, folder, entry) else None


def _first(reports: Reports, folder: _Folder, entry: Entry) -> bool:
    """Whether this is the name under which a file with several counts."""
    return reports.names.paths(entry.ino, 1) == [(folder.path + entry.name)[1:]]
