"""Live inodes, and what the engine does to their bytes: seal, release, fill in, purge, recover.

The base of `Files`, which adds what users do. What is written before what, and why, is in
docs/durability.md. Callers `hold` an inode as long as they work on it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

import trio

from .. import clock, crash, durable
from ..catalog.catalog import Catalog
from ..disc.reader import Bytes
from ..errors import Conflict, HsmError, PosixError
from ..pool.pools import Pools
from ..pool.store import BLOCK, Pool
from ..pressure import DISK
from ..states import FileState
from ..types import Attr, DataVersion, Digest, InodeNo, PoolId, Range
from .batches import at_leisure, in_batches
from .descriptors import fitted, give_back
from .incoming import Incoming, bring_in, locks, sync_bytes, verify_all
from .live import Live
from .ranges import subtract
from .recover import recover

CLOSER = clock.Beside("closer")
"""The last close of a file without a name frees its blocks (with the mount option `discard` that
takes as long as the device does), and closing a file that was cut short begins to write it back
(`auto_da_alloc` of ext4). Nobody waits for either."""
TOGETHER = 64
"""Files of which one transaction notes what came in."""
LARGE = 1 << 20
"""Bytes: freeing or writing back no more than this costs no more than going to a thread."""


class Residency:
    """The table of live inodes and the engine's operations on them.

    Attributes:
        changed: called with an inode number when the engine changed what stat shows.
        renamed: called with a folder and a name that the engine made there or took away.
        may_purge: asked before a locked inode is deleted for good; set by the engine.
        purged: called in the transaction that deletes inodes for good.
    """

    def __init__(self, catalog: Catalog, pools: Pools) -> None:
        self.catalog = catalog
        self.pools = pools
        self._live: dict[InodeNo, Live] = {}
        self.changed: Callable[[InodeNo], None] = lambda ino: None
        self.renamed: Callable[[InodeNo, bytes], None] = lambda parent, name: None
        self.may_purge: Callable[[InodeNo], bool] = lambda ino: False
        self.purged: Callable[[list[InodeNo]], None] = lambda inos: None

    def live(self, ino: InodeNo) -> Live | None:
        """The in-memory side, if the inode is in use."""
        return self._live.get(ino)

    def hold(self, ino: InodeNo) -> Live:
        """Keep the inode in memory until `drop`. Raises PosixError ENOENT."""
        live = self._live.get(ino)
        if live is None:
            attr = self.catalog.inodes.get_raw(ino)
            if attr is None:
                raise PosixError(errno.ENOENT)
            live = self._load(attr)
        live.holds += 1
        return live

    def drop(self, live: Live) -> None:
        """End a `hold`."""
        live.holds -= 1
        self._forget_if_idle(live)

    def _load(self, attr: Attr) -> Live:
        catalog, ino = self.catalog, attr.ino
        absent = catalog.inodes.absent(ino) if attr.state != FileState.RESIDENT else []
        sealed = attr.is_file and catalog.copies.has_digest(ino, attr.version)
        live = self._live[ino] = Live(attr, absent, sealed)
        return live

    def _forget_if_idle(self, live: Live) -> None:
        if live.idle and not live.lock.locked() and self._live.get(live.ino) is live:
            del self._live[live.ino]
            if live.fd >= 0:
                self._close(live)

    def _close(self, live: Live) -> None:
        """Give the descriptor back, in a thread if that may begin to free or to write blocks."""
        fd, live.fd = live.fd, -1
        if live.cut or live.attr.nlink == 0 or live.attr.size > LARGE:
            CLOSER.do(lambda: give_back(fd))
        else:
            os.close(fd)

    def file(self, live: Live) -> int:
        """The pool file's descriptor, opened and healed if need be.

        A clean inode's row is the truth: after a crash the pool file may be longer (bytes that
        nobody was told of) or shorter (zeros that were never written).
        """
        if live.fd < 0:
            pool = self.pool_of(live)
            self._take(live, pool, fitted(pool, live.attr))
        return live.fd

    async def opened(self, live: Live) -> int:
        """As `file`, but in a thread while the disks are busy; the caller holds the inode."""
        while live.opening is not None:
            await live.opening.wait()
        if live.fd >= 0 or not DISK.busy():
            return self.file(live)
        done = live.opening = trio.Event()
        try:
            attr, pool = live.attr, self.pool_of(live)
            self._take(live, pool, await clock.blocking(lambda: fitted(pool, attr)))
        finally:
            live.opening = None
            done.set()
        return live.fd

    def _take(self, live: Live, pool: Pool, fd: int) -> None:
        live.fd = fd
        if live.attr.pool is None:
            live.attr = live.attr._replace(pool=pool.id)
            live.unflushed = True

    def pool_of(self, live: Live) -> Pool:
        """The pool that its bytes are in, or will be."""
        number = live.attr.pool
        return self.pools.for_new(live.ino) if number is None else self.pools[number]

    # Attributes

    async def flush_closed(self, limit: int = 500) -> int:
        """Write attributes of inodes that nobody writes any more to the catalog; how many."""
        ready = [live for live in self._live.values() if live.ready][:limit]
        if ready:
            await in_batches(self.catalog, ready, self._flush_if_ready, "files.flush.committed")
            await at_leisure(self.catalog, ready, self._forget_if_idle)
        return len(ready)

    def _flush_if_ready(self, live: Live) -> None:
        if live.ready:  # still: this may have waited for another transaction
            self._flush(live)

    def _flush(self, live: Live) -> None:
        self.catalog.if_undone(live.as_now())
        if live.fd >= 0:
            live.attr = live.attr._replace(blocks=live.blocks)
        live.attr = self.catalog.inodes.put(live.attr._replace(dirty=False))
        live.unflushed = False

    def _set_state(self, live: Live, state: FileState) -> None:
        self.catalog.if_undone(live.as_now())
        self.catalog.inodes.set_state(live.ino, state)
        live.attr = live.attr._replace(state=state)

    def lock(self, ino: InodeNo, locked: int) -> None:
        """Say why the file must not change from now on (states.Lock); in a transaction."""
        self.catalog.inodes.set_locked(ino, locked)
        live = self._live.get(ino)
        if live is not None:
            self.catalog.if_undone(live.as_now())
            live.attr = live.attr._replace(locked=int(locked))

    # Sealing

    def begin_hash(self, live: Live) -> int | None:
        """The `gen` whose bytes may be hashed now, or None: being written or not all on disk."""
        return None if live.writing or live.absent or live.lock.locked() else live.gen

    def seal(self, live: Live, gen: int, digest: Digest) -> bool:
        """Keep the checksums of what `begin_hash` allowed to be read; False if it changed since.

        Called inside a transaction, so that many files can share one. After it the first write
        begins a new version.
        """
        if live.sealed:
            return True
        if self.begin_hash(live) != gen or digest.size != live.attr.size:
            return False
        self.catalog.if_undone(live.as_now())
        self.catalog.copies.set_digest(live.ino, live.attr.version, digest)
        if live.unflushed and not live.writers:
            self._flush(live)
        live.sealed = True
        return True

    def premigrated(self, ino: InodeNo, version: DataVersion) -> bool:
        """Enough copies of a sealed version stand verified; False if it is not the present one.

        Called inside a transaction, so that many files can share one.
        """
        live = self._live.get(ino)
        attr = live.attr if live is not None else self.catalog.inodes.get_raw(ino)
        if attr is None or attr.version != version:
            return False
        if attr.state == FileState.RESIDENT:
            if live is not None:
                self._set_state(live, FileState.PREMIGRATED)
            else:
                self.catalog.inodes.set_state(ino, FileState.PREMIGRATED)
        return True

    # Bytes that come and go

    async def settle(self, live: Live) -> None:
        """Write the attributes to the catalog now. The caller holds live.lock."""
        if live.unflushed:
            async with self.catalog.write():
                self._flush(live)

    async def fill(self, live: Live, version: DataVersion, offset: int, data: Bytes) -> bool:
        """Bring verified bytes of a version in; False if they are stale. Wakes readers."""
        piece = Incoming(live, version, offset, lambda: data)
        await self.fill_many([piece])
        if piece.fault is not None:
            raise piece.fault
        return piece.filled

    async def fill_many(self, pieces: Sequence[Incoming]) -> None:
        """Bring bytes of files in: one thread verifies and writes all. Wakes readers.

        Only bytes that are still absent are written. The catalog learns it by `save_many`. What
        became of each piece is noted in it.
        """
        if any(piece.live.lock.locked() for piece in pieces):
            # Bytes of a file before these are being written: meanwhile these can be verified.
            await clock.blocking(lambda: verify_all(pieces), clock.HASH)
        async with locks([piece.live for piece in pieces]):
            wanted = [
                piece
                for piece in pieces
                if piece.live.absent and piece.live.attr.base_version == piece.version
            ]
            for piece in wanted:
                try:
                    await self.opened(piece.live)
                except (OSError, HsmError) as fault:
                    piece.fault = fault
            await clock.blocking(lambda: bring_in(wanted), clock.HASH)
            for piece in wanted:
                if piece.filled:
                    piece.live.absent = subtract(piece.live.absent, piece.range)
                    piece.live.unsaved_ranges = True
                    piece.live.wake()

    async def save_ranges(self, live: Live) -> None:
        """Make what `fill` brought in durable and known to the catalog."""
        for fault in (await self.save_many([live])).values():
            raise fault

    async def save_many(self, lives: Sequence[Live]) -> dict[InodeNo, OSError | HsmError]:
        """As `save_ranges`, with one sync and few transactions; files that failed and why."""
        faults: dict[InodeNo, OSError | HsmError] = {}
        async with locks(lives):
            unsaved = [live for live in {x.ino: x for x in lives}.values() if live.unsaved_ranges]
            for live in unsaved:
                try:
                    await self.opened(live)
                except (OSError, HsmError) as fault:
                    faults[live.ino] = fault
            unsaved = [live for live in unsaved if live.ino not in faults]
            if not unsaved:
                return faults
            crash.point("recall.save.before")
            files = [(live.ino, live.fd, self.pool_of(live)) for live in unsaved]
            synced = await clock.blocking(lambda: sync_bytes(files))
            crash.point("recall.save.synced")
            faults |= synced
            for live in unsaved:
                if live.ino in synced:
                    self._distrust(live)
            saved = [live for live in unsaved if live.ino not in faults]
            for at in range(0, len(saved), TOGETHER):
                some = saved[at : at + TOGETHER]
                async with self.catalog.write():
                    for live in some:
                        self._note_ranges(live)
                crash.point("recall.save.committed")
                for live in some:
                    live.unsaved_ranges = False
                if some[-1] is not saved[-1]:
                    await trio.lowlevel.checkpoint()
        for live in saved:
            self.changed(live.ino)
        return faults

    async def _keep_ranges(self, live: Live) -> None:
        """As `save_ranges`, before a change that relies on it; the caller holds live.lock."""
        if live.unsaved_ranges:
            fd = await self.opened(live)
            try:
                await durable.flushed(fd, data_only=True)
            except OSError:
                self._distrust(live)
                raise
            async with self.catalog.write():
                self._note_ranges(live)
            live.unsaved_ranges = False

    def _distrust(self, live: Live) -> None:
        """A sync failed: what came in since the last one may be lost, and must be recalled again.

        The next sync would succeed: the kernel tells of a lost page once (fsync(2), EIO).
        """
        if live.unsaved_ranges:
            live.absent = self.catalog.inodes.absent(live.ino)
            live.unsaved_ranges = False

    def _note_ranges(self, live: Live) -> None:
        state = FileState.PARTIAL
        if not live.absent:
            # What only parity could bring back is whole on no disc now, and goes to one anew.
            on_disc = live.sealed and self.catalog.copies.is_archived(live.ino, live.attr.version)
            state = FileState.PREMIGRATED if on_disc else FileState.RESIDENT
        self.catalog.if_undone(live.as_now())
        live.attr = live.attr._replace(state=state, blocks=live.blocks)
        self.catalog.inodes.came_in(live.attr, live.absent)

    async def release(
        self,
        live: Live,
        head: int,
        *,
        even_open: bool = False,
        may_go: Callable[[], object] = lambda: None,
        noted: Callable[[], object] = lambda: None,
    ) -> int:
        """Punch all but the first head bytes out; return the bytes freed.

        may_go raises Conflict if there are too few verified copies; it and noted are called in the
        transaction that says the bytes are gone. Raises Conflict if the file is pinned,
        not premigrated, or open (with even_open: being written).
        """
        async with live.lock:
            attr = live.attr
            start = -(-head // BLOCK) * BLOCK
            _refuse_release(live, even_open)
            if start >= attr.size:
                return 0
            await self.settle(live)
            fd = await self.opened(live)
            found = os.fstat(fd)
            if found.st_nlink > 1:
                raise Conflict(
                    f"inode {live.ino} shares its bytes with a file outside of hsmfs",
                    next_step="remove the other hard link of the adopted file first",
                )
            absent = [Range(start, attr.size)]
            async with self.catalog.write():
                # Pinned, opened, or a disc of its copies damaged, while this waited.
                _refuse_release(live, even_open)
                may_go()
                self.catalog.inodes.set_version(live.ino, attr.version, attr.version)
                self.catalog.inodes.set_absent(live.ino, absent)
                self._set_state(live, FileState.MIGRATED)
                noted()
            crash.point("release.committed")
            live.attr = live.attr._replace(base_version=attr.version)
            live.absent = absent
            # The note that the bytes are gone must outlive a power cut before they go.
            await self.catalog.sync()
            crash.point("release.synced")
            pool = self.pools[live.attr.pool] if live.attr.pool else self.pools.for_new(live.ino)
            end = -(-attr.size // BLOCK) * BLOCK
            blocks = await clock.blocking(lambda: pool.release(fd, start, end))
            crash.point("release.punched")
            async with self.catalog.write():
                self.catalog.inodes.set_blocks(live.ino, blocks)
            live.attr = live.attr._replace(blocks=blocks)
        self.changed(live.ino)
        return (found.st_blocks - blocks) * 512

    async def purge(self, ino: InodeNo) -> None:
        """Delete an inode without a name: bytes, rows, and its copies' claim to be alive.

        Raises Conflict if it is in use.
        """
        if await self.purge_many([ino]):
            raise Conflict(
                f"inode {ino} is in use, named, retained or held",
                next_step="it goes when it is free",
            )

    async def purge_many(
        self, inos: Sequence[InodeNo], due: Callable[[], set[InodeNo]] | None = None
    ) -> list[InodeNo]:
        """As `purge`, in one transaction; returns those that were left: in use, locked, or named,
        so out of the trash again since they were listed. due: asked in the transaction which of
        them are to go still.
        """
        kept, going = list[InodeNo](), list[InodeNo]()
        opened = dict[InodeNo, PoolId | None]()
        async with self.catalog.write():
            wanted = list(inos) if due is None else list(due() & set(inos))
            stay = set(inos).difference(wanted)
            stay |= self._still_locked(wanted) | self.catalog.inodes.named_of(wanted)
            for ino in inos:
                live = self._live.get(ino)
                if ino in stay or (live is not None and (live.opens or live.holds)):
                    kept.append(ino)
                    continue
                if live is not None:
                    opened[ino] = live.attr.pool  # of which the row does not know yet, perhaps
                going.append(ino)
            going += self._widowed(going)
            self.catalog.trash.keep_paths(self.catalog.copies.mark_dead(going))
            deleted = self.catalog.inodes.delete(going)
            if deleted:
                self.purged([ino for ino, _ in deleted])
        for ino in going:
            if (live := self._live.get(ino)) is not None:
                live.unflushed = live.unsaved_ranges = False
                live.wake()
                self._forget_if_idle(live)
        crash.point("purge.committed")
        places = [(ino, opened.get(ino, pool)) for ino, pool in deleted]
        files = [(self.pools[pool], ino) for ino, pool in places if pool is not None]
        if files:
            # The name that was taken away, by a rename perhaps, must not come back without bytes.
            await self.catalog.sync()
            crash.point("purge.synced")
            await clock.blocking(lambda: _remove(files))
            crash.point("purge.removed")
        return kept

    def _widowed(self, inos: Sequence[InodeNo]) -> list[InodeNo]:
        """Inodes that have older versions of these files alone; who reads one now keeps it."""
        found = self.catalog.kept.widowed(inos) if inos else []
        return [ino for ino in found if ino not in self._live and ino not in inos]

    def _still_locked(self, inos: Sequence[InodeNo]) -> set[InodeNo]:
        """Those that are retained or held; whose time is over may go."""
        stay = set[InodeNo]()
        for ino in self.catalog.inodes.locked_of(inos):
            if self.may_purge(ino):
                self.lock(ino, 0)
            else:
                stay.add(ino)
        return stay

    async def recover(self) -> int:
        """After a start: take dirty inodes' truth from their pool files; how many there were."""
        return await recover(self.catalog, self.pools)


def _refuse_release(live: Live, even_open: bool) -> None:
    """Raise Conflict with the reason if the bytes must stay on disk."""
    if live.writing or (live.opens and not even_open):
        raise Conflict(f"inode {live.ino} is open", next_step="close it first")
    if live.attr.pinned:
        raise Conflict(f"inode {live.ino} is pinned", next_step="'hsmctl pin --off' it")
    if not live.sealed or live.attr.state == FileState.RESIDENT:
        raise Conflict(
            f"inode {live.ino} has no verified copy of its present bytes",
            next_step="archive it first",
        )


def _remove(files: Sequence[tuple[Pool, InodeNo]]) -> None:
    for pool, ino in files:
        pool.remove(ino)
