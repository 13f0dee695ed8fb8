"""Ordinary .zst files of independent frames, one a CHUNK of plain bytes, with a seek table.

A range can be recalled by reading its frames alone, and `zstd -d` reads the whole. The seek table
follows the "Zstandard Seekable Format" 0.1.0 (zstd, contrib/seekable_format): a skippable frame
at the end, whose entries are the frames' compressed and plain sizes, without checksums.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from hsmfs.errors import MediaError
from hsmfs.types import CHUNK

SKIPPABLE_MAGIC = 0x184D2A5E
SEEKABLE_MAGIC = 0x8F92EAB1
LEVEL = 3
PROBE = 128 * 1024
PROBES = 8
GLANCE = 8 * 1024
"""Bytes of a spot that is tried for whether a file may shrink."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A finished .zst file: its bytes, its own SHA-256, and where each chunk's frame ends."""

    path: Path
    stored: int
    sha256: bytes
    frame_ends: tuple[int, ...]


def small_enough(stored: int, plain: int) -> bool:
    """Whether storing so many bytes instead of the plain ones saves at least 10 %."""
    return stored * 10 <= plain * 9


def worth_compressing(
    source: Path,
    length: int | None = None,
    offset: int = 0,
    probe: zstandard.ZstdCompressor | None = None,
) -> bool:
    """Try samples of [offset, offset+length) at zstd's quickest level. Raises OSError.

    First a glance at three spots: most of what is large is compressed already, and time is dear.
    probe: for many files, a compressor of that level, as making one costs more than a glance.
    """
    probe = probe or zstandard.ZstdCompressor(level=1)
    with source.open("rb", buffering=0) as file:
        fd = file.fileno()
        if length is None:
            length = os.fstat(fd).st_size - offset
        if length < 4096 or not any(_shrinks(probe, fd, *spot) for spot in _spots(offset, length)):
            return False
        step = max(PROBE, length // PROBES)
        plain = packed = 0
        for start in range(0, length, step):
            sample = os.pread(fd, min(PROBE, length - start), offset + start)
            plain += len(sample)
            packed += len(probe.compress(sample)) if sample else 0
    return plain > 0 and small_enough(packed, plain)


def _spots(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Places of GLANCE bytes, or less, around the quarters of a range."""
    for quarter in (1, 2, 3):
        start = max(0, length * quarter // 4 - GLANCE // 2)
        yield min(GLANCE, length - start), offset + start


def _shrinks(probe: zstandard.ZstdCompressor, fd: int, size: int, at: int) -> bool:
    sample = os.pread(fd, size, at)
    return small_enough(len(probe.compress(sample)), len(sample))


def compress(
    source: Path, dest: Path, *, offset: int = 0, length: int | None = None, level: int = LEVEL
) -> Compressed | None:
    """Write [offset, offset+length) of source as a seekable .zst file; None if it would not pay.

    Blocking; dest is not synced, and is removed when None is returned. Raises OSError.
    """
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
    sha = hashlib.sha256()
    ends: list[int] = []
    sizes: list[tuple[int, int]] = []
    with source.open("rb", buffering=0) as plain, dest.open("wb", buffering=0) as out:
        size = os.fstat(plain.fileno()).st_size - offset if length is None else length
        done = 0
        while done < size and (
            chunk := _pread(plain.fileno(), min(CHUNK, size - done), offset + done)
        ):
            frame = compressor.compress(chunk)
            out.write(frame)
            sha.update(frame)
            sizes.append((len(frame), len(chunk)))
            ends.append((ends[-1] if ends else 0) + len(frame))
            done += len(chunk)
        table = seek_table(sizes)
        out.write(table)
        sha.update(table)
    stored = (ends[-1] if ends else 0) + len(table)
    if not small_enough(stored, done):
        dest.unlink()
        return None
    return Compressed(dest, stored, sha.digest(), tuple(ends))


def seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The closing skippable frame, from each frame's (compressed, plain) bytes."""
    entries = b"".join(struct.pack("<II", packed, plain) for packed, plain in sizes)
    footer = struct.pack("<IBI", len(sizes), 0, SEEKABLE_MAGIC)
    return struct.pack("<II", SKIPPABLE_MAGIC, len(entries) + len(footer)) + entries + footer


def decompress_chunk(frame: bytes | memoryview) -> bytes:
    """The plain bytes of one frame, at most CHUNK. Raises MediaError if it is no such frame."""
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared > CHUNK:
            raise MediaError(f"a zstd frame claims {declared} plain bytes, more than {CHUNK}")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=CHUNK)
    except zstandard.ZstdError as error:
        raise MediaError(f"a zstd frame does not decompress: {error}") from error


def _pread(fd: int, count: int, offset: int) -> bytes:
    pieces: list[bytes] = []
    while count and (piece := os.pread(fd, count, offset)):
        pieces.append(piece)
        offset += len(piece)
        count -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
