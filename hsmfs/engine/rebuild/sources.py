"""Where the discs are: a folder of images, or the library with its robot and drives.

Visits as few as possible: as soon as a snapshot is found, discs that it holds need no visit. In a
library the newest snapshot is looked for first, between the last disc that is written and the first
that is blank, because discs are burned in the order of their barcodes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio

from ... import clock
from ...config import LibraryConfig
from ...disc import described
from ...disc.reader import DiscReader
from ...errors import DriveError, HsmError, MediaError, NotFound
from ...library import configured
from ...library.ports import Drive, Element, ElementKind, Library
from ...types import SECTOR, ElementAddress
from ..parity_read import salvage
from .harvest import Harvest
from .unseen import Got, Wanted, take_unseen

Visited = Callable[[str, int, int], None]
"""(barcode, discs visited, discs that may still need a visit)."""


class Source(Protocol):
    """Discs to make a catalog from."""

    async def visit(self, harvest: Harvest, told: Visited) -> dict[str, int] | None:
        """Take everything that is needed off the discs into the harvest.

        Returns where the robot has each disc, by barcode; None if there is no robot.
        """
        ...


class Images:
    """A folder with images of discs, however deep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def visit(self, harvest: Harvest, told: Visited) -> None:
        """As `Source`. Raises NotFound if there is no image of ours."""
        paths = await clock.blocking(lambda: self._visit(harvest, told), clock.MEDIA)

        async def fetch(wanted: Sequence[Wanted]) -> dict[str, Got]:
            return {
                one.barcode: await clock.blocking(
                    lambda one=one: _from_image(paths.get(one.barcode), one), clock.MEDIA  # type: ignore[misc]
                )
                for one in wanted
            }

        await take_unseen(harvest, fetch, lambda barcode: told(barcode, len(paths), len(paths)))

    def _visit(self, harvest: Harvest, told: Visited) -> dict[str, Path]:
        """The images by barcode."""
        labels: list[tuple[int, str, Path]] = []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            try:
                with described.image(path) as reader:
                    labels.append((reader.label.created_ns, reader.label.barcode, path))
            except MediaError as fault:
                if path.suffix == ".iso":
                    harvest.note_unread(path.name, 0, fault)
        if not labels:
            raise NotFound(
                f"no image of a disc of hsmfs is in {self.folder}",
                next_step="name the folder that holds the images",
            )
        labels.sort(reverse=True)
        for _, _, path in labels:
            with suppress(MediaError), described.image(path) as reader:
                if harvest.take_snapshot(reader) or harvest.snapshot:
                    break
        labels.reverse()
        for number, (_, barcode, path) in enumerate(labels, 1):
            if harvest.needs(barcode):
                try:
                    with described.image(path) as reader:
                        harvest.take(reader, barcode, path.stat().st_size)
                except HsmError as fault:
                    harvest.note_unread(barcode, path.stat().st_size, fault)
            told(barcode, number, len(labels))
        return {barcode: path for _, barcode, path in labels}


