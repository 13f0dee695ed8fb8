"""Larger files behind the filesystem: stock tools find them, and changed sources are told."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from hsmfs.disc.estimate import estimate_sectors
from hsmfs.disc.lay import CHANGED, LEAST, laid, lay
from hsmfs.disc.layout import StagedFile, place
from hsmfs.types import CHUNK, SECTOR

SIZES = (LEAST - 1, LEAST, LEAST + 1, CHUNK + 5)


def large_files(maker) -> list[StagedFile]:
    return [
        maker.file(b"d/%07d \xff" % size, data=Random(size).randbytes(size)) for size in SIZES
    ]


def test_stock_tools_read_bytes_and_attributes(maker, tmp_path: Path) -> None:
    files = large_files(maker)
    dest, result = maker.build(*files)
    out = tmp_path / "out"
    words = ("-osirrox", "on", "-indev", f"stdio:{dest}", "-extract", "/files", out)
    subprocess.run(["xorriso", "-no_rc", *words], check=True, capture_output=True)
    for file in files:
        found = Path(out, bytes(file.paths[0]).decode("utf8", "surrogateescape"))
        assert found.read_bytes() == file.source.read_bytes()
        assert found.stat().st_mode & 0o7777 == file.mode
        assert found.stat().st_mtime_ns // 10**9 == file.mtime_ns // 10**9
        assert found.stat().st_nlink == 1
    assert dest.stat().st_size == result.size <= estimate_sectors(files) * SECTOR


def test_every_byte_is_verified(maker, opened) -> None:
    dest, _ = maker.build(*large_files(maker))
    assert all(found.problem is None for found in opened(dest).verify())


def test_a_filesystem_that_cannot_send_is_read(maker, opened, monkeypatch) -> None:
    def refused(*args: int) -> int:
        raise OSError(errno.EINVAL, "no sendfile here")

    monkeypatch.setattr(os, "sendfile", refused)
    dest, _ = maker.build(*large_files(maker))
    assert all(found.problem is None for found in opened(dest).verify())


def test_files_lie_in_the_order_of_the_tree(maker) -> None:
    files = large_files(maker)
    _, result = maker.build(*reversed(files))
    places = [result.sectors[file.key].sector for file in files if file.stored >= LEAST]
    assert places == sorted(places)


def test_the_rest_of_a_sector_is_zeros_over_an_old_image(maker) -> None:
    (maker.root / "disc.iso").write_bytes(b"\xaa" * (8 * CHUNK))
    (file,) = [f for f in large_files(maker) if f.stored == LEAST + 1]
    dest, result = maker.build(file)
    start = result.sectors[file.key].sector * SECTOR
    image = dest.read_bytes()
    assert image[start + LEAST + 1 : start + LEAST + SECTOR] == bytes(SECTOR - 1)
    assert len(image) == result.size


def test_hard_links_stay_with_xorriso(maker, opened) -> None:
    file = maker.file(b"one", b"two", data=bytes(LEAST))
    (item,) = place([file])
    assert not laid(file, item.names)
    dest, _ = maker.build(file)
    assert {opened(dest).iso.find(b"files/" + name).nlink for name in (b"one", b"two")} == {2}


def test_a_source_cut_to_nothing_while_it_is_copied_is_told(maker, monkeypatch) -> None:
    good = maker.file(b"a", data=b"g" * LEAST)
    bad = maker.file(b"b", data=b"b" * LEAST)
    dest, _ = maker.build(good, bad)
    send = os.sendfile

    def cut(image: int, source: int, *args: int) -> int:
        if os.path.sameopenfile(source, held):
            os.truncate(bad.source, 0)
        return send(image, source, *args)

    held = os.open(bad.source, os.O_RDONLY)
    monkeypatch.setattr(os, "sendfile", cut)
    assert lay(dest, place([good, bad]), lambda done: None) == {bad.key: CHANGED}
    os.close(held)


def test_a_source_that_does_not_read_is_set_aside(maker, monkeypatch) -> None:
    good = maker.file(b"a", data=b"g" * LEAST)
    bad = maker.file(b"b", data=b"b" * LEAST)

    def refuse(*args: object) -> int:
        raise OSError(errno.EIO, "bad sector")

    def pread(fd: int, size: int, offset: int) -> bytes:
        return refuse() if os.path.sameopenfile(fd, held) else read(fd, size, offset)

    held, read = os.open(bad.source, os.O_RDONLY), os.pread
    monkeypatch.setattr(os, "sendfile", refuse)
    monkeypatch.setattr(os, "pread", pread)
    _, result = maker.build(good, bad)
    assert result.changed == (bad.key,)
    assert "bad sector" in result.unreadable[bad.key]
    os.close(held)


@pytest.mark.parametrize("how", ["gone", "shorter", "longer"])
def test_a_source_that_changes_after_xorriso_is_told(maker, how: str) -> None:
    good = maker.file(b"good", data=b"g" * LEAST)
    bad = maker.file(b"bad", data=b"b" * LEAST)
    dest, _ = maker.build(good, bad)
    if how == "gone":
        bad.source.unlink()
    else:
        bad.source.write_bytes(bytes(LEAST + (1 if how == "longer" else -1)))
    assert lay(dest, place([good, bad]), lambda done: None) == {bad.key: CHANGED}


def test_a_part_is_cut_out_of_its_file(maker, opened) -> None:
    whole = maker.file(b"big", data=Random(1).randbytes(2 * CHUNK))
    changes = {"parts": 2, "length": CHUNK, "stored": CHUNK}
    parts = [replace(whole, part=n + 1, offset=n * CHUNK, source_offset=n * CHUNK, **changes)
             for n in (0, 1)]  # fmt: skip
    dest, result = maker.build(*parts)
    image = dest.read_bytes()
    found = [image[s * SECTOR :][:CHUNK] for s in (result.sectors[p.key].sector for p in parts)]
    assert b"".join(found) == whole.source.read_bytes()
    assert all(item.problem is None for item in opened(dest).verify())
