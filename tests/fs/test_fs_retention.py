"""Retention on a real mount: what becomes a record, and what nobody can do to it, root included."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from hsmfs.catalog.retention import FOREVER, Folder
from hsmfs.states import RetentionMode

pytestmark = pytest.mark.mount
libc = ctypes.CDLL(None, use_errno=True)
DAY = 86_400 * 10**9
YEAR = 366 * DAY
HOUR = 3600 * 10**9
READ_ONLY = struct.pack("<BxHHxxIIQ", 0, 5, 5, 1, 0x21, 0)
"""What Samba stores of a file with the attributes read-only and archive."""


def put(path: str, data: bytes = b"bytes") -> None:
    with open(path, "wb") as file:
        file.write(data)


def get(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def refused(f: Callable, *args: object, **named: object) -> None:
    """EPERM, and nothing else."""
    with pytest.raises(PermissionError) as caught:
        f(*args, **named)
    assert caught.value.errno == errno.EPERM


def seen(path: str) -> dict:
    return json.loads(os.getxattr(path, "user.hsm.retention"))


def exchange(one: str, two: str) -> None:
    if libc.renameat2(-100, one.encode(), -100, two.encode(), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.fixture
async def folder(mount, world, call):
    """A retention folder 'r' of a year and its path; `folder.again(...)` changes its settings."""

    class Made:
        path = f"{world.mountpoint}/r"
        trust = world.trust

        @staticmethod
        async def again(**changes: object) -> None:
            ino = world.at(b"r").ino
            given = {
                "mode": RetentionMode.COMPLIANCE, "min_ns": DAY, "default_ns": YEAR,
                "max_ns": 30 * YEAR, "autocommit_ns": None,
            } | changes  # fmt: skip
            await world.trust.retention.set_folder(Folder(ino, **given), "test")

        @staticmethod
        def kinds() -> list[str]:
            return [record.kind for record in world.trust.audit.log.after(0)]

        @staticmethod
        def pass_time(ns: int) -> None:
            world.trust.clock._base += ns

    await call(os.mkdir, Made.path)
    await Made.again()
    return Made


@pytest.fixture
async def record(folder, call):
    """The path of a record."""
    path = f"{folder.path}/file"

    def make():
        put(path)
        os.setxattr(path, "user.a", b"1")
        os.chmod(path, 0o444)

    await call(make)
    return path


ATTEMPTS = {
    "write": lambda p: os.open(p, os.O_WRONLY),
    "read and write": lambda p: os.open(p, os.O_RDWR),
    "append": lambda p: os.open(p, os.O_WRONLY | os.O_APPEND),
    "cut by open": lambda p: os.open(p, os.O_RDONLY | os.O_TRUNC),
    "create over it": lambda p: os.open(p, os.O_WRONLY | os.O_CREAT),
    "truncate": lambda p: os.truncate(p, 1),
    "grow": lambda p: os.truncate(p, 100),
    "unlink": os.unlink,
    "rename": lambda p: os.rename(p, p + "2"),
    "move out": lambda p: os.rename(p, os.path.dirname(p) + "/../file"),
    "rename over": lambda p: (put(p + "3"), os.rename(p + "3", p)),
    "exchange": lambda p: (put(p + "3"), exchange(p + "3", p)),
    "link": lambda p: os.link(p, p + "2"),
    "write permission": lambda p: os.chmod(p, 0o644),
    "owner": lambda p: os.chown(p, 1000, -1),
    "group": lambda p: os.chown(p, -1, 1000),
    "mtime": lambda p: os.utime(p, ns=(os.stat(p).st_atime_ns, 1)),
    "touch": lambda p: os.utime(p),
    "shorten": lambda p: os.utime(p, ns=(os.stat(p).st_atime_ns - DAY, os.stat(p).st_mtime_ns)),
    "set xattr": lambda p: os.setxattr(p, "user.b", b"2"),
    "change xattr": lambda p: os.setxattr(p, "user.a", b"2"),
    "remove xattr": lambda p: os.removexattr(p, "user.a"),
    "security xattr": lambda p: os.setxattr(p, "security.a", b"2"),
    "trusted xattr": lambda p: os.setxattr(p, "trusted.a", b"2"),
    "ACL": lambda p: os.setxattr(
        p, "system.posix_acl_access",
        struct.pack("<I", 2) + b"".join(
            struct.pack("<HHI", *e)
            for e in ((1, 6, 2**32 - 1), (2, 6, 1000), (4, 6, 2**32 - 1), (16, 6, 2**32 - 1),
                      (32, 6, 2**32 - 1))
        ),
    ),
    "DOS attributes": lambda p: os.setxattr(p, "user.DOSATTRIB", READ_ONLY),
    "remove the folder": lambda p: os.rename(os.path.dirname(p), os.path.dirname(p) + "2"),
}  # fmt: skip


@pytest.mark.parametrize("what", ATTEMPTS)
async def test_root_cannot(what, record, folder, call):
    def state():
        return get(record), os.stat(record).st_mode, os.stat(record).st_atime_ns

    before = await call(state)
    await call(refused, ATTEMPTS[what], record)
    assert await call(state) == before
    assert folder.kinds()[-1] == "retention.refused"


@pytest.mark.parametrize("what", ["rename", "unlink", "write"])
async def test_a_refusal_is_on_record_with_the_path_that_is(what, record, folder, world, call):
    """Not with the one that it would have had, or none."""
    await call(refused, ATTEMPTS[what], record)
    *_, last = world.trust.audit.log.after(0)
    assert last.object == f"/{os.path.relpath(record, world.mountpoint)}"
    assert json.loads(last.detail)["reason"].startswith("retained until")


async def test_what_stays_possible(record, call):
    def use():
        assert get(record) == b"bytes"
        os.chmod(record, 0o440)
        assert os.stat(record).st_mode & 0o777 == 0o440
        os.setxattr(record, "user.a", b"1")  # it is what it was
        assert os.getxattr(record, "user.hsm.state") == b"resident"

    await call(use)


async def test_until_when(folder, call):
    def use():
        now = folder.trust.clock.now_ns()
        asked = {"a": 0, "b": now + 5 * YEAR, "c": now + 2 * HOUR, "d": now + 100 * YEAR}
        asked["e"] = now + HOUR // 2
        for name, atime in asked.items():
            path = f"{folder.path}/{name}"
            put(path)
            os.utime(path, ns=(atime, 10**18))
            os.chmod(path, 0o400)
        until = {name: seen(f"{folder.path}/{name}")["until_ns"] for name in asked}
        assert until["b"] == asked["b"]
        for name, years in (("a", 1), ("e", 1), ("c", 1 / 366), ("d", 30)):
            assert 0 <= until[name] - now - years * YEAR < 10 * 10**9
        assert os.stat(f"{folder.path}/b").st_atime_ns == asked["b"]
        get(f"{folder.path}/b")
        assert os.stat(f"{folder.path}/b").st_atime_ns == asked["b"]
        return now

    await call(use)


async def test_extended_by_atime_and_never_shortened(record, folder, call):
    def use():
        mtime, later = os.stat(record).st_mtime_ns, folder.trust.clock.now_ns() + 2 * YEAR
        os.utime(record, ns=(later, mtime))
        assert seen(record)["until_ns"] == later == os.stat(record).st_atime_ns
        refused(os.utime, record, ns=(later - 1, mtime))
        os.utime(record, ns=(later + 1000 * YEAR, mtime))
        until = seen(record)["until_ns"]
        assert abs(until - folder.trust.clock.now_ns() - 30 * YEAR) < 10 * 10**9

    await call(use)
    assert "retention.extended" in folder.kinds()


async def test_after_its_time(record, folder, call):
    folder.pass_time(YEAR + 10**9)

    def use():
        assert seen(record)["state"] == "expired"
        for what in ("write", "truncate", "rename", "link", "mtime", "set xattr"):
            refused(ATTEMPTS[what], record)
        os.chmod(record, 0o644)
        refused(os.open, record, os.O_WRONLY)
        os.chmod(record, 0o444)  # committed again, for the default
        assert seen(record)["state"] == "retained"
        refused(os.unlink, record)

    await call(use)
    folder.pass_time(YEAR + 10**9)
    await call(os.unlink, record)
    assert folder.kinds()[-1] in ("file.deleted", "file.purged")


async def test_the_wall_clock_changes_nothing(record, call, monkeypatch):
    from hsmfs import clock

    monkeypatch.setattr(clock.WALL, "now_ns", lambda: 4 * 10**18)
    await call(refused, os.unlink, record)


MAPPED = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b"one")
os.fchmod(fd, 0o444)
os.write(fd, b"two")
os.utime(fd, ns=(0, 5))  # as cp -p and tar do before they close
shared = mmap.mmap(fd, 6)
os.close(fd)
print(os.getxattr(sys.argv[1], "user.hsm.retention").decode(), flush=True)
sys.stdin.readline()
shared[0:3] = b"ONE"
"""