def _from_image(path: Path | None, wanted: Wanted) -> Got:
    """Blocking."""
    if path is None:
        return Got(fault="there is no image of it")
    try:
        with path.open("rb") as image:
            image.seek(wanted.sector * SECTOR)
            data = image.read(wanted.count * SECTOR)
    except OSError as fault:
        return Got(fault=str(fault))
    # A file that was cut off lacks what follows.
    bad = range(wanted.sector + len(data) // SECTOR, wanted.sector + wanted.count)
    return Got(data[: len(data) // SECTOR * SECTOR] + bytes(len(bad) * SECTOR), tuple(bad))


class Robot:
    """The library that the configuration names; all its drives work at once."""

    def __init__(self, config: LibraryConfig) -> None:
        self._config = config

    async def visit(self, harvest: Harvest, told: Visited) -> dict[str, int]:
        """As `Source`. Raises ConfigError, ChangerError, DoorOpen."""
        library = await clock.blocking(lambda: configured.open_library(self._config))
        try:
            return await _Tour(library, harvest, told).run()
        finally:
            with trio.CancelScope(shield=True):
                await library.close()


def _first(group: BaseExceptionGroup[HsmError]) -> HsmError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


class _Tour:
    """One visit of all discs of a library that need one."""

    def __init__(self, library: Library, harvest: Harvest, told: Visited) -> None:
        self._library, self._harvest, self._told = library, harvest, told
        self._robot = trio.Lock()
        self._claimed: set[str] = set()
        self._visited = 0
        self._barcodes: list[str] = []

    async def run(self) -> dict[str, int]:
        await self._clear_gripper()
        await self._recognise()
        await self._all()
        await take_unseen(
            self._harvest, self._fetch, lambda code: self._told(code, self._visited, self._visited)
        )
        elements = await self._library.changer.inventory()
        return {e.barcode: e.address for e in elements if e.barcode is not None}

    async def _recognise(self) -> None:
        """Discs whose labels are not known are looked at, in drives that are empty if need be."""
        elements = await self._library.changer.inventory()
        if any(e.full and e.barcode is None for e in elements):
            for drive in self._library.drives:
                inside = next(e for e in elements if e.address == drive.address)
                if inside.full:
                    await self._put_away(drive, inside.source)
            await self._library.changer.rescan()

    async def _all(self) -> None:
        """Visit every disc that needs it."""
        elements = await self._library.changer.inventory()
        self._barcodes = [e.barcode for e in elements if e.barcode is not None]
        await self._on_all(lambda drive: self._work(drive, elements))

    async def _on_all(self, work: Callable[[Drive], Awaitable[None]]) -> None:
        """One robot fails for all drives alike: what it says first is raised."""
        faults: list[HsmError] = []
        try:
            async with trio.open_nursery() as nursery:
                for drive in self._library.drives:
                    nursery.start_soon(work, drive)
        except* HsmError as group:
            faults.append(_first(group))
        if faults:
            raise faults[0]

    async def _fetch(self, wanted: Sequence[Wanted]) -> dict[str, Got]:
        """Read from several discs, on all drives at once."""
        todo, got = list(wanted), dict[str, Got]()

        async def work(drive: Drive) -> None:
            while todo:
                one = todo.pop(0)
                got[one.barcode] = await self._read(drive, one)

        await self._on_all(work)
        return got

    async def _read(self, drive: Drive, wanted: Wanted) -> Got:
        """All drives are empty now, and each is again when this returns."""
        elements = await self._library.changer.inventory()
        lies = next((e for e in elements if e.barcode == wanted.barcode), None)
        if lies is None:
            return Got(fault="it is not in the library")
        async with self._robot:
            await self._library.changer.move(lies.address, drive.address)
        try:
            await drive.load()
            data, bad = await salvage(drive, wanted.sector, wanted.count)
            return Got(data, tuple(bad))
        except (DriveError, MediaError) as fault:
            return Got(fault=fault.message)
        finally:
            with trio.CancelScope(shield=True):
                await self._put_away(drive, lies.address)

    async def _clear_gripper(self) -> None:
        """A run that was killed, or a jam, may have left a disc on its way."""
        for element in await self._library.changer.inventory():
            if element.kind is ElementKind.TRANSPORT and element.full:
                await self._to_slot(element.address, element.source)

    async def _work(self, drive: Drive, elements: Sequence[Element]) -> None:
        """One drive: the disc that is in it, then one after the other."""
        inside = next(e for e in elements if e.address == drive.address)
        if inside.full:
            if inside.barcode is not None:
                self._claimed.add(inside.barcode)
                if self._harvest.needs(inside.barcode):
                    await self._visit(drive, inside.barcode)
            await self._put_away(drive, inside.source)
        while (element := self._next(elements)) is not None:
            assert element.barcode is not None
            async with self._robot:
                await self._library.changer.move(element.address, drive.address)
            try:
                await self._visit(drive, element.barcode)
            finally:
                with trio.CancelScope(shield=True):
                    await self._put_away(drive, element.address)

    def _next(self, elements: Sequence[Element]) -> Element | None:
        """The disc to visit next: half-way between written and blank while that tells something."""
        discs = sorted(
            (e for e in elements if e.barcode is not None and e.kind is not ElementKind.DRIVE),
            key=lambda e: str(e.barcode),
        )
        open_ = [
            n for n, e in enumerate(discs)
            if e.barcode not in self._claimed and self._harvest.needs(str(e.barcode))
        ]  # fmt: skip
        if not open_:
            return None
        written = [n for n, e in enumerate(discs) if self._harvest.written(str(e.barcode))]
        low = max(written, default=-1)
        high = min((n for n, e in enumerate(discs) if e.barcode in self._harvest.blank and n > low),
                   default=len(discs))  # fmt: skip
        middle = (low + high) // 2
        chosen = min(open_, key=lambda n: abs(n - middle))
        self._claimed.add(str(discs[chosen].barcode))
        return discs[chosen]

    async def _visit(self, drive: Drive, barcode: str) -> None:
        capacity = self._library.disc_bytes
        try:
            medium = await drive.load()
            if medium.blank:
                await clock.blocking(lambda: self._harvest.note_blank(barcode, capacity))
            else:
                await self._take(drive, barcode, medium.written_bytes // SECTOR, capacity)
        except HsmError as fault:
            self._harvest.note_unread(barcode, capacity, fault)
        self._visited += 1
        self._told(barcode, self._visited, self._visited + self._left())

    def _left(self) -> int:
        """Discs that still need a visit, by what is known now."""
        return sum(self._harvest.needs(barcode) for barcode in self._barcodes)

    async def _take(self, drive: Drive, barcode: str, sectors: int, capacity: int) -> None:
        def read_at(sector: int, count: int) -> bytes:
            return trio.from_thread.run(drive.read, sector, count)

        await clock.blocking(
            lambda: self._harvest.take(DiscReader(read_at, sectors), barcode, capacity),
            clock.MEDIA,
        )

    async def _put_away(self, drive: Drive, home: int | None) -> None:
        await drive.eject()
        async with self._robot:
            await self._to_slot(drive.address, home)

    async def _to_slot(self, address: ElementAddress, home: int | None) -> None:
        """Move what lies there to its slot, or to a free one."""
        elements = await self._library.changer.inventory()
        free = [e for e in elements if e.kind is ElementKind.STORAGE and not e.full]
        slot = next((e for e in free if e.address == home), free[0] if free else None)
        if slot is None:
            place = next(e.place for e in elements if e.address == address)
            raise MediaError(f"no empty slot for the disc in {place}")
        await self._library.changer.move(address, slot.address)
