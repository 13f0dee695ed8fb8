"""Bad input: each gets an error that names the thing and the next step, and nothing is lost.

    tools/prove bad-input [--only REGEX] [--jobs 2]

A full pool, a read-only or vanished pool (at start and while all runs), cut-off and foreign disc
images, damaged catalog pages, a wrong key in the configuration, a newer schema, a disc in the
wrong place, two daemons on one catalog. Each scene has an hsmfs of its own; files are compared
before and after.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import errno
import hashlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.tempfs import REPOSITORY, TempFs

PAGE = 4096
POOL_BYTES = 24 << 20
PATIENCE_S = 20.0
FILLER_BYTES, MOST_FILLERS = 12 << 20, 6


@dataclass
class Scene:
    """An hsmfs with some files, and what did not hold."""

    fs: TempFs
    content: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """The messages, for the reader of the proof."""

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.faults.append(otherwise)

    def write(self, name: str, size: int = 300_000) -> Path:
        self.content[name] = random.Random(name).randbytes(size)
        path = self.fs.mountpoint / name
        path.write_bytes(self.content[name])
        return path

    def nothing_lost(self) -> None:
        for name, wanted in self.content.items():
            try:
                found = (self.fs.mountpoint / name).read_bytes()
            except OSError as fault:
                self.faults.append(f"{name} cannot be read: {fault}")
                continue
            self.require(found == wanted, f"{name} is not what was written")

    def run(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command, env=self.fs.environment(), capture_output=True, timeout=120, check=False
        )
        return done.returncode, (done.stderr + done.stdout).decode(errors="replace")

    def refused(self, code: int, *words: object) -> None:
        """hsmfsd must not start, with this exit code and a message that holds the words."""
        self.expect("hsmfsd", self.run(self.fs.daemon_command()), code, *words)

    def control(self, code: int, words: tuple[object, ...], *arguments: str) -> None:
        """As `refused`, for hsmctl."""
        ended = self.run([*self.fs.control_command(), *arguments])
        self.expect(f"hsmctl {arguments[0]}", ended, code, *words)

    def expect(self, who: str, ended: tuple[int, str], code: int, *words: object) -> None:
        found, text = ended
        self.require(found == code, f"{who} ends with {found}, not {code}: {text[-600:]}")
        for word in words:
            self.require(str(word) in text, f"{who} does not say '{word}': {text[-600:]}")
        self.require("Traceback" not in text, f"{who} shows a traceback: {text[-600:]}")
        self.told.append(f"[{found}] {text.strip().splitlines()[0] if text.strip() else ''}")

    def log_says(self, *words: object) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            lines = self.fs.log.read_text().splitlines()
            for line in lines:
                if all(str(word) in line for word in words):
                    self.told.append(line[:300])
                    return
            time.sleep(0.1)
        self.faults.append(f"no line of the log says {words}: {self.fs.log_tail(6)}")

    def errno_of(self, act: Callable[[], Any], *allowed: int) -> None:
        """What a user's operation must fail with."""
        try:
            act()
        except OSError as fault:
            self.told.append(f"the user gets {errno.errorcode[fault.errno or 0]}")
            self.require(
                fault.errno in allowed, f"the user gets {fault}, not {[*map(os.strerror, allowed)]}"
            )
        else:
            self.faults.append("the user gets no error")

    def until_works(self, act: Callable[[], Any], what: str) -> None:
        """The trouble is over: it must work again by itself."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                act()
            except OSError as fault:
                if time.monotonic() > deadline:
                    self.faults.append(f"{what} does not work again: {fault}")
                    return
                time.sleep(0.3)
            else:
                return

    def image(self, barcode: str) -> Path:
        return next(self.fs.folder.glob(f"library/elements/*/{barcode}/disc.iso"))

    def stub(self, name: str, copies: int) -> list[dict[str, Any]]:
        """A migrated file that nothing remembers; its copies."""
        path = str(self.write(name))
        self.fs.control("archive", "--now", "--wait", "--copies", str(copies), path)
        self.fs.control("release", path)
        for number in range(MOST_FILLERS):
            found: list[dict[str, Any]] = self.fs.ask("info", path)["copies"]
            if not any(copy["place"].startswith("drive") for copy in found):
                return found
            # Other discs take their places in the drives: two copies of a large file at once.
            filler = self.write(f"filler-{number}", FILLER_BYTES)
            self.fs.control("archive", "--now", "--wait", "--copies", "2", str(filler))
        raise AssertionError("the file's discs stay in their drives")


SCENES: dict[str, Callable[[Scene], None]] = {}


def scene(name: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def keep(act: Callable[[Scene], None]) -> Callable[[Scene], None]:
        SCENES[name] = act
        return act

    return keep


# Pools


@contextmanager
def device(fs: TempFs) -> Iterator[Path]:
    """The pool's folder as a small filesystem of its own."""
    image = fs.folder / "device"
    with image.open("wb") as file:
        file.truncate(POOL_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mount(fs)
    try:
        yield fs.pool
    finally:
        subprocess.run(["umount", "-l", fs.pool], check=False, capture_output=True)


def mount(fs: TempFs) -> None:
    subprocess.run(["mount", "-o", "loop", fs.folder / "device", fs.pool], check=True)


def remount(fs: TempFs, how: str) -> bool:
    done = subprocess.run(["mount", "-o", f"remount,{how}", fs.pool], capture_output=True)
    return done.returncode == 0


@scene("a full pool")
def _(s: Scene) -> None:
    s.write("kept")
    archived = s.write("archived", 8 << 20)
    s.fs.control("archive", "--now", "--wait", str(archived))
    s.fs.control("release", str(archived))

    def fill() -> None:
        for number in range(100):
            s.write(f"filler-{number}", 1 << 20)

    s.errno_of(fill, errno.ENOSPC)
    cut = next(reversed(s.content))  # what did not fit was refused, and is not promised
    del s.content[cut]
    (s.fs.mountpoint / cut).unlink()
    s.log_says("pool", "full")
    s.control(10, ("pool", "archive and release", "add a pool"), "recall", "--wait", str(archived))
    fillers = [name for name in s.content if name.startswith("filler")]
    paths = [str(s.fs.mountpoint / name) for name in fillers]
    s.fs.control("archive", "--now", "--wait", *paths)
    s.fs.control("release", *paths)
    s.write("room-again", 1 << 20)
    s.fs.control("recall", "--wait", str(archived))
    s.content = {n: c for n, c in s.content.items() if n in ("kept", "archived", "room-again")}


@scene("a read-only pool at start")
def _(s: Scene) -> None:
    s.write("kept")
    s.fs.stop()
    s.require(remount(s.fs, "ro"), "the pool could not be made read-only")
    s.refused(9, "pool pool", s.fs.pool, "read-only", "next:", "remount")
    s.require(remount(s.fs, "rw"), "the pool could not be made writable")
    s.fs.start()


@scene("a pool that becomes read-only")
def _(s: Scene) -> None:
    s.write("kept")
    os.sync()
    deadline = time.monotonic() + PATIENCE_S
    while not remount(s.fs, "ro"):  # refused as long as a file is open for writing
        if time.monotonic() > deadline:
            s.faults.append("the pool could not be made read-only")
            return
        time.sleep(0.2)
    s.errno_of(lambda: s.write("refused"), errno.EROFS, errno.EIO)
    del s.content["refused"]
    s.log_says("pool", s.fs.pool, "read-only")
    s.nothing_lost()
    s.require(remount(s.fs, "rw"), "the pool could not be made writable")
    s.until_works(lambda: s.write("written-again"), "writing")


@scene("a vanished pool at start")
def _(s: Scene) -> None:
    s.write("kept")
    s.fs.stop()
    subprocess.run(["umount", s.fs.pool], check=True)
    s.refused(9, s.fs.pool, "not a pool", "next:", "mount")
    s.require(not list(s.fs.pool.iterdir()), "something was made below the mountpoint of the pool")
    mount(s.fs)
    s.fs.start()


@scene("another filesystem in the pool's place")
def _(s: Scene) -> None:
    s.write("kept")
    s.fs.stop()
    subprocess.run(["umount", s.fs.pool], check=True)
    (s.fs.pool / "data").mkdir()
    (s.fs.pool / ".hsmfs-pool").write_text('{"hsmfs_pool": 1, "uuid": "another"}')
    s.refused(9, "pool pool", s.fs.pool, "not the pool it was", "next:")
    shutil.rmtree(s.fs.pool / "data")
    (s.fs.pool / ".hsmfs-pool").unlink()
    mount(s.fs)
    s.fs.start()


@scene("a pool that vanishes")
def _(s: Scene) -> None:
    s.write("kept")
    subprocess.run(["umount", "-l", s.fs.pool], check=True)
    s.errno_of(lambda: s.write("refused"), errno.EIO)
    del s.content["refused"]
    s.log_says("pool", s.fs.pool, "vanished")
    s.require(not list(s.fs.pool.iterdir()), "something was made below the mountpoint of the pool")
    mount(s.fs)
    s.until_works(lambda: s.write("written-again"), "writing")


POOL_SCENES = set(SCENES)


# Discs


@scene("a cut-off disc image")
def _(s: Scene) -> None:
    copies = s.stub("kept", 2)
    image = s.image(copies[0]["volume"])
    whole = image.read_bytes()
    os.truncate(image, copies[0]["sector"] * 2048 + 2048)
    s.nothing_lost()  # the other copy
    s.log_says("disc is suspect", copies[0]["volume"])
    image = s.image(copies[0]["volume"])  # it is in a drive now
    tool = [sys.executable, str(REPOSITORY / "tools/hsm-disc"), "verify", str(image)]
    found, text = s.run(tool)
    s.require(found != 0 and "Traceback" not in text, f"hsm-disc verify: [{found}] {text[-400:]}")
    s.told.append(f"[{found}] {text.strip().splitlines()[-1]}")
    image.write_bytes(whole)


@scene("the only disc image, cut off")
def _(s: Scene) -> None:
    (copy,) = s.stub("kept", 1)
    image = s.image(copy["volume"])
    whole = image.read_bytes()
    os.truncate(image, 70_000)
    path = s.fs.mountpoint / "kept"
    s.errno_of(path.read_bytes, errno.EIO)
    s.control(0, (copy["volume"], "hsmctl volume"), "why", str(path))
    s.control(15, (copy["volume"],), "recall", "--wait", str(path))
    s.fs.stop()
    s.image(copy["volume"]).write_bytes(whole)  # it is in a drive now
    s.fs.start()
    s.until_works(path.read_bytes, "reading the mended disc")


@scene("a foreign disc image")
def _(s: Scene) -> None:
    copies = s.stub("kept", 2)
    barcode = copies[0]["volume"]
    image = s.image(barcode)
    tree = s.fs.folder / "foreign"
    tree.mkdir()
    (tree / "holiday.jpg").write_bytes(os.urandom(500_000))
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-o", image, tree], check=True, capture_output=True
    )
    s.nothing_lost()  # the other copy
    image = s.image(barcode)  # it is in a drive now
    s.log_says("disc is suspect", barcode, "not written by hsmfs")
    volume = next(v for v in s.fs.ask("volume", "list") if v["barcode"] == barcode)
    s.require(volume["state"] == "suspect", f"disc {barcode} is {volume['state']}, not suspect")
    found, text = s.run([sys.executable, str(REPOSITORY / "tools/hsm-disc"), "list", str(image)])
    s.require(found != 0 and "Traceback" not in text, f"hsm-disc list: [{found}] {text[-400:]}")
    s.told.append(f"[{found}] {text.strip().splitlines()[-1]}")


