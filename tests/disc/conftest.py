"""A maker of staged files and of images for the disc tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hsmfs.disc.compress import compress
from hsmfs.disc.digest import digest_file
from hsmfs.disc.image import ImageResult, build_image
from hsmfs.disc.layout import Kind, StagedFile, VolumeLabel
from hsmfs.disc.reader import DiscReader
from hsmfs.types import SECTOR, DataVersion, InodeNo

LABEL = VolumeLabel(
    uuid="1b671a64-40d5-491e-99b0-da01ff1f3341",
    barcode="HSM001L1",
    set_name="测试",
    set_uuid="2b671a64-40d5-491e-99b0-da01ff1f3341",
    index=1,
    k=1,
    m=0,
    created_ns=1_700_000_000_000_000_000,
)


class Maker:
    """Stages files under tmp_path and builds images of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pool").mkdir()
        self._ino = itertools.count(2)

    def file(self, *paths: bytes, data: bytes = b"", **changes: object) -> StagedFile:
        ino = next(self._ino)
        source = self.root / "pool" / str(ino)
        source.write_bytes(data)
        return self.of(source, *paths, ino=ino, **changes)

    def of(
        self, source: Path, *paths: bytes, ino: int, pack: bool = False, **changes: object
    ) -> StagedFile:
        digest = digest_file(source)
        fields: dict[str, object] = {
            "source": source,
            "digest": digest,
            "length": digest.size,
            "stored": digest.size,
        }
        if pack:
            packed = compress(source, source.with_suffix(".zst"))
            assert packed is not None
            fields |= {
                "source": packed.path,
                "stored": packed.stored,
                "compressed": True,
                "stored_sha256": packed.sha256,
                "frame_ends": packed.frame_ends,
            }
        return self._make(Kind.FILE, paths, ino, fields | changes)

    def other(self, kind: Kind, *paths: bytes, **changes: object) -> StagedFile:
        return self._make(kind, paths, next(self._ino), changes)

    def _make(
        self, kind: Kind, paths: tuple[bytes, ...], ino: int, fields: dict[str, object]
    ) -> StagedFile:
        base: dict[str, object] = {
            "mode": 0o640,
            "uid": os.getuid(),
            "gid": os.getgid(),
            "mtime_ns": 1_600_000_000_123_456_789,
            "atime_ns": 1_600_000_001_000_000_001,
            "ctime_ns": 3,
            "btime_ns": 4,
        }
        return StagedFile(
            ino=InodeNo(ino), version=DataVersion(1), paths=paths, kind=kind, **(base | fields)
        )  # type: ignore[arg-type]

    def build(
        self, *files: StagedFile, name: str = "disc.iso", **more: object
    ) -> tuple[Path, ImageResult]:
        dest = self.root / name
        label = more.pop("label", LABEL)
        result = build_image(files, label, dest, staging=self.root / "staging", **more)  # type: ignore[arg-type]
        return dest, result


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def opened() -> Callable[[Path], DiscReader]:
    def open_image(path: Path) -> DiscReader:
        data = path.read_bytes()
        return DiscReader(lambda at, n: data[at * SECTOR : (at + n) * SECTOR], len(data) // SECTOR)

    return open_image


@pytest.fixture
def conf_label() -> VolumeLabel:
    return LABEL
