"""A catalog of a million files comes back from discs alone, field by field, 20,000 files a second.

    tools/prove rebuild [--files N] [--discs N] [--keep DIR]

Real: the ISO 9660 images (xorriso), their folders, manifests, checksums and the catalog snapshot
on one of them; every row of the catalog. Made cheap: the files' bytes are few kinds of a few
kilobytes, and many names of an image share the sectors of one kind. After the snapshot files are
renamed, changed and added, which only the manifests of later discs tell. Twice: with the snapshot,
and from manifests alone. The rebuild runs in a process of its own; its peak memory is printed, with
that of the process that it starts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import apsw
from _verdict import Proof, proof

from hsmfs.catalog import snapshot
from hsmfs.catalog.catalog import Catalog
from hsmfs.catalog.reports import Reports
from hsmfs.catalog.sets import Sets
from hsmfs.disc.image import build_image
from hsmfs.disc.layout import Kind, StagedFile, VolumeLabel
from hsmfs.types import DataVersion, Digest, InodeNo

KINDS = 64
FOLDER = 200
"""Files in a folder."""
YEAR = 10**9 * 86_400 * 365
START = 1_700_000_000 * 10**9
RATE, MEMORY = 20_000, 600
_CONFIG = """
[daemon]
mountpoint = "{0}/mnt"
state = "{0}/state"
socket = "{0}/hsmfs.sock"
[[pool]]
name = "disk"
path = "{0}/pool"
[library]
kind = "simulated"
path = "{0}/library"
[engine]
spool = "{0}/spool"
"""
_EXACT = {
    "inodes": "ino, mode, uid, gid, nlink, rdev, size, blocks, atime_ns, mtime_ns, ctime_ns,"
    " btime_ns, state, pool, version, base_version, dirty, pinned",
    "dentries": "parent, name, ino",
    "symlinks": "*",
    "xattrs": "*",
    "absent": "*",
    "digests": "*",
    "copies": "ino, version, copy_no, (SELECT uuid FROM {db}.volumes v WHERE v.id = volume), state,"
    " part, parts, offset, length, sector, stored, compressed, frame_ends",
    "volumes": "barcode, uuid, set_id, set_index, used, created_ns, root_hash",
}
"""What is compared; not: cookies, row numbers and places in the order of changes, which may
differ, and of discs newer than the snapshot state and ledger (verified, written by), which no disc
has."""


class Maker:
    """Makes discs and, beside them, the catalog that knew them."""

    def __init__(self, folder: Path, files: int, discs: int) -> None:
        self.folder, self.files, self.discs = folder, files, discs
        self.random = random.Random(7)
        self.sources = [self._source(kind) for kind in range(KINDS)]
        self.images = folder / "images"
        self.images.mkdir()
        self.db = apsw.Connection(str(folder / "original/catalog.db"))
        self.next = 2
        self.now = START
        self.folders: dict[bytes, int] = {b"": 1}
        self.made: list[StagedFile] = []

    def _source(self, kind: int) -> tuple[Path, Digest]:
        data = self.random.randbytes(1000 + 61 * kind)
        path = self.folder / f"kind-{kind}"
        path.write_bytes(data)
        sha = hashlib.sha256(data).digest()
        return path, Digest(sha, (sha,), len(data))

    def tick(self) -> int:
        self.now += 1_000_003
        return self.now

    def new_folder(self, path: bytes) -> StagedFile:
        ino, self.next = self.next, self.next + 1
        self.folders[path] = ino
        return self._staged(ino, (path,), Kind.DIR, 0o750)

    def _staged(self, ino: int, paths: tuple[bytes, ...], kind: Kind, mode: int) -> StagedFile:
        now = self.tick()
        more = {}
        if kind is Kind.FILE:
            path, digest = self.sources[ino % KINDS]
            more = {
                "digest": digest, "source": path, "length": digest.size, "stored": digest.size,
                "stored_sha256": digest.sha256,
            }  # fmt: skip
        elif kind is Kind.SYMLINK:
            more = {"target": b"../somewhere/" + str(ino).encode()}
        xattrs = {b"user.study": b"1.2.840.%d" % ino} if ino % 10 == 0 else {}
        return StagedFile(
            InodeNo(ino), DataVersion(1), paths, kind, mode, 1000 + ino % 50, 100, now, now + 1,
            now + 2, now - 5, xattrs, **more,
        )  # fmt: skip

    def batch(self, disc: int) -> list[StagedFile]:
        """What is new on a disc: folders, files, some with two names, a link in each folder."""
        out, per_disc = [], self.files // self.discs
        top = b"study-%03d \xe5\xbd\xb1\xe5\x83\x8f" % disc
        out.append(self.new_folder(top))
        for start in range(0, per_disc, FOLDER):
            folder = top + b"/series-%05d" % (start // FOLDER)
            out.append(self.new_folder(folder))
            for n in range(min(FOLDER, per_disc - start)):
                ino, self.next = self.next, self.next + 1
                name = folder + (b"/image-%06d.dcm" if n % 20 else b"/bild-%06d-\xff\xfe.dcm") % n
                names = (name,) if n % 50 else (name, folder + b"/again-%06d" % n)
                out.append(self._staged(ino, names, Kind.FILE, 0o640))
            ino, self.next = self.next, self.next + 1
            out.append(self._staged(ino, (folder + b"/newest",), Kind.SYMLINK, 0o777))
        return out

    def changed(self) -> list[StagedFile]:
        """Files of the first disc that were renamed and written again since."""
        out = []
        for old in self.made[:: max(1, len(self.made) // 1000)]:
            if old.kind is Kind.FILE and len(old.paths) == 1:
                now = self.tick()
                path, digest = self.sources[(old.ino + 1) % KINDS]
                out.append(replace(
                    old, version=DataVersion(2), paths=(old.paths[0] + b".corrected",),
                    mode=0o600, mtime_ns=now, ctime_ns=now + 2, digest=digest, source=path,
                    length=digest.size, stored=digest.size, stored_sha256=digest.sha256,
                ))  # fmt: skip
        return out

    def record(self, staged: list[StagedFile]) -> None:
        """Rows of everything but where it lies."""
        run, many = self.db.execute, self.db.executemany
        old = [f.ino for f in staged if f.version > 1]
        for table in ("dentries", "xattrs", "absent", "inodes"):
            many(f"DELETE FROM {table} WHERE ino = ?", [(ino,) for ino in old])
        seq = run("SELECT coalesce(max(change_seq), 0) FROM inodes").get
        links = {}
        for f in staged:
            if f.kind is Kind.DIR:
                parent = self.folders[f.paths[0].rpartition(b"/")[0]]
                links[parent] = links.get(parent, 0) + 1
        types = {Kind.FILE: 0o100000, Kind.DIR: 0o040000, Kind.SYMLINK: 0o120000}

        def row(n: int, f: StagedFile) -> tuple[object, ...]:
            size = f.digest.size if f.digest else len(f.target) or 4096
            nlink = 2 + links.pop(f.ino, 0) if f.kind is Kind.DIR else len(f.paths)
            return (
                f.ino, types[f.kind] | f.mode, f.uid, f.gid, nlink, size, f.atime_ns, f.mtime_ns,
                f.ctime_ns, f.btime_ns, 3 if f.kind is Kind.FILE else None, f.version, f.version,
                seq + n,
            )  # fmt: skip

        many(
            "INSERT INTO inodes (ino, mode, uid, gid, nlink, size, atime_ns, mtime_ns, ctime_ns,"
            " btime_ns, state, version, base_version, change_seq)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row(n, f) for n, f in enumerate(staged, 1)),
        )
        for parent, count in links.items():
            run("UPDATE inodes SET nlink = nlink + ? WHERE ino = ?", (count, parent))
        cookie = run("SELECT coalesce(max(id), 15) FROM dentries").get
        names = [
            (self.folders[path.rpartition(b"/")[0]], path.rpartition(b"/")[2], f.ino)
            for f in staged for path in f.paths
        ]  # fmt: skip
        many(
            "INSERT INTO dentries VALUES (?, ?, ?, ?)",
            ((p, cookie + n, name, ino) for n, (p, name, ino) in enumerate(names, 1)),
        )
        many(
            "INSERT INTO xattrs VALUES (?, ?, ?)",
            ((f.ino, k, v) for f in staged for k, v in f.xattrs.items()),
        )
        many(
            "INSERT INTO symlinks VALUES (?, ?)", ((f.ino, f.target) for f in staged if f.target)
        )
        files = [f for f in staged if f.digest]
        many("INSERT INTO absent VALUES (?, 0, ?)", ((f.ino, f.digest.size) for f in files))
        many(
            "INSERT INTO digests VALUES (?, ?, ?, ?, x'')",
            ((f.ino, f.version, f.digest.size, f.digest.sha256) for f in files),
        )

    def disc(self, number: int, staged: list[StagedFile], snap: Path | None) -> None:
        """Burn it, so to speak, and write down what lies where."""
        label = VolumeLabel(
            f"{number:08d}-0000-4000-8000-000000000000", f"P{number:04d}", f"P{number:04d}",
            f"{number:08d}-0000-4000-8000-000000000000", 1, 1, 0, self.tick(), copy_no=1,
            archive=Sets(self.db).archive,
        )  # fmt: skip
        dest = self.images / f"P{number:04d}.iso"
        result = build_image(
            staged, label, dest, staging=self.folder / "staging", snapshot=snap
        )
        self.db.execute(
            "INSERT INTO volumes (id, barcode, uuid, state, capacity, used, created_ns, burned_ns,"
            " verified_ns, written_by, root_hash) VALUES (?, ?, ?, 2, ?, ?, ?, ?, ?, 'D1', ?)",
            (number, label.barcode, label.uuid, result.size, result.size, label.created_ns,
             label.created_ns, label.created_ns, result.root_hash.hex()),
        )  # fmt: skip
        self.db.executemany(
            "INSERT INTO copies (ino, version, copy_no, volume, state, part, parts, offset, length,"
            " sector, stored) VALUES (?, ?, 1, ?, 1, 0, 1, 0, ?, ?, ?)",
            (
                (f.ino, f.version, number, f.stored, result.sectors[f.key].sector, f.stored)
                for f in staged if f.digest
            ),
        )  # fmt: skip

    def snap(self) -> Path:
        """The catalog as it is now, as it goes on a disc."""
        dest = self.folder / "catalog.zst"
        snapshot.write(Reports(self.db), dest, next_ino=self.next, now_ns=self.tick())
        return dest


def make(p: Proof, folder: Path, files: int, discs: int) -> None:
    """Images, and the catalog that they came from."""
    catalog = Catalog.create(folder / "original")
    catalog.close()
    maker = Maker(folder, files, discs)
    started = time.monotonic()
    for number in range(1, discs + 1):
        staged = maker.batch(number)
        with maker.db:
            maker.record(staged)
        if number == 1:
            maker.made = staged
        snap = maker.snap() if number == discs // 2 + 1 else None
        extra = []
        if number == discs:
            extra = maker.changed()
            with maker.db:
                maker.record(extra)
            first = {f.paths[0]: f for f in maker.made if f.kind is Kind.DIR}
            above = {f.paths[0].rpartition(b"/")[0] for f in extra}
            above |= {path.rpartition(b"/")[0] for path in above} - {b""}
            extra += [first[path] for path in sorted(above)]
        with maker.db:
            maker.disc(number, staged + extra, snap)
        p.say(f"disc {number} of {discs} made, {time.monotonic() - started:.0f} s")
    maker.db.close()


def rebuild(folder: Path, images: Path) -> dict[str, object]:
    """Run it in a process of its own; its report, with peak memory and seconds."""
    folder.mkdir()
    config = folder / "hsmfs.toml"
    config.write_text(_CONFIG.format(folder))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(config), str(images)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    report["seconds"] = time.monotonic() - started
    return report


def child(config_path: Path, images: Path) -> None:
    """The process that rebuilds, without the limits of the parent."""
    import dataclasses

    import trio

    from hsmfs import config
    from hsmfs.engine.rebuild.run import Rebuild
    from hsmfs.engine.rebuild.sources import Images

    settings = config.load(config_path)
    work = Rebuild(settings, Images(images), lambda progress: None, new_pools=True)
    report = dataclasses.asdict(trio.run(work.run))
    status = Path("/proc/self/status").read_text()
    # The process that reads manifests runs beside it.
    helper = resource.getrusage(resource.RUSAGE_CHILDREN)
    report["peak"] = (int(status.split("VmHWM:")[1].split()[0]) + helper.ru_maxrss) / 1024
    report["processor"] = time.process_time() + helper.ru_utime + helper.ru_stime
    print(json.dumps(report))


def differences(original: Path, rebuilt: Path, *, root: bool) -> Iterator[str]:
    """What is not the same, a few rows a table. root: the root's own times and owner count."""
    db = apsw.Connection(str(original))
    db.execute("ATTACH ? AS new", (str(rebuilt),))
    for table, columns in _EXACT.items():
        for one, other in (("main", "new"), ("new", "main")):
            left, right = (columns.format(db=name) for name in (one, other))
            where = " WHERE ino != 1" if table == "inodes" and not root else ""
            for row in db.execute(
                f"SELECT {left} FROM {one}.{table}{where} EXCEPT"
                f" SELECT {right} FROM {other}.{table}{where} LIMIT 3"
            ):
                yield f"{table}: only in {'the original' if one == 'main' else 'ours'}: {row}"
    db.close()


