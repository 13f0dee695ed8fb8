"""Older versions of one path: what the file was, and the files that had its name before.

Versions of the file itself are on discs, if they were archived before they were overwritten, or
were set aside then (keeping.py).
Files that were deleted or replaced (a program that saves by renaming does that) are in the trash,
each perhaps with versions of its own. A version is named INODE.VERSION; restoring one destroys
nothing: what it replaces goes to the trash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import clock, crash
from ..catalog.catalog import Catalog
from ..catalog.reports import Reports
from ..errors import Conflict, NotFound
from ..logs import printable
from ..states import VolumeState
from ..types import Attr, DataVersion, InodeNo
from .files import Files
from .keeping import Keeping
from .paths import path_of, resolve
from .stubs import dress, make_stub, refuse_locked
from .trust.audit import Note, unheard


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a path.

    Attributes:
        id: INODE.VERSION, what `restore` wants.
        mtime_ns: its last change; None: not known. until_ns: when it was overwritten, replaced or
            deleted; None: it is what is there now, or not known.
        where: now (the file as it is), discs, disk (set aside when it was overwritten), trash
            (deleted or replaced, all there still), or lost (it is on no disc that can be read, and
            was not set aside).
        discs: barcodes of those that have it; those outside the library are named in outside.
    """

    id: str
    size: int
    mtime_ns: int | None
    until_ns: int | None
    sha256: str | None
    where: str
    discs: list[str]
    outside: list[str]


class Versions:
    """Wired by the engine. note: puts a restored version on record."""

    def __init__(
        self, catalog: Catalog, files: Files, keeping: Keeping, keep_s: float
    ) -> None:
        self._catalog, self._files, self._keep_ns = catalog, files, int(keep_s * 1e9)
        self._keeping = keeping
        self.note: Note = unheard

    async def of(self, path: bytes, mountpoint: Path | None) -> list[VersionView]:
        """What a path was, the newest first. Raises NotFound if nothing is known of it."""
        await self._catalog.settled()
        folder, name = self._place(path, mountpoint)
        now = self._catalog.names.lookup(folder.ino, name)
        if now is not None:
            now = self._files.overlay(now)
        found = await self._catalog.read(lambda r: _all(r, now, folder.ino, name))
        if not found:
            raise NotFound(f"nothing is known of {printable(path)}: no file, no version of one")
        return found

    async def restore(
        self, path: bytes, version: str, to: bytes | None, who: str, mountpoint: Path | None
    ) -> bytes:
        """Bring a version back, in the place of what is at the path, or under the new name `to`.

        Durable when this returns the path. Raises NotFound; Conflict if its bytes cannot be had,
        the file is locked or open for writing, or the new name is taken.
        """
        ino, _, number = version.partition(".")
        wanted = InodeNo(int(ino)), DataVersion(int(number))
        if version not in {view.id for view in await self.of(path, mountpoint)}:
            raise NotFound(f"{printable(path)} has no version {version}",
                           next_step="see 'hsmctl versions'")  # fmt: skip
        size, _ = self._facts(*wanted)
        async with self._keeping.bytes_of(*wanted, size) as ready, self._catalog.write():
            place = self._place(to if to is not None else path, mountpoint)
            there = self._catalog.names.lookup(place[0].ino, place[1])
            if there is not None and to is not None:
                raise Conflict(f"{printable(to)} exists", next_step="give a path that is free")
            new = self._bring(*wanted, there, place[0].ino, place[1], ready)
            end = path_of(self._catalog, new)
            self.note("file.restored", who, printable(end), version=version, ino=new)
        crash.point("versions.restored")
        await self._catalog.sync()
        self._files.renamed(place[0].ino, place[1])
        return end

    def _bring(
        self, ino: InodeNo, version: DataVersion, there: Attr | None, folder: InodeNo, name: bytes,
        ready: InodeNo | None,
    ) -> InodeNo:
        """Give a version the name; in a transaction. ready: an inode that has its bytes."""
        like = self._files.attr(ino)
        assert like is not None
        if like.version == version and like.nlink:
            raise Conflict(f"version {ino}.{version} is what is there now")
        older = like.version != version
        if older and ready is None and not self._catalog.copies.is_archived(ino, version):
            raise Conflict(f"no disc that can be read has all of version {ino}.{version}")
        if there is not None:
            self._set_aside(there, folder, name)
        now = clock.now_ns()
        if not older:
            self._files.touch_links(self._catalog.names.revive(ino, folder, name, now))
            self._catalog.trash.restored(ino, folder, name, now)
            return ino
        size, mtime_ns = self._facts(ino, version)
        if ready is None:
            new = make_stub(self._catalog, like, version, size, mtime_ns or now)
            self._catalog.names.adopt(folder, name, new, now)
        else:
            new = dress(self._catalog, ready, like, mtime_ns or now)
            self._catalog.names.revive(new.ino, folder, name, now)
            self._files.renew(new.ino)
        self._catalog.history.linked(new.ino, (folder, name), now)
        return new.ino

    def _set_aside(self, attr: Attr, folder: InodeNo, name: bytes) -> None:
        """What has the name goes to the trash."""
        refuse_locked(attr)
        live = self._files.live(attr.ino)
        if live is not None and live.writers:
            raise Conflict("it is open for writing", next_step="close it, or give --to")
        now = clock.now_ns()
        gone = self._catalog.names.unlink(folder, name, now)
        self._files.touch_links(gone)
        if not gone.nlink:
            self._catalog.trash.put(gone.ino, folder, name, now, self._keep_ns)
        else:
            self._catalog.history.unlinked(gone.ino, (folder, name), now)

    def _facts(self, ino: InodeNo, version: DataVersion) -> tuple[int, int | None]:
        """Size and mtime of a version."""
        digest = self._catalog.copies.digest(ino, version)
        for one in self._catalog.history.versions(ino):
            if one.version == version:
                return digest.size if digest else one.size, one.mtime_ns
        return digest.size if digest else 0, None

    def _place(self, path: bytes, mountpoint: Path | None) -> tuple[Attr, bytes]:
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        folder = resolve(self._catalog, above, mountpoint)
        if not folder.is_dir or name in (b"", b".", b".."):
            raise NotFound(f"{printable(path)} is no file of the namespace")
        return folder, name


