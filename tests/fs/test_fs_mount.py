"""A real mount: what only the kernel can ask for, and in its own way."""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
import trio

from hsmfs.engine.adopt import Adopter
from hsmfs.engine.events import Events
from hsmfs.errors import Conflict
from hsmfs.fs import core, kernel
from hsmfs.fs.acl import Acl
from hsmfs.fs.mount import mounted
from hsmfs.types import ROOT

pytestmark = pytest.mark.mount
libc = ctypes.CDLL(None, use_errno=True)


def put(path, data=b""):
    with open(path, "wb") as file:
        file.write(data)


def get(path):
    with open(path, "rb") as file:
        return file.read()


def rename(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def number(f, *args):
    """The errno of a call that must fail."""
    with pytest.raises(OSError) as caught:
        f(*args)
    return caught.value.errno


async def until(condition):
    """The kernel tells nobody when a request has arrived."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


def cached(mount):
    """Stubs are read through the kernel's page cache, as with migrated_open = "buffered"."""
    old = mount.operations.config
    fs = old.fs.model_copy(update={"migrated_open": "buffered"})
    mount.operations.config = old.model_copy(update={"fs": fs})


@pytest.fixture
def root(mount, world):
    return os.fsencode(world.mountpoint)


async def test_names_of_any_bytes(root, call):
    names = sorted([b"\xff\xfe", b"a\nb", b" ", b"\xe2\x82\xac", b"\x01", b"%s", b"x" * 255])

    def use():
        for name in names:
            put(root + b"/" + name, name)
        assert sorted(os.listdir(root)) == names
        assert [get(root + b"/" + name) for name in names] == names
        assert number(os.stat, root + b"/" + b"x" * 256) == errno.ENAMETOOLONG

    await call(use)


async def test_an_unlinked_file_lives_while_it_is_open(root, call, world):
    def use():
        with open(root + b"/f", "w+b", buffering=0) as file:
            ino = os.fstat(file.fileno()).st_ino
            file.write(b"bytes")
            os.unlink(root + b"/f")
            assert os.fstat(file.fileno()).st_nlink == 0
            assert os.pread(file.fileno(), 9, 0) == b"bytes"
            os.ftruncate(file.fileno(), 3)
            assert os.pread(file.fileno(), 9, 0) == b"byt"
            return ino

    ino = await call(use)
    with trio.fail_after(10):
        await until(lambda: not os.path.exists(world.pool.path_of(ino)))
    assert world.files.attr(ino) is None


@pytest.mark.parametrize(
    ("old", "new", "flags", "answer"),
    [
        ("file", "file2", 0, 0), ("file", "none", 0, 0), ("dir", "empty", 0, 0),
        ("dir", "full", 0, errno.ENOTEMPTY), ("dir", "file", 0, errno.ENOTDIR),
        ("file", "dir", 0, errno.EISDIR), ("dir", "dir/sub", 0, errno.EINVAL),
        ("file", "file2", 1, errno.EEXIST), ("file", "none", 1, 0),
        ("file", "full", 2, 0), ("file", "none", 2, errno.ENOENT),
        ("file", "none", 4, errno.EINVAL),
    ],
)  # fmt: skip
async def test_rename(root, call, old, new, flags, answer):
    def use():
        base = root.decode()
        for name in ("dir", "empty", "full", "full/sub"):
            os.mkdir(f"{base}/{name}")
        for name in ("file", "file2"):
            put(f"{base}/{name}", name.encode())
        before = os.stat(f"{base}/{old}").st_ino
        if answer:
            assert number(rename, f"{base}/{old}", f"{base}/{new}", flags) == answer
            assert os.stat(f"{base}/{old}").st_ino == before
        else:
            rename(f"{base}/{old}", f"{base}/{new}", flags)
            assert os.stat(f"{base}/{new}").st_ino == before
            assert os.path.exists(f"{base}/{old}") == (flags == 2)
        folders = sum(os.path.isdir(f"{base}/{name}") for name in os.listdir(base))
        assert os.stat(base).st_nlink == 2 + folders

    await call(use)


async def test_hard_links_are_one_file(root, call):
    def use():
        put(root + b"/a", b"one")
        os.link(root + b"/a", root + b"/b")
        put(root + b"/b", b"two")
        a, b = os.stat(root + b"/a"), os.stat(root + b"/b")
        assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
        assert get(root + b"/a") == b"two"
        os.unlink(root + b"/a")
        assert os.stat(root + b"/b").st_nlink == 1

    await call(use)


async def test_xattrs(root, call):
    def use():
        path = root + b"/f"
        put(path)
        for name in ("user.a", "trusted.b", "security.c"):
            os.setxattr(path, name, b"\0value")
        assert sorted(os.listxattr(path)) == ["security.c", "trusted.b", "user.a"]
        assert os.getxattr(path, "user.a") == b"\0value"
        create, replace = os.XATTR_CREATE, os.XATTR_REPLACE
        assert number(os.setxattr, path, "user.a", b"", create) == errno.EEXIST
        assert number(os.setxattr, path, "user.z", b"", replace) == errno.ENODATA
        os.removexattr(path, "user.a")
        assert number(os.getxattr, path, "user.a") == errno.ENODATA
        assert number(os.setxattr, path, "nope.a", b"") == errno.EOPNOTSUPP
        assert os.getxattr(path, "user.hsm.state") == b"resident"

    await call(use)


async def test_a_write_takes_privileges_away(root, call):
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    script = "import os; os.setuid(1000); os.write(os.open('f', os.O_WRONLY), b'x')"

    def use():
        path = root + b"/f"
        put(path, b"old")
        os.chmod(path, 0o6777)
        os.setxattr(path, "security.capability", capability)
        put(path)  # root keeps the bits, and nobody the capability
        assert os.stat(path).st_mode & 0o7777 == 0o6777
        with open(path, "wb") as file:
            file.write(b"x")
        assert number(os.getxattr, path, "security.capability") == errno.ENODATA
        subprocess.run([sys.executable, "-c", script], check=True, cwd=root)
        assert os.stat(path).st_mode & 0o7777 == 0o777

    await call(use)


async def test_readers_see_what_a_write_only_handle_wrote(root, call):
    def use():
        path = root + b"/f"
        put(path, b"a" * 16384)
        with open(path, "rb", buffering=0) as reader:
            assert reader.read() == b"a" * 16384  # cached now
            fd = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(fd, b"b" * 5000, 4000)
                assert os.pread(reader.fileno(), 16384, 0) == (
                    b"a" * 4000 + b"b" * 5000 + b"a" * 7384
                )
            finally:
                os.close(fd)

    await call(use)


async def test_a_default_acl_overrides_the_umask(root, call):
    def use():
        # In a process of its own: the umask is the whole process's.
        script = (
            "import os, sys; os.umask(0o077); p = sys.argv[1];"
            "os.mkdir(p + '/d', 0o777); os.close(os.open(p + '/f', os.O_CREAT, 0o666))"
        )
        nobody = 2**32 - 1
        default = Acl(
            ((1, 7, nobody), (2, 5, 1000), (4, 7, nobody), (16, 7, nobody), (32, 5, nobody))
        )
        subprocess.run([sys.executable, "-c", script, root.decode()], check=True)
        assert os.stat(root + b"/f").st_mode & 0o777 == 0o600
        os.mkdir(root + b"/acl")
        os.setxattr(root + b"/acl", core.DEFAULT, default.value())
        subprocess.run([sys.executable, "-c", script, root.decode() + "/acl"], check=True)
        assert os.stat(root + b"/acl/f").st_mode & 0o777 == 0o664
        assert os.stat(root + b"/acl/d").st_mode & 0o777 == 0o775
        assert Acl.parse(os.getxattr(root + b"/acl/f", core.ACCESS)).bits(16) == 6
        assert os.getxattr(root + b"/acl/d", core.DEFAULT) == default.value()

    await call(use)


@pytest.mark.slow
async def test_a_large_folder_is_listed_while_it_is_emptied(root, call, world):
    async with world.catalog.write():
        for i in range(10_000):
            world.catalog.names.create(ROOT, b"%05d" % i, 0o100644, 0, 0, 10**18)

    def use():
        seen = []
        with os.scandir(root) as entries:
            for entry in entries:
                seen.append(entry.name)
                os.unlink(entry.path)
        assert seen == [b"%05d" % i for i in range(10_000)]
        assert os.listdir(root) == []

    await call(use)


async def test_a_reader_waits_for_its_range_alone(root, call, world):
    ino = await world.stub(b"s", b"x" * 3_000_000)
    asked = world.wait_for_arrival()
    got = []

    async def read():
        fd = await call(os.open, root + b"/s", os.O_RDONLY)
        got.append(await call(os.pread, fd, 1000, 1_000_000))
        await call(os.close, fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(10):
            await until(lambda: asked)
        assert (asked[0].start, asked[0].end) == (1_000_000, 1_001_000)
        await world.arrive(ino, 1_000_000, b"b" * 4096)
    assert got == [b"b" * 1000]


@pytest.mark.slow
async def test_500_waiting_readers_keep_nobody_else_waiting(root, call, world, mount):
    cached(mount)  # the worse case: the kernel's own limit counts
    for i in range(500):
        await world.stub(b"s%d" % i, b"x")
    world.wait_for_arrival()
    await call(put, root + b"/resident", b"here")
    await call(drop_pages, root + b"/resident")

    async def read(name):
        assert await call(get, root + name) == b"r"

    async with trio.open_nursery() as nursery:
        for i in range(500):
            nursery.start_soon(read, b"/s%d" % i)
        with trio.fail_after(30):
            await until(lambda: len(mount.operations.waits) == 500)
            assert await call(get, root + b"/resident") == b"here"
            await call(put, root + b"/new", b"x")
        for i in range(500):
            await world.arrive(world.at(b"/s%d" % i).ino, 0, b"r")


def drop_pages(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


async def test_telling_the_kernel_does_not_wait_for_readers(root, call, world, mount):
    ino = await world.stub(b"s", b"x" * 8192)
    world.wait_for_arrival()
    cached(mount)
    before = await call(os.stat, root + b"/s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, get, root + b"/s")
        with trio.fail_after(10):
            await until(lambda: len(mount.operations.waits))
            await world.arrive(ino, 0, b"y" * 4096)
            while (await call(os.stat, root + b"/s")).st_blocks == before.st_blocks:
                await trio.lowlevel.checkpoint()
            await world.arrive(ino, 4096, b"y" * 4096)


@pytest.mark.expect_log("fault of hsmfs")
async def test_a_fault_of_ours_does_not_end_the_mount(root, call, mount, monkeypatch):
    await call(put, root + b"/f", b"x")

    def broken(attr):
        raise KeyError("a bug")

    monkeypatch.setattr(mount.operations, "known", broken)
    assert await call(number, os.mkdir, root + b"/d") == errno.EIO
    monkeypatch.undo()
    assert await call(get, root + b"/f") == b"x"


async def test_shared_mappings_of_resident_files(root, call):
    # In a process of its own: a page fault waits with Python's lock held, and we are the server.
    script = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b'); mapping = mmap.mmap(file.fileno(), 0);"
        "mapping[100:103] = b'abc'; mapping.flush()"
    )
    await call(put, root + b"/f", b"x" * 8192)
    await call(subprocess.run, [sys.executable, "-c", script, root.decode() + "/f"], check=True)
    assert (await call(get, root + b"/f"))[98:105] == b"xxabcxx"


@pytest.mark.expect_log(r"fuse_release\(\): .* No such file")  # the connection may be gone by then
async def test_the_end_of_the_mount_answers_who_waits(world, call):
    await world.stub(b"s", b"x" * 10)
    world.wait_for_arrival()
    path = os.fsencode(world.mountpoint) + b"/s"
    answers = []

    def read():
        fd = os.open(path, os.O_RDONLY)
        answers.append(number(os.read, fd, 10))
        with contextlib.suppress(OSError):  # the connection may be gone by now
            os.close(fd)

    async with mounted(world.config, world.files, Events(), world.trust) as mount:
        reader = threading.Thread(target=read)
        reader.start()
        with trio.fail_after(10):
            await until(lambda: len(mount.operations.waits))
    reader.join(10)
    assert answers == [errno.EIO]
    assert not os.path.ismount(world.mountpoint)


async def test_an_unmount_from_outside_ends_it(world, call):
    async with mounted(world.config, world.files, Events(), world.trust) as mount:
        await call(partial(kernel.unmount, lazy=False), world.mountpoint)
        with trio.fail_after(10):
            await mount.ended.wait()


@pytest.mark.expect_log("killed daemon left")
async def test_what_a_killed_daemon_left_is_taken_away(world, call):
    hold = (
        "import sys, time; from pathlib import Path; from hsmfs.fs import kernel;"
        "kernel.mount(Path(sys.argv[1]), allow_other=True); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(  # noqa: ASYNC220 - it is read in a thread
        [sys.executable, "-c", hold, str(world.mountpoint)], stdout=subprocess.PIPE
    ) as dead:
        await call(dead.stdout.readline)
        dead.send_signal(signal.SIGKILL)
    async with mounted(world.config, world.files, Events(), world.trust):
        assert await call(os.listdir, world.mountpoint) == []


def test_limits_of_the_process_suit_serving_files():
    code = (
        "from hsmfs.fs import kernel; kernel.tune_process();"
        "print(open('/proc/self/status').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert int(lines["FDSize"]) >= min(most, 1 << 18)
    assert not int(lines["CapEff"], 16) & 1 << 24  # or libfuse fetches requests through a pipe


async def test_two_mounts_on_one_folder_are_refused(mount, world, call):
    with pytest.raises(Conflict):
        await call(kernel.mount, world.mountpoint, allow_other=True)


async def test_an_adopted_tree_shows_below_folders_that_are_known(world, mount, call, tmp_path):
    """Attributes are remembered for minutes; clients of NFS ask a folder's ctime what is new."""
    old = world.mountpoint / "nas/old"
    await call(os.makedirs, old)
    before = await call(os.stat, old)
    assert await call(number, os.stat, old / "new") == errno.ENOENT
    tree = tmp_path / "tree/old/new"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"x")
    adopter = Adopter(world.catalog, world.files.pools, world.files)
    report = await adopter.adopt(os.fsencode(tmp_path / "tree"), b"/nas")
    assert report.done and report.files == 1
    assert await call(get, old / "new/file") == b"x"
    with trio.fail_after(10):
        while (now := await call(os.stat, old)).st_nlink == 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert now.st_nlink == 3 and now.st_ctime_ns > before.st_ctime_ns
    assert now.st_mtime_ns == before.st_mtime_ns
