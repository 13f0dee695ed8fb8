"""What a disc is told about inodes besides their bytes: names, attributes, folders, links.

Runs in a thread on a snapshot of the catalog. A disc carries the folders above its files, and of
each folder the links, special files and folders without files, so that these come back too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import Any

from ..catalog.reports import Reports
from ..disc.layout import Kind, StagedFile
from ..types import ROOT, Attr, InodeNo

CARRIED = 200_000
"""Folders, links and special files that one disc carries at most."""
NAMES = 64
"""Names of one inode that are put on a disc."""
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
}


def staged(reports: Reports, attr: Attr, **bytes_: Any) -> StagedFile | None:
    """The inode as it goes on a disc, with what is known of its bytes; None if it has no name."""
    paths = tuple(reports.names.paths(attr.ino, NAMES))
    return _staged(reports, attr, paths, **bytes_) if paths and all(paths) else None


def _staged(reports: Reports, attr: Attr, paths: tuple[bytes, ...], **bytes_: Any) -> StagedFile:
    kind = _KINDS[stat.S_IFMT(attr.mode)]
    target = (reports.inodes.target(attr.ino) or b"") if kind is Kind.SYMLINK else b""
    return StagedFile(
        ino=attr.ino,
        version=attr.version,
        paths=paths,
        kind=kind,
        mode=stat.S_IMODE(attr.mode),
        uid=attr.uid,
        gid=attr.gid,
        mtime_ns=attr.mtime_ns,
        atime_ns=attr.atime_ns,
        ctime_ns=attr.ctime_ns,
        btime_ns=attr.btime_ns,
        xattrs=reports.xattrs.all(attr.ino),
        target=target,
        rdev=attr.rdev,
        kept=_kept(reports, attr) if attr.locked or kind is Kind.DIR else {},
        **bytes_,
    )


def _kept(reports: Reports, attr: Attr) -> dict[str, Any]:
    """How long it is kept, as the manifest says it; times of the compliance clock."""
    found: dict[str, Any] = {}
    if attr.is_dir:
        folder = reports.retention.folder(attr.ino)
        if folder is not None:
            found["retention_folder"] = {
                "mode": folder.mode.name.lower(), "min_ns": folder.min_ns,
                "default_ns": folder.default_ns, "max_ns": folder.max_ns,
                "autocommit_ns": folder.autocommit_ns,
            }  # fmt: skip
        return found
    record, holds = reports.retention.get(attr.ino), reports.holds.of(attr.ino)
    if record is not None:
        found["retention"] = {
            "mode": record.mode.name.lower(), "until_ns": record.until_ns,
            "committed_ns": record.committed_ns, "folder": record.folder,
        }  # fmt: skip
    if holds:
        found["holds"] = holds
    return found


def carried(reports: Reports, files: Iterable[InodeNo]) -> list[StagedFile]:
    """The folders above the files, and what is in those folders and is no file."""
    chain: dict[InodeNo, None] = {}
    for ino in files:
        for parent in reports.names.parents(ino):
            _climb(reports, parent, chain)
    found: dict[InodeNo, StagedFile] = {}
    for folder in chain:
        attr = reports.inodes.get_raw(folder)
        if attr is not None and folder != ROOT:
            _carry(reports, attr, found)
        _descend(reports, folder, chain, found)
        if len(found) >= CARRIED:
            break
    return list(found.values())


def _climb(reports: Reports, folder: InodeNo, chain: dict[InodeNo, None]) -> None:
    while folder not in chain:
        chain[folder] = None
        if folder == ROOT:
            return
        above = reports.names.parent(folder)
        if above is None:
            return
        folder = above


def _descend(
    reports: Reports,
    folder: InodeNo,
    chain: dict[InodeNo, None],
    found: dict[InodeNo, StagedFile],
) -> None:
    """Take in what is no file, and folders that hold no file, however deep."""
    todo = [folder]
    while todo and len(found) < CARRIED:
        for _, attr in reports.names.not_files(todo.pop()):
            if attr.ino in chain or attr.ino in found:
                continue
            if attr.is_dir:
                if reports.names.has_files(attr.ino):
                    continue
                todo.append(attr.ino)
            _carry(reports, attr, found)


def _carry(reports: Reports, attr: Attr, found: dict[InodeNo, StagedFile]) -> None:
    item = staged(reports, attr)
    if item is not None:
        found[attr.ino] = item
