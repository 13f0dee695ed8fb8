"""One volume from staged files to the commit: image, burn, read back, and the row that counts.

Each step is written down before it begins, so that after a crash `recover` can tell what a disc
may hold. Until its volume is FULL nothing on a disc counts; after that `Finisher` marks the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Copy
from ..catalog.queues import Burn, RecallClass
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..disc.image import ImageResult, build_image
from ..disc.layout import StagedFile, VolumeLabel
from ..errors import ChecksumMismatch, HsmError, MediaError
from ..pool.pools import Pools
from ..states import STUBS, BurnState, CopyState, VolumeState
from ..types import SECTOR, DataVersion, Digest, InodeNo, StoredPart, VolumeId
from .backups import Extra
from .batches import in_batches
from .burn_faults import AnotherDisc, reason, too_large, untouched
from .events import Events
from .finish import Finisher
from .mounts import Mounts
from .parity_disc import Build
from .plan import Target
from .schedule import Purpose
from .session import Session
from .sets import VolumeSets
from .spool import Spool
from .stage import CHANGED, UNREADABLE, Staged
from .trust.audit import Note, unheard
from .verify import Checker, SourceMismatch

log = logs.get(__name__)
REBUILDS = 5
"""Images made of one set of files, each without those that changed under the one before."""
VERIFY_SECTORS = 4096
"""Sectors read back at a time."""
READ_ON = 4
"""Such reads that a drive may be ahead of their checksums, while others have the processor."""
_PAGE = 2000


@dataclass(slots=True)
class Progress:
    """How far a volume is, for people who watch: phase is a word, the rest bytes."""

    volume: VolumeId
    barcode: str
    copy_no: int
    files: int
    phase: str = "image"
    done: int = 0
    size: int = 0

    def built(self, done: int, size: int) -> None:
        """So much of the image is there; called in its thread, which ends here if it is to."""
        trio.from_thread.check_cancelled()
        self.done, self.size = done, size


class Burner:
    """Burns volumes; several at once, each in the task that calls it.

    Attributes:
        progress: the volumes that are being made.
        committed: called in the transaction that makes a volume count.
        note: puts it on record in the same one.
        begun: told the disc and the bytes when a drive is asked for.
    """

    def __init__(
        self,
        catalog: Catalog,
        pools: Pools,
        mounts: Mounts,
        events: Events,
        spool: Spool,
        finisher: Finisher,
        sets: VolumeSets,
    ) -> None:
        self._catalog, self._pools, self._mounts = catalog, pools, mounts
        self._events, self._spool, self._finisher = events, spool, finisher
        self._sets = sets
        self.progress: dict[VolumeId, Progress] = {}
        self.committed: Callable[[VolumeId], None] = lambda volume: None
        self.note: Note = unheard
        self.begun: Callable[[str, int], None] = lambda barcode, size: None

    async def make(
        self,
        volume: VolumeId,
        staged: Staged,
        target: Target,
        extra: Extra,
        built: Callable[[], None],
    ) -> None:
        """Put the staged files on a blank volume for the target. `built` is called after the image.

        Raises AnotherDisc if this one cannot be had or was spoiled, else what ails the files.
        """
        await self._catalog.settled()
        copy_no, image = target.copy_no, self._spool.image(volume)
        async with self._under_way(volume, copy_no, len(staged.files)) as found:
            async with self._catalog.write():
                self._catalog.queues.add_burn(volume, copy_no, image, clock.now_ns())
                self._sets.join(volume, target)
            crash.point("burn.planned")
            await self._spool.reuse(image)
            await self._catalog.settled()
            label, result = await self._build(self._volume(volume), staged, extra)
            built()
            await self._write_down(found, staged, copy_no, result)
            await self._burn_and_verify(found, label)
        if not self._sets.keep(volume, result.size):
            await self._spool.retire(image)

    async def make_image(self, volume: VolumeId, label: VolumeLabel, build: Build) -> None:
        """Put an image that holds no files of its own on a blank volume: parity, or a disc anew.

        Raises AnotherDisc if this one cannot be had or was spoiled, else what ails the image.
        """
        image = self._spool.image(volume)
        async with self._under_way(volume, 0, 0) as found:
            async with self._catalog.write():
                self._catalog.queues.add_burn(volume, 0, image, clock.now_ns())
            crash.point("burn.whole.planned")
            await self._spool.reuse(image)
            dest, show = self._spool.path / image, self.progress[volume]
            result = await clock.blocking(lambda: build(dest, show.built), clock.IMAGES)
            crash.point("burn.whole.image.built")
            self._fits(result, found, found.capacity)
            async with self._catalog.write():
                self._catalog.queues.stage_burn(volume, result.size, result.root_hash.hex())
            crash.point("burn.whole.staged")
            await self._burn_and_verify(found, label)
        await self._spool.remove(image)

    @asynccontextmanager
    async def _under_way(
        self, volume: VolumeId, copy_no: int, files: int
    ) -> AsyncIterator[Volume]:
        """The disc while it is made: shown; finished at the end of the block, or given up."""
        found = self._volume(volume)
        self.progress[volume] = Progress(volume, found.barcode, copy_no, files)
        try:
            yield found
            await self._finisher.finish(volume)
        except Exception as fault:
            # A cancellation is no fault: the next start goes on or undoes it.
            await self.give_up(volume, reason(fault), blank=untouched(fault))
            raise
        finally:
            self.progress.pop(volume, None)

    def _fits(self, result: ImageResult, volume: Volume, most: int) -> None:
        """Show how large the image is. Raises HsmError if it is too large for the disc."""
        if result.size > most:
            raise too_large(result.size, volume.barcode, most)
        self.progress[volume.id].size = result.size

    def _volume(self, volume: VolumeId) -> Volume:
        found = self._catalog.volumes.get(volume)
        assert found is not None
        return found

    # The image

    async def _build(
        self, volume: Volume, staged: Staged, extra: Extra
    ) -> tuple[VolumeLabel, ImageResult]:
        """An image whose every file is as its checksum says; files that change are left out."""
        show = self.progress[volume.id]
        dest = self._spool.path / self._spool.image(volume.id)
        for _ in range(REBUILDS):
            files = [*staged.carried, *staged.files]
            label = replace(self._sets.label(volume, show.copy_no), audit_head=str(extra.head))
            result = await clock.blocking(
                lambda files=files, label=label: build_image(  # type: ignore[misc]
                    files, label, dest, staging=dest.with_suffix(".staging"),
                    snapshot=extra.snapshot, audit=extra.audit, progress=show.built,
                ),
                clock.IMAGES,
            )
            crash.point("burn.image.built")
            moved = {key[0] for key in result.changed} | await self._moved(staged.files)
            if not moved:
                self._fits(result, volume, self._sets.room_on(volume))
                return label, result
            for key, why in result.unreadable.items():
                staged.without({key[0]}, f"{UNREADABLE}: {why}")
            staged.without(moved - staged.skipped.keys(), CHANGED)
            show.files = len(staged.files)
            if not staged.files:
                break
        raise HsmError("all files changed, or do not read", next_step="they stay queued")

    async def _moved(self, files: Sequence[StagedFile]) -> set[InodeNo]:
        """Files that are not on disk in the staged version any more; a deleted one stood still."""

        def look(reports: Reports) -> set[InodeNo]:
            moved = set()
            for file in files:
                attr = reports.inodes.get_raw(file.ino)
                if attr is not None and (attr.version != file.version or attr.state in STUBS):
                    moved.add(file.ino)
            return moved

        return await self._catalog.read(look)

    async def _write_down(
        self, volume: Volume, staged: Staged, copy_no: int, result: ImageResult
    ) -> None:
        """Pending copies in batches, then the burn as staged."""

        def add(file: StagedFile) -> None:
            place = result.sectors[file.key]
            part = StoredPart(
                volume.id, file.part - 1, file.parts, file.offset, file.length, place.sector,
                file.stored, file.compressed, file.frame_ends,
            )  # fmt: skip
            self._catalog.copies.add(file.ino, file.version, copy_no, part, CopyState.PENDING)

        await in_batches(self._catalog, staged.files, add, "burn.copies.added")
        async with self._catalog.write():
            self._catalog.queues.stage_burn(volume.id, result.size, result.root_hash.hex())
        crash.point("burn.staged")

    # The disc

    async def _burn_and_verify(self, volume: Volume, label: VolumeLabel) -> None:
        size = self.progress[volume.id].size
        self.begun(volume.barcode, size)
        here: Session | None = None
        try:
            async with self._mounts.use(
                volume.id, Purpose.BURN, bytes=size, who=f"migration to {volume.barcode}",
                urgency=RecallClass.STANDARD,
            ) as session:  # fmt: skip
                async with self._catalog.write():
                    self._catalog.volumes.start(volume.id, label.uuid, label.audit_head)
                    self._catalog.queues.set_burn(volume.id, BurnState.BURNING)
                # A disc that may be written must never be taken for blank again.
                await self._catalog.sync()
                crash.point("burn.started")
                here = session
                await self._burn(session, volume)
                image_sha256 = await self.verify(session, volume.id)
            # The drive is at work on its next disc while this one is committed.
            await self._commit(session.drive.serial, volume.id, image_sha256)
        except (HsmError, OSError) as fault:
            another = AnotherDisc(f"disc {volume.barcode}: {reason(fault)}")
            another.untouched = here is not None and here.untouched
            raise another from fault

    async def _burn(self, session: Session, volume: Volume) -> None:
        show = self.progress[volume.id]
        show.phase, show.done = "burn", 0

        def on_progress(done: int) -> None:
            show.done = done

        # What was burned must be known as burned even if we are being stopped.
        with trio.CancelScope(shield=True):
            image = self._spool.path / self._spool.image(volume.id)
            await session.burn(image, on_progress)
            crash.point("burn.ended")
            async with self._catalog.write():
                self._catalog.queues.set_burn(volume.id, BurnState.VERIFYING)
        crash.point("burn.verifying")
        await trio.lowlevel.checkpoint()

    async def verify(self, session: Session, volume: VolumeId, *, blame: bool = True) -> str:
        """Read the whole disc back; the SHA-256 of it if every byte is right.

        blame: drive and disc answer for what is wrong.
        Raises ChecksumMismatch, UnreadableSector, DriveError.
        """
        await self._catalog.settled()
        burn = self._catalog.queues.burn(volume)
        assert burn is not None
        show = self.progress[volume]
        show.phase, show.done, show.size = "verify", 0, burn.size
        # Parity is computed of what is on the disc, and the audit log vouches for that too.
        whole = hashlib.sha256()
        image = os.open(self._spool.path / burn.image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            checker = Checker(image)
            await self._compare(session, volume, burn.size, checker, whole, blame)
        finally:
            os.close(image)
        crash.point("burn.verified")
        return whole.hexdigest()

    async def _compare(
        self,
        session: Session,
        volume: VolumeId,
        size: int,
        checker: Checker,
        whole: hashlib._Hash,
        blame: bool,
    ) -> None:
        """The drive reads on while a thread hashes."""
        send, receive = trio.open_memory_channel[bytes](READ_ON)
        fault: list[HsmError] = []

        def feed(data: bytes) -> None:
            whole.update(data)
            checker.feed(data)

        async def check(scope: trio.CancelScope) -> None:
            after = (-1, 0)
            done = 0
            more = True
            async with receive:
                async for data in receive:
                    done += len(data)
                    while more and checker.covered < done:
                        page = await self._page(volume, after)
                        more = bool(page)
                        if page:
                            last = page[-1][0]
                            after = (last.where.sector, last.id)
                            checker.add(page)
                    try:
                        await clock.blocking(lambda data=data: feed(data), clock.HASH)  # type: ignore[misc]
                    except HsmError as error:
                        fault.append(error)
                        scope.cancel()
                        return
                    self.progress[volume].done = done

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check, scope)
                async with send:
                    try:
                        for sector in range(0, size // SECTOR, VERIFY_SECTORS):
                            count = min(VERIFY_SECTORS, size // SECTOR - sector)
                            await send.send(await session.read(sector, count))
                    except HsmError as error:
                        fault.append(error)
                        scope.cancel()
        if fault:
            source = isinstance(fault[0], SourceMismatch)
            if blame and isinstance(fault[0], ChecksumMismatch) and not source:
                await self._mounts.ledger.failed(session.drive, session.volume, fault[0])
            raise fault[0]

    async def _page(
        self, volume: VolumeId, after: tuple[int, int]
    ) -> list[tuple[Copy, Digest]]:
        def read(reports: Reports) -> list[tuple[Copy, Digest]]:
            found = []
            for copy in reports.copies.pending_of(volume, after, _PAGE):
                digest = reports.copies.digest(copy.ino, DataVersion(copy.version))
                if digest is None:
                    raise MediaError(f"inode {copy.ino} has lost its checksums")
                found.append((copy, digest))
            return found

        return await self._catalog.read(read)

    async def _commit(self, serial: str, volume: VolumeId, image_sha256: str) -> None:
        """The commit point: one row makes every copy on the disc count."""
        burn = self._catalog.queues.burn(volume)
        assert burn is not None
        for pool in self._pools:
            # What is called archived must not be torn by a power cut afterwards.
            await clock.blocking(pool.sync)
        crash.point("burn.pools.synced")
        async with self._catalog.write():
            now = clock.now_ns()
            self._catalog.volumes.close(
                volume, burn.size, serial, burn.root_hash, now, image_sha256
            )
            self._catalog.queues.set_burn(volume, BurnState.VERIFIED)
            self.committed(volume)
            self._on_record(volume, burn, serial, image_sha256)
        crash.point("burn.committed")
        await self._catalog.sync()
        crash.point("burn.commit.durable")

    def _on_record(
        self, volume: VolumeId, burn: Burn, serial: str, image_sha256: str
    ) -> None:
        found = self._volume(volume)
        self.note(
            "disc.verified", "hsmfsd", found.barcode, uuid=found.uuid, copy=burn.copy_no,
            bytes=burn.size, root_hash=burn.root_hash, image_sha256=image_sha256, drive=serial,
        )  # fmt: skip

    # What went wrong, and what a crash left

    async def give_up(self, volume: VolumeId, reason: str, *, blank: bool = False) -> None:
        """Undo a burn that did not reach its commit: the disc is spoiled if it was begun.

        blank: the drive says that nothing was written on it.
        """
        burn, found = self._catalog.queues.burn(volume), self._catalog.volumes.get(volume)
        if burn is None or found is None or burn.state is BurnState.VERIFIED:
            return
        with trio.CancelScope(shield=True):
            async with self._catalog.write():
                if found.state is VolumeState.BURNING and blank:
                    self._catalog.volumes.never_begun(volume)
                elif found.state is VolumeState.BURNING:
                    self._catalog.volumes.set_state(volume, VolumeState.DAMAGED, reason)
                self._catalog.queues.set_burn(volume, BurnState.FAILED, reason)
                self._sets.gave_up(volume)
            crash.point("burn.failed")
            while True:
                async with self._catalog.write():
                    dropped = self._catalog.copies.drop_pending(volume, 500)
                if not dropped:
                    break
                await trio.lowlevel.checkpoint()
            crash.point("burn.pending.dropped")
            await self._spool.remove(burn.image)
            async with self._catalog.write():
                self._catalog.queues.end_burn(volume)
        log.warning("burn given up", volume=found.barcode, copy=burn.copy_no, reason=reason)
        self._events.emit(
            "burn_failed", volume=found.barcode, copy=burn.copy_no, reason=reason,
            spoiled=found.state is VolumeState.BURNING and not blank,
        )  # fmt: skip

    async def recover(self) -> list[VolumeId]:
        """After a start: undo or finish burns; those that only lack the reading back are returned.

        A disc that was being burned is spoiled: nobody can tell what is on it.
        """
        verify: list[VolumeId] = []
        for burn in self._catalog.queues.burns():
            if burn.volume in self.progress:
                continue  # of a worker that was not stopped
            image = self._spool.path / burn.image
            if burn.state is BurnState.VERIFYING and image.exists():
                verify.append(burn.volume)
                continue
            try:
                if burn.state is BurnState.VERIFIED:
                    await self._finisher.finish(burn.volume)
                else:
                    await self.give_up(burn.volume, "the daemon was stopped during the burn")
            except Exception as fault:  # the next start tries again; the others go on
                log.exception("a burn is not ended yet", fault, volume=burn.volume)
                self._events.emit("burn_failed", volume=burn.volume, reason=reason(fault))
        keep = {self._spool.image(volume) for volume in (*verify, *self.progress)}
        keep |= self._sets.spooled()
        await self._spool.clear(keep)
        return verify

    async def files_on(self, volume: VolumeId) -> set[InodeNo]:
        """The files of a volume that is not committed yet."""

        def read(reports: Reports) -> set[InodeNo]:
            found: set[InodeNo] = set()
            after = (-1, 0)
            while page := reports.copies.pending_of(volume, after, _PAGE):
                found.update(copy.ino for copy in page)
                after = (page[-1].where.sector, page[-1].id)
            return found

        return await self._catalog.read(read)

    async def resume(self, volume: VolumeId) -> None:
        """Read a disc back whose burn had ended when the daemon was stopped."""
        found, burn = self._catalog.volumes.get(volume), self._catalog.queues.burn(volume)
        assert found is not None
        assert burn is not None
        self.progress[volume] = Progress(volume, found.barcode, burn.copy_no, 0, "verify")
        try:
            async with self._mounts.use(
                volume, Purpose.READ, bytes=burn.size, who=f"reading {found.barcode} back"
            ) as session:
                # The image was never synced: if power was lost it may be the one that is wrong.
                image_sha256 = await self.verify(session, volume, blame=False)
            await self._commit(session.drive.serial, volume, image_sha256)
            await self._finisher.finish(volume)
            if not self._sets.keep(volume, burn.size):
                await self._spool.remove(burn.image)
        except Exception as fault:
            await self.give_up(volume, reason(fault))
            if not isinstance(fault, HsmError) or self._catalog.queues.burn(volume) is not None:
                raise  # else all is told, and its files wait for another disc
        finally:
            self.progress.pop(volume, None)
