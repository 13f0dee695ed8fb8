"""A changer without a barcode reader: discs are known by the label inside them.

Which disc is in which place is kept in a file and follows each move. A disc that came by hand is
unknown until a rescan loads it once and reads its VOLUME.json; a blank one is given a name that no
disc has had. A place that is seen empty is forgotten: a disc taken out and put back is read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from hsmfs import clock, logs
from hsmfs.clock import MEDIA, blocking
from hsmfs.disc.layout import VolumeLabel
from hsmfs.disc.reader import DiscReader
from hsmfs.errors import ConfigError, DriveError, MediaError, VolumeMissing
from hsmfs.library.ports import Changer, DiscStatus, Drive, Element, ElementKind, Library
from hsmfs.types import SECTOR, Barcode, ElementAddress

log = logs.get(__name__)
_PLACES = (ElementKind.STORAGE, ElementKind.IMPORT_EXPORT, ElementKind.DRIVE)
NAME = "N"
"""Names of blank discs are this and a number that grows; the first is the time in milliseconds, so
that they stay new, and in the order of burning, when the file is lost."""
Called = Callable[[VolumeLabel], str]
"""What the disc with that label is called here."""


class Memory:
    """The file: names by element address, the move under way, and the last number given."""

    def __init__(self, path: Path) -> None:
        """Read it, or begin a new one; blocking. Raises ConfigError if it does not read."""
        self._path = path
        self.names: dict[int, str] = {}
        self.moving: tuple[int, int] | None = None
        self.given = clock.now_ns() // 10**6
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            self.names = {int(address): str(name) for address, name in data["names"].items()}
            self.moving = tuple(data["moving"]) if data["moving"] else None
            self.given = int(data["given"])
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"library: {path} does not read: {error}",
                next_step="remove it and run 'hsmctl library inventory --rescan'",
            ) from error

    def save(self) -> None:
        """Make it durable; blocking."""
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            json.dump({"names": self.names, "moving": self.moving, "given": self.given}, file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def see(self, elements: Sequence[Element]) -> None:
        """Settle a move that was cut off, and forget what lay in places that are empty."""
        full = {e.address for e in elements if e.full}
        if self.moving is not None:
            src, dst = self.moving
            grippers = [e.address for e in elements if e.kind is ElementKind.TRANSPORT]
            there = [address for address in (dst, *grippers) if address in full]
            if src in self.names and src not in full and there:
                self.names[there[0]] = self.names.pop(src)
            self.moving = None
        self.names = {address: name for address, name in self.names.items() if address in full}


class LabelledChanger:
    """A `ports.Changer` that puts names on the discs of another one.

    Attributes:
        called: a disc that was made anew from parity has the label of the one that it replaces.
    """

    def __init__(self, changer: Changer, drives: Sequence[Drive], memory: Memory) -> None:
        self._changer = changer
        self._drives = {drive.address: drive for drive in drives}
        self._memory = memory
        self.called: Called = lambda label: label.barcode

    async def inventory(self) -> list[Element]:
        """As the robot tells, with the names that are known."""
        elements = await self._changer.inventory()
        before = (dict(self._memory.names), self._memory.moving)
        self._memory.see(elements)
        if before != (self._memory.names, self._memory.moving):
            await blocking(self._memory.save)
        return [replace(e, barcode=self._name(e)) for e in elements]

    async def rescan(self) -> None:
        """Load each unknown disc once, in drives that are empty, and read who it is; slow.

        Without an empty drive the rest stays unknown till the next rescan. Raises as `move`.
        """
        await self._changer.rescan()
        for element in await self.inventory():
            if element.full and element.barcode is None and element.kind in _PLACES:
                with trio.CancelScope(shield=True):
                    await self._meet(element)
                await trio.lowlevel.checkpoint()

    async def move(self, src: ElementAddress, dst: ElementAddress) -> None:
        """Move the disc and its name; the intent is on record before."""
        with trio.CancelScope(shield=True):
            self._memory.moving = (src, dst)
            await blocking(self._memory.save)
            await self._changer.move(src, dst)
            name = self._memory.names.pop(src, None)
            if name is not None:
                self._memory.names[dst] = name
            self._memory.moving = None
            await blocking(self._memory.save)

    async def carry(self, magazine: int, unit: int | None) -> None:
        """Discs keep their places in it, and so their names."""
        await self._changer.carry(magazine, unit)

    async def mistaken(self, address: ElementAddress, label: VolumeLabel | None) -> None:
        """The disc there is not the one that it was taken for but this one; None: a blank one."""
        names = self._memory.names
        names.pop(address, None)
        if label is not None:
            name = self.called(label)
            self._memory.names = {at: other for at, other in names.items() if other != name}
            self._memory.names[address] = name
        await blocking(self._memory.save)

    def _name(self, element: Element) -> Barcode | None:
        name = self._memory.names.get(element.address)
        return Barcode(name) if element.full and name is not None else None

    async def _meet(self, element: Element) -> None:
        """Learn who an unknown disc is, and leave it where it was."""
        name: str | None = None
        if element.kind is ElementKind.DRIVE:
            name = await self._read(self._drives[element.address])
        else:
            for drive in await self._empty_drives():
                await self._changer.move(element.address, drive.address)
                try:
                    name = await self._read(drive)
                    await drive.eject()
                finally:
                    await self._changer.move(drive.address, element.address)
                if name is not None:
                    break
        if name is None:
            return
        self._memory.names[element.address] = name
        await blocking(self._memory.save)
        log.info("disc recognised", barcode=name, place=element.place)

    async def _empty_drives(self) -> Iterable[Drive]:
        full = {e.address for e in await self._changer.inventory() if e.full}
        return [drive for drive in self._drives.values() if drive.address not in full]

    async def _read(self, drive: Drive) -> str | None:
        """The name of the disc in the drive; None if it has none that reads."""
        try:
            medium = await drive.load()
            if medium.status is DiscStatus.BLANK:
                self._memory.given += 1
                return f"{NAME}{self._memory.given}"
            sectors = medium.written_bytes // SECTOR

            def read_at(sector: int, count: int) -> bytes:
                return trio.from_thread.run(drive.read, sector, count)

            return self.called(await blocking(lambda: DiscReader(read_at, sectors).label, MEDIA))
        except (MediaError, DriveError, VolumeMissing) as error:
            log.warning("disc not recognised", drive=drive.name, error=error.message)
            return None


class LabelledLibrary:
    """A `ports.Library` whose changer reads no barcodes."""

    def __init__(self, library: Library, memory: Memory) -> None:
        self._library = library
        self.drives: Sequence[Drive] = library.drives
        self.disc_bytes = library.disc_bytes
        self.changer: Changer = LabelledChanger(library.changer, library.drives, memory)

    async def close(self) -> None:
        await self._library.close()


def labelled(library: Library) -> LabelledChanger | None:
    """The library's changer if it reads no barcodes."""
    return library.changer if isinstance(library.changer, LabelledChanger) else None
