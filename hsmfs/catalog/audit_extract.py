"""The part of the audit log that goes on a disc: whatever no verified disc bears yet.

So the chain can be put together, and judged, from discs alone. The extract begins behind the newest
head on a disc that was read back, hence a burn that fails takes nothing with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

from ..errors import CatalogDamaged
from .audit import Head, Record
from .reports import Reports


def write(reports: Reports, dest: Path) -> tuple[Head, int]:
    """Write the extract, zstd of JSON lines; the chain's head as of now, and the extract's bytes.

    Raises OSError.
    """
    after = reports.volumes.newest_audit_seq()
    prev = reports.audit.hash_of(after)
    if prev is None:
        raise CatalogDamaged(f"the audit log lacks record {after}, which a disc bears")
    head = Head(after, prev)
    with dest.open("wb") as out, zstandard.ZstdCompressor(level=3).stream_writer(out) as packed:
        for record in reports.audit.after(after):
            packed.write(record.line(head.hash))
            head = Head(record.seq, record.hash)
    return head, dest.stat().st_size


def read(extract: Path) -> Iterator[Record]:
    """The records of an extract. Raises CatalogDamaged, OSError."""
    try:
        with extract.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as plain:
            rest = b""
            while block := plain.read(1 << 20):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield Record.of_line(json.loads(line))[1]
    except (zstandard.ZstdError, KeyError, ValueError) as fault:
        raise CatalogDamaged(f"{extract} is no part of an audit log: {fault}") from fault
