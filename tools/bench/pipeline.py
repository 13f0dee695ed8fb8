#!/usr/bin/env python3
"""What happens to bytes on their way to a set of discs, each step by itself, with all cores.

    tools/bench/pipeline.py [--discs 10] [--disc-mb 100]

checksums and compression: each file's SHA-256, of the whole and by chunk, and zstd where it pays (a
quarter of the files shrink), in two threads as the migrator does it. image: xorriso, from files to
an ISO image. parity: the images of a set into P and Q with the SHA-256 of each image checked. All
files are in memory where there is room, so this is processor and memory, not a disk. together: sets
one after the other, all steps at once on different discs, as the migrator does it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from common import MIB, seconds

from hsmfs.disc.compress import compress, worth_compressing
from hsmfs.disc.digest import digest_file
from hsmfs.disc.image import build_image
from hsmfs.disc.layout import Kind, StagedFile, VolumeLabel
from hsmfs.engine.fold import RowJob, Source, fold
from hsmfs.types import DataVersion, InodeNo

FILE = 8 * MIB
THREADS = 2
MEMORY = Path("/dev/shm")


@dataclass
class Disc:
    """One disc's files and its image."""

    number: int
    sources: list[Path]
    staged: list[StagedFile]
    image: Path


def make_files(folder: Path, number: int, size: int) -> Disc:
    """Files of one disc, one in four of which shrinks."""
    place = folder / f"disc-{number}"
    place.mkdir()
    noise = os.urandom(FILE)
    sources = []
    for at in range(size // FILE):
        mark = b"%d %d " % (number, at)
        data = mark + (b"text and more text. " * (FILE // 20))[: FILE - len(mark)]
        if at % 4:
            data = mark + noise[: FILE - len(mark)]
        path = place / f"{at}"
        path.write_bytes(data)
        sources.append(path)
    return Disc(number, sources, [], folder / f"image-{number}")


def stage(disc: Disc) -> None:
    """Checksums and compression of a disc's files."""

    def one(at: int) -> StagedFile:
        source = disc.sources[at]
        digest = digest_file(source)
        packed = None
        if worth_compressing(source):
            packed = compress(source, source.with_suffix(".zst"))
        return StagedFile(
            InodeNo(2 + at), DataVersion(1), (b"f/%d" % at,), Kind.FILE, 0o644, 0, 0, 1, 1, 1, 1,
            digest=digest, source=packed.path if packed else source, length=digest.size,
            stored=packed.stored if packed else digest.size,
            stored_sha256=packed.sha256 if packed else None, compressed=packed is not None,
            frame_ends=packed.frame_ends if packed else (),
        )  # fmt: skip

    with ThreadPoolExecutor(THREADS) as pool:
        disc.staged = list(pool.map(one, range(len(disc.sources))))


def image(disc: Disc) -> None:
    """The disc's image."""
    label = VolumeLabel(f"u{disc.number}", f"D{disc.number}", "s", "s", disc.number + 1, 10, 2, 0)
    build_image(disc.staged, label, disc.image, staging=disc.image.with_suffix(".staging"))


def kept(discs: list[Disc]) -> list[Source]:
    """Copies of the images, with the checksums that reading discs back would have given."""
    sources = []
    for disc in discs:
        copy = disc.image.with_suffix(".kept")
        shutil.copyfile(disc.image, copy)
        sha = digest_file(copy).sha256.hex()
        sources.append(Source(copy, copy.stat().st_size, sha, disc.number))
    return sources


def fold_all(sources: list[Source], folder: Path) -> None:
    """P and Q of the images."""
    fold(sources, [RowJob(row, folder / f"row-{row}") for row in (0, 1)])


def together(discs: list[Disc], sources: list[Source], sets: int, folder: Path) -> None:
    """Sets one after the other as the migrator does it: each step works on another disc.

    Images are written over those of the set before; copies of them are folded, the same work.
    """
    with ThreadPoolExecutor(1) as imager, ThreadPoolExecutor(1) as folder_:
        folding: Future[None] | None = None
        for _ in range(sets):
            made = []
            for disc in discs:
                stage(disc)
                made.append(imager.submit(image, replace(disc)))
            for one in made:
                one.result()
            if folding is not None:
                folding.result()
            folding = folder_.submit(fold_all, sources, folder)
        if folding is not None:
            folding.result()


def measure(folder: Path, count: int = 10, disc_mb: int = 100, sets: int = 4) -> dict[str, float]:
    """MB/s of files' bytes: of each step alone, and of all together."""
    size = disc_mb * MIB
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 5 * count * size
    place = Path(tempfile.mkdtemp(dir=MEMORY if roomy else folder))
    try:
        discs = [make_files(place, number, size) for number in range(count)]
        total = sum(path.stat().st_size for disc in discs for path in disc.sources) / 1e6
        for disc in discs:
            stage(disc)
            image(disc)  # the first writes of a file are the host's work, not ours
        sources = kept(discs)
        fold_all(sources, place)
        return {
            "checksums and compression": total / seconds(lambda: [stage(d) for d in discs]),
            "image": total / seconds(lambda: [image(d) for d in discs]),
            "parity": total / seconds(lambda: fold_all(sources, place)),
            "together": sets * total / seconds(
                lambda: together(discs, sources, sets, place)
            ),
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--discs", type=int, default=10)
    parser.add_argument("--disc-mb", type=int, default=100)
    given = parser.parse_args()
    rates = measure(Path(tempfile.gettempdir()), given.discs, given.disc_mb)
    for name, rate in rates.items():
        print(f"{name:<28}{rate:8.0f} MB/s")


if __name__ == "__main__":
    main()
