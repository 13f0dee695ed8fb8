"""The text files of a disc: MANIFEST.jsonl and VOLUME.json, written and read.

Both are UTF-8 JSON, and any byte string that is not UTF-8 goes in base64 under a key that ends in
`_b64`. Keys are those of docs/disc-format.md sections 4 and 5.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

from hsmfs.disc.layout import FORMAT_VERSION, Kind, Placed, StagedFile, VolumeLabel
from hsmfs.errors import ForeignDisc
from hsmfs.types import CHUNK, SECTOR, DataVersion, Digest, InodeNo

MANIFEST = "MANIFEST.jsonl"
SUMS = "SHA256SUMS"
VOLUME = "VOLUME.json"
README = "README.txt"
CATALOG = "CATALOG.sqlite.zst"
AUDIT = "AUDIT.jsonl.zst"
PARITY = "PARITY.bin"
FORMAT = "hsmfs-disc"
KEPT = ("retention", "holds", "retention_folder")
"""Keys of a line that say how long something is kept."""


def write_manifest(placed: Iterable[Placed], out: BinaryIO) -> None:
    """One line a staged file."""
    for item in placed:
        out.write(manifest_line(item))


def manifest_line(item: Placed) -> bytes:
    """The line of one staged file, newline included."""
    file = item.file
    line: dict[str, Any] = {
        "ino": file.ino,
        "version": file.version,
        "kind": file.kind.value,
        "names": [
            _named({}, "path", path)
            if stored is None
            else _named(_named({}, "path", path), "stored", stored)
            for path, stored in zip(file.paths, item.stored, strict=True)
        ],
        "mode": file.mode,
        "uid": file.uid,
        "gid": file.gid,
        "mtime_ns": file.mtime_ns,
        "atime_ns": file.atime_ns,
        "ctime_ns": file.ctime_ns,
        "btime_ns": file.btime_ns,
    }
    if file.xattrs:
        line["xattrs"] = [
            _named({}, "name", name) | {"value_b64": base64.b64encode(value).decode()}
            for name, value in sorted(file.xattrs.items())
        ]
    line |= file.kept
    if file.kind is Kind.FILE:
        line |= _content(file)
    elif file.kind is Kind.SYMLINK:
        _named(line, "target", file.target)
    elif file.kind in (Kind.CHAR, Kind.BLOCK):
        line["rdev"] = file.rdev
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _content(file: StagedFile) -> dict[str, Any]:
    assert file.digest is not None
    line: dict[str, Any] = {"size": file.digest.size, "sha256": file.digest.sha256.hex()}
    if len(file.digest.chunks) > 1:
        line["chunks"] = [chunk.hex() for chunk in file.digest.chunks]
    if file.parts > 1:
        line["part"] = {
            "part": file.part,
            "parts": file.parts,
            "offset": file.offset,
            "length": file.length,
        }
    line["stored_size"] = file.stored
    if file.stored_sha256 is None:
        raise ValueError(f"inode {file.ino}: the stored bytes have no checksum")
    line["stored_sha256"] = file.stored_sha256.hex()
    if file.compressed:
        line["compression"] = "zstd"
        line["frame_ends"] = list(file.frame_ends)
    return line


def parse_line(line: bytes) -> Placed:
    """A line of a manifest as the staged file it came from, without its source.

    Raises ForeignDisc if it is not such a line.
    """
    try:
        return _parse(json.loads(line))
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignDisc(
            f"a line of {MANIFEST} is not readable: {error!r}: {line[:80]!r}"
        ) from error


def _parse(line: Mapping[str, Any]) -> Placed:
    names = line["names"]
    part = line.get("part", {"part": 1, "parts": 1, "offset": 0, "length": line.get("size", 0)})
    file = StagedFile(
        ino=InodeNo(line["ino"]),
        version=DataVersion(line["version"]),
        paths=tuple(_bytes(name, "path") for name in names),
        kind=Kind(line["kind"]),
        mode=line["mode"],
        uid=line["uid"],
        gid=line["gid"],
        mtime_ns=line["mtime_ns"],
        atime_ns=line["atime_ns"],
        ctime_ns=line["ctime_ns"],
        btime_ns=line["btime_ns"],
        xattrs={
            _bytes(x, "name"): base64.b64decode(x["value_b64"]) for x in line.get("xattrs", ())
        },
        digest=_digest(line) if "sha256" in line else None,
        part=part["part"],
        parts=part["parts"],
        offset=part["offset"],
        length=part["length"],
        stored=line.get("stored_size", 0),
        stored_sha256=bytes.fromhex(line["stored_sha256"]) if "stored_sha256" in line else None,
        compressed=line.get("compression") == "zstd",
        frame_ends=tuple(line.get("frame_ends", ())),
        target=_bytes(line, "target") if line["kind"] == Kind.SYMLINK else b"",
        rdev=line.get("rdev", 0),
        kept={key: line[key] for key in KEPT if key in line},
    )
    stored = tuple(
        _bytes(name, "stored") if "stored" in name or "stored_b64" in name else None
        for name in names
    )
    return Placed(file, stored)


def _digest(line: Mapping[str, Any]) -> Digest:
    whole = bytes.fromhex(line["sha256"])
    size = line["size"]
    chunks = tuple(bytes.fromhex(chunk) for chunk in line.get("chunks", ()))
    if not chunks and size:
        chunks = (whole,)
    if len(chunks) != -(-size // CHUNK):
        raise ValueError(f"{len(chunks)} chunk checksums for {size} bytes")
    return Digest(whole, chunks, size)


def write_volume(
    label: VolumeLabel,
    *,
    files: int,
    stored: int,
    sums: Mapping[str, str],
    parity: Mapping[str, Any] | None = None,
) -> bytes:
    """VOLUME.json; its own SHA-256 is the volume's root hash. sums: hex SHA-256 by file name.

    parity: on a parity disc, what it holds and of which discs.
    """
    volume: dict[str, Any] = {
        "format": FORMAT,
        "format_version": label.format_version,
        "archive": label.archive,
        "uuid": label.uuid,
        "barcode": label.barcode,
        "set": {
            "name": label.set_name,
            "uuid": label.set_uuid,
            "index": label.index,
            "k": label.k,
            "m": label.m,
        },
        "created_ns": label.created_ns,
        "created": datetime.fromtimestamp(label.created_ns // 10**9, UTC).isoformat(),
        "previous_root": label.previous_root,
        "audit_head": label.audit_head,
        "copy": label.copy_no,
        "sector_size": SECTOR,
        "chunk_size": CHUNK,
        "files": files,
        "stored_bytes": stored,
        "manifest_sha256": sums[MANIFEST],
        "sums_sha256": sums[SUMS],
        "catalog_sha256": sums.get(CATALOG),
        "audit_sha256": sums.get(AUDIT),
    }
    if parity is not None:
        volume["parity"] = dict(parity)
    return json.dumps(volume, ensure_ascii=False, indent=2).encode() + b"\n"


def read_volume(data: bytes) -> tuple[VolumeLabel, dict[str, Any]]:
    """The label in VOLUME.json, and all its keys.

    Raises ForeignDisc if it is none of ours or of a later format than this program knows.
    """
    try:
        volume = json.loads(data)
        if volume["format"] != FORMAT:
            raise ForeignDisc(f"{VOLUME} says format {volume['format']!r}, not {FORMAT!r}")
        if volume["format_version"] > FORMAT_VERSION:
            raise ForeignDisc(
                f"the disc has format version {volume['format_version']}, "
                f"this program reads up to {FORMAT_VERSION}",
                next_step="use a newer hsmfs",
            )
        group = volume["set"]
        label = VolumeLabel(
            volume["uuid"],
            volume["barcode"],
            group["name"],
            group["uuid"],
            group["index"],
            group["k"],
            group["m"],
            volume["created_ns"],
            volume["format_version"],
            volume["previous_root"],
            volume["audit_head"],
            volume.get("copy"),
            volume.get("archive"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignDisc(f"{VOLUME} is not readable: {error!r}") from error
    return label, volume


def read_manifest(data: bytes) -> Iterator[Placed]:
    """Every line of a manifest. Raises ForeignDisc."""
    return (parse_line(line) for line in data.split(b"\n") if line)


def _named(line: dict[str, Any], key: str, value: bytes) -> dict[str, Any]:
    try:
        line[key] = value.decode()
    except UnicodeDecodeError:
        line[key + "_b64"] = base64.b64encode(value).decode()
    return line


def _bytes(line: Mapping[str, Any], key: str) -> bytes:
    if key in line:
        return str(line[key]).encode()
    return base64.b64decode(line[key + "_b64"], validate=True)
