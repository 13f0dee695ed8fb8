"""A life of files on a mount, with a model of what was acknowledged and what was made durable.

The lab performs operations on a TempFs whose daemon may die at any of them. `compare` then looks
at every path and names those that are neither what was acknowledged nor, for the operation that
was under way, what it would have become.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from lib.tempfs import TempFs, TempFsError

Entry = tuple[str, bytes] | None
"""('file', content), ('link', target), ('dir', b''), or None for absent."""
Judge = Callable[[Entry], bool]
D = TypeVar("D")
CHUNK = 4 << 20
PATIENCE_S = 5.0


class Died(Exception):
    """The daemon went away, as it was told to."""


class Lab:
    """Operations, and the model beside them.

    Attributes:
        model: path below the mount to what was acknowledged.
        groups: names of one inode, where there are several.
        durable: paths whose model entry was made durable and not touched since.
        doubt: for the operation under way, what each touched path may be instead.
        unfinished: an order that is to be given again after a crash, and what it leads to.
        origin, origin_at: the model at a time (UTC, as `--to` wants it) that can be gone back to.
    """

    def __init__(self, fs: TempFs, seed: int) -> None:
        self.fs = fs
        self.random = random.Random(seed)
        self.model: dict[str, Entry] = {}
        self.groups: list[set[str]] = []
        self.durable: set[str] = set()
        self.doubt: dict[str, Judge] = {}
        self.steps = 0
        self.unfinished: tuple[tuple[str, ...], dict[str, Entry]] | None = None
        self.origin: dict[str, Entry] = {}
        self.origin_at = ""

    def data(self, size: int) -> bytes:
        """Bytes that do not compress and differ each time."""
        return self.random.randbytes(size)

    @contextmanager
    def step(self, doubt: dict[str, Judge]) -> Iterator[None]:
        """One operation: if the daemon dies in it, each path may be as before or as judged."""
        self.doubt = doubt
        self.durable -= set(doubt)
        self.steps += 1
        try:
            yield
        except (OSError, TempFsError):
            if self.dead(PATIENCE_S):
                raise Died from None
            raise
        if self.dead():
            raise Died
        self.doubt = {}

    def dead(self, patience: float = 0.0) -> bool:
        """Whether the daemon ended; after a fault it gets a moment to be seen as dead."""
        if self.fs.daemon is None:
            return True
        try:
            self.fs.daemon.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def path(self, name: str) -> Path:
        return self.fs.mountpoint / name

    def group(self, name: str) -> set[str]:
        """All names of the inode."""
        return next((names for names in self.groups if name in names), {name})

    def _leave_group(self, name: str) -> None:
        for names in self.groups:
            names.discard(name)

    def _changed(self, name: str, entry: Entry, fsynced: bool) -> None:
        for n in self.group(name):
            self.model[n] = entry
        if fsynced:
            self.durable.add(name)

    # Operations

    def mkdir(self, name: str) -> None:
        with self.step({name: lambda e: e == ("dir", b"")}):
            self.path(name).mkdir()
        self.model[name] = ("dir", b"")

    def write(self, name: str, data: bytes, *, fsync: bool = False, block: int = 1 << 20) -> None:
        """Make or overwrite a file from its start, in calls of block bytes."""
        before = self.model.get(name)
        old = before[1] if before else b""
        whole = data + old[len(data) :]

        def torn(entry: Entry) -> bool:
            if entry is None:
                return before is None
            kind, found = entry
            done = common_prefix(found, whole)
            return (
                kind == "file"
                and len(found) >= len(old)
                and found[done:] == old[done : len(found)]
            )

        with self.step(dict.fromkeys(self.group(name), torn)):
            fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o640)
            try:
                for start in range(0, len(data), block):
                    os.pwrite(fd, data[start : start + block], start)
                if fsync:
                    os.fsync(fd)
            finally:
                os.close(fd)
        self._changed(name, ("file", whole), fsync)

    def overwrite(self, name: str, offset: int, data: bytes, *, fsync: bool = False) -> None:
        """One pwrite into a file that is there."""
        entry = self.model[name]
        assert entry is not None
        old = entry[1].ljust(offset + len(data), b"\0")
        new = old[:offset] + data + old[offset + len(data) :]
        either = {entry[1], new, new[:offset]}
        judge = {n: lambda e: e is not None and e[1] in either for n in self.group(name)}
        with self.step(judge):
            fd = os.open(self.path(name), os.O_RDWR)
            try:
                os.pwrite(fd, data, offset)
                if fsync:
                    os.fsync(fd)
            finally:
                os.close(fd)
        self._changed(name, ("file", new), fsync)

    def truncate(self, name: str, size: int) -> None:
        entry = self.model[name]
        assert entry is not None
        new = ("file", entry[1][:size].ljust(size, b"\0"))
        with self.step({n: lambda e: e in (entry, new) for n in self.group(name)}):
            os.truncate(self.path(name), size)
        self._changed(name, new, False)

    def rename(self, old: str, new: str) -> None:
        moved, replaced = self.model[old], self.model.get(new)
        with self.step({old: lambda e: e in (moved, None), new: lambda e: e in (moved, replaced)}):
            os.rename(self.path(old), self.path(new))
        self.model[new], self.model[old] = moved, None
        self._leave_group(new)
        for names in self.groups:
            if old in names:
                names ^= {old, new}

    def unlink(self, name: str) -> None:
        gone = self.model[name]
        with self.step({name: lambda e: e in (gone, None)}):
            self.path(name).unlink()
        self.model[name] = None
        self._leave_group(name)

    def link(self, old: str, new: str) -> None:
        entry = self.model[old]
        with self.step({new: lambda e: e in (entry, None)}):
            os.link(self.path(old), self.path(new))
        self.model[new] = entry
        names = self.group(old)
        self.groups = [g for g in self.groups if old not in g] + [names | {new}]

    def symlink(self, target: str, name: str) -> None:
        entry = ("link", target.encode())
        with self.step({name: lambda e: e in (entry, None)}):
            os.symlink(target, self.path(name))
        self.model[name] = entry

    def sync_folder(self, name: str) -> None:
        """fsync of a folder: every name is durable, and so are all files that were fsynced."""
        with self.step({}):
            fd = os.open(self.path(name), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, name: str) -> None:
        """Read a file whole, recalling it if need be, and compare at once."""
        entry = self.model[name]
        assert entry is not None
        with self.step({}):
            found = self.path(name).read_bytes()
            if found != entry[1]:
                raise AssertionError(f"{name}: {describe(('file', found))}, not {describe(entry)}")

    def control(self, *words: str) -> None:
        """An order to the engine; it changes no byte that a user sees."""
        with self.step({}):
            self.fs.control(*words)

    def order(self, words: tuple[str, ...], leads_to: dict[str, Entry]) -> None:
        """An order that changes what users see, and that may be repeated if it was cut off."""
        self.unfinished = words, leads_to
        self.durable -= set(leads_to)
        with self.step({}):
            self.fs.control(*words)
        self.finish_model()

    def finish_model(self) -> None:
        if self.unfinished is not None:
            self.model.update(self.unfinished[1])
            self.unfinished = None

    def finish(self) -> None:
        """After a restart: repeat the order that was cut off."""
        if self.unfinished is not None:
            try:
                self.fs.control(*self.unfinished[0])
            except TempFsError as fault:
                if "was not adopted" not in str(fault):  # it had been undone to the end
                    raise
            self.finish_model()

    # Judgement

    def actual(self, name: str) -> Entry:
        """What the mount holds at a path."""
        path = self.path(name)
        try:
            if path.is_symlink():
                return "link", os.readlink(os.fsencode(path))
            if path.is_dir():
                return "dir", b""
            return "file", path.read_bytes()
        except FileNotFoundError:
            return None

    def compare(self, *, only_durable: bool = False) -> list[str]:
        """What is wrong, a line each; reading everything recalls everything."""
        faults = []
        for name in sorted(self.durable if only_durable else set(self.model) | set(self.doubt)):
            wanted, found = self.model.get(name), self.actual(name)
            judge = self.doubt.get(name)
            if found != wanted and not (judge and judge(found)):
                faults.append(f"{name}: {describe(found)}, not {describe(wanted)}")
        if not only_durable:
            known = set(self.model) | set(self.doubt)
            for folder, folders, files in os.walk(self.fs.mountpoint):
                for name in (*folders, *files):
                    path = str(Path(folder, name).relative_to(self.fs.mountpoint))
                    if path not in known:
                        faults.append(f"{path}: nobody made it")
        return faults

    def take_over(self) -> None:
        """Take what the mount holds for the whole truth, as after a power cut."""
        self.model, self.durable, self.doubt = {}, set(), {}
        for folder, folders, files in os.walk(self.fs.mountpoint):
            for name in (*folders, *files):
                path = str(Path(folder, name).relative_to(self.fs.mountpoint))
                self.model[path] = self.actual(path)

    def settle(self) -> None:
        """Take what the mount holds for what the operation under way came to."""
        for name in self.doubt:
            self.model[name] = self.actual(name)
        self.doubt = {}


def common_prefix(one: bytes, two: bytes) -> int:
    """How many first bytes are the same."""
    end, low = min(len(one), len(two)), 0
    high = end
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def describe(entry: Entry) -> str:
    """An entry in a few words."""
    if entry is None:
        return "absent"
    kind, data = entry
    return f"{kind} of {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:12]}"


def files_life(lab: Lab) -> None:
    """What users do: every kind of change of names and bytes."""
    for folder in ("d", "d/sub", "e"):
        lab.mkdir(folder)
    lab.write("d/empty", b"", fsync=True)
    lab.write("d/small", lab.data(10))
    lab.write("d/page", lab.data(5000), fsync=True)
    lab.write("d/sub/medium", lab.data(300_000), fsync=True)
    lab.write("d/large", lab.data(2 * CHUNK + 12_345), fsync=True)
    lab.write("d/plain", b"text that compresses well\n" * 20_000, fsync=True)
    lab.write("e/gone", lab.data(100))
    lab.link("d/page", "d/page-too")
    lab.symlink("sub/medium", "d/to-medium")
    lab.rename("d/small", "e/moved")
    lab.rename("d/sub/medium", "d/medium")
    lab.write("e/target", lab.data(999))
    lab.rename("e/moved", "e/target")
    lab.unlink("e/gone")
    lab.truncate("d/large", 2 * CHUNK + 1000)
    lab.truncate("d/large", 2 * CHUNK + 5000)
    lab.overwrite("d/medium", 1000, lab.data(5000), fsync=True)
    lab.sync_folder("d")


def media_life(lab: Lab) -> None:
    """What the engine does: archive, release, recall, and users' changes in between."""
    archive = ("archive", "--now", "--wait", "--copies", "2")
    lab.control(*archive, str(lab.path("d")))
    lab.durable |= {n for n, e in lab.model.items() if n.startswith("d/") and e}
    lab.control("release", str(lab.path("d")))
    for name in ("d/page", "d/large", "d/plain"):
        lab.read(name)
    lab.control("release", str(lab.path("d")))
    lab.overwrite("d/large", CHUNK + 17, lab.data(999), fsync=True)
    lab.truncate("d/medium", 100_000)
    lab.rename("d/plain", "e/plain")
    lab.write("d/page", lab.data(6000))
    lab.control("recall", "--wait", str(lab.path("d/large")))
    lab.control(*archive, str(lab.path("d")))
    lab.control("release", str(lab.path("d/large")))
    lab.unlink("d/large")
    lab.read("e/plain")