async def test_a_writer_may_finish_first(folder, call):
    path = f"{folder.path}/file"

    def use():
        words = [sys.executable, "-c", MAPPED, path]
        with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as child:
            assert json.loads(child.stdout.readline())["state"] == "closing"
            for what in ("write", "truncate", "unlink", "rename", "write permission", "set xattr"):
                refused(ATTEMPTS[what], path)
            child.communicate("\n")
        assert child.returncode == 0
        while seen(path)["state"] == "closing":
            pass  # the kernel tells us of the last close, but nobody else
        assert seen(path)["state"] == "retained"
        assert get(path) == b"ONEtwo"
        refused(os.open, path, os.O_WRONLY)

    await call(use)


async def test_what_was_to_be_committed_is_after_a_crash(folder, call, world):
    path = f"{folder.path}/file"

    def leave():
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.fchmod(fd, 0o444)
        return fd

    fd = await call(leave)
    await world.trust.begin()
    assert (await call(seen, path))["state"] == "retained"
    await call(refused, os.write, fd, b"x")
    await call(os.close, fd)


async def test_records_that_grow(folder, call):
    path = f"{folder.path}/log"

    def use():
        put(path, b"")
        os.chmod(path, 0o444)
        os.chmod(path, 0o644)
        assert seen(path)["state"] == "appendable"
        with open(path, "r+b", buffering=0) as file:
            file.write(b"one")
            file.write(b"two")
            refused(os.pwrite, file.fileno(), b"X", 0)
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(OSError):
            mmap.mmap(fd, 6)
        os.close(fd)
        refused(os.truncate, path, 0)
        refused(os.unlink, path)
        os.chmod(path, 0o444)
        refused(os.open, path, os.O_WRONLY | os.O_APPEND)
        assert get(path) == b"onetwo"
        refused(os.chmod, path, 0o644)  # it is not empty any more

    await call(use)


