"""Discs made anew: the image of a lost or bad disc, from the others of its set, onto a blank.

Each order is a row of the catalog, and what is computed so far a file in the spool, so a restart
goes on. The image is burned only when its SHA-256 is that of the disc it replaces. The new disc
takes the place of the old one in one transaction: copies point to it without being touched.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from .. import clock, crash, durable, logs
from ..catalog.catalog import Catalog
from ..catalog.queues import RecallClass
from ..catalog.sets import Rebuild, VolumeSet
from ..catalog.volumes import Volume
from ..disc import described
from ..disc.image import ImageResult, sha256_of
from ..disc.image import Progress as ImageProgress
from ..disc.layout import VolumeLabel
from ..disc.parity_image import OVERHEAD
from ..errors import ChecksumMismatch, Conflict, HsmError, NotFound, RecallFailed
from ..limits import SHORTEST_WAIT
from ..states import SetState, VolumeState
from ..types import SECTOR, VolumeId
from .blanks import Blanks
from .burn import Burner
from .events import Events
from .parity_disc import burn_parity, facts_of, label_in, learn
from .parity_read import ParityReader
from .refresh import REBUILD
from .spool import Spool
from .syndromes import Run, Syndromes

log = logs.get(__name__)
AGAIN = 600.0
"""Seconds after which a rebuild that failed is tried again; twice as many after each more, as every
try may read the whole set. All are tried when a disc came back, or another one was made anew."""
AGAIN_AT_MOST = 90 * 86_400.0
LOOK = 1.0
"""Seconds between looks at a burn that a former run began."""
WINDOW = 64 * 1024 * 1024
"""Bytes asked of the other discs at once, at least: each window costs one look at every disc."""
PIECE = 512
"""Sectors solved at a time."""
HEAL = 500
BLANK_WANTED = "waiting for a blank disc"
ROOM_WANTED = "waiting for room in the spool"
WAITS = (BLANK_WANTED, ROOM_WANTED)
DONE = "done"
"""In the place of an image: the new disc counts, only its files are still to be marked."""


@dataclass(slots=True)
class Renewal:
    """How far a disc is, for people who watch: phase is a word, the rest bytes."""

    barcode: str
    phase: str = "waiting"
    done: int = 0
    size: int = 0


class Renewer:
    """Makes discs anew, one at a time, at low urgency.

    Attributes:
        progress: of the disc in hand.
        may_retire: raises Conflict for a disc that must stay as long as it reads.
    """

    def __init__(
        self,
        catalog: Catalog,
        events: Events,
        spool: Spool,
        blanks: Blanks,
        reader: ParityReader,
        burner: Burner,
    ) -> None:
        self._catalog, self._events = catalog, events
        self._spool, self._blanks, self._reader, self._burner = spool, blanks, reader, burner
        self.progress: dict[VolumeId, Renewal] = {}
        self.may_retire: Callable[[Volume], None] = lambda volume: None
        self._later: dict[VolumeId, float] = {}
        self._failed = Counter[VolumeId]()
        self._in_hand = trio.CancelScope()
        self._wake = trio.Event()
        burner.committed = self._committed

    # Orders

    async def ask(self, volume: Volume) -> None:
        """Have the disc made anew; asked twice it is made once. Raises Conflict with the reason."""
        group = self._catalog.sets.of(volume.id)
        if group is None or group.m == 0 or group.state is not SetState.CLOSED:
            raise Conflict(
                f"disc {volume.barcode} is in no closed set with parity",
                next_step="see 'hsmctl volume set ls'",
            )
        if volume.state in (VolumeState.RETIRED, VolumeState.EXPORTED):
            raise Conflict(f"disc {volume.barcode} is {volume.state.name.lower()}")
        if volume.state is VolumeState.FULL:
            self.may_retire(volume)
        async with self._catalog.write():
            if self._catalog.sets.rebuild(volume.id) is None:
                self._catalog.sets.put_rebuild(Rebuild(volume.id, None, "", clock.now_ns(), ""))
        await self._catalog.sync()
        crash.point("renew.asked")
        self._later.pop(volume.id, None)
        self._failed.pop(volume.id, None)
        self._wake.set()

    def came_back(self, volume: VolumeId) -> None:
        """A disc is in the library again: orders that failed may go now."""
        self._later.clear()
        self._wake.set()

    async def cancel(self, volume: Volume) -> None:
        """Forget an order that is not being worked on, or waits. Raises NotFound, Conflict."""
        async with self._catalog.write():
            order, show = self._catalog.sets.rebuild(volume.id), self.progress.get(volume.id)
            if order is None:
                raise NotFound(f"disc {volume.barcode} is not being rebuilt")
            if order.image == DONE or (show is not None and show.phase not in WAITS):
                raise Conflict(
                    f"disc {volume.barcode} is in hand", next_step="wait until it is done"
                )
            self._catalog.sets.end_rebuild(volume.id)
            if show is not None:
                self._in_hand.cancel()
        await self._spool.remove(_name(volume.id))

    # The loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work orders for ever, those of the last run first."""
        self.progress.clear()
        self._later.clear()
        task_status.started()
        while True:
            self._wake = trio.Event()
            now = trio.current_time()
            orders = self._catalog.sets.rebuilds()
            ripe = [order for order in orders if self._later.get(order.volume, 0.0) <= now]
            if ripe:
                await self._work(ripe[0])
                continue
            due = min((self._later.get(o.volume, 0.0) for o in orders), default=float("inf"))
            with trio.move_on_after(max(due - now, SHORTEST_WAIT)):
                await self._wake.wait()

    async def _work(self, order: Rebuild) -> None:
        volume = self._catalog.volumes.get(order.volume)
        assert volume is not None
        self.progress[volume.id] = Renewal(volume.barcode)
        try:
            with trio.CancelScope() as self._in_hand:
                await self._renew(order, volume)
        except (HsmError, OSError) as fault:
            text = fault.message if isinstance(fault, HsmError) else str(fault)
            log.warning("rebuild put off", volume=volume.barcode, error=text)
            self._events.emit("rebuild_put_off", volume=volume.barcode, error=text)
            self._failed[volume.id] += 1
            wait = min(AGAIN * 2 ** min(self._failed[volume.id] - 1, 14), AGAIN_AT_MOST)
            self._later[volume.id] = trio.current_time() + wait
            async with self._catalog.write():
                now = self._catalog.sets.rebuild(volume.id)
                if now is not None:
                    self._catalog.sets.put_rebuild(replace(now, error=text))
        finally:
            self.progress.pop(volume.id, None)

    async def _renew(self, order: Rebuild, volume: Volume) -> None:
        # A burn that a former run began is being read back, and may be what was wanted.
        while order.blank is not None and self._catalog.queues.burn(order.blank):  # noqa: ASYNC110
            await trio.sleep(LOOK)
        order = self._catalog.sets.rebuild(volume.id) or order
        if order.image != DONE:
            volume = await self._learn(volume)
            if order.blank is not None:
                await self._forget_blank(order.blank)
            async with self._blank_and_room(volume) as blank:
                image = await self._image(order, volume)
                await self._burn(blank, volume, image)
        await self._heal(volume)

    @asynccontextmanager
    async def _blank_and_room(self, volume: Volume) -> AsyncIterator[VolumeId]:
        """A blank disc, and room for the image, nobody else's as long as the block runs.

        Neither is kept while the other is waited for: the last blank disc may be what closes a set
        whose images fill the spool.
        """
        show, size = self.progress[volume.id], self._room(volume)
        while True:
            show.phase = BLANK_WANTED
            async with self._blank(volume) as blank:
                if await self._spool.has(size):
                    async with self._spool.room(size):
                        yield blank
                    return
            show.phase = ROOM_WANTED
            async with self._spool.room(size):
                pass

    @asynccontextmanager
    async def _blank(self, volume: Volume) -> AsyncIterator[VolumeId]:
        """A blank disc, nobody else's as long as the block runs; waits for the operator."""
        group = self._catalog.sets.of(volume.id)
        assert group is not None
        (blank,) = await self._blanks.take(
            lambda blanks: [self._blanks.for_set(blanks, group.magazine, 1, Counter())], 1
        )
        try:
            yield blank
        finally:
            self._blanks.free([blank])

    def _room(self, volume: Volume) -> int:
        """Bytes that it takes in the spool: a parity row lies there beside its image."""
        parity = self._reader.parity_row(volume.id)
        return volume.used if parity is None else 2 * parity[1].size + OVERHEAD

    async def _learn(self, volume: Volume) -> Volume:
        """The disc with its size and checksum; a catalog made from discs has them not."""
        group = self._catalog.sets.of(volume.id)
        assert group is not None
        known = volume.image_sha256 if self._reader.covered(volume.id) else (
            self._reader.parity_row(volume.id)
        )  # fmt: skip
        if known is not None:
            return volume
        facts = await self._reader.facts(group)
        async with self._catalog.write():
            learn(self._catalog, group, facts)
        return self._catalog.volumes.get(volume.id) or volume

    # The image

    async def _image(self, order: Rebuild, volume: Volume) -> Path:
        """The disc's image, complete and right. Raises RecallFailed, ChecksumMismatch."""
        path = self._spool.path / _name(volume.id)
        async with self._catalog.write():
            self._catalog.sets.put_rebuild(replace(order, blank=None, image=path.name, error=""))
        parity = self._reader.parity_row(volume.id)
        size, right = volume.used, volume.image_sha256
        if parity is not None:
            size, right = parity[1].size, parity[1].sha256
        show = self.progress[volume.id]
        show.phase, show.size = "reading", size
        have = await clock.blocking(lambda: _whole_sectors(path))
        window = max(WINDOW, self._spool.limit // 4) // SECTOR
        for first in range(have // SECTOR, size // SECTOR, window):
            await self._window(volume, path, (first, min(window, size // SECTOR - first)))
            crash.point("renew.window.written")
        show.phase, show.done = "checking", 0
        sha = await clock.blocking(lambda: sha256_of(path).hex(), clock.IMAGES)
        if sha != right:
            await self._spool.remove(path.name)
            raise ChecksumMismatch(
                f"what the set gives for disc {volume.barcode} is not what was written on it: one"
                " of the other discs reads wrong", 0,
            )  # fmt: skip
        return path

    async def _window(self, volume: Volume, path: Path, run: Run) -> None:
        show = self.progress[volume.id]
        show.done = run[0] * SECTOR

        def on_progress(count: int) -> None:
            show.done = min(show.size, show.done + count // max(1, self._others(volume)))

        make = _in_file(self._spool.path)
        parity = self._reader.parity_row(volume.id)
        if parity is not None:
            row = parity[1].row
            sums = await self._reader.row_sums(volume, row, [run], on_progress, make)
            await clock.blocking(lambda: _store(sums, row, run, path), clock.IMAGES)
            await clock.blocking(lambda: durable.sync(path))
            return
        sums = await self._reader.syndromes(
            volume, [run], RecallClass.BULK, on_progress, make
        )
        gaps = await clock.blocking(lambda: _solve(sums, run, path), clock.IMAGES)
        if gaps:
            await self._own(volume, path, gaps)
        await clock.blocking(lambda: durable.sync(path))

    def _others(self, volume: Volume) -> int:
        group = self._catalog.sets.of(volume.id)
        return len(self._catalog.sets.discs(group.id)) - 1 if group is not None else 1

    async def _own(self, volume: Volume, path: Path, gaps: list[Run]) -> None:
        """Places that are missing on too many discs may still read on the disc itself."""
        found = await self._reader.own(volume, gaps, RecallClass.BULK)
        if found is None or any(one.bad for one in found):
            raise RecallFailed(
                f"{sum(count for _, count in gaps)} sectors of disc {volume.barcode}, from"
                f" {gaps[0][0]} on, are missing on too many discs of its set",
                next_step="bring discs of the set back (see 'hsmctl volume set info')",
            )
        for (sector, _), one in zip(gaps, found, strict=True):
            await clock.blocking(lambda s=sector, d=one.data: _put(path, s, d))  # type: ignore[misc]

    # The disc

    async def _burn(self, blank: VolumeId, volume: Volume, image: Path) -> None:
        group = self._catalog.sets.of(volume.id)
        assert group is not None
        try:
            await self._burn_on(blank, volume, image, group)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._forget_blank(blank)
            raise
        await self._spool.remove(image.name)

    async def _burn_on(
        self, blank: VolumeId, volume: Volume, image: Path, group: VolumeSet
    ) -> None:
        async with self._catalog.write():
            order = self._catalog.sets.rebuild(volume.id)
            assert order is not None
            self._catalog.sets.put_rebuild(replace(order, blank=blank))
            if self._reader.covered(volume.id) is not None:
                self._catalog.volumes.set_inside(blank, volume.inside or volume.barcode)
        crash.point("renew.blank.chosen")
        show = self.progress[volume.id]
        show.phase = "burning"
        if self._reader.covered(volume.id) is None:
            await self._burn_parity(blank, volume, image, group)
            return
        label = await clock.blocking(lambda: _label(image))
        assert label.set_uuid == group.uuid
        root = bytes.fromhex(volume.root_hash or "")

        def build(dest: Path, progress: ImageProgress) -> ImageResult:
            # The same bytes under another name: a burn that fails takes that name away alone.
            dest.unlink(missing_ok=True)
            os.link(image, dest)
            return ImageResult(volume.used, {}, root, ())

        await self._burner.make_image(blank, label, build)

    async def _burn_parity(
        self, blank: VolumeId, volume: Volume, image: Path, group: VolumeSet
    ) -> None:
        """A parity disc like the old one, under its own barcode and a new uuid."""
        found = self._catalog.volumes.get(blank)
        assert found is not None and volume.set_index is not None
        label = label_in(self._catalog, group, found.barcode, volume.set_index)
        facts = facts_of(self._catalog, group)(volume.set_index - group.k)
        await burn_parity(self._catalog, self._burner.make_image, blank, label, facts, image)

    async def _forget_blank(self, blank: VolumeId) -> None:
        """A disc that was not touched is an ordinary blank one again."""
        found = self._catalog.volumes.get(blank)
        if found is not None and found.state is VolumeState.BLANK:
            async with self._catalog.write():
                self._catalog.volumes.set_inside(blank, None)

    def _committed(self, volume: VolumeId) -> None:
        """In the transaction that makes a burned disc count: it replaces the old one."""
        for order in self._catalog.sets.rebuilds():
            if order.blank == volume and order.image != DONE:
                new = self._catalog.volumes.get(volume)
                assert new is not None
                reason = f"made anew on disc {new.barcode}"
                if self._reader.covered(order.volume) is not None:
                    self._catalog.sets.replace_disc(order.volume, volume, reason)
                    self._to_be_destroyed(volume)
                else:
                    self._catalog.sets.replace_parity(order.volume, volume, reason)
                    self._to_be_destroyed(order.volume)
                self._catalog.sets.put_rebuild(replace(order, blank=None, image=DONE, error=""))

    def _to_be_destroyed(self, old: VolumeId) -> None:
        """The old disc gets a certificate, unless it is lost; in the same transaction."""
        found = self._catalog.volumes.get(old)
        if found is not None and found.state is VolumeState.RETIRED:
            self._catalog.refreshes.to_be_destroyed(old, REBUILD, clock.now_ns())
            self._burner.note("disc.retired", "hsmfsd", found.barcode, order=REBUILD)

    async def _heal(self, old: Volume) -> None:
        """Copies that did not read are as good as new; then the order is done."""
        crash.point("renew.replaced")
        while True:
            async with self._catalog.write():
                healed = self._catalog.sets.heal(old.id, HEAL)
                if not healed:
                    self._catalog.sets.end_rebuild(old.id)
                    break
            await trio.lowlevel.checkpoint()
        await self._catalog.sync()
        crash.point("renew.done")
        await self._spool.remove(_name(old.id))
        self.came_back(old.id)
        found = self._catalog.volumes.get(old.id)
        assert found is not None
        log.info("disc made anew", volume=found.barcode, was=found.inside, reason=found.reason)
        self._events.emit("disc_rebuilt", volume=found.barcode, was=found.inside or found.barcode)


def _name(volume: VolumeId) -> str:
    return f"set-renew-{volume}"


def _whole_sectors(path: Path) -> int:
    """Bytes that a former run has made, cut to whole sectors."""
    if not path.exists():
        return 0
    size = path.stat().st_size // SECTOR * SECTOR
    os.truncate(path, size)
    return size


def _in_file(folder: Path) -> Callable[[int], mmap.mmap]:
    """Buffers of zeros in a file without a name: it goes when they do.

    Their blocks are there: a store into a hole would end the process when the disk is full.
    """

    def make(size: int) -> mmap.mmap:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)

    return make


def _store(sums: Syndromes, row: int, run: Run, path: Path) -> None:
    """Append the run of a parity row to its file."""
    first, many = run
    with path.open("ab") as out:
        for sector in range(first, first + many, PIECE):
            out.write(sums.plain(row, sector, min(PIECE, first + many - sector)))


def _solve(sums: Syndromes, run: Run, path: Path) -> list[Run]:
    """Append the run to the image; the places for which too much is missing, left as zeros."""
    gaps: list[Run] = []
    first, many = run
    with path.open("ab") as out:
        for sector in range(first, first + many, PIECE):
            count = min(PIECE, first + many - sector)
            data = sums.solve(sector, count)
            if data is None:
                single = [sums.solve(at, 1) for at in range(sector, sector + count)]
                gaps += [(sector + at, 1) for at, one in enumerate(single) if one is None]
                data = b"".join(one or bytes(SECTOR) for one in single)
            out.write(data)
    return gaps


def _put(path: Path, sector: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(sector * SECTOR)
        file.write(data)


def _label(image: Path) -> VolumeLabel:
    with described.image(image) as reader:
        return reader.label
