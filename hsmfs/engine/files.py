"""Bytes of files: the one place where pool files, absent ranges, versions and recalls meet.

The filesystem layer reads and writes through here and knows no disc; the recaller fills ranges in,
the migrator seals versions and the releaser punches holes through its base and know no handle.
What is written before what, and why: docs/durability.md; the locks: docs/concurrency.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from .. import clock, crash, durable
from ..catalog.catalog import Catalog
from ..errors import PoolFull, PosixError, RecallFailed
from ..pool.pools import Pools
from ..pool.store import writable
from ..pressure import DISK, WritePressure
from ..states import FileState, Lock
from ..types import Attr, DataVersion, InodeNo, Range, Requester
from .incoming import append_all
from .live import Live
from .ranges import overlap, subtract
from .residency import LARGE, Residency

if TYPE_CHECKING:
    from .keeping import Keeping, Spared

Wait = Callable[[InodeNo, Range, Requester], Awaitable[None]]
"""Returns when the range is on disk; raises HsmError if it cannot come, or not in time."""


class MakeRoom(Protocol):
    """Try to free that many bytes of the pools; False if there is nothing to release.

    heads: heads of files may go, if nothing else can.
    """

    def __call__(self, need: int, *, heads: bool = True) -> Awaitable[bool]: ...


_DAY_NS = 86_400 * 10**9
TICK_NS = 10**7
"""How far the clock that the kernel dates changes by may be behind: a tick of the slowest one."""


class Files(Residency):
    """What users do to the bytes of files.

    Attributes:
        wait_for: set by the recaller; how a reader waits for absent bytes.
        make_room: set by the releaser; asked before ENOSPC is given.
        rewritten: set by the recaller; a file that is not all on disk begins a new version.
        keeping: set by the engine; keeps what files were before they are changed in place.
    """

    def __init__(self, catalog: Catalog, pools: Pools) -> None:
        super().__init__(catalog, pools)
        self.wait_for: Wait = _nobody_recalls
        self.make_room: MakeRoom = _no_room
        self.rewritten: Callable[[InodeNo], None] = lambda ino: None
        self.keeping: Keeping | None = None
        self._pressure = WritePressure()
        self._buffer = memoryview(bytearray(1 << 20))

    # Inodes

    def attr(self, ino: InodeNo) -> Attr | None:
        """The inode as stat must show it, or None."""
        live = self._live.get(ino)
        if live is None:
            return self.catalog.inodes.get_raw(ino)
        if live.fd >= 0:
            return live.attr._replace(blocks=live.blocks)
        return live.attr

    def overlay(self, attr: Attr) -> Attr:
        """A row just read from the catalog, as stat must show it."""
        return attr if attr.ino not in self._live else self.attr(attr.ino) or attr

    def last_change_ns(self, attr: Attr) -> int | None:
        """Not before this the bytes on disk were changed last, whatever was set as mtime; None: it
        cannot be told. It is the pool file's ctime, which nobody can set, and a tick of its clock.
        """
        if attr.pool is None:
            return None
        try:
            return os.stat(self.pools[attr.pool].path_of(attr.ino)).st_ctime_ns + TICK_NS
        except OSError:
            return None

    def born(self, attr: Attr) -> None:
        """The inode was created just now and is about to be opened: no need to look it up."""
        if attr.ino not in self._live:
            self._live[attr.ino] = Live(attr, [], sealed=False)

    async def setattr(self, ino: InodeNo, attr: Attr) -> Attr:
        """Make mode, owner and times those of attr; its size is not looked at.

        Never pauses inside a transaction. A new mtime is given to `stamp` before.
        """
        async with self.catalog.write():
            live = self._live.get(ino)
            if live is not None:
                self.catalog.if_undone(live.as_now())
                attr = attr._replace(size=live.attr.size, dirty=live.attr.dirty)
                live.attr = attr = self.catalog.inodes.put(attr)
            else:
                attr = self.catalog.inodes.put(attr)
        return attr

    async def stamp(self, ino: InodeNo, mtime_ns: int) -> None:
        """Set the pool file's mtime: a dirty inode's is taken from there after a crash."""
        live = self._live.get(ino)
        if live is None or live.fd < 0 or not live.attr.dirty:
            return
        fd = live.fd
        live.holds += 1
        try:
            if DISK.busy():
                await clock.blocking(lambda: os.utime(fd, ns=(mtime_ns, mtime_ns)))
            else:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            self.drop(live)

    def touch_links(self, attr: Attr) -> None:
        """Names of the inode changed in the catalog: take over nlink and ctime; as it changes."""
        live = self._live.get(attr.ino)
        if live is not None:
            self.catalog.if_undone(live.as_now())
            old = live.attr
            live.attr = old.with_links(attr.nlink, old.mtime_ns, attr.ctime_ns, attr.change_seq)

    def renew(self, ino: InodeNo) -> None:
        """The row of an inode that nobody writes was changed: take all of it over; as it changes.
        """
        live, attr = self._live.get(ino), self.catalog.inodes.get_raw(ino)
        if live is not None and attr is not None:
            self.catalog.if_undone(live.as_now())
            live.attr = attr

    # Handles

    def open(self, ino: InodeNo, *, write: bool) -> Live:
        """Begin to use the bytes. Never recalls. Raises PosixError ENOENT."""
        live = self.hold(ino)
        live.holds -= 1
        live.opens += 1
        live.writers += write
        if write and self.keeping is not None:
            self.keeping.arm(live)
        return live

    def close(self, live: Live, *, write: bool) -> None:
        """End an `open`. What was written reaches the catalog with the next `flush_closed`."""
        live.opens -= 1
        live.writers -= write
        if live.attr.dirty and not live.writers:
            live.unflushed = True  # also if nothing was written: it was born dirty
        self._forget_if_idle(live)

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
        fd = live.fd
        if fd < 0:
            if live.opening is not None:
                return None
            # Also while the disks are busy: a file that exists is found in memory, mostly.
            fd = self.file(live)
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
        waited = False
        while True:
            end = min(offset + size, live.attr.size)
            if end <= offset:
                return b""
            missing = overlap(live.absent, Range(offset, end)) if live.absent else None
            if not missing:
                # What a recall just brought in is in the page cache.
                now = self.read_now(live, offset, end - offset) if waited else None
                if now is not None:
                    return bytes(now)
                data = await self._pread(live, offset, end - offset)
                # A release may have punched a hole under the thread that read.
                if not overlap(live.absent, Range(offset, end)):
                    return data
                continue
            await self.wait_for(live.ino, Range(missing[0].start, missing[-1].end), who)
            waited = True

    def accessed(self, live: Live) -> None:
        """Bytes were read: set atime as relatime does; it reaches the catalog with the others."""
        attr, now = live.attr, clock.now_ns()
        if attr.locked and attr.locked & Lock.RECORD:
            return  # it says until when the record is kept
        if attr.atime_ns <= max(attr.mtime_ns, attr.ctime_ns) or attr.atime_ns < now - _DAY_NS:
            live.attr = attr._replace(atime_ns=now)
            live.unflushed = True

    async def _pread(self, live: Live, offset: int, size: int) -> bytes:
        live.holds += 1
        try:
            fd = await self.opened(live)
            return await clock.blocking(lambda: os.pread(fd, size, offset))
        except OSError as fault:
            raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
        finally:
            self.drop(live)

    # Writing

    async def write(self, live: Live, offset: int, data: bytes) -> int:
        """Write data; durable after `fsync`.

        Raises PoolFull, PoolReadOnly, PosixError EIO; EPERM if it became a record, or was held,
        while this waited.
        """
        locked = live.attr.locked
        if live.plain(offset):
            # Whatever may pause comes first: meanwhile the file may be sealed.
            if live.fd < 0:
                await self.opened(live)
            if not live.attr.dirty:
                await self._mark_dirty(live)
        if live.plain(offset):
            _refuse_locked(live, locked)
            await self._pwrite(live, offset, data)
        else:
            async with live.lock:
                _refuse_locked(live, locked)
                await self._write_careful(live, offset, data)
        return len(data)

    async def _write_careful(self, live: Live, offset: int, data: bytes) -> None:
        await self.opened(live)
        if offset < live.stake:
            await self._spare(live, offset)
        if live.sealed:
            await self._begin_version(live)
        elif not live.attr.dirty:
            await self._mark_dirty(live)
        end = offset + len(data)
        covered = overlap(live.absent, Range(offset, end))
        await self._pwrite(live, offset, data)
        if covered:
            # Bytes first, then the note that they are there: a power cut must not show zeros.
            crash.point("files.overwrite_stub.written")
            try:
                await durable.flushed(live.fd, data_only=True)
            except OSError:
                self._distrust(live)
                raise
            crash.point("files.overwrite_stub.synced")
            left = subtract(live.absent, Range(offset, end))
            async with self.catalog.write():
                self.catalog.inodes.set_absent(live.ino, left)
                if not left:
                    self._set_state(live, FileState.RESIDENT)
            crash.point("files.overwrite_stub.noted")
            live.absent = left
            live.wake()

    async def _pwrite(self, live: Live, offset: int, data: bytes) -> None:
        fd = live.fd if live.fd >= 0 else self.file(live)
        live.gen += 1
        live.writing += 1
        try:
            crash.point("files.write.before")
            await self._pwrite_or_make_room(live, fd, offset, data)
            crash.point("files.write.after")
        finally:
            live.writing -= 1
        end = offset + len(data)
        now = clock.now_ns()
        attr = live.attr
        live.attr = attr._replace(
            size=end if end > attr.size else attr.size, mtime_ns=now, ctime_ns=now
        )
        live.unflushed = True

    async def _pwrite_or_make_room(
        self, live: Live, fd: int, offset: int, data: bytes
    ) -> None:
        for attempt in (1, 2):
            try:
                if self._pressure.may_block(len(data)):
                    await clock.blocking(lambda: append_all(fd, data, offset, live.attr.size))
                else:
                    append_all(fd, data, offset, live.attr.size)
                return
            except OSError as fault:
                pool = self.pool_of(live)
                if fault.errno in (errno.EBADF, errno.EROFS):
                    raise pool.read_only() from fault  # it was opened for reading only
                if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
                if attempt == 2 or not await self.make_room(len(data)):
                    raise PoolFull(f"pool {pool.name} is full: {pool.path}") from fault

    async def _mark_dirty(self, live: Live) -> None:
        pool = self.pool_of(live).id  # of a file that was only on discs the row has none
        async with self.catalog.write():
            self.catalog.inodes.set_dirty(live.ino, pool)
        crash.point("files.write.marked_dirty")
        live.dirty_mark = self.catalog.commits
        live.attr = live.attr._replace(dirty=True, pool=pool)

    async def _spare(self, live: Live, start: int, *, emptied: bool = False) -> None:
        """Bytes from start on are about to change: what older versions need is set aside first."""
        assert self.keeping is not None
        spared = await self.keeping.spare(live, start, emptied=emptied)
        try:
            if spared.ends:
                await self._begin_version(live, spared)
            elif spared.cut:
                async with self.catalog.write():
                    self.keeping.note(live.attr, spared)
                await self.catalog.sync()
        finally:
            self.keeping.done(spared)
        crash.point("keeping.noted")
        if spared.linked:
            await self.keeping.part(live, spared)
        live.stake = spared.stake

    async def _begin_version(self, live: Live, spared: Spared | None = None) -> None:
        """The bytes are about to differ from what the checksums say, or from what is kept; durable
        when this returns. Not so if the file only grows: nothing depends on that note.
        """
        await self._keep_ranges(live)
        last = live.sealed or spared is None or spared.cut
        attr, pool = live.attr, self.pool_of(live).id
        version = DataVersion(attr.version + 1)
        base = attr.base_version if live.absent else version
        state = FileState.PARTIAL if live.absent else FileState.RESIDENT
        async with self.catalog.write():
            self.catalog.inodes.set_version(live.ino, version, base)
            self._note_version(attr)
            if spared is not None and self.keeping is not None:
                self.keeping.note(attr, spared)
                self.catalog.queues.follow(live.ino, version)
            self.catalog.inodes.set_dirty(live.ino, pool)
            self.catalog.inodes.set_state(live.ino, state)
        live.attr = attr._replace(
            version=version, base_version=base, state=state, dirty=True, pool=pool
        )
        live.dirty_mark = self.catalog.commits
        live.sealed = False
        crash.point("files.new_version.committed")
        if last:
            await self.catalog.sync()
            crash.point("files.new_version.synced")
        if live.absent:
            self.rewritten(live.ino)

    def _note_version(self, attr: Attr) -> None:
        """What is on discs of the file is not what it is from now on; in a transaction."""
        self.catalog.history.ended(
            attr.ino, attr.version, attr.size, attr.mtime_ns, clock.now_ns()
        )

    async def truncate(self, live: Live, size: int) -> None:
        """Make the file size bytes long; recalls nothing.

        Raises PosixError; EPERM if it became a record, or was held, while this waited.
        """
        locked = live.attr.locked
        async with live.lock:
            _refuse_locked(live, locked)
            if live.sealed and size == live.attr.size:
                async with self.catalog.write():
                    self._note_version(live.attr)
                self._touch_times(live)
                return
            await self._keep_ranges(live)
            await self._spare_cut(live, size)
            if live.sealed:
                await self._begin_version(live)
            elif not live.attr.dirty:
                await self._mark_dirty(live)
            if size < live.attr.size and live.dirty_mark > self.catalog.durable:
                # Only a dirty inode's size is taken from the pool file, so that must last first.
                await self.catalog.sync()
            fd = await self.opened(live)
            _refuse_locked(live, locked)
            live.gen += 1
            live.writing += 1
            crash.point("files.truncate.before")
            try:
                await self._ftruncate(live, fd, size)
            except OSError as fault:
                if fault.errno in (errno.EBADF, errno.EROFS) or not writable(fd):
                    raise self.pool_of(live).read_only() from fault
                raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
            finally:
                live.writing -= 1
            crash.point("files.truncate.after")
            if live.absent:
                await self._clip(live, size)
                crash.point("files.truncate.clipped")
            now = clock.now_ns()
            live.attr = live.attr._replace(size=size, mtime_ns=now, ctime_ns=now)
            live.unflushed = True

    async def _spare_cut(self, live: Live, size: int) -> None:
        """As `_spare`, before a truncation, which needs no opening."""
        before = live.attr.size
        if self.keeping is not None and not live.writers:
            self.keeping.arm(live)
        if min(size, before) < live.stake:
            await self.opened(live)
            await self._spare(live, min(size, before), emptied=not size)

    async def _ftruncate(self, live: Live, fd: int, size: int) -> None:
        cut = live.attr.size - size
        live.cut = live.cut or cut > 0
        if cut > LARGE or DISK.busy():
            await clock.blocking(lambda: os.ftruncate(fd, size))
        else:
            os.ftruncate(fd, size)

    def _touch_times(self, live: Live) -> None:
        now = clock.now_ns()
        live.attr = live.attr._replace(mtime_ns=now, ctime_ns=now)
        live.unflushed = True

    async def _clip(self, live: Live, size: int) -> None:
        left = overlap(live.absent, Range(0, size))
        async with self.catalog.write():
            self.catalog.inodes.set_absent(live.ino, left)
            if not left:
                self._set_state(live, FileState.RESIDENT)
        live.absent = left
        live.wake()

    async def fsync(self, live: Live) -> None:
        """Return when the bytes, the size and the name are durable. Raises PosixError EIO.

        Also what was written by a handle that was closed since (fsync(2)): sync(1), and a COMMIT
        of NFS after nfsd closed the file, come with one that wrote nothing.
        """
        if live.fd >= 0 or (live.attr.size and live.attr.pool is not None):
            live.holds += 1
            try:
                fd = await self.opened(live)
                crash.point("files.fsync.before")
                await durable.flushed(fd)
                crash.point("files.fsync.data")
            except OSError as fault:
                self._distrust(live)
                raise PosixError(fault.errno or errno.EIO, str(fault)) from fault
            finally:
                self.drop(live)
        await self.catalog.sync()
        crash.point("files.fsync.catalog")


def _refuse_locked(live: Live, before: int) -> None:
    """Raise PosixError EPERM if the file was locked since its lock was looked at."""
    gained = live.attr.locked & ~before
    if gained and gained & (Lock.RECORD | Lock.HELD):  # asked in two steps: enumerations are slow
        raise PosixError(errno.EPERM)


async def _nobody_recalls(ino: InodeNo, wanted: Range, who: Requester) -> None:
    raise RecallFailed(f"inode {ino} is on discs and no library is running")


async def _no_room(need: int, *, heads: bool = True) -> bool:
    return False