@scene("a disc under another disc's label")
def _(s: Scene) -> None:
    copies = s.stub("kept", 2)
    one = s.image(copies[0]["volume"]).parent
    blank = next(v["barcode"] for v in s.fs.ask("volume", "list") if v["state"] == "blank")
    hidden = next(s.fs.folder.glob(f"library/elements/*/{blank}"))
    for name in ("disc.iso", "medium.json"):  # the first copy's disc is under a blank's label now
        shutil.move(one / name, hidden / name)
    s.nothing_lost()
    s.log_says("disc is suspect", copies[0]["volume"], "blank")


# The catalog and the configuration


@scene("a wrong key in the configuration")
def _(s: Scene) -> None:
    s.write("kept")
    s.fs.stop()
    text = s.fs.config.read_text()
    s.fs.config.write_text(text.replace("burn_wait", "burn_weight"))
    s.refused(3, s.fs.config, "burn_weight", "next:", "hsmctl config check")
    s.control(3, (s.fs.config, "burn_weight"), "config", "check")
    s.fs.config.write_text(text)
    s.fs.start()


@scene("a newer schema")
def _(s: Scene) -> None:
    s.write("kept")
    s.fs.stop()
    catalog = s.fs.folder / "state/catalog.db"
    known = set_schema(catalog, 999)
    before = digest(catalog)
    s.refused(8, catalog, "schema 999", "next:", "newer")
    s.control(8, (catalog, "schema 999"), "fsck")
    s.require(digest(catalog) == before, "the catalog was changed")
    set_schema(catalog, known)
    s.fs.start()


