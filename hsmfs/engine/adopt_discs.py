"""Discs that another catalog wrote: their files come under a folder as stubs, nothing is copied.

Works from images of the discs. Every manifest is checked against its disc's VOLUME.json before a
row is made. Each batch is one transaction, and what is there already is left as it is, so an
adoption that was cut off is repeated to be completed. The newest disc comes first: of a file that
several discs hold in different versions the newest is taken.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..disc import described
from ..disc.layout import Kind, Placed, StagedFile, VolumeLabel
from ..errors import Conflict, MediaError, NotFound, PosixError
from ..library.ports import ElementKind
from ..library.robot import Robot
from ..states import CopyState, FileState, VolumeState
from ..types import (
    SECTOR,
    Attr,
    Barcode,
    DataVersion,
    InodeNo,
    Range,
    StoredPart,
    VolumeId,
)  # fmt: skip

log = logs.get(__name__)
ELSEWHERE = "elsewhere"
_LINES = 500
_FIRST = DataVersion(1)
_TYPES = {
    Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO, Kind.SOCKET: stat.S_IFSOCK, Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}  # fmt: skip


@dataclass(slots=True)
class Tally:
    """How far an adoption is."""

    disc: str = ""
    discs: int = 0
    discs_done: int = 0
    lines: int = 0
    made: int = 0
    copies: int = 0
    older: int = 0
    """Files that a newer disc holds in a newer version."""
    refused: int = 0
    """Names that were taken by something else."""


@dataclass(frozen=True, slots=True)
class _Disc:
    label: VolumeLabel
    used: int
    root_hash: str
    items: list[tuple[Placed, StoredPart | None]]


class DiscAdopter:
    """Takes discs over."""

    def __init__(self, catalog: Catalog, robot: Robot) -> None:
        self._catalog, self._robot = catalog, robot

    async def adopt(self, source: Path, into: Attr) -> AsyncIterator[dict[str, Any]]:
        """Take the discs of a folder of images, or of one image, over; tells how far it is.

        Raises NotFound (no image), Conflict (into is no folder, or a disc is known), ForeignDisc,
        ChecksumMismatch, OSError.
        """
        if not into.is_dir:
            raise Conflict("files of discs can only be put below a folder")
        found = await clock.blocking(lambda: _images(source), clock.MEDIA)
        tally = Tally(discs=len(found))
        for path in found:
            disc = await clock.blocking(lambda path=path: _read(path), clock.MEDIA)  # type: ignore[misc]
            tally.disc, items = disc.label.barcode, disc.items
            volume = await self._volume(disc)
            for start in range(0, len(items), _LINES):
                batch = items[start : start + _LINES]
                async with self._catalog.write():
                    for item, part in batch:
                        part = replace(part, volume=volume) if part is not None else None
                        self._take(into.ino, item.file, part, disc.label.copy_no or 1, tally)
                crash.point("export.adopt.batch")
                tally.lines += len(batch)
                yield {"kind": "progress"} | asdict(tally)
                await trio.lowlevel.checkpoint()
            await self._arrive(volume, disc.label.barcode)
            tally.discs_done += 1
        await self._catalog.sync()
        crash.point("export.adopt.durable")
        log.info("discs adopted", discs=tally.discs, files=tally.made, copies=tally.copies)
        yield {"kind": "end"} | asdict(tally)

    async def _volume(self, disc: _Disc) -> VolumeId:
        """The disc's row: outside the library and full, until it is known to lie in it."""
        label = disc.label
        table = self._catalog.volumes
        known = table.by_barcode(label.barcode)
        if known is not None and known.uuid is not None:
            if known.uuid == label.uuid and known.written_by == ELSEWHERE:
                return known.id
            raise Conflict(
                f"the catalog knows a written disc {label.barcode} already",
                next_step="a disc of this catalog is taken back by 'hsmctl volume import'",
            )
        if known is not None and known.state is not VolumeState.BLANK:
            raise Conflict(f"disc {label.barcode} is {known.state.name.lower()} in this catalog")
        async with self._catalog.write():
            now = clock.now_ns()
            number = known.id if known is not None else table.add(label.barcode, disc.used, now)
            table.start(number, label.uuid)
            table.close(number, disc.used, ELSEWHERE, disc.root_hash, label.created_ns)
            table.go_away(number, VolumeState.EXPORTED, "")
            table.set_location(number, "a shelf unknown so far")
        crash.point("export.adopt.volume")
        return number

    async def _arrive(self, volume: VolumeId, barcode: str) -> None:
        element = self._robot.where(Barcode(barcode))
        if element is not None and element.kind is not ElementKind.IMPORT_EXPORT:
            async with self._catalog.write():
                self._catalog.volumes.come_back(volume)

    def _take(
        self, folder: InodeNo, file: StagedFile, part: StoredPart | None, copy_no: int, tally: Tally
    ) -> None:
        """One line of a manifest; inside a transaction."""
        if file.kind is Kind.DIR:
            self._take_folder(folder, file, tally)
            return
        table = self._catalog.foreign
        known = table.own(folder, file.ino)
        if known is None:
            ino = self._make(folder, file, tally)
            if ino is None:
                return
            table.remember(folder, file.ino, file.version, ino)
        elif known[1] != file.version:
            tally.older += 1
            return
        else:
            ino = known[0]
        if part is None or file.digest is None:
            return
        copies = self._catalog.copies
        have = copies.of(ino, _FIRST)
        if any(c.where.volume == part.volume and c.where.part == part.part for c in have):
            return
        copies.add(ino, _FIRST, copy_no, part, CopyState.VALID)
        tally.copies += 1

    def _take_folder(self, folder: InodeNo, file: StagedFile, tally: Tally) -> None:
        for path in file.paths:
            if path in (b"", b"."):
                continue
            try:
                attr = self._folder(folder, path)
            except PosixError:
                tally.refused += 1
                continue
            if self._catalog.foreign.own(folder, file.ino) is None:
                self._catalog.foreign.remember(folder, file.ino, file.version, attr.ino)
                self._catalog.inodes.put(
                    attr._replace(
                        mode=stat.S_IFDIR | file.mode, uid=file.uid, gid=file.gid,
                        atime_ns=file.atime_ns, mtime_ns=file.mtime_ns, ctime_ns=file.ctime_ns,
                    )
                )  # fmt: skip
                for name, value in file.xattrs.items():
                    self._catalog.xattrs.set(attr.ino, name, value)

    def _folder(self, root: InodeNo, path: bytes) -> Attr:
        """The folder at a path below root, made if it is not there. Raises PosixError."""
        names = self._catalog.names
        attr = self._catalog.inodes.get_raw(root)
        assert attr is not None
        for name in filter(None, path.split(b"/")):
            found = names.lookup(attr.ino, name)
            if found is None:
                found = names.create(
                    attr.ino, name, stat.S_IFDIR | 0o755, attr.uid, attr.gid, clock.now_ns()
                )
            attr = found
        return attr

    def _make(self, folder: InodeNo, file: StagedFile, tally: Tally) -> InodeNo | None:
        """The inode with all its names; None if every name is taken."""
        free: list[tuple[InodeNo, bytes]] = []
        for path in file.paths:
            parent, _, name = path.rpartition(b"/")
            try:
                above = self._folder(folder, parent)
                taken = self._catalog.names.lookup(above.ino, name) is not None
            except PosixError:
                taken = True
            if taken:
                tally.refused += 1
            else:
                free.append((above.ino, name))
        if not free:
            return None
        ino = self._catalog.inodes.reserve()
        regular = file.kind is Kind.FILE
        size = file.digest.size if file.digest is not None else len(file.target)
        state = (FileState.MIGRATED if size else FileState.PREMIGRATED) if regular else None
        attr = Attr(
            ino, _TYPES[file.kind] | file.mode, file.uid, file.gid, len(free), file.rdev, size, 0,
            file.atime_ns, file.mtime_ns, file.ctime_ns, file.btime_ns, state, None, _FIRST, _FIRST,
            False, False, 0, 0,
        )  # fmt: skip
        self._catalog.inodes.insert_as(attr)
        for parent_ino, name in free:
            self._catalog.names.adopt(parent_ino, name, attr)
        if file.kind is Kind.SYMLINK:
            self._catalog.names.set_target(ino, file.target)
        for name, value in file.xattrs.items():
            self._catalog.xattrs.set(ino, name, value)
        if regular and file.digest is not None:
            self._catalog.copies.set_digest(ino, _FIRST, file.digest)
            if size:
                self._catalog.inodes.set_absent(ino, [Range(0, size)])
        tally.made += 1
        return ino


