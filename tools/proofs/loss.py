"""No byte is lost with one or two lost discs, 1,000 bad sectors, a cut or a wrong disc in 10+2.

    tools/prove loss [--seed N] [--only SCENARIO]

Everything is random: sizes and contents of the files, which discs are hurt and where; the seed is
printed and repeats a run. After each scenario every file is recalled and read through the mount and
compared with its SHA-256. With three lost discs exactly the files on lost data discs must be
refused, by name, and the others served. A place that is bad on more than two discs of a set is
beyond what any 10+2 promises, so random sectors are drawn with at most two at one place; on a
parity disc places are counted from where its parity begins.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _verdict import Proof, proof
from lib.setlab import DATA, PARITY, SECTOR, SetLab

from hsmfs.disc.described import image
from hsmfs.disc.parity_image import parity_place

BAD_SECTORS = 1000


def bad_sectors(lab: SetLab, rng: random.Random) -> list[dict[str, Any]]:
    """1,000 random sectors of the set, not more than two of those that one sum of parity joins."""
    sizes = [lab.image(barcode).stat().st_size // SECTOR for barcode in lab.discs]
    begins = [0] * DATA + [_parity_place(lab.image(barcode)) for barcode in lab.discs[DATA:]]
    chosen: set[tuple[int, int]] = set()
    at_place: Counter[int] = Counter()
    while len(chosen) < BAD_SECTORS:
        disc = rng.randrange(len(sizes))
        sector = rng.randrange(sizes[disc])
        place = sector - begins[disc]
        if (disc, sector) not in chosen and at_place[place] < PARITY:
            chosen.add((disc, sector))
            at_place[place] += 1
    return [
        {"kind": "unreadable", "barcode": lab.discs[disc], "sector": sector, "count": 1}
        for disc, sector in sorted(chosen)
    ]


def _parity_place(path: Path) -> int:
    """A parity disc's first sector of parity: it joins the first ones of the data discs."""
    with image(path) as reader:
        return parity_place(reader.iso)


def whole(p: Proof, lab: SetLab, name: str) -> None:
    """Every file must come back."""
    begun = time.monotonic()
    right, refused = lab.served()
    p.figure(f"{name}: files served", len(right), f"of {len(lab.sums)}", at_least=len(lab.sums))
    p.require(not refused, f"{name}: {sorted(refused)[:3]} are not served")
    log = lab.fs.log.read_text(errors="replace")
    p.figure(f"{name}: files made up for by parity", log.count("recalled by parity"))
    p.say(f"  {time.monotonic() - begun:.0f} s")


def one_lost(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        lab.take_out(rng.choice(lab.discs[:DATA]))
        whole(p, lab, "a lost disc")


def two_lost(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        first = rng.choice(lab.discs[:DATA])
        second = rng.choice([disc for disc in lab.discs if disc != first])
        lab.take_out(first, second)
        whole(p, lab, "two lost discs")


def many_sectors(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        faults = bad_sectors(lab, rng)
    with lab.fresh(*faults):
        whole(p, lab, "1,000 bad sectors")


def truncated(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        image = lab.image(rng.choice(lab.discs[:DATA]))
        size = image.stat().st_size // SECTOR
        with image.open("r+b") as file:
            file.truncate(rng.randrange(17, size) * SECTOR)
        whole(p, lab, "a truncated disc")


def wrong_content(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        victim, other = rng.sample(lab.discs[:DATA], 2)
        lab.image(victim).write_bytes(lab.image(other).read_bytes())
        whole(p, lab, "another disc's content")
    with lab.fresh():
        image = lab.image(rng.choice(lab.discs[:DATA]))
        head = image.read_bytes()[: 300 * SECTOR]
        image.write_bytes(head + rng.randbytes(image.stat().st_size - len(head)))
        whole(p, lab, "right label, wrong bytes behind it")


def three_lost(p: Proof, lab: SetLab, rng: random.Random) -> None:
    with lab.fresh():
        lost = rng.sample(lab.discs, PARITY + 1)
        while not any(disc in lab.files_on for disc in lost):
            lost = rng.sample(lab.discs, PARITY + 1)
        lab.take_out(*lost)
        expected = set().union(*(lab.files_on.get(disc, set()) for disc in lost))
        right, refused = lab.served()
        p.figure("three lost discs: files on them", len(expected))
        p.figure("three lost discs: files served", len(right))
        p.require(refused == expected, f"refused are {sorted(refused ^ expected)[:5]} otherwise")
        p.require(lab.found("--lost") == expected, "'hsmctl find --lost' names others")
        answer = lab.fs.control(
            "--json", "recall", "--wait",
            *(lab.fs.mountpoint / name for name in sorted(expected)), check=False, timeout_s=600,
        )  # fmt: skip
        told = json.loads(answer.splitlines()[-1])
        named = {str(Path(f["path"]).relative_to("/")) for f in told["failures"]}
        p.require(named == expected, "hsmctl does not name exactly the lost files")
        p.require(
            all(any(disc in f["error"] for disc in lost) for f in told["failures"]),
            "an error does not name a lost disc",
        )


SCENARIOS = {
    "one": one_lost, "two": two_lost, "sectors": many_sectors, "truncated": truncated,
    "wrong": wrong_content, "three": three_lost,
}  # fmt: skip


def main(p: Proof) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=[*SCENARIOS])
    given = parser.parse_args()
    p.say(f"seed {given.seed}: --seed {given.seed} repeats this run")
    rng = random.Random(given.seed)
    lab = SetLab(rng)
    try:
        lab.make()
        p.figure("files", len(lab.sums))
        p.figure("discs of the set", len(lab.discs), at_least=DATA + PARITY)
        for name, scenario in SCENARIOS.items():
            own = random.Random(f"{given.seed} {name}")
            if given.only in (None, name):
                scenario(p, lab, own)
    finally:
        lab.close()


if __name__ == "__main__":
    with proof("10+2 discs lose nothing with up to two gone, and tell what three cost") as p:
        main(p)
