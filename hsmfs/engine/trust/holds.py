"""Legal holds: placing them on files, trees and searches, applying them again, releasing them.

While a hold names a file its bytes, attributes and names stay, whatever its retention says, and a
disc with a copy of it is not retired. A hold on a tree takes what is in the trash from there, too:
it stays in the trash. A hold's scope is kept, so that it can be applied again to what came later;
files never leave it but by its release.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from ... import clock, crash
from ...catalog.catalog import Catalog
from ...catalog.holds import Hold, Holds
from ...catalog.reports import Place, Query, Reports
from ...catalog.volumes import Volume
from ...errors import Conflict, NotFound
from ...states import FileState, Lock
from ...types import InodeNo
from ..files import Files
from ..paths import files_below
from .audit import Audit

PAGE = 500
"""Files held or freed in one transaction."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a hold is applied to: files and trees by inode number, and searches."""

    inos: tuple[InodeNo, ...] = ()
    searches: tuple[dict[str, Any], ...] = field(default=())

    def joined(self, other: Scope) -> Scope:
        """Both."""
        more = tuple(one for one in other.searches if one not in self.searches)
        inos = tuple(dict.fromkeys((*self.inos, *other.inos)))
        return Scope(inos, (*self.searches, *more))

    def dump(self) -> str:
        return json.dumps({"inos": self.inos, "searches": self.searches})

    @classmethod
    def load(cls, text: str) -> Scope:
        found = json.loads(text)
        return cls(tuple(map(InodeNo, found["inos"])), tuple(found["searches"]))


class LegalHolds:
    """All orders about holds."""

    def __init__(self, catalog: Catalog, files: Files, tables: Holds, audit: Audit) -> None:
        self._catalog, self._files, self.tables, self._audit = catalog, files, tables, audit

    def known(self, name: str) -> Hold:
        """The hold of that name, released or not. Raises NotFound."""
        hold = self.tables.named(name)
        if hold is None:
            raise NotFound(f"no hold is called {name!r}", next_step="see 'hsmctl hold ls'")
        return hold

    def must(self, name: str) -> Hold:
        """The hold of that name, if it stands. Raises NotFound, Conflict."""
        hold = self.known(name)
        if not hold.stands:
            raise Conflict(f"hold {name} was released", next_step="place one of another name")
        return hold

    async def place(self, name: str, reason: str, scope: Scope, who: str) -> int:
        """A new hold on what the scope finds; how many files. Durable when this returns.

        Raises Conflict if the name was ever used.
        """
        async with self._catalog.write():
            if self.tables.named(name) is not None:
                raise Conflict(
                    f"a hold called {name!r} exists or existed", next_step="choose another name"
                )
            self.tables.place(name, reason, scope.dump(), who, clock.now_ns())
            self._audit.note("hold.placed", who, name, reason=reason, scope=scope.dump())
        crash.point("hold.placed")
        return await self.apply(name, who)

    async def add(self, name: str, scope: Scope, who: str) -> int:
        """Widen a hold; how many files came under it. Raises NotFound, Conflict."""
        async with self._catalog.write():
            hold = self.must(name)
            wider = Scope.load(hold.scope).joined(scope).dump()
            self.tables.set_scope(hold.id, wider)
            self._audit.note("hold.widened", who, name, scope=wider)
        return await self.apply(name, who)

    async def apply(self, name: str, who: str) -> int:
        """Hold what the scope finds now and is not held yet; how many files."""
        hold = self.must(name)
        scope = Scope.load(hold.scope)
        count = 0
        async for inos in self._found(scope):
            for at in range(0, len(inos), PAGE):
                async with self._catalog.write():
                    if not self.known(name).stands:
                        return count  # released meanwhile
                    new = self.tables.add(hold.id, inos[at : at + PAGE])
                    for ino in new:
                        self._lock(ino, held=True)
                    if new:
                        self._audit.note("hold.added", who, name, files=len(new), inos=new)
                crash.point("hold.added")
                count += len(new)
                await trio.lowlevel.checkpoint()
        await self._catalog.sync()
        return count

    async def _found(self, scope: Scope) -> AsyncIterator[list[InodeNo]]:
        for ino in scope.inos:
            attr = self._catalog.inodes.get_raw(ino)
            if attr is not None:
                async for batch in files_below(self._catalog, attr, deleted=True):
                    yield [one.ino for one in batch]
        for search in scope.searches:
            place: Place | None = Place()
            while place is not None:
                found, place = await self._catalog.read(
                    partial(_search, fields=search, place=place)
                )
                yield found

    async def release(self, name: str, reason: str, who: str) -> int:
        """End a hold; how many files it held. Durable when this returns."""
        hold = self.must(name)
        async with self._catalog.write():
            self.tables.release(hold.id, who, clock.now_ns(), reason)
            self._audit.note(
                "hold.released", who, name, reason=reason, files=self.tables.count(hold.id)
            )
        crash.point("hold.released")
        await self._catalog.sync()
        return await self._free(hold)

    async def resume(self) -> None:
        """After a start: let go what released holds still name."""
        for hold in self.tables.all():
            if not hold.stands:
                await self._free(hold)

    async def _free(self, hold: Hold) -> int:
        count = 0
        while True:
            async with self._catalog.write():
                freed = self.tables.free(hold.id, PAGE)
                for ino, still in freed:
                    self._lock(ino, held=still)
            if not freed:
                break
            count += len(freed)
            crash.point("hold.freed")
            await trio.lowlevel.checkpoint()
        await self._catalog.sync()
        return count

    def _lock(self, ino: InodeNo, *, held: bool) -> None:
        attr = self._files.attr(ino)
        if attr is not None:
            self._files.lock(ino, attr.locked | Lock.HELD if held else attr.locked & ~Lock.HELD)

    def refuse_to_retire(self, volume: Volume) -> None:
        """Raise Conflict if a held file has a copy on the disc."""
        files, names = self.tables.on_volume(volume.id)
        if files:
            raise Conflict(
                f"disc {volume.barcode} has copies of {files} files under legal hold"
                f" ({', '.join(names)})",
                next_step="release the hold first, see 'hsmctl hold show'",
            )


def query_of(fields: dict[str, Any]) -> Query:
    """A saved search as the catalog wants it. Raises ValueError, KeyError."""
    known = {
        name: fields[name]
        for name in ("modified_before_ns", "modified_after_ns", "min_size", "max_size")
        if fields.get(name) is not None
    }
    return Query(
        states=tuple(FileState[word.upper()] for word in fields.get("states") or ()),
        uids=tuple(fields.get("uids") or ()),
        gids=tuple(fields.get("gids") or ()),
        **known,
    )


def _search(
    reports: Reports, fields: dict[str, Any], place: Place
) -> tuple[list[InodeNo], Place | None]:
    """A page of what a saved search finds."""
    pattern = re.compile(fnmatch.translate(fields["name"]).encode()) if fields.get("name") else None
    cache = reports.path_cache()
    found, following = reports.page(query_of(fields), place, PAGE)
    chosen: list[InodeNo] = []
    for attr in found:
        path = cache.path(attr.ino)
        if path is not None and (not pattern or pattern.match(path.rpartition(b"/")[2])):
            chosen.append(attr.ino)
    return chosen, following

