"""A set of 4+2 images: made by hsmfs, checked and rebuilt by tools/hsm-disc alone."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hsmfs.disc.parity import parity_of
from hsmfs.disc.parity_image import Member, ParityFacts, ParityRow, build_parity_image, read_facts
from hsmfs.disc.reader import DiscReader
from hsmfs.types import SECTOR

SIZES = (300_000, 2_000_000, 900_000, 5_000)
K, M = len(SIZES), 2
TOOL = Path(__file__).parents[2] / "tools" / "hsm-disc"


def run(*args: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(TOOL), *map(str, args)], capture_output=True
    )


@pytest.fixture
def discs(maker, conf_label, tmp_path: Path) -> list[Path]:
    """The images of a set of unequal fill, by index."""
    rng = random.Random(5)
    images, members = [], []
    label = replace(conf_label, k=K, m=M, set_uuid="5e7")
    for index, size in enumerate(SIZES):
        mine = replace(label, uuid=f"u{index}", barcode=f"D{index}", index=index + 1)
        file = maker.file(b"f%d" % index, data=rng.randbytes(size))
        image, result = maker.build(file, name=f"D{index}.iso", label=mine)
        data = image.read_bytes()
        images.append(image)
        members.append(
            Member(index, mine.uuid, mine.barcode, len(data), hashlib.sha256(data).hexdigest(),
                   result.root_hash.hex())
        )  # fmt: skip
    length = max(member.size for member in members)
    rows = [bytearray(length) for _ in range(M)]
    padded = [image.read_bytes().ljust(length, b"\0") for image in images]
    parity_of(range(K), range(M)).store(padded, rows, length)
    of = tuple(ParityRow(r, length, hashlib.sha256(row).hexdigest()) for r, row in enumerate(rows))
    for row in range(M):
        source = tmp_path / f"row{row}"
        source.write_bytes(rows[row])
        mine = replace(label, uuid=f"p{row}", barcode=f"P{row}", index=K + row + 1)
        dest = tmp_path / f"P{row}.iso"
        facts = ParityFacts(row, of, tuple(members))
        made = build_parity_image(source, facts, mine, dest, staging=tmp_path / "st")
        assert made.size == dest.stat().st_size
        images.append(dest)
    return images


def test_parity_disc_is_one_like_the_others(
    discs: list[Path], opened: Callable[[Path], DiscReader]
) -> None:
    reader = opened(discs[K])
    assert reader.label.index == K + 1
    assert all(finding.problem is None for finding in reader.verify())
    facts = read_facts(reader.volume)
    assert facts is not None and [m.barcode for m in facts.members] == ["D0", "D1", "D2", "D3"]
    assert read_facts(opened(discs[0]).volume) is None
    assert run("verify", *discs).returncode == 0
    assert run("info", *discs).returncode == 0


def test_whole_set_is_sound(discs: list[Path]) -> None:
    done = run("set", "verify", *discs)
    assert done.returncode == 0, done
    assert b"6 discs checked, 0 problems" in done.stdout
    assert b"all discs are there" in run("set", "info", *discs).stdout


@pytest.mark.parametrize("lost", list(itertools.combinations(range(K + M), 2)), ids=str)
def test_any_two_discs_come_back(discs: list[Path], tmp_path: Path, lost: tuple[int, int]) -> None:
    given = [disc for index, disc in enumerate(discs) if index not in lost]
    done = run("set", "rebuild", *given, "-C", tmp_path / "out")
    if set(lost) == {K, K + 1}:
        assert done.returncode == 3
        return
    assert done.returncode == 0, done
    for index in lost:
        if index < K:
            assert (tmp_path / "out" / discs[index].name).read_bytes() == discs[index].read_bytes()


def test_bad_sectors_of_several_discs(discs: list[Path], tmp_path: Path) -> None:
    """What ddrescue could not read; at one place at most two discs are bad."""
    for index, sectors in ((0, (70, 71)), (1, (70, 400)), (2, (400,)), (4, (200,))):
        data = bytearray(discs[index].read_bytes())
        lines = ["# Mapfile. Created by GNU ddrescue", "0x0 + 1"]
        for sector in sectors:
            data[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)
            lines.append(f"{sector * SECTOR:#x} {SECTOR:#x} -")
        (tmp_path / f"x{index}.iso").write_bytes(data)
        (tmp_path / f"x{index}.iso.map").write_text("\n".join(lines) + "\n")
    given = [tmp_path / f"x{i}.iso" if i in (0, 1, 2, 4) else discs[i] for i in range(K + M)]
    done = run("set", "rebuild", *given, "-C", tmp_path / "out")
    assert done.returncode == 0, done
    for index in (0, 1, 2):
        assert (tmp_path / f"out/D{index}.iso").read_bytes() == discs[index].read_bytes()


def test_wrong_bytes_without_an_error(discs: list[Path], tmp_path: Path) -> None:
    good = discs[1].read_bytes()
    bad = bytearray(good)
    bad[500_000] ^= 1
    discs[1].write_bytes(bad)
    done = run("set", "verify", *discs, "--json")
    assert done.returncode == 1
    assert "D1" in json.loads(done.stdout)["problems"][0]
    assert run("set", "rebuild", *discs, "-C", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/D1.iso").read_bytes() == good


def test_three_lost_discs_are_named(discs: list[Path], tmp_path: Path) -> None:
    done = run("set", "rebuild", *discs[2:4], discs[5], "-C", tmp_path / "out")
    assert done.returncode == 1
    assert b"D0: " in done.stderr and b"D1: " in done.stderr
    assert not list((tmp_path / "out").iterdir())
