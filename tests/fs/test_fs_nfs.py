"""Requests of nfsd's threads: they do not wait, what they change is durable. nfsd: tests/lab."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from pyfuse3 import FUSEError

from hsmfs.errors import PosixError, RecallFailed
from hsmfs.fs import deputies, keeper, nfs
from hsmfs.types import ROOT, Range, Requester

WHO = Requester(77, 0, 0, "nfsd", nfs=True)


@pytest.fixture
async def served(world, monkeypatch):
    """Eight threads of nfsd, of which this process is one; the library answers to `arrive`."""
    monkeypatch.setattr(nfs, "is_nfsd", lambda pid: True)
    monkeypatch.setattr("hsmfs.fs.handles.requester", lambda ctx: WHO)
    world.operations.nfs.threads = 8
    world.asked = world.wait_for_arrival()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.operations.deputies.run)
        await trio.testing.wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


async def again(world, ino):
    """A client reads, and is told to try again."""
    info = await world.operations.open(ino, os.O_RDONLY, world.caller())
    with pytest.raises(FUSEError) as caught:
        await world.operations.read(info.fh, 0, 3)
    assert caught.value.errno == errno.EAGAIN
    return info.fh


async def test_a_client_is_told_to_ask_again_and_the_recall_goes_on(served, autojump_clock):
    ino = await served.stub(b"f", b"abc")
    began = trio.current_time()
    fh = await again(served, ino)
    assert trio.current_time() - began == served.config.fs.nfs_wait
    for _ in range(3):
        await again(served, ino)
    assert served.asked == [Range(0, 3)]
    await served.arrive(ino, 0, b"abc")
    assert bytes(await served.operations.read(fh, 0, 3)) == b"abc"
    await trio.testing.wait_all_tasks_blocked()
    assert not len(served.operations.deputies)


async def test_what_comes_soon_is_waited_for(served, autojump_clock):
    autojump_clock.autojump_threshold = 0.5  # a thread that works must not be taken for idle
    ino = await served.stub(b"f", b"abc")
    info = await served.operations.open(ino, os.O_RDONLY, served.caller())
    async with trio.open_nursery() as nursery:

        async def robot():
            await trio.sleep(1)
            await served.arrive(ino, 0, b"abc")

        nursery.start_soon(robot)
        assert bytes(await served.operations.read(info.fh, 0, 3)) == b"abc"


async def test_only_half_of_the_threads_wait(served, autojump_clock):
    inos = [await served.stub(b"%d" % n, b"abc") for n in range(8)]
    began, ends = trio.current_time(), []

    async def read(ino):
        await again(served, ino)
        ends.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for ino in inos:
            nursery.start_soon(read, ino)
    assert sorted(ends) == [0.0] * 4 + [served.config.fs.nfs_wait] * 4


async def test_a_recall_that_failed_is_told_when_the_client_comes_again(served, autojump_clock):
    ino = await served.stub(b"f", b"abc")

    async def fail(ino, wanted, who):
        await trio.sleep(5)
        raise RecallFailed("no copy is left")

    served.files.wait_for = fail
    fh = await again(served, ino)
    await trio.sleep(10)
    with pytest.raises(RecallFailed):
        await served.operations.deputies.wait(ino, Range(0, 3), WHO)
    with pytest.raises(RecallFailed):  # as a client asks that read ahead: page by page
        await served.operations.deputies.wait(ino, Range(1, 2), WHO)
    await trio.sleep(deputies.ECHO_SECONDS)
    await again(served, ino)  # and then it is tried anew
    assert fh


async def test_a_wait_that_an_admin_ended_is_an_error_and_not_asked_again(served, autojump_clock):
    ino = await served.stub(b"f", b"abc")

    async def fail(ino, wanted, who):
        await trio.sleep(5)
        raise PosixError(errno.ETIMEDOUT, "the wait was ended by an admin")

    served.files.wait_for = fail
    fh = await again(served, ino)
    await trio.sleep(10)
    with pytest.raises(FUSEError) as told:
        await served.operations.read(fh, 0, 3)
    assert told.value.errno == errno.EIO  # nfsd would make "ask again" of ETIMEDOUT


async def test_a_client_that_went_away_is_forgotten(served, autojump_clock):
    ino = await served.stub(b"f", b"abc")
    await again(served, ino)
    assert len(served.operations.deputies) == 1
    await trio.sleep(deputies.FORSAKEN_SECONDS * 1.5)
    assert not len(served.operations.deputies)


async def test_the_end_of_the_mount_sends_clients_to_the_next_one(served):
    ino = await served.stub(b"f", b"abc")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again, served, ino)
        await trio.testing.wait_all_tasks_blocked()
        served.operations.waits.end()


async def test_what_a_client_changed_is_durable(served):
    who = served.caller()
    for change in (
        lambda: served.operations.mkdir(ROOT, b"d", 0o755, who),
        lambda: served.operations.create(ROOT, b"f", 0o644, os.O_RDWR, who),
        lambda: served.operations.rename(ROOT, b"f", ROOT, b"g", 0, who),
        lambda: served.operations.setxattr(served.at(b"g").ino, b"user.a", b"1", who),
        lambda: served.operations.unlink(ROOT, b"g", who),
    ):
        before = served.catalog.commits
        await change()
        assert served.catalog.commits > before
        assert served.catalog.durable == served.catalog.commits


async def test_without_nfsd_nobody_pays_for_it(world):
    await world.operations.mkdir(ROOT, b"d", 0o755, world.caller())
    assert world.catalog.durable < world.catalog.commits


def test_a_program_called_nfsd_is_none():
    code = "open('/proc/self/comm', 'w').write('nfsd'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        program.stdout.readline()
        assert Path(f"/proc/{program.pid}/comm").read_text() == "nfsd\n"
        assert not nfs.is_nfsd(program.pid)
        program.communicate(b"\n")


@pytest.mark.mount
def test_the_keeper_answers_for_a_killed_daemon(tmp_path, repo):
    """Also the request that the daemon had taken and never answered."""
    code = (
        "import os, subprocess, sys, time; from pathlib import Path; from hsmfs.fs import kernel;"
        "fd, _ = kernel.mount(Path(sys.argv[1]), allow_other=False); end, ours = os.pipe();"
        "subprocess.Popen([sys.executable, '-I', '-S', sys.argv[2], str(fd), str(end),"
        " sys.argv[1]], pass_fds=(fd, end)); os.close(end);"
        # FUSE_INIT is answered: version 7.31 and nothing else; then one request is taken.
        "import struct; unique = struct.unpack_from('=IIQ', os.read(fd, 1 << 21))[2];"
        "body = struct.pack('=IIIIHHIIHHI', 7, 31, 65536, 0, 12, 9, 65536, 1, 1, 0, 0) + bytes(28);"
        "os.write(fd, struct.pack('=IiQ', 16 + len(body), 0, unique) + body);"
        "print(flush=True); os.read(fd, 1 << 21); print(flush=True); time.sleep(60)"
    )
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    daemon = subprocess.Popen(
        [sys.executable, "-c", code, mountpoint, keeper.__file__], stdout=subprocess.PIPE, cwd=repo
    )
    try:
        assert daemon.stdout.readline() == b"\n"
        client = subprocess.Popen(
            [sys.executable, "-c", "import os, sys\ntry: os.statvfs(sys.argv[1])\n"
             "except OSError as e: sys.exit(e.errno)", mountpoint],
        )  # fmt: skip
        assert daemon.stdout.readline() == b"\n"  # it was taken
        assert client.poll() is None
        daemon.send_signal(signal.SIGKILL)
        assert client.wait(20) == errno.ETIMEDOUT
        with pytest.raises(TimeoutError):
            os.statvfs(mountpoint)
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        subprocess.run(["umount", "-l", mountpoint], check=True)
