"""A set of twelve discs made by hsmfs is listed, checked and read back without any of hsmfs.

    tools/prove stock-tools [--seed N]

First with xorriso, bsdtar, sha256sum, zstd and cat alone: every image is listed and extracted by
two tools, SHA256SUMS is checked in both copies, every file is brought back and compared with what
was archived. Then with tools/hsm-disc, run by a Python that has neither hsmfs nor any package:
info, list, verify, extract, and two discs that are taken away are rebuilt by parity, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.setlab import DATA, PARITY, SetLab
from lib.tempfs import REPOSITORY

TOOL = REPOSITORY / "tools/hsm-disc"


def run(*words: object, cwd: Path | None = None) -> bytes:
    """Standard output; an exit status other than 0 ends the proof."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{words[0]} {words[1:4]} ended with {done.returncode}: {done.stderr!r}")
    return done.stdout


def hsm_disc(*words: object) -> bytes:
    """tools/hsm-disc with no module path but the standard library's."""
    return run("/usr/bin/python3", "-I", "-S", TOOL, *words)


def by_stock_tools(p: Proof, lab: SetLab, images: list[Path], place: Path) -> None:
    listed = checked = 0
    for image in images:
        one, two = place / "xorriso" / image.stem, place / "bsdtar" / image.stem
        for folder in (one, two):
            folder.mkdir(parents=True)
        found = run("xorriso", "-indev", image, "-find", "/", "-type", "f").splitlines()
        names = run("bsdtar", "-tf", image).splitlines()
        listed += len(found)
        p.require(len(found) <= len(names), f"bsdtar lists less of {image.name} than xorriso")
        run("xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", one)
        run("bsdtar", "-xf", image, "-C", two)
        for folder in (one, two):
            checked += len(run("sha256sum", "-c", "SHA256SUMS", cwd=folder).splitlines())
        run("chmod", "-R", "u+w", one, two)
    p.figure("names listed by xorriso", listed)
    p.figure("checksums right by sha256sum -c", checked)
    p.figure("files brought back by zstd and cat", stock_files(p, lab, place / "xorriso"))


def stock_files(p: Proof, lab: SetLab, tree: Path) -> int:
    """Each archived file from what lies in the extracted discs."""
    whole = 0
    for name, sha in lab.sums.items():
        found = (
            path
            for disc in tree.iterdir()
            for path in (disc / "files" / name).parent.glob("*")
            if stem(path.name) == Path(name).name
        )
        stored = sorted(found, key=lambda path: path.name)
        packed = bool(stored) and ".zst" in stored[0].name[len(Path(name).name) :]
        joined = joined_bytes(stored, packed)
        good = hashlib.sha256(joined).hexdigest() == sha
        p.require(good, f"{name} does not come back from {[str(path) for path in stored]}")
        whole += good
    return whole


def stem(name: str) -> str:
    """A stored name without what the disc adds to it."""
    return name.partition(".part-")[0].removesuffix(".zst")


def joined_bytes(stored: list[Path], packed: bool) -> bytes:
    """`cat PART... | zstd -d`."""
    data = run("cat", *stored) if stored else b""
    if not packed:
        return data
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout


def by_hsm_disc(p: Proof, lab: SetLab, images: list[Path], place: Path) -> None:
    p.require(b"hsmfs" not in hsm_disc_paths(), "hsm-disc could import hsmfs")
    hsm_disc("info", *images)
    p.figure("names listed by hsm-disc", len(hsm_disc("list", *images).splitlines()))
    hsm_disc("verify", *images)
    hsm_disc("set", "info", *images)
    p.require(b"12 discs checked, 0 problems" in hsm_disc("set", "verify", *images), "set verify")
    out = place / "out"
    hsm_disc("extract", *images, "-C", out)
    right = sum(
        hashlib.sha256((out / name).read_bytes()).hexdigest() == sha
        for name, sha in lab.sums.items()
    )
    p.figure("files extracted by hsm-disc", right, at_least=len(lab.sums))
    gone = lab.rng.sample(images[:DATA], PARITY)
    left = [image for image in images if image not in gone]
    hsm_disc("set", "rebuild", *left, "-C", place / "rebuilt")
    for image in gone:
        made = place / "rebuilt" / image.name
        p.require(made.read_bytes() == image.read_bytes(), f"{image.name} was rebuilt otherwise")
    p.figure("discs rebuilt by hsm-disc, byte by byte", len(gone))


def hsm_disc_paths() -> bytes:
    """Where that Python looks for modules."""
    return run("/usr/bin/python3", "-I", "-S", "-c", "import sys; print(sys.path)")


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    p.say(f"seed {given.seed}: --seed {given.seed} repeats this run")
    lab = SetLab(random.Random(given.seed))
    try:
        lab.make()
        place = lab.root / "stock"
        place.mkdir()
        images = []
        for barcode in lab.discs:
            images.append(place / f"{barcode}.iso")
            shutil.copyfile(lab.image(barcode), images[-1])
        p.figure("discs of the set", len(images), at_least=DATA + PARITY)
        by_stock_tools(p, lab, images, place)
        by_hsm_disc(p, lab, images, place)
    finally:
        lab.close()


if __name__ == "__main__":
    with proof("discs are read without hsmfs, and rebuilt") as p:
        main(p)