def check(p: Proof, name: str, folder: Path, images: Path, files: int, *, root: bool) -> None:
    report = rebuild(folder / name, images)
    rate = report["files"] / report["seconds"]
    p.figure(f"{name}: files", report["files"], at_least=files)
    p.figure(f"{name}: seconds in all, fsck too", report["seconds"], "s")
    p.figure(f"{name}: processor time of it", report["processor"], "s")
    p.figure(f"{name}: files a second", rate, at_least=RATE)
    p.figure(f"{name}: peak memory", report["peak"], "MiB", at_most=MEMORY)
    p.figure(f"{name}: discs laid on, of {len(list(images.glob('*.iso')))}", report["discs"])
    p.figure(f"{name}: faults that fsck found", report["findings"] + report["repaired"], at_most=0)
    found = list(differences(
        folder / "original/catalog.db", folder / name / "state/catalog.db", root=root
    ))  # fmt: skip
    for line in found:
        p.say(line)
    p.require(not found, f"{name}: the catalog is not the original")
    p.require(not report["lost"], f"{name}: {report['lost']} did not come back")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--discs", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="make it here, and use it again")
    given = parser.parse_args()
    files = given.files // given.discs * given.discs
    with tempfile.TemporaryDirectory(prefix="hsmfs-rebuild-", dir=given.keep) as name:
        made = given.keep / "made" if given.keep else Path(name)
        if not (made / "original").exists():
            made.mkdir(exist_ok=True)
            make(p, made, files, given.discs)
        folder = Path(name)
        if given.keep:
            os.symlink(made / "original", folder / "original")
        plain = folder / "plain"
        check(p, "snapshot and manifests", folder, made / "images", files, root=True)
        plain.mkdir()
        for image in (made / "images").glob("*.iso"):
            copy = plain / image.name
            os.link(image, copy)
        check(p, "manifests alone", folder, without_snapshot(plain), files, root=False)


def without_snapshot(images: Path) -> Path:
    """The same images but the one with the snapshot, whose manifest hides behind a broken one."""
    from hsmfs.disc import described

    for image in images.glob("*.iso"):
        with described.image(image) as reader:
            entry = reader.snapshot()
        if entry is not None:
            data = image.read_bytes()
            image.unlink()
            with image.open("wb") as out:
                out.write(data)
                out.seek(entry.sector * 2048 + entry.size // 2)
                out.write(bytes(4096))
    return images


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        with proof("the catalog comes back from discs alone, 20,000 files a second") as verdict:
            main(verdict)
