"""A flipped bit in the audit log, in a manifest or anywhere in a disc's image is found and named.

    tools/prove bitflip [--seed N] [--flips 300]

A small archive with retention, holds and refusals is burned on discs; then one bit at a time, at
random places, is turned in a copy and judged by tools/hsm-disc, which shares no code with hsmfs: in
an exported audit log the record must be named, in a disc's image the file, the disc's own file, or
for bytes outside of files the disc. In the catalog's own table the record is named by hsmfs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import random
import shutil
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import apsw
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from _verdict import Proof, proof
from lib.tempfs import TempFs

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.trust.verify import verify

OWN = {"README.txt", "SHA256SUMS", "MANIFEST.jsonl", "VOLUME.json", "CATALOG.sqlite.zst",
       "AUDIT.jsonl.zst"}  # fmt: skip
COLUMNS = ("at_ns", "worm_ns", "kind", "actor", "object", "outcome", "detail", "hash")


def hsm_disc() -> ModuleType:
    """The stand-alone reader, as a module of its own."""
    path = Path(__file__).resolve().parents[1] / "hsm-disc"
    loader = SourceFileLoader("hsm_disc", str(path))
    spec = importlib.util.spec_from_loader("hsm_disc", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Archive:
    """What is judged: images of three discs, the exported log, the catalog's file."""

    def __init__(self, fs: TempFs) -> None:
        root = fs.mountpoint / "r"
        root.mkdir()
        fs.control("retention", "set", root, "--mode", "compliance", "--default", "1 y")
        for round_ in range(3):
            for n in range(8):
                path = root / f"{round_}-{n}"
                path.write_bytes(random.randbytes(random.randrange(1, 60_000)))
                path.chmod(0o444)
                with contextlib.suppress(PermissionError):
                    path.unlink()
            fs.control("archive", "--now", "--wait", root)
        fs.control("hold", "place", f"case-{round_}", "--reason", "proof", root)
        self.export = fs.folder / "audit.jsonl"
        fs.control("audit", "export", "-o", self.export)
        fs.stop()
        found = (fs.folder / "library").rglob("*.iso")
        self.images = sorted(found, key=lambda path: path.stat().st_mtime_ns)
        self.state = fs.folder / "state"


def flip(path: Path, rng: random.Random) -> int:
    """Turn one bit of a file; the byte it is in."""
    at = rng.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return at


