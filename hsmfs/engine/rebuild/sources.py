"""Where the discs are: a folder of images, or the library with its robot and drives.

Visits as few as possible: as soon as a snapshot is found, discs that it holds need no visit. In a
library the newest snapshot is looked for first, between the last disc that is written and the first
that is blank, because discs are burned in the order of their barcodes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import trio

from ... import clock
from ...config import LibraryConfig
from ...disc import described
from ...disc.layout import VolumeLabel
from ...disc.reader import DiscReader
from ...errors import HsmError, MediaError, NotFound
from ...library import configured
from ...library.ports import Drive, Library
from ...types import SECTOR, Barcode
from ..parity_read import salvage
from .crew import Crew
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
        """The images of ours by barcode."""
        labels: list[tuple[VolumeLabel, Path]] = []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            try:
                with described.image(path) as reader:
                    labels.append((reader.label, path))
            except MediaError as fault:
                if path.suffix == ".iso":
                    harvest.note_unread(path.name, 0, fault)
        if not labels:
            raise NotFound(
                f"no image of a disc of hsmfs is in {self.folder}",
                next_step="name the folder that holds the images",
            )
        harvest.decide((path.name, label.uuid, label.archive) for label, path in labels)
        ours = [(label, path) for label, path in labels if harvest.ours(label.archive)]
        for label, path in labels:
            if label.archive is not None and not harvest.ours(label.archive):
                harvest.note_foreign(path.name, path.stat().st_size, label.archive)
        ours.sort(key=lambda pair: (pair[0].created_ns, pair[0].barcode, pair[1]))
        for _, path in reversed(ours):
            with suppress(MediaError), described.image(path) as reader:
                if harvest.take_snapshot(reader) or harvest.snapshot:
                    break
        for number, (label, path) in enumerate(ours, 1):
            if harvest.needs(label.barcode):
                try:
                    with described.image(path) as reader:
                        harvest.take(reader, label.barcode, path.stat().st_size)
                except HsmError as fault:
                    harvest.note_unread(label.barcode, path.stat().st_size, fault)
            told(label.barcode, number, len(ours))
        return {label.barcode: path for label, path in ours}


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


class _Tour:
    """One visit of all discs of a library that need one."""

    def __init__(self, library: Library, harvest: Harvest, told: Visited) -> None:
        self._library, self._harvest, self._told = library, harvest, told
        self._crew = Crew(library)
        self._visited = 0
        self._barcodes: list[str] = []

    async def run(self) -> dict[str, int]:
        crew, harvest = self._crew, self._harvest
        harvest.broken = crew.out
        await crew.clear_gripper()
        await crew.recognise()
        self._barcodes = sorted(e.barcode for e in await crew.elements() if e.barcode is not None)
        faults = await crew.each(harvest.needs, self._choose, self._visit)
        for barcode, fault in faults.items():
            harvest.note_unread(barcode, self._library.disc_bytes, fault)
        harvest.decide()
        await take_unseen(
            harvest, self._fetch, lambda code: self._told(code, self._visited, self._visited)
        )
        return {e.barcode: e.address for e in await crew.elements() if e.barcode is not None}

    def _choose(self, open_: Sequence[Barcode]) -> Barcode:
        """The disc to visit next: half-way between written and blank while that tells something."""
        discs, harvest = self._barcodes, self._harvest
        low = max((n for n, code in enumerate(discs) if harvest.written(code)), default=-1)
        high = min(
            (n for n, code in enumerate(discs) if n > low and code in harvest.blank),
            default=len(discs),
        )
        middle = (low + high) // 2
        return min(open_, key=lambda code: abs(bisect_left(discs, code) - middle))

    async def _visit(self, drive: Drive, barcode: Barcode) -> None:
        capacity = self._library.disc_bytes
        self._visited += 1
        medium = await drive.load()
        if medium.blank:
            await clock.blocking(lambda: self._harvest.note_blank(barcode, capacity))
        else:
            await self._take(drive, barcode, medium.written_bytes // SECTOR, capacity)
        left = sum(map(self._harvest.needs, self._barcodes))
        self._told(barcode, self._visited, self._visited + left)

    async def _take(self, drive: Drive, barcode: str, sectors: int, capacity: int) -> None:
        def read_at(sector: int, count: int) -> bytes:
            return trio.from_thread.run(drive.read, sector, count)

        await clock.blocking(
            lambda: self._harvest.take(DiscReader(read_at, sectors), barcode, capacity),
            clock.MEDIA,
        )

    async def _fetch(self, wanted: Sequence[Wanted]) -> dict[str, Got]:
        """Read from several discs, on all drives at once."""
        todo, got = {one.barcode: one for one in wanted}, dict[str, Got]()

        async def use(drive: Drive, barcode: Barcode) -> None:
            one = todo[barcode]
            await drive.load()
            data, bad = await salvage(drive, one.sector, one.count)
            got[barcode] = Got(data, tuple(bad))
            del todo[barcode]

        faults = await self._crew.each(lambda code: code in todo, min, use)
        for code in todo:
            fault = faults.get(Barcode(code))
            got[code] = Got(fault=fault.message if fault else "it is not in the library")
        return got
