"""Discs that another catalog wrote: their files come under a folder as stubs, nothing is copied.

Works from discs in the library, each taken into a drive, and from images. Of every disc the
manifest and the places of its files are taken off first, into files, so memory does not grow with
them; each manifest is checked against its disc's VOLUME.json before a row is made. Then the newest
disc comes first: of a file that several discs hold in different versions the newest is taken. What
is there already is left as it is, so an adoption that was cut off is repeated to be completed.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.places import Places, write_places
from ..catalog.sets import UNSEEN
from ..catalog.volumes import Volume
from ..config import Config
from ..disc import described
from ..disc.layout import VolumeLabel
from ..disc.lines import Line, lines
from ..disc.parity_image import ParityFacts, read_facts
from ..disc.reader import DiscReader
from ..errors import Conflict, ForeignDisc, MediaError, NotFound, VolumeMissing
from ..library.ports import ElementKind
from ..library.robot import Robot
from ..states import VolumeState
from ..types import SECTOR, Attr, Barcode, StoredPart, VolumeId
from .blanks import Blanks
from .files import Files
from .foreign import Taker, Tally, part_of
from .mounts import Mounts
from .parity_disc import learn
from .schedule import Purpose

log = logs.get(__name__)
ELSEWHERE = "elsewhere"
_LINES = 500
Batch = list[tuple[Line, StoredPart | None]]


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was taken off one disc, and where it lies."""

    label: VolumeLabel
    barcode: str
    """On its label; for an image that in its VOLUME.json."""
    used: int
    root_hash: str
    facts: ParityFacts | None
    manifest: Path
    places: Path

    def batches(self) -> Iterator[Batch]:
        """Its lines with their places, folders first. Blocking. Raises ForeignDisc."""
        with ExitStack() as stack:
            places = Places(self.places)
            stack.callback(places.close)
            rest = (line for line in lines(self.manifest) if not stat.S_ISDIR(line.mode))
            for some in (lines(self.manifest, folders=True), rest):
                while batch := list(islice(some, _LINES)):
                    yield [(line, self._part(line, places)) for line in batch]

    def _part(self, line: Line, places: Places) -> StoredPart | None:
        if line.sha256 is None:
            return None
        found = places.find(line.stored_path)
        if found is None:
            raise ForeignDisc(
                f"{line.stored_path!r} is in the manifest of disc {self.barcode}, but not on it"
            )
        return part_of(line, *found)