async def test_samba_commits_by_its_read_only_attribute(folder, call):
    path = f"{folder.path}/file"

    def use():
        put(path)
        os.setxattr(path, "user.DOSATTRIB", READ_ONLY)
        assert seen(path)["state"] == "retained"
        assert os.stat(path).st_mode & 0o222 == 0
        refused(os.setxattr, path, "user.DOSATTRIB", READ_ONLY.replace(b"\x21", b"\x20"))

    await call(use)
    folder.pass_time(2 * YEAR)
    await call(os.setxattr, path, "user.DOSATTRIB", READ_ONLY.replace(b"\x21", b"\x20"))
    await call(os.unlink, path)


async def test_folders(folder, call):
    def use():
        deep = f"{folder.path}/a/b"
        os.makedirs(deep)
        os.mkdir(f"{folder.path}/empty")
        put(f"{deep}/file")
        os.chmod(f"{deep}/file", 0o444)
        assert seen(f"{deep}/file")["state"] == "retained"
        refused(os.rename, deep, f"{folder.path}/c")
        refused(os.rename, f"{folder.path}/a", f"{folder.path}/c")
        refused(os.rename, f"{folder.path}/a", f"{folder.path}/../c")
        os.rename(f"{folder.path}/empty", f"{folder.path}/void")
        os.rmdir(f"{folder.path}/void")
        os.mkdir(f"{folder.path}/../full")
        put(f"{folder.path}/../full/x")
        refused(os.rename, f"{folder.path}/../full", f"{folder.path}/full")

    await call(use)


async def test_a_folder_above_a_retention_folder_stays_where_it_is(mount, world, call):
    top = f"{world.mountpoint}/top"
    await call(os.makedirs, f"{top}/r")
    ino = world.at(b"top/r").ino
    await world.trust.retention.set_folder(
        Folder(ino, RetentionMode.ENTERPRISE, 0, DAY, FOREVER, None), "test"
    )
    await call(refused, os.rename, top, f"{world.mountpoint}/other")
    await call(refused, os.rmdir, f"{top}/r")
    await call(os.mkdir, f"{world.mountpoint}/empty")
    await call(refused, os.rename, f"{world.mountpoint}/empty", f"{top}/r")
    assert world.at(b"top/r").ino == ino


async def test_only_the_last_write_permission_commits(folder, call):
    path = f"{folder.path}/file"

    def use():
        put(path)
        os.chmod(path, 0o464)
        assert seen(path)["state"] == "none"
        os.rename(path, path + "2")
        os.chmod(path + "2", 0o444)
        assert seen(path + "2")["state"] == "retained"
        other = f"{folder.path}/../elsewhere"
        put(other)
        os.chmod(other, 0o444)
        assert seen(other)["state"] == "none"
        os.unlink(other)

    await call(use)