def adopt_life(lab: Lab) -> None:
    """A tree that was there before is taken in; another one is, and is given back."""
    for name, undo in (("nas", False), ("guest", True)):
        source = lab.fs.folder / name
        (source / "sub").mkdir(parents=True)
        tree: dict[str, Entry] = {name: ("dir", b""), f"{name}/sub": ("dir", b"")}
        for i in range(6):
            data = lab.data(1000 * i)
            path = f"sub/{i}" if i % 2 else str(i)
            (source / path).write_bytes(data)
            tree[f"{name}/{path}"] = ("file", data)
        os.link(source / "2", source / "sub/two")
        tree[f"{name}/sub/two"] = tree[f"{name}/2"]
        os.sync()  # it has been there for long
        lab.order(("adopt", str(source), "--to", str(lab.path(name))), tree)
        if undo:
            lab.order(("adopt", "--undo", str(source)), dict.fromkeys(tree))
            left = sorted(str(p.relative_to(source)) for p in source.rglob("*"))
            wanted = sorted(str(Path(p).relative_to(name)) for p in tree if p != name)
            if left != wanted:
                raise AssertionError(f"undone, {source} holds {left}, not {wanted}")


POLICIES = """
[[policy]]
name = "off-the-ssd"
action = "demote"
every = "1000 d"
"""