def judge(reader: ModuleType, *words: str) -> tuple[int, str]:
    """The exit code of hsm-disc and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        args = reader.parser().parse_args(list(words))
        try:
            code = args.run(args)
        except reader.DiscError as error:
            code = 3
            said.write(str(error))
    return code, said.getvalue()


def flips_in_the_export(
    p: Proof, a: Archive, reader: ModuleType, rng: random.Random, n: int
) -> None:
    whole = a.export.read_bytes()
    work = a.export.with_name("flipped.jsonl")
    found = named = 0
    for _ in range(n):
        work.write_bytes(whole)
        at = flip(work, rng)
        seq = whole[:at].count(b"\n") + 1
        code, said = judge(reader, "audit", str(work))
        found += code == 1
        # A broken line may hide its own number; then the one before it is named.
        here = any(f"record {one}" in said for one in (seq, seq + 1))
        named += here or f"behind record {seq - 1}" in said
    p.figure("audit log: bits turned in the exported log", n)
    p.figure("audit log: found", found, at_least=n)
    p.figure("audit log: the record is named", named, at_least=n)


def place_of(reader: ModuleType, image: Path, at: int) -> str:
    """What lies at a byte of an image: a path on the disc, or '' for what is in no file."""
    files = reader.Image(str(image)).files
    for name, (start, size, _) in files.items():
        if start <= at < start + size:
            return str(name.decode())
    return ""


def flips_in_images(p: Proof, a: Archive, reader: ModuleType, rng: random.Random, n: int) -> None:
    work = a.images[0].with_name("flipped.img")
    counts = {"a file": [0, 0], "a file of the disc's own": [0, 0], "no file": [0, 0]}
    manifests = 0
    for turn in range(n):
        image = rng.choice(a.images)
        shutil.copyfile(image, work)
        at = flip(work, rng)
        if turn % 3 == 0:  # manifests are small: a third of the flips goes there
            shutil.copyfile(image, work)
            start, size, _ = reader.Image(str(image)).files[b"MANIFEST.jsonl"]
            at = start + rng.randrange(size)
            data = work.read_bytes()
            work.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            manifests += 1
        place = place_of(reader, image, at)
        others = [str(other) for other in a.images if other != image]
        _, verified = judge(reader, "verify", str(work))
        code, audited = judge(reader, "audit", str(work), *others, str(a.export))
        true = place.removeprefix("files/").removesuffix(".zst")
        if place in OWN:
            kind, named = "a file of the disc's own", place in verified or str(work) in audited
        elif place:
            kind, named = "a file", true in verified
        else:
            kind, named = "no file", str(work) in audited
        counts[kind][0] += 1
        ok = code in (1, 3) and named
        counts[kind][1] += ok
        if not ok:
            p.say(f"  byte {at} of {image.name}: {place!r} is not named: {verified} {audited}")
    p.figure("images: of them in manifests", manifests, at_least=n // 4)
    for kind, (turned, named) in counts.items():
        p.figure(f"images: bits turned in {kind}", turned)
        p.figure("images: found and named", named, at_least=turned)
    work.unlink()


def flips_in_the_catalog(p: Proof, a: Archive, rng: random.Random, n: int) -> None:
    named = 0
    db = apsw.Connection(str(a.state / "catalog.db"))
    db.execute("DROP TRIGGER audit_is_not_changed")
    last = db.execute("SELECT max(seq) FROM audit").get
    db.close()

    async def judged() -> tuple[int, ...]:
        catalog = Catalog.open(a.state)
        try:
            return tuple(one.seq for one in (await verify(catalog)).breaks)
        finally:
            catalog.close()

    p.require(trio.run(judged) == (), "the log is broken before a bit was turned")
    for _ in range(n):
        seq, column = rng.randrange(1, last + 1), rng.choice(COLUMNS)
        with apsw.Connection(str(a.state / "catalog.db")) as db:
            old = db.execute(f"SELECT {column} FROM audit WHERE seq = ?", (seq,)).get
            db.execute(f"UPDATE audit SET {column} = ? WHERE seq = ?", (turned(old, rng), seq))
        breaks = trio.run(judged)
        # A turned hash shows at the record that follows; at the last one, at itself.
        named += seq in breaks or (column == "hash" and seq + 1 in breaks)
        with apsw.Connection(str(a.state / "catalog.db")) as db:
            db.execute(f"UPDATE audit SET {column} = ? WHERE seq = ?", (old, seq))
    p.figure("catalog: bits turned in the audit table", n)
    p.figure("catalog: found, and the record named", named, at_least=n)


def turned(value: int | str | bytes, rng: random.Random) -> int | str | bytes:
    """The value with one bit turned; never an empty one."""
    if isinstance(value, int):
        return value ^ 1 << rng.randrange(60)
    if not value:
        return "\x01" if isinstance(value, str) else b"\x01"
    at = rng.randrange(len(value))
    if isinstance(value, bytes):
        return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
    return value[:at] + chr(ord(value[at]) ^ 1 << rng.randrange(5)) + value[at + 1 :]


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--flips", type=int, default=300)
    given = parser.parse_args()
    p.say(f"seed {given.seed}: --seed {given.seed} repeats this run")
    rng = random.Random(given.seed)
    random.seed(given.seed)
    reader = hsm_disc()
    with TempFs({"library": {"disc": "4 MiB"}, "engine": {"compression": 0}}) as fs:
        archive = Archive(fs)
        p.figure("discs", len(archive.images), at_least=3)
        p.figure("audit records", sum(1 for _ in archive.export.open()), at_least=50)
        code, said = judge(reader, "audit", *map(str, archive.images), str(archive.export))
        p.require(code == 0, f"what was not touched is called broken: {said}")
        flips_in_the_export(p, archive, reader, rng, given.flips)
        flips_in_images(p, archive, reader, rng, given.flips)
        flips_in_the_catalog(p, archive, rng, given.flips // 6)


if __name__ == "__main__":
    with proof("a flipped bit in the audit log, a manifest or an image is found and named") as p:
        main(p)