@scene("damaged catalog pages")
def _(s: Scene) -> None:
    for number in range(60):
        s.write(f"file-{number}", 100)
    s.fs.stop()
    catalog = s.fs.folder / "state/catalog.db"
    with sqlite3.connect(catalog) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = catalog.read_bytes()
    pages = len(whole) // PAGE
    noise = random.Random(1).randbytes(PAGE)
    tried = [0, *range(1, pages, max(1, pages // 10))]
    for page in tried:
        with catalog.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(noise)
        code, text = s.run([*s.fs.control_command(), "fsck"])
        s.require(code in (7, 19), f"page {page} is damaged: fsck ends with {code}: {text[-300:]}")
        s.require(str(catalog) in text or "catalog" in text, f"page {page}: {text[-300:]}")
        s.require("Traceback" not in text, f"page {page}: fsck shows a traceback: {text[-600:]}")
        if page == 0:
            s.refused(7, catalog, "damaged", "next:", "snapshot")
        for name in ("catalog.db-wal", "catalog.db-shm"):
            (catalog.parent / name).unlink(missing_ok=True)
        catalog.write_bytes(whole)
    s.told.append(f"{len(tried)} of {pages} pages damaged, one after the other: all were found")
    s.fs.start()


@scene("two daemons on one catalog")
def _(s: Scene) -> None:
    s.write("kept")
    assert s.fs.daemon is not None
    s.refused(6, s.fs.folder / "state", s.fs.daemon.pid, "next:", "stop the other")
    s.require(s.fs.daemon.poll() is None, "the first daemon ended")
    s.write("written-after")


def set_schema(catalog: Path, number: int) -> int:
    """Write the schema's number; the one it was."""
    db = sqlite3.connect(catalog)
    (before,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {number}")
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return int(before)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def play(name: str, folder: Path) -> Scene:
    """One scene; the pool on a device of its own if that is what it is about."""
    fs = TempFs(
        {
            "library": {"drives": 2, "disc": "32 MiB", "magazines": 2},
            "fs": {"wait_limit": "10 s"}, "trash": {"keep": "0 s"},
            "engine": {"recall_retry_wait": "0.3 s", "recall_drives": 0},
        },
        folder=folder,
    )  # fmt: skip
    s = Scene(fs)
    try:
        if name in POOL_SCENES:
            fs.lay_out()
            with device(fs), fs:
                perform(s, name)
        else:
            with fs:
                perform(s, name)
    except Exception as fault:
        s.faults += [f"{type(fault).__name__}: {fault}", fs.log_tail(8)]
    return s


def perform(s: Scene, name: str) -> None:
    SCENES[name](s)
    s.nothing_lost()
    findings = s.fs.ask("fsck", check=False)["findings"]
    bad = [f for f in findings if f["severity"] != "note"]
    s.require(not bad, f"fsck: {bad[:1]}")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=".", help="scenes that match")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    chosen = [name for name in SCENES if re.search(given.only, name)]
    with (
        tempfile.TemporaryDirectory(prefix="hsmfs-bad-input-") as place,
        concurrent.futures.ThreadPoolExecutor(given.jobs) as pool,
    ):
        played = {
            name: pool.submit(play, name, Path(place, str(number)))
            for number, name in enumerate(chosen)
        }
        for name, future in played.items():
            s = future.result()
            p.say(f"{name}")
            for told in s.told:
                p.say(f"    {told}")
            for fault in s.faults:
                p.require(False, f"{name}: {fault}")
            p.require(True, "")
    p.figure("kinds of bad input", len(chosen), at_least=1)
    p.figure("refused as they should be", sum(not f.result().faults for f in played.values()))


if __name__ == "__main__":
    with proof("bad input gets a clear error with the next step, and nothing is lost") as p:
        main(p)
