"""What somebody does to a stopped archive who has its disks, discs and catalog; and who judges.

For tools/prove attacks. The catalog is edited as SQL allows, with its triggers taken away and,
where that helps the attacker, with hashes of the audit chain computed anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import trio

from hsmfs.catalog.audit import digest
from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.trust.verify import verify

from .tempfs import TempFs

Attempt = tuple[Callable[[], object], Callable[[], str], str]
"""What is done, who judges, and what must be in the words of the judge."""


class Offline:
    """The stopped archive; each attempt works on the files and is undone after it was judged."""

    def __init__(self, fs: TempFs, numbers: dict[str, int], content: bytes) -> None:
        self.content = content
        self.folder, self.numbers, self.fs = fs.folder, numbers, fs
        self.images = sorted((fs.folder / "library").rglob("*.iso"))
        self.catalog = fs.folder / "state/catalog.db"
        self.saved = fs.folder / "saved"
        self.saved.mkdir()
        for part in ("state", "pool", "library"):
            _copy(self.folder / part, self.saved / part)

    def restore(self) -> None:
        for part in ("state", "pool", "library"):
            shutil.rmtree(self.folder / part)
            _copy(self.saved / part, self.folder / part)

    def sql(self, *statements: str) -> None:
        """Edit the catalog as somebody would who first takes its triggers away."""
        with contextlib.closing(apsw.Connection(str(self.catalog))) as db:
            found = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (trigger,) in found:
                db.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                db.execute(statement.format(**self.numbers))

    def pool_file(self) -> Path:
        """The record's bytes on disk."""
        found = [p for p in (self.folder / "pool").rglob("*")
                 if p.is_file() and p.read_bytes() == self.content]  # fmt: skip
        (only,) = found
        return only

    def rewrite_log(self, start: int) -> None:
        """Change a record and compute every hash after it anew."""
        with contextlib.closing(apsw.Connection(str(self.catalog))) as db:
            prev = db.execute("SELECT hash FROM audit WHERE seq = ?", (start - 1,)).get
            rows = db.execute("SELECT * FROM audit WHERE seq >= ? ORDER BY seq", (start,))
            for row in rows.fetchall():
                fields = [*row[:-1]]
                if row[0] == start:
                    fields[4] = "nobody"
                prev = digest(prev, tuple(fields))
                db.execute("UPDATE audit SET actor = ?, hash = ? WHERE seq = ?",
                           (fields[4], prev, row[0]))  # fmt: skip

    def forge(self, kind: str, **detail: object) -> None:
        """Append a record with a good hash."""
        with contextlib.closing(apsw.Connection(str(self.catalog))) as db:
            seq, worm, prev = db.execute(
                "SELECT seq, worm_ns, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchall()[0]
            fields = (seq + 1, time.time_ns(), worm, kind, "hsmfsd", "", "done",
                      json.dumps(detail, separators=(",", ":")))  # fmt: skip
            db.execute("INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?)",
                       (*fields, digest(prev, fields)))  # fmt: skip

    # Judges

    def log_says(self) -> str:
        async def judged() -> str:
            catalog = Catalog.open(self.folder / "state")
            try:
                breaks = (await verify(catalog)).breaks
                return "; ".join(f"record {b.seq}: {b.what}" for b in breaks)
            finally:
                catalog.close()

        return trio.run(judged)

    def fsck_says(self) -> str:
        """The findings of fsck --deep; a catalog that does not open is a finding."""
        done = subprocess.run(
            [*self.fs.control_command(), "fsck", "--deep"], env=self.fs.environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def discs_say(self) -> str:
        tool = str(Path(__file__).resolve().parents[1] / "hsm-disc")
        said = ""
        words = [["verify", str(image)] for image in self.images]
        for word in (*words, ["audit", *map(str, self.images)]):
            done = subprocess.run([sys.executable, tool, *word], capture_output=True, text=True,
                                  check=False)  # fmt: skip
            said += "" if done.returncode == 0 else done.stdout + done.stderr
        return said


def _copy(source: Path, target: Path) -> None:
    """With links as they are, and holes as holes."""
    subprocess.run(["cp", "-a", source, target], check=True)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def find_in(path: Path, data: bytes) -> int:
    return path.read_bytes().index(data)


def attempts(o: Offline) -> dict[str, Attempt]:
    """On the record that is inode `one`."""
    content = o.content
    one = f"inode {o.numbers['one']}"
    image = next(i for i in o.images if content[:2048] in i.read_bytes())
    reset = "UPDATE inodes SET locked = 0 WHERE ino = {one}"
    last = o.numbers["last"]
    return {
        "pool: bytes of a record": (
            lambda: overwrite(o.pool_file(), 500, b"forged"), o.fsck_says, str(o.numbers["one"])),
        "pool: a record's file cut": (
            lambda: os.truncate(o.pool_file(), 100), o.fsck_says, str(o.numbers["one"])),
        "pool: a record's file removed": (
            lambda: o.pool_file().unlink(), o.fsck_says, str(o.numbers["one"])),
        "catalog: retention shortened": (
            lambda: o.sql("UPDATE retained SET until_ns = 1 WHERE ino = {one}"), o.log_says, one),
        "catalog: record made an ordinary file": (
            lambda: o.sql("DELETE FROM retained WHERE ino = {one}", reset), o.log_says, one),
        "catalog: lock taken off": (lambda: o.sql(reset), o.log_says, one),
        "catalog: compliance to enterprise": (
            lambda: o.sql("UPDATE retained SET mode = 3 - mode WHERE ino = {one}"),
            o.log_says, one),
        "catalog: inode and name deleted": (
            lambda: o.sql(reset, "DELETE FROM retained WHERE ino = {one}",
                          "DELETE FROM dentries WHERE ino = {one}",
                          "DELETE FROM inodes WHERE ino = {one}"), o.log_says, one),
        "catalog: a file taken out of a hold": (
            lambda: o.sql("DELETE FROM held"), o.log_says, "held by case, is not held"),
        "catalog: a hold released": (
            lambda: o.sql("UPDATE holds SET released_ns = 1"), o.log_says, "case was released"),
        "catalog: the retention folder made an ordinary one": (
            lambda: o.sql("DELETE FROM retention_folders"), o.log_says, "retention folder inode"),
        "catalog: size changed": (
            lambda: o.sql("UPDATE inodes SET size = 5 WHERE ino = {one}"), o.fsck_says,
            str(o.numbers["one"])),
        "log: a record changed": (
            lambda: o.sql("UPDATE audit SET actor = 'nobody' WHERE seq = 7"), o.log_says,
            "record 7"),
        "log: a record dropped": (
            lambda: o.sql("DELETE FROM audit WHERE seq = 7"), o.log_says, "record 7"),
        "log: two records exchanged": (
            lambda: o.sql("UPDATE audit SET seq = -1 WHERE seq = 7",
                          "UPDATE audit SET seq = 7 WHERE seq = 8",
                          "UPDATE audit SET seq = 8 WHERE seq = -1"), o.log_says, "record 7"),
        "log: cut off at record 5": (
            lambda: o.sql("DELETE FROM audit WHERE seq > 5"), o.log_says, "record 6"),
        "log: an old record replayed": (
            lambda: o.sql(f"INSERT INTO audit SELECT {last + 1}, at_ns, worm_ns, kind, actor,"
                          " object, outcome, detail, hash FROM audit WHERE seq = 7"),
            o.log_says, f"record {last + 1}"),
        "log: written anew, with good hashes": (
            lambda: (o.sql(), o.rewrite_log(4)), o.log_says, "another hash"),
        "log: a purge forged to hide a deletion": (
            lambda: (o.sql(), o.forge("file.purged", files=1, inos=[o.numbers["one"]])),
            o.log_says, one),
        "log: a privileged delete forged": (
            lambda: (o.sql(), o.forge("retention.privileged_delete", ino=o.numbers["one"],
                                      reason="x", until_ns=1, mode="enterprise")),
            o.log_says, one),
        "disc: bytes of a record": (
            lambda: overwrite(image, find_in(image, content[:2048]) + 9, b"forged"), o.discs_say,
            "r/one: its bytes"),
        "disc: its manifest": (
            lambda: overwrite(image, find_in(image, b'"retention"') + 1, b"RETENTION"),
            o.discs_say, "MANIFEST"),
        "disc: destroyed": (
            lambda: os.truncate(image, 100_000), o.discs_say, image.name),
    }  # fmt: skip
