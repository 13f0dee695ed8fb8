"""After the commit of a volume: its copies become valid and its files premigrated, in batches.

Idempotent: done again from the start after a crash, it does what was left. Also ends migrations,
releases what was asked to be released, and writes one line a file to the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from .. import clock, crash, logs
from ..catalog.catalog import Catalog
from ..catalog.copies import Validated
from ..catalog.paths import PathCache
from ..catalog.queues import Burn, Migration
from ..catalog.volumes import Volume
from ..errors import HsmError
from ..states import BurnState
from ..types import SECTOR, Attr, InodeNo, VolumeId
from .events import Events
from .residency import Residency

log = logs.get(__name__)
BATCH = 20
"""Files marked in one transaction."""
_RELEASES = 16
"""Releases at once: they share the syncs of the catalog."""


class Finisher:
    """Marks what the migrator has proven.

    Attributes:
        release: releases one file for a requester; set by who wires the engine.
        needs_parity: a release waits until the parity of a file's sets is verified.
    """

    def __init__(self, catalog: Catalog, files: Residency, events: Events) -> None:
        self._catalog, self._files, self._events = catalog, files, events
        self.release: Callable[[InodeNo, str], Awaitable[object]] | None = None
        self.needs_parity = False

    async def finish(self, volume: VolumeId) -> None:
        """Mark everything on a verified volume; nothing of its burn is left then."""
        found, burn = self._catalog.volumes.get(volume), self._catalog.queues.burn(volume)
        assert found is not None
        assert burn is not None
        files = size = 0
        paths = PathCache(self._catalog.db)
        while True:
            async with self._catalog.write():
                rows = self._catalog.copies.validate(volume, BATCH)
                asked = [self._catalog.queues.migration(row.ino) for row in rows]
                pairs = list(zip(rows, asked, strict=True))
                release = [row.ino for row, migration in pairs if self._mark(row, migration)]
            crash.point("finish.batch.marked")
            for row, migration in pairs:
                self._tell(row, migration, found, burn, paths)
            files += len(rows)
            size += sum(row.stored for row in rows)
            if not rows:
                break
            await self.release_all(release)
            await trio.lowlevel.checkpoint()
        async with self._catalog.write():
            self._catalog.queues.set_burn(volume, BurnState.DONE)
            self._catalog.queues.end_burn(volume)
        crash.point("finish.burn.ended")
        seconds = (clock.now_ns() - burn.created_ns) / 1e9
        log.info(
            "volume archived", volume=found.barcode, copy=burn.copy_no, files=files, bytes=size,
            seconds=round(seconds, 1),
        )  # fmt: skip
        self._events.emit(
            "volume_archived", volume=found.barcode, copy=burn.copy_no, files=files, bytes=size
        )

    def _tell(
        self, row: Validated, migration: Migration | None, volume: Volume, burn: Burn,
        paths: PathCache,
    ) -> None:  # fmt: skip
        log.info(
            "archived", ino=row.ino, path=b"/" + (paths.path(row.ino) or b""),
            volume=volume.barcode, copy=row.copy_no, sector=row.sector,
            sectors=-(-row.stored // SECTOR), bytes=row.stored,
            seconds=round((clock.now_ns() - burn.created_ns) / 1e9, 3),
            requester=migration.policy if migration else "",
        )  # fmt: skip
        self._events.emit(
            "archived", ino=row.ino, volume=volume.barcode, copy=row.copy_no, sector=row.sector
        )

    def _mark(self, row: Validated, migration: Migration | None) -> bool:
        """One file has one more copy; True if it is to be released now. In a transaction."""
        attr = self._catalog.inodes.get_raw(row.ino)
        if attr is None:
            self._catalog.copies.mark_dead([row.ino])
            return False
        if migration is None or attr.version != row.version:
            return False
        return self.settle(attr, migration.copies, release=migration.release)

    def settle(self, attr: Attr, copies: int, *, release: bool) -> bool:
        """Mark a file premigrated if it has its copies; True if it is to be released then.

        In a transaction, in which its row is attr. A migration that asks for a release ends only
        with it, and stays queued while that waits for parity.
        """
        ino = attr.ino
        if self._catalog.copies.proven(ino, attr.version) < copies:
            return False
        self._files.premigrated(ino, attr.version)
        if release:
            return not self.waits_for_parity(ino, copies)
        self._catalog.queues.end_migration(ino)
        return False

    def waits_for_parity(self, ino: InodeNo, copies: int) -> bool:
        """Whether the file has its copies, but the sets that they are in are not closed yet."""
        attr = self._catalog.inodes.get_raw(ino)
        if not self.needs_parity or attr is None:
            return False
        return self._catalog.copies.protected(ino, attr.version) < copies

    async def release_all(self, inos: list[InodeNo]) -> None:
        """Release files that are archived now; one that may not be released stays on disk."""
        if not inos:
            return
        todo = iter(inos)

        async def work() -> None:
            for ino in todo:
                await self._release(ino)

        async with trio.open_nursery() as nursery:
            for _ in range(min(_RELEASES, len(inos))):
                nursery.start_soon(work)

    async def _release(self, ino: InodeNo) -> None:
        migration = self._catalog.queues.migration(ino)
        try:
            if self.release is not None:
                await self.release(ino, migration.policy if migration else "migration")
        except HsmError as fault:
            log.info("not released", ino=ino, reason=fault.message)
        except OSError as fault:  # of its pool; the others go on, and the bytes stay
            log.warning("not released", ino=ino, reason=str(fault))
            self._events.emit("not_released", ino=ino, error=str(fault))
        async with self._catalog.write():
            self._catalog.queues.end_migration(ino)
        crash.point("finish.file.released")