def tier_life(lab: Lab) -> None:
    """Files are demoted and pinned, a disc is moved, deleted files go."""
    lab.write("e/cold", lab.data(200_000), fsync=True)
    lab.control("policy", "run", "off-the-ssd")
    lab.read("e/cold")
    lab.control("pin", str(lab.path("e/cold")))
    elements = lab.fs.ask("library", "inventory")["elements"]
    disc = next(e for e in reversed(elements) if e["kind"] == "storage" and e["barcode"])
    empty = next(e for e in elements if e["kind"] == "import_export" and not e["barcode"])
    lab.control("library", "move", disc["barcode"], str(empty["address"]))
    lab.control("library", "move", disc["barcode"], str(disc["address"]))
    lab.unlink("e/cold")


KEPT = {"trash": {"keep": "1 h"}, "versions": {"settle": "0 s"}}
"""Settings under which everything is kept that is changed in place."""


def kept_life(lab: Lab) -> None:
    """Files that no disc has are changed in place, in all ways, and a rollback has them back."""
    lab.mkdir("k")
    for name in ("emptied", "cut", "changed", "grown", "kept"):
        lab.write(f"k/{name}", lab.data(300_000), fsync=True)
    lab.sync_folder("k")
    lab.origin = dict(lab.model)
    time.sleep(1.1)  # a rollback is to a whole second
    lab.origin_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    time.sleep(0.2)
    lab.truncate("k/emptied", 0)
    lab.write("k/emptied", lab.data(1000), fsync=True)
    lab.truncate("k/cut", 1234)
    lab.overwrite("k/changed", 5000, lab.data(5000), fsync=True)
    lab.overwrite("k/grown", 300_000, lab.data(10))
    lab.overwrite("k/grown", 0, lab.data(100), fsync=True)
    lab.order(_back(lab), dict(lab.origin))


