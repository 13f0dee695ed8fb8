"""Bytes of files: the one place where pool files, absent ranges, versions and recalls meet.

The filesystem layer reads and writes through here and knows no disc; the recaller fills ranges in,
the migrator seals versions and the releaser punches holes through here and know no handle.
What is written before what, and why: docs/durability.md; the locks: docs/concurrency.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable

from .. import clock
from ..catalog.catalog import Catalog
from ..errors import Conflict, PosixError, RecallFailed
from ..pool.pools import Pools
from ..pool.store import BLOCK
from ..states import FileState
from ..types import Attr, DataVersion, InodeNo, Range, Requester
from . import pressure
from .live import Live
from .ranges import overlap, subtract

Wait = Callable[[InodeNo, Range, Requester], Awaitable[None]]
"""Returns when the range is on disk; raises HsmError if it cannot come, or not in time."""
MakeRoom = Callable[[int], Awaitable[bool]]
"""Try to free that many bytes of the pools; False if there is nothing to release."""


class Files:
    """Live inodes and the operations on their bytes.

    Attributes:
        wait_for: set by the recaller; how a reader waits for absent bytes.
        make_room: set by the releaser; asked before ENOSPC is given.
        changed: called with an inode number when the engine changed what stat shows.
    """

    def __init__(self, catalog: Catalog, pools: Pools) -> None:
        self.catalog = catalog
        self.pools = pools
        self._live: dict[InodeNo, Live] = {}
        self.wait_for: Wait = _nobody_recalls
        self.make_room: MakeRoom = _no_room
        self.changed: Callable[[InodeNo], None] = lambda ino: None
        self._pressure = pressure.WritePressure()
        self._buffer = memoryview(bytearray(1 << 20))

    # Inodes

    def attr(self, ino: InodeNo) -> Attr | None:
        """The inode as stat must show it, or None."""
        live = self._live.get(ino)
        if live is None:
            return self.catalog.inodes.get_raw(ino)
        if live.fd >= 0:
            return live.attr._replace(blocks=os.fstat(live.fd).st_blocks)
        return live.attr

    def overlay(self, attr: Attr) -> Attr:
        """A row just read from the catalog, as stat must show it."""
        return attr if attr.ino not in self._live else self.attr(attr.ino) or attr

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

    def born(self, attr: Attr) -> None:
        """The inode was created just now and is about to be opened: no need to look it up."""
        self._live[attr.ino] = Live(attr, [], sealed=False)

    def _load(self, attr: Attr) -> Live:
        catalog, ino = self.catalog, attr.ino
        absent = catalog.inodes.absent(ino) if attr.state != FileState.RESIDENT else []
        sealed = attr.is_file and catalog.copies.digest(ino, attr.version) is not None
        live = self._live[ino] = Live(attr, absent, sealed)
        return live

    def _forget_if_idle(self, live: Live) -> None:
        if live.idle and not live.lock.locked():
            self._live.pop(live.ino, None)
            if live.fd >= 0:
                os.close(live.fd)
                live.fd = -1

    async def setattr(self, ino: InodeNo, attr: Attr) -> Attr:
        """Make mode, owner and times those of attr; its size is not looked at."""
        live = self._live.get(ino)
        if live is not None and live.fd >= 0 and attr.mtime_ns != live.attr.mtime_ns:
            # A dirty inode's mtime is taken from the pool file after a crash.
            os.utime(live.fd, ns=(attr.atime_ns, attr.mtime_ns))
        async with self.catalog.write():
            if live is not None:
                attr = attr._replace(size=live.attr.size, dirty=live.attr.dirty)
                live.attr = attr = self.catalog.inodes.put(attr)
            else:
                attr = self.catalog.inodes.put(attr)
        return attr

    def touch_links(self, attr: Attr) -> None:
        """Names of the inode changed in the catalog: take over nlink and ctime."""
        live = self._live.get(attr.ino)
        if live is not None:
            live.attr = live.attr._replace(
                nlink=attr.nlink, ctime_ns=attr.ctime_ns, change_seq=attr.change_seq
            )

    # Handles

    def open(self, ino: InodeNo, *, write: bool) -> Live:
        """Begin to use the bytes. Never recalls. Raises PosixError ENOENT."""
        live = self.hold(ino)
        live.holds -= 1
        live.opens += 1
        live.writers += write
        return live

    def close(self, live: Live, *, write: bool) -> None:
        """End an `open`. What was written reaches the catalog with the next `flush_closed`."""
        live.opens -= 1
        live.writers -= write
        self._forget_if_idle(live)

    def file(self, live: Live) -> int:
        """The pool file's descriptor, opened and healed if need be.

        A clean inode's row is the truth: after a crash the pool file may be longer (bytes that
        nobody was told of) or shorter (zeros that were never written).
        """
        if live.fd < 0:
            attr = live.attr
            pool = self.pools.for_new(attr.ino) if attr.pool is None else self.pools[attr.pool]
            live.fd = pool.open(live.ino)
            if attr.pool is None:
                live.attr = attr._replace(pool=pool.id)
                live.unflushed = True
            if not attr.dirty and os.fstat(live.fd).st_size != attr.size:
                os.ftruncate(live.fd, attr.size)
        return live.fd

    # Reading

    def read_now(self, live: Live, offset: int, size: int) -> memoryview | None:
        """Bytes that are in the page cache, in a buffer that the next call overwrites; else None.

        The caller must be done with the buffer before it awaits anything.
        """
        if live.absent and overlap(live.absent, Range(offset, offset + size)):
            return None
        if size > len(self._buffer):
            return None
        want = min(size, live.attr.size - offset)
        if want <= 0:
            return self._buffer[:0]
        fd = live.fd if live.fd >= 0 else self.file(live)
        buffer = self._buffer[:want]
        try:
            got = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as fault:
            if fault.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return None
            raise
        return buffer if got == want else None

    async def read(self, live: Live, offset: int, size: int, who: Requester) -> bytes:
        """Bytes of a file, recalled first if need be; short only at its end.

        Raises HsmError from the recall, PosixError from the pool.
        """
        while True:
            end = min(offset + size, live.attr.size)
            if end <= offset:
                return b""
            missing = overlap(live.absent, Range(offset, end)) if live.absent else None
            if not missing:
                return await self._pread(live, offset, end - offset)
            await self.wait_for(live.ino, Range(missing[0].start, missing[-1].end), who)

    async def _pread(self, live: Live, offset: int, size: int) -> bytes:
        fd = self.file(live)
        live.holds += 1
        try:
            return await clock.blocking(lambda: os.pread(fd, size, offset))
        except OSError as fault:
            raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
        finally:
            self.drop(live)

    # Writing

    async def write(self, live: Live, offset: int, data: bytes) -> int:
        """Write data; durable after `fsync`. Raises PosixError ENOSPC or EIO."""
        if not live.plain:
            async with live.lock:
                await self._write_careful(live, offset, data)
            return len(data)
        if not live.attr.dirty:
            await self._mark_dirty(live)
        await self._pwrite(live, offset, data)
        self._wrote(live, offset + len(data))
        return len(data)

    async def _write_careful(self, live: Live, offset: int, data: bytes) -> None:
        if live.sealed:
            await self._begin_version(live)
        end = offset + len(data)
        covered = overlap(live.absent, Range(offset, end))
        await self._pwrite(live, offset, data)
        self._wrote(live, end)
        if covered:
            # Bytes first, then the note that they are there: a power cut must not show zeros.
            fd = live.fd
            await clock.blocking(lambda: os.fdatasync(fd))
            left = subtract(live.absent, Range(offset, end))
            async with self.catalog.write():
                self.catalog.inodes.set_absent(live.ino, left)
                if not left:
                    self._set_state(live, FileState.RESIDENT)
            live.absent = left
            live.wake()

    async def _pwrite(self, live: Live, offset: int, data: bytes) -> None:
        fd = live.fd if live.fd >= 0 else self.file(live)
        for attempt in (1, 2):
            try:
                if self._pressure.may_block(len(data)):
                    done = await clock.blocking(lambda: _write_all(fd, data, offset))
                else:
                    done = _write_all(fd, data, offset)
                assert done == len(data)
                return
            except OSError as fault:
                if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
                if attempt == 2 or not await self.make_room(len(data)):
                    raise PosixError(errno.ENOSPC, "the pools are full") from fault

    def _wrote(self, live: Live, end: int) -> None:
        now = clock.now_ns()
        attr = live.attr
        live.attr = attr._replace(
            size=end if end > attr.size else attr.size, mtime_ns=now, ctime_ns=now
        )
        live.gen += 1
        live.unflushed = True

    async def _mark_dirty(self, live: Live) -> None:
        async with self.catalog.write():
            self.catalog.inodes.set_dirty(live.ino)
        live.dirty_mark = self.catalog.commits
        live.attr = live.attr._replace(dirty=True)

    async def _begin_version(self, live: Live) -> None:
        """The bytes are about to differ from what the checksums say; durable when this returns."""
        attr = live.attr
        version = DataVersion(attr.version + 1)
        mixed = attr.base_version if attr.base_version != attr.version else attr.version
        base = mixed if live.absent else version
        state = FileState.PARTIAL if live.absent else FileState.RESIDENT
        async with self.catalog.write():
            self.catalog.inodes.set_version(live.ino, version, base)
            self.catalog.inodes.set_dirty(live.ino)
            self.catalog.inodes.set_state(live.ino, state)
        live.attr = attr._replace(version=version, base_version=base, state=state, dirty=True)
        live.dirty_mark = self.catalog.commits
        live.sealed = False
        await self.catalog.sync()

    async def truncate(self, live: Live, size: int) -> None:
        """Make the file size bytes long; recalls nothing. Raises PosixError."""
        async with live.lock:
            if live.sealed:
                if size == live.attr.size:
                    return
                await self._begin_version(live)
            elif not live.attr.dirty:
                await self._mark_dirty(live)
            if size < live.attr.size and live.dirty_mark > self.catalog.durable:
                # Only a dirty inode's size is taken from the pool file, so that must last first.
                await self.catalog.sync()
            fd = self.file(live)
            try:
                os.ftruncate(fd, size)
            except OSError as fault:
                raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
            if live.absent:
                await self._clip(live, size)
            now = clock.now_ns()
            live.attr = live.attr._replace(size=size, mtime_ns=now, ctime_ns=now)
            live.gen += 1
            live.unflushed = True

    async def _clip(self, live: Live, size: int) -> None:
        left = overlap(live.absent, Range(0, size))
        async with self.catalog.write():
            self.catalog.inodes.set_absent(live.ino, left)
            if not left:
                self._set_state(live, FileState.RESIDENT)
        live.absent = left
        live.wake()

    def _set_state(self, live: Live, state: FileState) -> None:
        self.catalog.inodes.set_state(live.ino, state)
        live.attr = live.attr._replace(state=state)

    async def fsync(self, live: Live) -> None:
        """Return when the bytes, the size and the name are durable. Raises PosixError EIO."""
        if live.fd >= 0:
            fd = live.fd
            live.holds += 1
            try:
                await clock.blocking(lambda: os.fsync(fd))
            except OSError as fault:
                raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
            finally:
                self.drop(live)
        await self.catalog.sync()

    async def flush_closed(self, limit: int = 500) -> int:
        """Write attributes of inodes that nobody writes any more to the catalog; how many."""
        ready = [live for live in self._live.values() if live.unflushed and not live.writers]
        ready = ready[:limit]
        if ready:
            async with self.catalog.write():
                for live in ready:
                    self._flush(live)
            for live in ready:
                self._forget_if_idle(live)
        return len(ready)

    def _flush(self, live: Live) -> None:
        if live.fd >= 0:
            live.attr = live.attr._replace(blocks=os.fstat(live.fd).st_blocks)
        live.attr = self.catalog.inodes.put(live.attr._replace(dirty=False))
        live.unflushed = False

    # For the engine's workers, which `hold` the inode meanwhile

    async def settle(self, live: Live) -> None:
        """Write the attributes to the catalog now. The caller holds live.lock."""
        if live.unflushed:
            async with self.catalog.write():
                self._flush(live)

    async def fill(self, live: Live, version: DataVersion, offset: int, data: bytes) -> bool:
        """Bring verified bytes of a version in; False if they are stale. Wakes readers.

        Only bytes that are still absent are written. The catalog learns it by `save_ranges`.
        """
        async with live.lock:
            if not live.absent or live.attr.base_version != version:
                return False
            fd = self.file(live)
            r = Range(offset, offset + len(data))
            view = memoryview(data)
            for x in overlap(live.absent, r):
                part = view[x.start - offset : x.end - offset]
                start = x.start
                await clock.blocking(lambda part=part, start=start: _write_all(fd, part, start))  # type: ignore[misc]
            live.absent = subtract(live.absent, r)
            live.unsaved_ranges = True
            live.wake()
            return True

    async def save_ranges(self, live: Live) -> None:
        """Make what `fill` brought in durable and known to the catalog."""
        async with live.lock:
            if not live.unsaved_ranges:
                return
            fd = self.file(live)
            await clock.blocking(lambda: os.fdatasync(fd))
            state = FileState.PARTIAL
            if not live.absent:
                state = FileState.PREMIGRATED if live.sealed else FileState.RESIDENT
            blocks = os.fstat(fd).st_blocks
            async with self.catalog.write():
                self.catalog.inodes.set_absent(live.ino, live.absent)
                self.catalog.inodes.set_blocks(live.ino, blocks)
                self._set_state(live, state)
            live.attr = live.attr._replace(blocks=blocks)
            live.unsaved_ranges = False
        self.changed(live.ino)

    async def release(self, live: Live, head: int) -> int:
        """Punch all but the first head bytes out; return the bytes freed.

        The caller has made sure of enough verified copies. Raises Conflict if the file is open,
        pinned, or not premigrated.
        """
        async with live.lock:
            attr = live.attr
            start = -(-head // BLOCK) * BLOCK
            if live.opens:
                raise Conflict(f"inode {live.ino} is open", next_step="close it first")
            if attr.pinned:
                raise Conflict(f"inode {live.ino} is pinned", next_step="'hsmctl pin --off' it")
            if not live.sealed or attr.state not in (FileState.PREMIGRATED, FileState.PARTIAL):
                raise Conflict(
                    f"inode {live.ino} has no verified copy of its present bytes",
                    next_step="archive it first",
                )
            if start >= attr.size:
                return 0
            await self.settle(live)
            fd = self.file(live)
            before = os.fstat(fd).st_blocks
            absent = [Range(start, attr.size)]
            async with self.catalog.write():
                self.catalog.inodes.set_version(live.ino, attr.version, attr.version)
                self.catalog.inodes.set_absent(live.ino, absent)
                self._set_state(live, FileState.MIGRATED)
            live.attr = live.attr._replace(base_version=attr.version)
            live.absent = absent
            # The note that the bytes are gone must outlive a power cut before they go.
            await self.catalog.sync()
            pool = self.pools[live.attr.pool] if live.attr.pool else self.pools.for_new(live.ino)
            blocks = await clock.blocking(lambda: pool.release(fd, start, attr.size))
            async with self.catalog.write():
                self.catalog.inodes.set_blocks(live.ino, blocks)
            live.attr = live.attr._replace(blocks=blocks)
        self.changed(live.ino)
        return (before - blocks) * 512

    async def purge(self, ino: InodeNo) -> None:
        """Delete an inode without a name: bytes, rows, and its copies' claim to be alive."""
        live = self._live.get(ino)
        if live is not None:
            if live.opens or live.holds:
                raise Conflict(f"inode {ino} is in use", next_step="it goes when it is closed")
            live.unflushed = live.unsaved_ranges = False
            live.wake()
            self._forget_if_idle(live)
        attr = self.catalog.inodes.get_raw(ino)
        if attr is None:
            return
        async with self.catalog.write():
            self.catalog.copies.mark_dead(ino)
            self.catalog.inodes.delete([ino])
        if attr.pool is not None:
            pool = self.pools[attr.pool]
            await clock.blocking(lambda: pool.remove(ino))

    async def recover(self) -> int:
        """After a start: take dirty inodes' truth from their pool files; how many there were."""
        dirty = self.catalog.inodes.dirty()
        for attr in dirty:
            found = await clock.blocking(lambda attr=attr: self._stat(attr))  # type: ignore[misc]
            if found is not None:
                attr = attr._replace(
                    size=found.st_size,
                    blocks=found.st_blocks,
                    mtime_ns=found.st_mtime_ns,
                    ctime_ns=max(attr.ctime_ns, found.st_mtime_ns),
                )
            absent = overlap(self.catalog.inodes.absent(attr.ino), Range(0, attr.size))
            async with self.catalog.write():
                self.catalog.inodes.put(attr._replace(dirty=False))
                self.catalog.inodes.set_absent(attr.ino, absent)
        return len(dirty)

    def _stat(self, attr: Attr) -> os.stat_result | None:
        if attr.pool is None:
            return None
        try:
            return os.stat(self.pools[attr.pool].path_of(attr.ino))
        except FileNotFoundError:
            return None


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> int:
    """pwrite until all is written."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
    return done


async def _nobody_recalls(ino: InodeNo, wanted: Range, who: Requester) -> None:
    raise RecallFailed(f"inode {ino} is on discs and no library is running")


async def _no_room(need: int) -> bool:
    return False
