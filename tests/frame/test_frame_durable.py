"""Syncs that the kernel does beside the event loop tell what fsync(2) would."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys

import pytest
import trio

from hsmfs import durable

SICK = """
import errno, stat, sys, pyfuse3, trio

class Sick(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        attr = pyfuse3.EntryAttributes()
        attr.st_ino, attr.st_nlink = inode, 1
        attr.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o644
        return attr

    async def lookup(self, parent, name, ctx=None):
        return await self.getattr(2)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=2)

    async def flush(self, fh):
        pass

    async def fsync(self, fh, datasync):
        raise pyfuse3.FUSEError(errno.EIO)

pyfuse3.init(Sick(), sys.argv[1], set(pyfuse3.default_options))
print("mounted", flush=True)
trio.run(pyfuse3.main)
"""


@pytest.fixture
def sick_file(tmp_path):
    """A file whose filesystem fails to sync it."""
    server = subprocess.Popen([sys.executable, "-c", SICK, tmp_path], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"mounted\n"
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        yield fd
        os.close(fd)
        subprocess.run(["fusermount3", "-u", tmp_path], check=True)


@pytest.mark.mount
@pytest.mark.parametrize("data_only", [False, True])
async def test_a_sync_that_fails_is_told(sick_file, data_only):
    with pytest.raises(OSError) as told:
        await durable.flushed(sick_file, data_only=data_only)
    assert told.value.errno == errno.EIO


async def test_what_cannot_be_synced_is_told():
    reader, writer = os.pipe()
    for expected in (errno.EINVAL, errno.EBADF):
        with pytest.raises(OSError) as told:
            await durable.flushed(reader)
        assert told.value.errno == expected
        if expected == errno.EINVAL:
            os.close(reader)
            os.close(writer)


async def test_signals_interrupt_no_sync(tmp_path):
    """Each signal may end the call that fetches what is done with EINTR."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        with (tmp_path / "file").open("wb", buffering=0) as file:
            for _ in range(100):
                file.write(b"x")
                await durable.flushed(file.fileno())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_whoever_listens_wakes_those_whose_syncs_are_done(tmp_path):
    """Also when the one who listened for all is served first, or comes last."""
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for together in (1, 2, 50):
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    for _ in range(together):
                        file.write(b"x")
                        nursery.start_soon(durable.flushed, file.fileno())


class Turns(trio.abc.Instrument):
    """How often the loop waited."""

    count = 0

    def before_io_wait(self, timeout):
        self.count += 1


async def test_who_syncs_alone_on_a_quick_disk_takes_no_turn_of_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "SOON_SECONDS", 60)
    kernel, turns = durable._Kernel(), Turns()
    with (tmp_path / "file").open("wb", buffering=0) as file:
        trio.lowlevel.add_instrument(turns)
        for _ in range(3):
            file.write(b"x")
            await kernel.run(file.fileno(), True)
        trio.lowlevel.remove_instrument(turns)
    assert not turns.count


async def test_a_slow_disk_is_seldom_waited_for_where_the_loop_stands(tmp_path, monkeypatch):
    tried = []
    kernel = durable._Kernel()
    monkeypatch.setattr(kernel._told, "wait", lambda seconds: tried.append(seconds))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for _ in range(100):
            await kernel.run(file.fileno(), True)
    assert 1 < len(tried) < 10


@pytest.mark.mount
async def test_a_kernel_that_has_no_queue_left_to_give_is_done_without(
    tmp_path, monkeypatch, sick_file
):
    def used_up(size):
        raise SystemError(errno.EAGAIN, "fs.aio-max-nr")

    monkeypatch.setattr(durable.linux_aio, "Context", used_up)
    monkeypatch.setattr(durable, "_kernel", functools.cache(durable._kernel.__wrapped__))
    fd = os.open(tmp_path.parent, os.O_RDONLY)
    await durable.flushed(fd)
    os.close(fd)
    with pytest.raises(OSError) as told:
        await durable.flushed(sick_file)
    assert told.value.errno == errno.EIO