def _all(reports: Reports, now: Attr | None, folder: InodeNo, name: bytes) -> list[VersionView]:
    found = list[VersionView]()
    if now is not None and now.is_file:
        found += _of_inode(reports, now, None)
    for gone in reports.trash.named(folder, name):
        if gone.attr.is_file:
            found += _of_inode(reports, gone.attr, gone.deleted_ns)
    return found


def _of_inode(reports: Reports, attr: Attr, deleted_ns: int | None) -> list[VersionView]:
    """The versions of one inode: what it has now, then those that ended or that discs have."""
    known = {}
    for one in reversed(reports.history.versions(attr.ino)):
        known[one.version] = one  # of one that is there twice the latest counts
    numbers = {copy.version for copy in reports.copies.all_of(attr.ino)} | set(known)
    views = [_view(reports, attr, attr.version, attr.size, attr.mtime_ns, deleted_ns)]
    for number in sorted(numbers - {attr.version}, reverse=True):
        then, digest = known.get(number), reports.copies.digest(attr.ino, number)
        size = digest.size if digest else then.size if then else 0
        views.append(_view(reports, attr, number, size, then.mtime_ns if then else None,
                           then.ended_ns if then else None))  # fmt: skip
    return views


def _view(
    reports: Reports, attr: Attr, version: DataVersion, size: int, mtime_ns: int | None,
    until_ns: int | None,
) -> VersionView:  # fmt: skip
    digest = reports.copies.digest(attr.ino, version)
    volumes = [
        reports.volumes.get(number)
        for number in dict.fromkeys(
            copy.where.volume for copy in reports.copies.readable(attr.ino, version)
        )
    ]
    discs: list[str] = [v.barcode for v in volumes if v is not None]
    outside: list[str] = [
        v.barcode for v in volumes if v is not None and v.state is VolumeState.EXPORTED
    ]
    if version == attr.version:
        where = "now" if attr.nlink else "trash"
    else:
        archived = reports.copies.is_archived(attr.ino, version)
        kept = not archived and reports.kept.holder(attr.ino, version) is not None
        where = "discs" if archived else "disk" if kept else "lost"
    return VersionView(
        f"{attr.ino}.{version}", size, mtime_ns, until_ns, digest.sha256.hex() if digest else None,
        where, discs, outside,
    )  # fmt: skip