def undone(lab: Lab) -> list[str]:
    """Take the mount back to before `kept_life` changed something, perhaps once more; what is wrong
    after it.
    """
    if not lab.origin_at:
        return []
    lab.fs.control(*_back(lab))
    lab.model, lab.doubt, lab.durable = dict(lab.origin), {}, set()
    faults = [f"after the rollback: {fault}" for fault in lab.compare()]
    left = lab.fs.ask("fsck", check=False)
    return faults + [f"fsck after the rollback: {finding}" for finding in left["findings"]]


def _back(lab: Lab) -> tuple[str, ...]:
    return "rollback", str(lab.fs.mountpoint), "--to", lab.origin_at


def bad_lives(
    say: Callable[[str], None], jobs: int, folder: Path, deaths: Sequence[D],
    die: Callable[[D, Path], list[str]],
) -> int:  # fmt: skip
    """Live and die each of the deaths in a folder of its own, jobs at once; how many ended badly.

    die returns what was wrong after one; all of it is said, in the order of the deaths.
    """
    bad = 0
    with ThreadPoolExecutor(jobs) as pool:
        lives = [pool.submit(die, death, folder / f"life-{i}") for i, death in enumerate(deaths)]
        for death, life in zip(deaths, lives, strict=True):
            faults = life.result()
            bad += bool(faults)
            say(f"{death!s:<52} {'ok' if not faults else 'BAD'}")
            for fault in faults:
                say(f"    {fault}")
    return bad
