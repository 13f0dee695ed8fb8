"""Making files and folders outlive a power cut.

`sync` blocks and is for threads. `flushed` is for the event loop: the kernel does the fsync(2) with
a worker of its own and says when it is done (io_submit(2), IOCB_CMD_FSYNC; fs/aio.c), which takes
a third of the time of going to a thread of Python and coming back. On disks that keep what they
have without power, and in memory, it is done at once, and then a turn of the loop costs more than
the sync: who syncs alone waits for SOON_SECONDS where he stands, as long as that was enough before.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from pathlib import Path

import trio
from caio import linux_aio

from . import clock
from .poll import Poll

_NOT_TAKEN = (ValueError, OverflowError, SystemError)
"""What caio raises if the kernel gives no queue, or its queue does not take a sync: a filesystem
without them, a kernel before 4.18, a closed descriptor, no room."""
_BATCH = 512
AT_ONCE = 1024
"""Syncs under way; fs.aio-max-nr (Linux sysctl/fs.rst), 65,536 for the whole host, counts them."""
SOON_SECONDS = 100e-6
"""How long the event loop stands still for a sync, which is as long as two turns of it."""
_SLOW_AT_MOST = 10
"""After so many syncs in a row that took longer, one in 1,024 is still waited for like that."""


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable (fsync(2)). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite until all is written; blocks if the disk is busy. Raises OSError."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


async def flushed(fd: int, *, data_only: bool = False) -> None:
    """Return when the file is durable, as fsync(2) or fdatasync(2) says. Raises OSError.

    It is not given up by a cancellation; the descriptor stays open until it returns.
    """
    try:
        await _kernel().run(fd, data_only)
    except _NOT_TAKEN:  # a thread has it done, or tells what is wrong
        await clock.blocking(lambda: os.fdatasync(fd) if data_only else os.fsync(fd))


class _Sync:
    """One that is under way; result: what fsync(2) would return, errors as -errno."""

    __slots__ = ("result", "woken")

    def __init__(self) -> None:
        self.result: int | None = None
        self.woken: trio.Event | None = None

    def done(self, result: int) -> None:
        # caio gives the kernel's signed 64 bits as if they had no sign.
        self.result = ctypes.c_int64(result).value
        if self.woken is not None:
            self.woken.set()


class _Kernel:
    """The kernel's queue of syncs, one for the process.

    Of the tasks that wait, one listens for all: what it hears of its own wakes no other task.
    """

    def __init__(self) -> None:
        self._context = linux_aio.Context(AT_ONCE)
        self._free = trio.Semaphore(AT_ONCE)
        self._loop: trio.lowlevel.TrioToken | None = None
        self._listened = False
        self._others: set[trio.Event] = set()
        self._told = Poll(self._context.fileno)
        self._slow = self._skipped = 0

    async def run(self, fd: int, data_only: bool) -> None:
        """Have it done. Raises OSError, or what is `_NOT_TAKEN`."""
        loop = trio.lowlevel.current_trio_token()
        if self._loop is not loop:  # those who waited in another one are gone
            self._loop, self._listened = loop, False
            self._others.clear()
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            with trio.CancelScope(shield=True):
                await self._free.acquire()
        sync = _Sync()
        try:
            kind = linux_aio.Operation.fdsync if data_only else linux_aio.Operation.fsync
            operation = kind(fd)
            operation.set_callback(sync.done)
            self._context.submit(operation)
            if not self._listened:
                self._wait_a_moment()
            if sync.result is None:
                with trio.CancelScope(shield=True):
                    await self._wait(sync)
        finally:
            self._free.release()
        if self._others and not self._listened:
            next(iter(self._others)).set()  # to listen: nobody does
        if sync.result:
            raise OSError(-sync.result, os.strerror(-sync.result))

    async def _wait(self, sync: _Sync) -> None:
        while sync.result is None:
            if not self._listened:
                await self._listen()
                continue
            woken = sync.woken = trio.Event()
            self._others.add(woken)
            await woken.wait()
            self._others.discard(woken)

    async def _listen(self) -> None:
        """Until the kernel has done something, and who waits for that knows it."""
        self._listened = True
        try:
            await trio.lowlevel.wait_readable(self._context.fileno)
        finally:
            self._listened = False
        self._hear()

    def _wait_a_moment(self) -> None:
        """On a disk that was quick lately; on others now and then, to see whether it is."""
        if self._skipped:
            self._skipped -= 1
        elif self._told.wait(SOON_SECONDS):
            self._slow = 0
            self._hear()
        else:
            self._slow = min(self._slow + 1, _SLOW_AT_MOST)
            self._skipped = (1 << self._slow) - 1

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):  # what it announced was fetched already
            self._context.poll()
        while self._fetched() == _BATCH:
            pass

    def _fetched(self) -> int:
        """Have the callbacks of at most _BATCH syncs called; how many it were."""
        while True:
            try:
                return self._context.process_events(_BATCH)
            except SystemError as fault:
                # A signal, or a tracer that comes or goes, interrupts even a call that waits for
                # nothing (read_events in the kernel's fs/aio.c).
                if fault.args[0] != errno.EINTR:
                    raise


@functools.cache  # a refusal (fs.aio-max-nr is used up) is not kept: the next sync asks again
def _kernel() -> _Kernel:
    return _Kernel()
