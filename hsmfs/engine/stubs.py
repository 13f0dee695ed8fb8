"""Older versions of a file as files of their own: stubs of the copies that discs have of them.

A stub is a new inode with rows of the old version's copies and checksums: the same sectors of the
same discs. Nothing is copied, and the file itself keeps its number, its bytes and its handles.
"""

from __future__ import annotations

from .. import clock
from ..catalog.catalog import Catalog
from ..errors import Conflict
from ..states import FileState
from ..types import Attr, DataVersion, Range


def make_stub(
    catalog: Catalog, like: Attr, version: DataVersion, size: int, mtime_ns: int
) -> Attr:
    """A stub of a version of the inode like: its owner, permissions and attributes as they are now.
    It has no name yet. In a transaction."""
    one, inodes = DataVersion(1), catalog.inodes
    new = inodes.insert_as(
        like._replace(
            ino=inodes.reserve(), nlink=1, size=size, blocks=0, mtime_ns=mtime_ns,
            ctime_ns=clock.now_ns(), pool=None, version=one, base_version=one, dirty=False,
            pinned=False, locked=0,
            state=FileState.MIGRATED if size else FileState.PREMIGRATED,
        )
    )  # fmt: skip
    catalog.history.stub_of(like.ino, version, new.ino)
    if size:
        inodes.set_absent(new.ino, [Range(0, size)])
    return new


def refuse_locked(attr: Attr) -> None:
    """Raises Conflict if the file must stay as it is."""
    if attr.locked:
        raise Conflict("is a record, or held", next_step="see 'hsmctl retention show'")
