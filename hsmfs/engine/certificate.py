"""The certificate of a retired disc: what was on it, and why it may be destroyed.

Write-once discs cannot be erased, so what an operator destroys must be on paper. Text for people
and JSON for programs, the same content, with the SHA-256 of every file version that is known.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import durable
from ..catalog.refreshes import Refresh
from ..catalog.reports import Reports
from ..catalog.volumes import Volume

_PAGE = 2000
_NO_NAME = "(its name is no longer in the catalog)"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as its two files; sha256 is that of the JSON file, hexadecimal."""

    name: str
    json: bytes
    text: bytes
    sha256: str


def make(reports: Reports, volume: Volume, row: Refresh) -> Certificate:
    """The certificate of a disc that was just retired; the same each time it is asked for."""
    facts: dict[str, Any] = {
        "what": "hsmfs destruction certificate",
        "version": 1,
        "disc": volume.barcode,
        "disc_inside": volume.inside or volume.barcode,
        "uuid": volume.uuid,
        "reason": row.kind,
        "ordered_by": row.requester,
        "retired_ns": row.retired_ns,
        "retired": _when(row.retired_ns),
        "burned": _when(volume.burned_ns),
        "written_by": volume.written_by,
        "bytes": volume.used,
        "root_hash": volume.root_hash,
        "image_sha256": volume.image_sha256,
        "files": _files(reports, volume),
    }
    body = (json.dumps(facts, indent=1, ensure_ascii=True) + "\n").encode()
    sha = hashlib.sha256(body).hexdigest()
    return Certificate(f"{volume.barcode}-{row.id:05d}", body, _text(facts, sha), sha)


def _files(reports: Reports, volume: Volume) -> list[dict[str, Any]]:
    """Every part on the disc: those whose file lives elsewhere, and those that were dead.

    A disc that was made anew has the same uuid and the same parts, and their rows.
    """
    same = reports.volumes.by_uuid(volume.uuid or "") or volume
    paths = reports.path_cache()
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        rows, after = reports.refreshes.held(same.id, after, _PAGE)
        if not rows:
            return found
        for held in rows:
            attr = reports.inodes.get_raw(held.ino)
            named = attr is not None and attr.nlink
            name = paths.path(held.ino) if named else paths.last(held.ino)
            found.append(
                {
                    "inode": held.ino,
                    "path": None if name is None else "/" + name.decode("utf-8", "replace"),
                    "data_version": held.version,
                    "part": f"{held.part + 1} of {held.parts}",
                    "bytes": held.length,
                    "sha256": held.sha256.hex() if held.sha256 else None,
                    "lives_on": attr is not None and attr.version == held.version,
                }
            )


def _text(facts: dict[str, Any], sha: str) -> bytes:
    lines = [
        "DESTRUCTION CERTIFICATE",
        "",
        f"Disc           {facts['disc']} (inside: {facts['disc_inside']}, {facts['uuid']})",
        f"Burned         {facts['burned']} by drive {facts['written_by'] or 'unknown'}",
        f"Retired        {facts['retired']}",
        f"Reason         {facts['reason']}, ordered by {facts['ordered_by']}",
        f"Image          {facts['bytes']} bytes, SHA-256 {facts['image_sha256'] or 'not known'}",
        f"Root hash      {facts['root_hash'] or 'not known'}",
        f"JSON file      SHA-256 {sha}",
        "",
        "Each file that lives on has as many verified copies on other discs as it had before.",
        "The disc holds the bytes of all of them until it is destroyed.",
        "",
        f"What was on it ({len(facts['files'])} parts): SHA-256, bytes, part, lives on, path",
    ]
    lines += map(_line, facts["files"])
    blank = "_" * 20
    lines += ["", f"Destroyed on {blank}  by {blank}  witness {blank}", ""]
    return "\n".join(lines).encode()


def _line(file: dict[str, Any]) -> str:
    name = _printable(file["path"]) if file["path"] else f"inode {file['inode']} {_NO_NAME}"
    alive = "yes" if file["lives_on"] else "no"
    sha = file["sha256"] or "-" * 64
    return f"{sha} {file['bytes']:>15} {file['part']:>9} {alive:>3} {name}"


def _printable(path: str) -> str:
    """A name may hold line feeds; a line of the certificate must not."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in path)


def _when(at_ns: int | None) -> str | None:
    if at_ns is None:
        return None
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def write(paper: Certificate, folder: Path) -> None:
    """Both files, durable; written again they are the same. Blocking. Raises OSError."""
    folder.mkdir(mode=0o750, exist_ok=True)
    for suffix, body in ((".json", paper.json), (".txt", paper.text)):
        path = folder / (paper.name + suffix)
        new = path.with_suffix(suffix + ".new")
        with new.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    durable.sync(folder)
