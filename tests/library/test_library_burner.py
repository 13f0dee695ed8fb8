"""xorriso by itself, on a file that it takes for a drive: the SCSI drives of tests/lab know no
RESERVE TRACK, which it needs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from hsmfs.library.scsi import burner
from hsmfs.types import SECTOR

pytestmark = pytest.mark.skipif(not shutil.which("xorriso"), reason="xorriso is not installed")
SIZE = 700 * SECTOR
WRONG = "FAILURE : .*/dev/sr99"


def test_xorriso_takes_the_image_from_the_pipe(tmp_path: Path) -> None:
    image, disc = tmp_path / "image", tmp_path / "disc"
    image.write_bytes(random.Random(1).randbytes(SIZE))
    disc.touch()
    done: list[int] = []
    with image.open("rb") as source:
        words = burner.command("xorriso", Path(f"stdio:{disc}"), SIZE)
        burner.burn(words, source, SIZE, done.append)
    assert done[-1] == SIZE
    assert disc.read_bytes()[:SIZE] == image.read_bytes()


def test_what_xorriso_complains_of_is_told(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(SIZE))
    words = burner.command("xorriso", Path("/dev/sr99"), SIZE)
    with image.open("rb") as source, pytest.raises(burner.BurnFailed, match=WRONG):
        burner.burn(words, source, SIZE, lambda done: None)
