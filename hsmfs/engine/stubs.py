"""Which version a file had at a time, and older versions as files of their own: stubs.

A stub is a new inode with rows of the old version's copies and checksums: the same sectors of the
same discs. Nothing is copied, and the file itself keeps its number, its bytes and its handles.
"""

from __future__ import annotations

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.history import Version
from ..errors import Conflict
from ..states import FileState
from ..types import Attr, DataVersion, Range


class Unkept(Conflict):
    """What the file was is nowhere: it was overwritten in place before a disc had it."""


def version_then(catalog: Catalog, attr: Attr, time_ns: int) -> Version | None:
    """The version that a file had at a time, if that ended since; None: it is as it was then.

    One of the present number differs in its times alone. Raises Unkept.
    """
    history = catalog.history
    then = history.version_at(attr.ino, time_ns)
    last = attr if then is None else then
    if last.mtime_ns > time_ns and not history.burned_before(attr.ino, last.version, time_ns):
        raise Unkept("was changed since, and what it was then was on no disc")
    return then


def make_stub(
    catalog: Catalog, like: Attr, version: DataVersion, size: int, mtime_ns: int,
    *, passing: bool = False,
) -> Attr:
    """A stub of a version of the inode like: its owner, permissions and attributes as they are now.
    It has no name yet; one that is passing gets none, and no attributes. In a transaction."""
    one, inodes = DataVersion(1), catalog.inodes
    new = inodes.insert_as(
        like._replace(
            ino=inodes.reserve(), nlink=int(not passing), size=size, blocks=0, mtime_ns=mtime_ns,
            ctime_ns=clock.now_ns(), pool=None, version=one, base_version=one, dirty=False,
            pinned=False, locked=0,
            state=FileState.MIGRATED if size else FileState.PREMIGRATED,
        )
    )  # fmt: skip
    catalog.history.stub_of(like.ino, version, new.ino)
    if not passing:
        catalog.history.inherit(like.ino, new.ino)
    if size:
        inodes.set_absent(new.ino, [Range(0, size)])
    return new


def refuse_locked(attr: Attr) -> None:
    """Raises Conflict if the file must stay as it is."""
    if attr.locked:
        raise Conflict("is a record, or held", next_step="see 'hsmctl retention show'")
