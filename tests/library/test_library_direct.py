"""Reading and copying past the page cache: any place and length, on filesystems of any kind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from hsmfs.library.simulated.direct import ALIGN, Buffer, prefer_direct

SIZE = 10 * ALIGN + 2048
CONTENT = Random(7).randbytes(SIZE)


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on the disk, or in memory, where direct I/O may be unknown."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        yield Path(memory)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (2048, 2048), (2048, 3 * ALIGN), (SIZE - 2048, 2048)]
)
def test_any_sectors_are_read(folder: Path, offset: int, length: int) -> None:
    path = folder / "image"
    path.write_bytes(CONTENT)
    fd = prefer_direct(os.open(path, os.O_RDONLY))
    try:
        assert Buffer().read(fd, offset, length) == CONTENT[offset : offset + length]
    finally:
        os.close(fd)


def test_what_lies_behind_the_end_is_not_read(folder: Path) -> None:
    path = folder / "image"
    path.write_bytes(CONTENT)
    fd = prefer_direct(os.open(path, os.O_RDONLY))
    try:
        assert Buffer().read(fd, SIZE - 2048, 3 * ALIGN) == CONTENT[-2048:]
        assert Buffer().read(fd, 2 * SIZE, 2048) == b""
    finally:
        os.close(fd)


def test_a_copy_in_blocks_ends_with_the_source(folder: Path) -> None:
    source, target = folder / "source", folder / "target"
    source.write_bytes(CONTENT)
    buffer = Buffer()
    read = os.open(source, os.O_RDONLY)
    write = prefer_direct(os.open(target, os.O_WRONLY | os.O_CREAT))
    try:
        block = 4 * ALIGN
        copied = [buffer.copy(read, write, at, block) for at in range(0, SIZE, block)]
    finally:
        os.close(read)
        os.close(write)
    assert copied == [block, block, SIZE - 2 * block]
    assert target.read_bytes() == CONTENT
