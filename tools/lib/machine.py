"""A hypothesis state machine: random operations of users and of the engine, against a model.

Users' operations go to a mount and to a plain directory (twin.py), the engine's to the mount
alone: they must change nothing that a user sees. Each example has a folder of its own and ends
with fsck, a comparison of every byte, and one more after all was archived and released.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from hsmfs.cli.client import ApiError, Client
from hsmfs.cli.links import SocketLink
from hsmfs.types import CHUNK

from . import twin
from .tempfs import TempFs
from .twin import Differs, Twin

POLICIES = """
[[policy]]
name = "off-the-ssd"
action = "demote"
every = "1000 d"

[[policy]]
name = "save"
action = "archive"
every = "1000 d"
"""
FOLDERS = ("d", "d/s", "e")
PATHS = ("a", "b", "d/a", "d/b", "d/s/a", "d/s/b", "e/a", "e/b")
FIRST = (("a", 70_001), ("d/a", CHUNK + 12_345), ("d/s/a", 300_000), ("e/b", 4096))
"""Files that are there at the start, so that most operations have something to do."""
NAMES = st.sampled_from((*PATHS, *PATHS, *FOLDERS, "a/under-a-file", "missing/x", "n" * 256))
FILES = st.sampled_from(PATHS)
SIZES = st.sampled_from((0, 1, 17, 4096, 5000, 65_536, 70_001, 300_000, CHUNK + 12_345))
SMALL = st.sampled_from((1, 17, 4096, 5000, 70_001))
OFFSETS = st.sampled_from((0, 1, 4095, 4096, 65_536, 100_000, CHUNK - 3, CHUNK + 5000))
SEEDS = st.integers(0, 255)
HANDLES = st.integers(0, 5)
LONG_AGO = st.sampled_from((0, 1, 10**9 + 1, 1_234_567_890_123_456_789))
ORDERS = {"archive": 6, "cancel": 5, "policy": 5, "restart": 12}
"""Operations between two of a kind, at least: some are slow, and no kind shall outweigh others."""


def data(size: int, seed: int) -> bytes:
    """Bytes; of an odd seed such that compress."""
    if seed % 2:
        return (b"%d: text that compresses well\n" % seed * (size // 25 + 1))[:size]
    return random.Random(seed).randbytes(size)


def new_fs(folder: Path) -> TempFs:
    """An hsmfs for the machine: two tiers, many small discs, nothing kept in the trash."""
    folder.mkdir(exist_ok=True)
    policies = folder / "policies.toml"
    policies.write_text(POLICIES)
    return TempFs(
        {
            "library": {"drives": 2, "disc": "32 MiB", "magazines": 40},
            "trash": {"keep": "0 s"},
            "engine": {"policies": policies},
        },
        folder=folder,
        fast_tier=True,
    )


def turn(order: str) -> Callable[[Any], Any]:
    """A rule may be chosen when enough was done since the last one of its kind."""
    return precondition(lambda self: self.since[order] >= ORDERS[order])


class Machine(RuleBasedStateMachine):
    """Set `fs` in a subclass, and `patience_s` unless something else watches for hangs."""

    fs: ClassVar[TempFs]
    patience_s: ClassVar[float] = 0.0
    done: ClassVar[Counter[str]]
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.name = f"example-{os.getpid()}-{type(self).examples}"
        plain = self.fs.folder / "plain"
        plain.mkdir(exist_ok=True)
        self.twin = Twin(self.fs.mountpoint / self.name, plain / self.name)
        self.client = Client(SocketLink(self.fs.socket), timeout=60)
        self.broken = False
        self.since = Counter[str]()
        for folder in FOLDERS:
            self.twin.both(f"mkdir {folder}", lambda root, folder=folder: os.mkdir(root / folder))
        for path, size in FIRST:
            self.twin.both(
                f"make {path}",
                lambda root, path=path, size=size: (root / path).write_bytes(data(size, size)),
            )

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """One operation, counted; afterwards both trees must look the same."""
        self.done[kind] += 1
        for order in ORDERS:
            self.since[order] += 1
        self.broken = True
        with self._patience(kind):
            yield
            self.twin.compare(content=False)
        self.broken = False

    @contextmanager
    def _patience(self, kind: str) -> Iterator[None]:
        def over(*_: object) -> None:
            raise Differs(f"{kind} did not end in {self.patience_s:g} s")

        if not self.patience_s:
            yield
            return
        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, self.patience_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    # What users do with names

    @rule(path=FILES, exclusive=st.booleans(), size=SIZES, seed=SEEDS)
    def create(self, path: str, exclusive: bool, size: int, seed: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)

        def act(root: Any) -> None:
            fd = os.open(root / path, flags | os.O_NONBLOCK, 0o640)
            try:
                os.write(fd, data(size, seed))
            finally:
                os.close(fd)

        with self.step("create"):
            self.twin.both(f"create {path}", act)

    @rule(old=NAMES, new=NAMES, flags=st.sampled_from((0, 0, twin.NOREPLACE, twin.EXCHANGE)))
    def rename(self, old: str, new: str, flags: int) -> None:
        with self.step("rename"):
            self.twin.both(
                f"rename {old} {new} {flags}", lambda root: twin.rename(root, old, new, flags)
            )

    @rule(path=NAMES)
    def unlink(self, path: str) -> None:
        with self.step("unlink"):
            self.twin.both(f"unlink {path}", lambda root: os.unlink(root / path))

    @rule(path=NAMES, mode=st.sampled_from((0o755, 0o700, 0o1777, 0o2775)))
    def mkdir(self, path: str, mode: int) -> None:
        with self.step("mkdir"):
            self.twin.both(f"mkdir {path}", lambda root: os.mkdir(root / path, mode))

    @rule(path=NAMES)
    def rmdir(self, path: str) -> None:
        with self.step("rmdir"):
            self.twin.both(f"rmdir {path}", lambda root: os.rmdir(root / path))

    @rule(old=NAMES, new=NAMES)
    def link(self, old: str, new: str) -> None:
        with self.step("link"):
            self.twin.both(
                f"link {old} {new}",
                lambda root: os.link(root / old, root / new, follow_symlinks=False),
            )

    @rule(path=NAMES, to=st.sampled_from(("a", "d/a", "nowhere", "../e", "x" * 4000)))
    def symlink(self, path: str, to: str) -> None:
        with self.step("symlink"):
            self.twin.both(f"symlink {path}", lambda root: os.symlink(to, root / path))

    @rule(path=NAMES)
    def fifo(self, path: str) -> None:
        with self.step("mkfifo"):
            self.twin.both(f"mkfifo {path}", lambda root: os.mkfifo(root / path, 0o600))

    @rule(path=NAMES)
    def readdir(self, path: str) -> None:
        with self.step("readdir"):
            self.twin.both(f"readdir {path}", lambda root: sorted(os.listdir(root / path)))

    # What users do with attributes

    @rule(path=NAMES, mode=st.sampled_from((0o644, 0o600, 0o4755, 0o2755, 0o1777, 0)))
    def chmod(self, path: str, mode: int) -> None:
        with self.step("chmod"):
            self.twin.both(f"chmod {path}", lambda root: os.chmod(root / path, mode))

    @rule(path=NAMES, uid=st.sampled_from((-1, 0, 1000)), gid=st.sampled_from((-1, 0, 2000)))
    def chown(self, path: str, uid: int, gid: int) -> None:
        with self.step("chown"):
            self.twin.both(f"chown {path}", lambda root: os.lchown(root / path, uid, gid))

    @rule(path=NAMES, ns=LONG_AGO)
    def utimens(self, path: str, ns: int) -> None:
        with self.step("utimens"):
            self.twin.both(
                f"utimens {path}",
                lambda root: os.utime(root / path, ns=(ns, ns), follow_symlinks=False),
            )

    @rule(
        path=NAMES, name=st.sampled_from(("user.one", "user.two", "user.", "nonsense.x")),
        size=st.sampled_from((0, 1, 900)), flags=st.sampled_from((0, 0, 1, 2)),
    )  # fmt: skip
    def setxattr(self, path: str, name: str, size: int, flags: int) -> None:
        with self.step("setxattr"):
            self.twin.both(
                f"setxattr {path} {name} {flags}",
                lambda root: os.setxattr(root / path, name, data(size, size), flags),
            )

    @rule(path=NAMES, name=st.sampled_from(("user.one", "user.two")))
    def removexattr(self, path: str, name: str) -> None:
        with self.step("removexattr"):
            self.twin.both(
                f"removexattr {path} {name}", lambda root: os.removexattr(root / path, name)
            )

    # What users do with bytes

    @rule(path=FILES, offset=OFFSETS, size=SMALL, seed=SEEDS, sync=st.booleans())
    def overwrite(self, path: str, offset: int, size: int, seed: int, sync: bool) -> None:
        def act(root: Any) -> None:
            fd = os.open(root / path, os.O_RDWR | os.O_NONBLOCK)
            try:
                os.pwrite(fd, data(size, seed), offset)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)

        with self.step("overwrite"):
            self.twin.both(f"overwrite {path} {offset}+{size}", act)

    @rule(path=FILES, size=SMALL, seed=SEEDS)
    def append(self, path: str, size: int, seed: int) -> None:
        def act(root: Any) -> None:
            fd = os.open(root / path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
            try:
                os.write(fd, data(size, seed))
            finally:
                os.close(fd)

        with self.step("append"):
            self.twin.both(f"append {path}", act)

    @rule(path=NAMES, size=SIZES)
    def truncate(self, path: str, size: int) -> None:
        def act(root: Any) -> None:
            fd = os.open(root / path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.ftruncate(fd, size)
            finally:
                os.close(fd)

        with self.step("truncate"):
            self.twin.both(f"truncate {path} {size}", act)

    @rule(path=FILES, offset=OFFSETS, size=SIZES)
    def read(self, path: str, offset: int, size: int) -> None:
        def act(root: Any) -> bytes:
            fd = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                return os.pread(fd, size, offset)
            finally:
                os.close(fd)

        with self.step("read"):
            self.twin.both(f"read {path} {offset}+{size}", act)

    @rule(path=NAMES)
    def fsync(self, path: str) -> None:
        with self.step("fsync"):
            self.twin.both(f"fsync {path}", lambda root: twin.fsync(root / path))

    # What users do with open files, also those that lost their names

    @rule(path=FILES, flags=st.sampled_from((os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_CREAT)))
    def open(self, path: str, flags: int) -> None:
        with self.step("open"):
            if len(self.twin.handles) > 5:
                self.twin.close(0)
            self.twin.open(path, flags)

    @rule(handle=HANDLES)
    def close(self, handle: int) -> None:
        with self.step("close"):
            self.twin.close(handle)

    @rule(handle=HANDLES, offset=OFFSETS, size=SMALL)
    def handle_read(self, handle: int, offset: int, size: int) -> None:
        with self.step("read by handle"):
            self.twin.on_handle(
                f"read by handle {offset}+{size}", handle, lambda fd: os.pread(fd, size, offset)
            )

    @rule(handle=HANDLES, offset=OFFSETS, size=SMALL, seed=SEEDS)
    def handle_write(self, handle: int, offset: int, size: int, seed: int) -> None:
        with self.step("write by handle"):
            self.twin.on_handle(
                f"write by handle {offset}+{size}", handle,
                lambda fd: os.pwrite(fd, data(size, seed), offset),
            )  # fmt: skip

    @rule(handle=HANDLES, size=SIZES)
    def handle_truncate(self, handle: int, size: int) -> None:
        with self.step("truncate by handle"):
            self.twin.on_handle(
                f"truncate by handle {size}", handle, lambda fd: os.ftruncate(fd, size)
            )

    @rule(handle=HANDLES)
    def handle_state(self, handle: int) -> None:
        def act(fd: int) -> tuple[int, ...]:
            info = os.fstat(fd)
            return info.st_mode, info.st_size, info.st_nlink, info.st_uid, info.st_gid

        with self.step("fstat, fsync by handle"):
            self.twin.on_handle("fsync by handle", handle, os.fsync)
            self.twin.on_handle("fstat", handle, act)

    # What the engine does

    def _order(self, path: str, **body: Any) -> dict[str, Any]:
        whole = f"/{self.name}/{path}" if path else f"/{self.name}"
        return {"paths": [{"path": whole}], **body}

    def _stream(self, path: str, body: dict[str, Any]) -> None:
        """An order that is told line by line; a path that is not there is no fault."""
        try:
            for _ in self.client.lines("POST", path, body):
                pass
        except ApiError as fault:
            if fault.kind != "NotFound":
                raise

    def _post(self, path: str, body: dict[str, Any]) -> None:
        try:
            self.client.post(path, body)
        except ApiError as fault:
            if fault.kind != "NotFound":
                raise

    @turn("archive")
    @rule(path=st.sampled_from(("", "", "d", *PATHS)), copies=st.integers(1, 2))
    def archive(self, path: str, copies: int) -> None:
        with self.step("archive"):
            self.since["archive"] = 0
            self._stream(
                "/archive",
                self._order(path, copies=copies, now=True, wait=not self.twin.handles),
            )

    @turn("archive")
    @rule(path=st.sampled_from(("", "d")), release=st.booleans())
    def archive_beside(self, path: str, release: bool) -> None:
        with self.step("archive, not waited for"):
            self.since["archive"] = 0
            self._stream("/archive", self._order(path, copies=1, now=True, release=release))

    @rule(path=st.sampled_from(("", "", "d", *PATHS)))
    def release(self, path: str) -> None:
        with self.step("release"):
            self._post("/release", self._order(path))

    @rule(path=st.sampled_from(("", "d", *PATHS)), wait=st.booleans())
    def recall(self, path: str, wait: bool) -> None:
        with self.step("recall"):
            self._stream("/recall", self._order(path, wait=wait))

    @rule(path=st.sampled_from(("d", *PATHS)), pinned=st.booleans())
    def pin(self, path: str, pinned: bool) -> None:
        with self.step("pin"):
            self._post("/pin", self._order(path, pinned=pinned))

    @turn("cancel")
    @rule(path=st.sampled_from(("", *PATHS)))
    def cancel(self, path: str) -> None:
        with self.step("cancel"):
            self.since["cancel"] = 0
            self._post("/cancel", self._order(path))

    @turn("policy")
    @rule(dry=st.booleans())
    def policy(self, dry: bool) -> None:
        with self.step("policy run"):
            self.since["policy"] = 0
            self.client.post("/policy/run", {"name": "off-the-ssd", "dry_run": dry})

    @turn("restart")
    @rule(clean=st.sampled_from((False, False, False, True)))
    def restart(self, clean: bool) -> None:
        with self.step("clean restart" if clean else "kill -9 and restart"):
            self.since["restart"] = 0
            if clean:
                self.twin.drop_handles()
                self.fs.stop()
            else:
                self.fs.kill()
                self.twin.drop_handles()
            self.fs.start()
            self.client = Client(SocketLink(self.fs.socket), timeout=60)

    # The end of an example

    def teardown(self) -> None:
        try:
            if not self.broken:
                with self.step("final comparison"):
                    self._finish()
        finally:
            self.twin.drop_handles()
        if not self.broken:
            shutil.rmtree(self.twin.mount)
            shutil.rmtree(self.twin.plain)

    def _finish(self) -> None:
        self.twin.drop_handles()
        self._stream("/archive", self._order("", copies=2, now=True, wait=True))
        self.client.post("/pin", self._order("", pinned=False))
        self.client.post("/release", self._order(""))
        self.twin.compare(content=True)
        self._stream("/recall", self._order("", wait=True))
        # What a kill left behind may be told as a note and tidied up; nothing may be wrong.
        for repair in (True, False):
            findings = self._fsck(repair=repair)
            bad = [f for f in findings if not repair or f["severity"] != "note"]
            if bad:
                raise Differs(f"fsck: {len(bad)} findings, first {bad[0]}")

    def _fsck(self, *, repair: bool) -> list[Any]:
        """Findings that stay: the daemon works on, so what it is just about to do is no fault."""
        for _ in range(5):
            *_, report = self.client.lines("POST", "/fsck", {"repair": repair, "deep": True})
            if not report["findings"] or repair:
                break
            time.sleep(0.2)
        found: list[Any] = report["findings"]
        return found
