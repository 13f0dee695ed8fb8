"""Which version a file had at a time, and older versions as files of their own: stubs, and inodes
that have the bytes because no disc had them.

A stub is a new inode with rows of the old version's copies and checksums: the same sectors of the
same discs. Nothing is copied, and the file itself keeps its number, its bytes and its handles.
"""

from __future__ import annotations

from .. import clock
from ..catalog.catalog import Catalog
from ..catalog.history import Version
from ..errors import Conflict
from ..states import FileState
from ..types import Attr, DataVersion, InodeNo, Range
from .files import Files


class Unkept(Conflict):
    """What the file was is nowhere: it was overwritten in place before a disc had it, and it had
    not lain still, or was not set aside (keeping.py).
    """


def version_then(files: Files, attr: Attr, time_ns: int) -> Version | None:
    """The version that a file had at a time, if that ended since; None: it is as it was then.

    One of the present number differs in its times alone. Raises Unkept.
    """
    history, ino = files.catalog.history, attr.ino
    then = history.version_at(ino, time_ns)
    last = attr if then is None else then
    if last.mtime_ns <= time_ns or history.burned_before(ino, last.version, time_ns):
        return then
    if last.version == attr.version and _only_touched(files, attr, time_ns):
        return then
    if not files.catalog.kept.was_so(ino, last.version, time_ns):
        raise Unkept("was changed since, and what it was then was on no disc")
    return then


def _only_touched(files: Files, attr: Attr, time_ns: int) -> bool:
    """Whether the mtime is later than a time, but the bytes were not changed since."""
    changed_ns = files.last_change_ns(attr)
    return changed_ns is not None and changed_ns <= time_ns


def refuse_lost(catalog: Catalog, then: Version) -> None:
    """Raise Unkept, or Conflict, if neither a disc nor an inode has an older version."""
    ino, version = then.ino, then.version
    if catalog.kept.holder(ino, version) is None and not catalog.copies.is_archived(ino, version):
        if catalog.kept.knows(ino, version):
            raise Unkept("was overwritten since, and there was no room to set aside what it was")
        raise Conflict("no disc that can be read has what it was then")


def dress(catalog: Catalog, ino: InodeNo, like: Attr, mtime_ns: int) -> Attr:
    """Give an inode without a name, which has bytes of an older version, owner, permissions and
    attributes of the file as they are now. In a transaction.
    """
    attr = catalog.inodes.get_raw(ino)
    assert attr is not None
    catalog.history.inherit(like.ino, ino)
    return catalog.inodes.put(
        attr._replace(
            mode=like.mode, uid=like.uid, gid=like.gid, atime_ns=like.atime_ns, mtime_ns=mtime_ns,
            ctime_ns=clock.now_ns(),
        )
    )


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