class DiscAdopter:
    """Takes discs over, one adoption at a time."""

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        robot: Robot,
        mounts: Mounts,
        blanks: Blanks,
        config: Config,
    ) -> None:
        self._catalog, self._files, self._robot = catalog, files, robot
        self._mounts, self._blanks = mounts, blanks
        self._folder = Path(config.daemon.state) / "adopt"
        self._one = trio.Lock()

    async def adopt(
        self, images: Sequence[Path], barcodes: Sequence[str], into: Attr
    ) -> AsyncGenerator[dict[str, Any]]:
        """Take discs over, from images or folders of them and from the library; tells how far.

        Raises NotFound (no image, no such disc), VolumeMissing, Conflict (into is no folder, or a
        disc is ours), ForeignDisc, ChecksumMismatch, OSError, and what drives raise.
        """
        if not into.is_dir:
            raise Conflict("files of discs can only be put below a folder")
        async with self._one:
            await clock.blocking(self._clear)
            try:
                found: list[_Taken] = []
                tally = Tally()
                async for taken in self._take_all(images, barcodes):
                    found.append(taken)
                    tally.disc, tally.discs = taken.barcode, len(found)
                    yield {"kind": "progress"} | asdict(tally)
                found.sort(key=lambda taken: -taken.label.created_ns)
                taker = Taker(self._catalog, into.ino, tally)
                for taken in found:
                    tally.disc = taken.barcode
                    async for _ in self._lay(taken, taker):
                        yield {"kind": "progress"} | asdict(tally)
                    tally.discs_done += 1
            finally:
                with trio.CancelScope(shield=True):
                    await clock.blocking(self._clear)
        await self._catalog.sync()
        crash.point("export.adopt.durable")
        log.info("discs adopted", discs=tally.discs, files=tally.made, copies=tally.copies)
        yield {"kind": "end"} | asdict(tally)

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)

    # Off the discs

    async def _take_all(
        self, images: Sequence[Path], barcodes: Sequence[str]
    ) -> AsyncGenerator[_Taken]:
        for source in images:
            for path in await clock.blocking(lambda s=source: _images(s), clock.MEDIA):  # type: ignore[misc]
                yield await clock.blocking(lambda p=path: self._from_image(p), clock.MEDIA)  # type: ignore[misc]
        for barcode in barcodes:
            yield await self._from_library(self._inside(barcode))

    def _from_image(self, path: Path) -> _Taken:
        with described.image(path) as reader:
            return self._off(reader, reader.label.barcode)

    def _inside(self, barcode: str) -> Volume:
        volume = self._catalog.volumes.by_barcode(barcode)
        if volume is None:
            raise NotFound(
                f"no file and no disc {barcode}",
                next_step="name images, or put the disc in and run 'hsmctl library inventory'",
            )
        if self._robot.where(Barcode(barcode)) is None:
            raise VolumeMissing(f"disc {barcode} is not in the library")
        return volume

    async def _from_library(self, volume: Volume) -> _Taken:
        """Take the disc into a drive and off it what is needed; nobody burns on it meanwhile."""
        if not self._blanks.claim(volume.id):
            raise Conflict(
                f"disc {volume.barcode} is being burned", next_step="name the disc that you mean"
            )
        try:
            async with self._mounts.use(
                volume.id, Purpose.READ, who=f"adopting {volume.barcode}", unknown=True
            ) as session:

                def read_at(sector: int, count: int) -> bytes:
                    return trio.from_thread.run(session.test, sector, count)

                sectors = session.medium.written_bytes // SECTOR
                return await clock.blocking(
                    lambda: self._off(DiscReader(read_at, sectors), volume.barcode), clock.MEDIA
                )
        finally:
            self._blanks.free([volume.id])

    def _off(self, reader: DiscReader, barcode: str) -> _Taken:
        """Blocking. Raises ForeignDisc, ChecksumMismatch, and what reading raises."""
        label = reader.label
        if not label.uuid:
            raise ForeignDisc(f"disc {barcode} has no uuid inside")
        name = str(len(list(self._folder.iterdir())))
        taken = _Taken(
            label, barcode, reader.iso.sectors * SECTOR, reader.root_hash.hex(),
            read_facts(reader.volume), self._folder / f"{name}.jsonl",
            self._folder / f"{name}.places",
        )  # fmt: skip
        described.copy_manifest(reader, taken.manifest)
        write_places(taken.places, described.places(reader.iso))
        return taken

    # Into the catalog

    async def _lay(self, taken: _Taken, taker: Taker) -> AsyncGenerator[None]:
        volume = await self._volume(taken)
        batches = taken.batches()

        def following() -> Batch | None:
            return next(batches, None)

        try:
            while (batch := await clock.blocking(following, clock.MEDIA)) is not None:
                async with self._catalog.write():
                    for line, part in batch:
                        here = replace(part, volume=volume) if part is not None else None
                        taker.take(line, here, taken.label.copy_no or 1)
                crash.point("export.adopt.batch")
                for parent, name in taker.named:
                    self._files.renamed(parent, name)
                taker.named.clear()
                taker.tally.lines += len(batch)
                yield
        finally:
            batches.close()  # type: ignore[attr-defined]
        await self._arrive(volume, taken.barcode)

    async def _volume(self, taken: _Taken) -> VolumeId:
        """The disc's row, in its set: full and outside, until it is known to lie in the library.

        Raises Conflict if it is a disc of this catalog, whose files are where they belong.
        """
        label, table = taken.label, self._catalog.volumes
        known = table.by_uuid(label.uuid)
        if known is not None and known.reason == UNSEEN and known.barcode != taken.barcode:
            async with self._catalog.write():
                table.forget(known.id)  # the row was a guess at this very disc
            known = None
        if known is not None and known.written_by == ELSEWHERE:
            return known.id
        if known is not None and self._catalog.vault.has_files(known.id):
            raise Conflict(
                f"disc {taken.barcode} is {known.barcode} of this catalog",
                next_step="it is taken back by 'hsmctl volume import'",
            )
        row = known or table.by_barcode(taken.barcode)
        if row is not None and row.uuid not in (None, label.uuid):
            raise Conflict(
                f"the catalog knows another written disc {taken.barcode} already",
                next_step="put it under another barcode into the library",
            )
        if row is not None and row.state in (VolumeState.BURNING, VolumeState.RETIRED):
            raise Conflict(f"disc {taken.barcode} is {row.state.name.lower()} in this catalog")
        async with self._catalog.write():
            number = row.id if row else table.add(taken.barcode, taken.used, clock.now_ns())
            if row is None or row.state in _NOT_OURS:
                self._enter(number, taken)
            table.burned_by(number, ELSEWHERE)
            self._join(number, taken)
        crash.point("export.adopt.volume")
        return number

    def _enter(self, volume: VolumeId, taken: _Taken) -> None:
        label, table = taken.label, self._catalog.volumes
        table.take_over(volume, label.uuid, taken.used, taken.root_hash, label.created_ns)
        table.set_inside(volume, label.barcode if label.barcode != taken.barcode else None)
        table.set_location(volume, "a shelf unknown so far")

    def _join(self, volume: VolumeId, taken: _Taken) -> None:
        """The disc takes its place in its set; a parity disc tells who else belongs there."""
        label, sets = taken.label, self._catalog.sets
        if label.k + label.m == 1:
            return
        group = sets.by_uuid(label.set_uuid) or sets.take_over(
            label.set_name, label.set_uuid, label.k, label.m, label.copy_no or 1, label.created_ns
        )
        sets.join(volume, group.id, label.index - 1)
        if taken.facts is not None:
            learn(self._catalog, group, taken.facts)
        sets.one_a_place()

    async def _arrive(self, volume: VolumeId, barcode: str) -> None:
        element = self._robot.where(Barcode(barcode))
        found = self._catalog.volumes.get(volume)
        if element is None or element.kind is ElementKind.IMPORT_EXPORT or found is None:
            return
        if found.state is VolumeState.EXPORTED:
            async with self._catalog.write():
                self._catalog.volumes.come_back(volume)


_NOT_OURS = (VolumeState.BLANK, VolumeState.DAMAGED, VolumeState.LOST)


def _images(source: Path) -> list[Path]:
    """Images of discs in a folder, or the one that is named. Raises NotFound, ForeignDisc."""
    if not source.exists():
        raise NotFound(f"{source} is not there", next_step="name an image or a folder of images")
    paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    found: list[Path] = []
    for path in paths:
        try:
            with described.image(path):
                found.append(path)
        except MediaError:
            if path.suffix == ".iso" or path == source:
                raise
    if not found:
        raise NotFound(f"no image of a disc of hsmfs is in {source}")
    return found
