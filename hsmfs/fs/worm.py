"""What the handlers ask about records and held files; here alone the mount meets retention.

Most files are not locked, and then a handler compares one number and asks nothing. Each method is
called inside the handler's transaction and raises Forbidden, which undoes it; the guard puts the
refusal on record before the kernel is told EPERM. The rules are those of `engine/trust/retention`.
"""

from __future__ import annotations

from typing import Any

from pyfuse3 import RequestContext

from ..engine.files import Files
from ..engine.trust import Trust
from ..engine.trust.retention import WRITE
from ..logs import printable
from ..states import Lock
from ..types import Attr, InodeNo
from . import dosattrib
from .requester import actor


class Worm:
    """Made once for a mount."""

    def __init__(self, trust: Trust, files: Files) -> None:
        self._trust, self._files = trust, files
        self._retention = trust.retention

    # Names

    def named(self, attr: Attr, parent: int, act: str) -> None:
        """A file got a name in a folder: by create, link or rename."""
        if attr.locked:
            self._retention.forbid(attr, act)
        if self._retention.active:
            self._retention.arrived(attr, parent)

    def unnamed(self, attr: Attr, parent: int, name: bytes, ctx: RequestContext, act: str) -> None:
        """A file lost a name by unlink, or a file or an empty folder by a rename over it."""
        if attr.locked:
            self._retention.may_lose_name(attr, act)
        if attr.is_dir:
            self.folder_removed(attr.ino, act)
        elif attr.nlink == 0 and attr.is_file:
            folder = self._files.catalog.names.folder_path(parent)
            above = b"inode %d/" % parent if folder is None else b"/" + folder
            self._trust.deleted(attr, printable(above + name), actor(ctx))

    def moved(self, attr: Attr, parent: int, new_parent: int) -> None:
        """A file or folder was renamed."""
        if attr.is_dir:
            self._retention.may_move_folder(attr, parent, new_parent)
        else:
            self.named(attr, new_parent, "rename")

    def folder_removed(self, ino: InodeNo, act: str) -> None:
        """A folder was removed."""
        if self._retention.active:
            self._retention.may_remove_folder(ino, act)

    # Bytes

    def opening(self, attr: Attr, *, cut: bool) -> None:
        """A locked file is opened for writing, or to be cut."""
        self._retention.may_open_for_writing(attr, cut=cut)

    def writing(self, attr: Attr, offset: int) -> None:
        """Bytes are written to a locked file."""
        self._retention.may_write(attr, offset)

    async def closed(self, ino: InodeNo, ctx: RequestContext) -> None:
        """The last writer of a file that is to be committed closed it."""
        await self._retention.finish_closing(ino, actor(ctx))

    # Attributes

    def changing(self, old: Attr, changes: dict[str, Any], ctx: RequestContext) -> None:
        """Attributes are to change; changes may be altered."""
        if old.locked:
            self._retention.changed(old, changes, actor(ctx))
            return
        if "atime_ns" in changes and self._retention.of_file(old.ino) is not None:
            self._retention.wish(old.ino, changes["atime_ns"])
        if "mode" in changes and self._retention.commits(old, changes["mode"]):
            made = self._commit(old._replace(**changes), ctx)
            changes["locked"], changes["atime_ns"] = made.locked, made.atime_ns

    def xattr(self, attr: Attr, name: bytes, value: bytes | None) -> None:
        """An attribute of a locked file is to be set, or removed.

        Of a record whose time is over, Windows must be able to take the read-only mark away before
        it deletes.
        """
        free = attr.locked == Lock.RECORD and self._retention.expired(attr.ino)
        if not (free and name == dosattrib.NAME):
            if value is not None and self._files.catalog.xattrs.get(attr.ino, name) == value:
                return
            self._retention.forbid(attr, "change extended attributes")

    def acl(self, attr: Attr, mode: int, ctx: RequestContext) -> Attr:
        """An ACL is stored that makes the mode this: perhaps nobody may write any more."""
        if self._retention.active and self._retention.commits(attr, mode):
            return self._commit(attr._replace(mode=mode), ctx)
        return attr._replace(mode=mode)

    def read_only_mark(self, attr: Attr, value: bytes, ctx: RequestContext) -> Attr:
        """Samba stores DOS attributes: with the read-only one, the file is committed."""
        if self._retention.active and dosattrib.read_only(value):
            return self.acl(attr, attr.mode & ~WRITE, ctx)
        return attr

    def _commit(self, attr: Attr, ctx: RequestContext) -> Attr:
        live = self._files.live(attr.ino)
        writers = live.writers if live is not None else 0
        return self._retention.commit(attr, actor(ctx), writers=writers)