def _images(source: Path) -> list[Path]:
    """Images of discs of hsmfs, the newest disc first. Raises NotFound, ForeignDisc."""
    if not source.exists():
        raise NotFound(f"{source} is not there", next_step="name an image or a folder of images")
    paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    found: list[tuple[int, Path]] = []
    for path in paths:
        try:
            with described.image(path) as reader:
                found.append((-reader.label.created_ns, path))
        except MediaError:
            if path.suffix == ".iso" or path == source:
                raise
    if not found:
        raise NotFound(f"no image of a disc of hsmfs is in {source}")
    return [path for _, path in sorted(found)]


def _read(path: Path) -> _Disc:
    """A disc's manifest, files with their places, folders first.

    Raises ForeignDisc, ChecksumMismatch.
    """
    with described.image(path) as reader:
        # Parts are counted from 1 on discs and from 0 in the catalog.
        places = {
            item.file.ino: replace(part, part=part.part - 1)
            for item, part in reader.parts(VolumeId(0))
        }
        items = [(item, places.get(item.file.ino)) for item in reader.manifest()]
        items.sort(key=lambda pair: pair[0].file.kind is not Kind.DIR)
        used = reader.iso.sectors * SECTOR
        return _Disc(reader.label, used, reader.root_hash.hex(), items)
