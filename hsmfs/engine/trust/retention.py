"""Retention folders and records: what becomes one, what may be done to it, and what extends it.

The convention is that of SnapLock, SmartLock and SAM-QFS (docs/retention.md cites them): in a
retention folder, taking the last write permission of a file away commits it. Its bytes never change
again; it stays until its atime, which was set before, or the folder's default, within the folder's
bounds. Handlers of the mount ask here, in their own transactions; nothing here awaits but orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ... import clock
from ...catalog.catalog import Catalog
from ...catalog.holds import Holds
from ...catalog.retention import FOREVER, Folder, Retained, Retentions, after
from ...errors import Conflict, Forbidden, NotFound
from ...states import Lock, RetentionMode
from ...types import ROOT, Attr, InodeNo
from ..files import Files
from .audit import Audit
from .compliance import ComplianceClock
from .words import path_of, until_words

WRITE = 0o222
FOLDERS = 10_000
"""Folders of which it is remembered whether they lie in a retention folder."""
AHEAD_NS = 3600 * 10**9
"""An atime less far ahead asks for no retention."""
FROZEN = Lock.RECORD | Lock.HELD


class Retention:
    """The rules of one catalog.

    Attributes:
        active: there is at least one retention folder; nothing else is asked while there is none.
        arrivals: files that autocommit is to look at, (due, file, since): it writes them down.
        unwatched: folders with autocommit whose files are still to be looked at for the first time.
        wake: called before the first of them.
    """

    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        tables: Retentions,
        holds: Holds,
        worm: ComplianceClock,
        audit: Audit,
    ) -> None:
        self._catalog, self._files, self.tables, self._holds = catalog, files, tables, holds
        self._clock, self._audit = worm, audit
        self.arrivals: list[tuple[int, int, int]] = []
        self.unwatched = 0
        self.wake: Callable[[], None] = lambda: None
        self._folders: dict[InodeNo, Folder] = {}
        self._known: dict[int, Folder | None] = {}
        self.active = False
        self._load()

    def _load(self) -> None:
        self._folders = {folder.ino: folder for folder in self.tables.folders()}
        self.active = bool(self._folders)
        self._known.clear()

    # Folders

    def folder_of(self, directory: int) -> Folder | None:
        """The retention folder that a directory is or lies in."""
        if not self.active:
            return None
        if directory in self._known:
            return self._known[directory]
        found, at = None, directory
        while found is None:
            found = self._folders.get(InodeNo(at))
            above = self._catalog.names.parent(at)
            if above is None or above == at:
                break
            at = above
        if len(self._known) >= FOLDERS:
            self._known.clear()
        self._known[directory] = found
        return found

    def of_file(self, ino: int) -> Folder | None:
        """The retention folder of a file; one of its names lies in it."""
        if not self.active:
            return None
        for parent in self._catalog.names.parents(ino):
            found = self.folder_of(parent)
            if found is not None:
                return found
        return None

    def folders(self) -> list[Folder]:
        """All of them."""
        return list(self._folders.values())

    async def set_folder(self, folder: Folder, who: str) -> None:
        """Make a directory a retention folder, or change its settings for what is committed later.

        Raises Conflict if one lies in or above it, or if compliance mode would end with records.
        """
        async with self._catalog.write():
            attr = self._catalog.inodes.get_raw(folder.ino)
            if attr is None or not attr.is_dir or not attr.nlink:
                raise NotFound(f"inode {folder.ino} is not a folder")
            known = self._folders.get(folder.ino)
            if known is None:
                self._refuse_nesting(folder.ino)
            elif folder.mode < known.mode:
                self._refuse_with_records(folder.ino, "cannot leave compliance mode")
            self.tables.set_folder(folder)
            if folder.autocommit_ns is not None:
                self.tables.expect_all([], 0)  # until all that is in it is watched
            self._audit.note(
                "retention.folder", who, path_of(self._catalog, folder.ino), ino=folder.ino,
                mode=folder.mode.name.lower(), min_ns=folder.min_ns, default_ns=folder.default_ns,
                max_ns=folder.max_ns, autocommit_ns=folder.autocommit_ns,
            )  # fmt: skip
        self.unwatched += folder.autocommit_ns is not None
        self._load()
        await self._catalog.sync()

    async def drop_folder(self, ino: InodeNo, who: str) -> None:
        """Make it an ordinary folder. Raises NotFound, Conflict while records are kept in it."""
        async with self._catalog.write():
            if ino not in self._folders:
                raise NotFound(
                    f"{path_of(self._catalog, ino)} is not a retention folder",
                    next_step="see 'hsmctl retention ls'",
                )
            self._refuse_with_records(ino, "stays a retention folder")
            self.tables.drop_folder(ino)
            self._audit.note("retention.folder_dropped", who, path_of(self._catalog, ino), ino=ino)
        self._load()
        await self._catalog.sync()

    def _refuse_nesting(self, ino: InodeNo) -> None:
        above = self.folder_of(ino)
        below = [f.ino for f in self._folders.values() if ino in self._above(f.ino)]
        other = above.ino if above is not None else below[0] if below else None
        if other is not None:
            raise Conflict(
                f"{path_of(self._catalog, other)} is a retention folder already",
                next_step="retention folders cannot lie in one another: choose another folder",
            )

    def _refuse_with_records(self, ino: InodeNo, what: str) -> None:
        _, kept = self.tables.count(ino, self._clock.now_ns())
        if kept:
            raise Conflict(
                f"{path_of(self._catalog, ino)} {what}: {kept} records must be kept in it",
                next_step="wait until their retention has ended",
            )

    def _above(self, ino: int) -> set[int]:
        """The folders above one, itself left out."""
        found: set[int] = set()
        while ino != ROOT:
            parent = self._catalog.names.parent(ino)
            if parent is None:
                break
            found.add(parent)
            ino = parent
        return found

    # Names; inside the transaction of the change, after it was made: raising undoes it

    def arrived(self, attr: Attr, parent: int) -> None:
        """A file that is no record has a new name in a folder: autocommit may want to watch it."""
        folder = self.folder_of(parent)
        if folder is not None and folder.autocommit_ns is not None and attr.is_file:
            if not self.arrivals:
                self.wake()
            now = self._clock.now_ns()
            self.arrivals.append((now + folder.autocommit_ns, attr.ino, now))

    def may_lose_name(self, attr: Attr, act: str) -> None:
        """Raise Forbidden if the file must keep this name."""
        if attr.locked & (Lock.HELD | Lock.CLOSING) or not self.expired(attr.ino):
            raise self._forbidden(attr, act)

    def may_move_folder(self, attr: Attr, old_parent: int, new_parent: int) -> None:
        """Raise Forbidden if records below a folder would get another path."""
        if not self.active:
            return
        inside = self.folder_of(old_parent) or self.folder_of(new_parent)
        root = attr.ino in self._folders
        if root or (inside is not None and not self._catalog.names.is_empty(attr.ino)):
            raise Forbidden(
                f"{path_of(self._catalog, attr.ino)} is or lies in a retention folder",
                act="rename", ino=attr.ino,
            )  # fmt: skip
        if any(attr.ino in self._above(ino) for ino in self._folders):
            raise Forbidden(
                f"a retention folder lies below {path_of(self._catalog, attr.ino)}",
                act="rename", ino=attr.ino,
            )  # fmt: skip
        self._known.clear()
        self._catalog.if_undone(self._known.clear)

    def may_remove_folder(self, ino: InodeNo, act: str) -> None:
        """Raise Forbidden for a retention folder."""
        if ino in self._folders:
            raise Forbidden(
                "the folder is a retention folder", act=act, ino=ino,
                next_step="'hsmctl retention unset' it first",
            )  # fmt: skip
        self._known.pop(ino, None)

    # Bytes and attributes

    def expired(self, ino: int) -> bool:
        """True if the file's retention has ended, or it has none."""
        record = self.tables.get(ino)
        return record is None or record.until_ns <= self._clock.now_ns()

    def forbid(self, attr: Attr, act: str) -> None:
        """Raise Forbidden, saying why the file must not change; its lock is not 0."""
        raise self._forbidden(attr, act)

    def may_write(self, attr: Attr, offset: int) -> None:
        """Raise Forbidden if bytes must not be written there."""
        if attr.locked & Lock.HELD:
            raise self._forbidden(attr, "write")
        if attr.locked == Lock.CLOSING:
            return
        if not (attr.locked & Lock.APPEND and offset == attr.size):
            raise self._forbidden(attr, "write")

    def may_open_for_writing(self, attr: Attr, *, cut: bool) -> None:
        """Raise Forbidden unless it is a record that takes bytes at its end."""
        if cut or attr.locked & (Lock.HELD | Lock.APPEND) != Lock.APPEND:
            raise self._forbidden(attr, "open for writing")

    def commits(self, old: Attr, mode: int) -> bool:
        """Whether a change of mode is the convention's sign to commit the file."""
        gone = old.mode & WRITE and not mode & WRITE
        return bool(gone and old.is_file and old.nlink and self.of_file(old.ino) is not None)

    def wish(self, ino: InodeNo, atime_ns: int) -> None:
        """Somebody set the atime of a file that is no record yet; in a transaction.

        Only a time well ahead of both clocks asks for a retention: programs set the time that it
        is, by clocks that may be ahead of ours, and the compliance clock may be behind.
        """
        ahead = max(self._clock.now_ns(), clock.now_ns()) + AHEAD_NS
        self.tables.wish(ino, atime_ns if atime_ns > ahead else None)

    def commit(self, attr: Attr, who: str, *, writers: int = 0) -> Attr:
        """Make a file a record now, or when its last writer has closed it; in a transaction.

        Returns it as it is then; its mode and the rest are written by the caller.
        """
        folder = self.of_file(attr.ino)
        if folder is None:  # it was made an ordinary one while the file was open
            return self._lock(attr, attr.locked & ~Lock.CLOSING)
        if writers:
            # A mapping that may still be written to cannot be taken away from its process.
            return self._lock(attr, attr.locked | Lock.CLOSING)
        now = self._clock.now_ns()
        until = folder.until(now, self.tables.wished(attr.ino))
        known = self.tables.get(attr.ino)
        committed = known.committed_ns if known is not None else now
        mode = max(folder.mode, known.mode) if known is not None else folder.mode
        self.tables.put(Retained(attr.ino, folder.ino, mode, until, committed))
        self._audit.note(
            "retention.committed", who, path_of(self._catalog, attr.ino), ino=attr.ino,
            folder=folder.ino, mode=mode.name.lower(), until_ns=until, committed_ns=committed,
            size=attr.size, version=attr.version,
        )  # fmt: skip
        locked = attr.locked & ~(Lock.CLOSING | Lock.APPEND) | Lock.RECORD
        return self._lock(attr, locked)._replace(atime_ns=until)

    def _lock(self, attr: Attr, locked: int) -> Attr:
        self._files.lock(attr.ino, locked)
        return attr._replace(locked=int(locked))

    def changed(self, old: Attr, changes: dict[str, Any], who: str) -> None:
        """A locked file's attributes are to change: allow, forbid, or take as the convention says.

        In a transaction; changes may be altered. Raises Forbidden.
        """
        for key in ("uid", "gid", "mtime_ns"):
            same = changes.get(key, getattr(old, key)) == getattr(old, key)
            if not same and not (key == "mtime_ns" and old.locked == Lock.CLOSING):
                raise self._forbidden(old, f"change {key.removesuffix('_ns')}")
        if "atime_ns" in changes and not old.locked & Lock.RECORD:
            self.wish(old.ino, changes["atime_ns"])
        if "mode" in changes:
            self._mode_changed(old, changes, who)
        if "atime_ns" in changes and old.locked & Lock.RECORD:
            self._atime_changed(old, changes, who)

    def _mode_changed(self, old: Attr, changes: dict[str, Any], who: str) -> None:
        had, wants = old.mode & WRITE, changes["mode"] & WRITE
        record = old.locked & Lock.RECORD
        if wants & ~had:
            empty = record and not old.size and not old.locked & Lock.HELD
            if empty and not self.expired(old.ino):
                changes["locked"] = self._lock(old, old.locked | Lock.APPEND).locked
                self._audit.note(
                    "retention.appendable", who, path_of(self._catalog, old.ino), ino=old.ino
                )
            elif not record or old.locked & Lock.HELD or not self.expired(old.ino):
                raise self._forbidden(old, "add write permission")
        elif had and not wants and record:
            if "atime_ns" in changes:
                self.wish(old.ino, changes["atime_ns"])
            made = self._again(old, who)
            changes["locked"], changes["atime_ns"] = made.locked, made.atime_ns

    def _again(self, attr: Attr, who: str) -> Attr:
        """Write permission is taken from a record: no more appending, or a new retention."""
        known = self.tables.get(attr.ino)
        if attr.locked & Lock.APPEND and known is not None:
            attr = self._lock(attr, attr.locked & ~Lock.APPEND)
            if known.until_ns > self._clock.now_ns():
                return attr
        return self.commit(attr, who)

    def _atime_changed(self, old: Attr, changes: dict[str, Any], who: str) -> None:
        record = self.tables.get(old.ino)
        wanted = changes["atime_ns"]
        if record is None or wanted == record.until_ns:
            return
        changes["atime_ns"] = self._extend(record, wanted, old, who)

    def _extend(self, record: Retained, wanted: int, attr: Attr, who: str) -> int:
        now = self._clock.now_ns()
        folder = self._folders.get(record.folder)
        until = min(wanted, after(now, folder.max_ns)) if folder is not None else wanted
        if wanted < record.until_ns or wanted <= now:
            raise self._forbidden(attr, "shorten retention")
        until = max(until, record.until_ns)
        self.tables.extend(record.ino, until)
        self._audit.note(
            "retention.extended", who, path_of(self._catalog, record.ino), ino=record.ino,
            until_ns=until, before_ns=record.until_ns,
        )  # fmt: skip
        return until

    def _forbidden(self, attr: Attr, act: str) -> Forbidden:
        path, why = path_of(self._catalog, attr.ino), self.why(attr)
        return Forbidden(f"{path}: {why}", act=act, ino=attr.ino, why=why)

    def why(self, attr: Attr) -> str:
        """Why a locked file must not change, in words."""
        reasons = [f"held by {name}" for name in self._holds.of(attr.ino)]
        record = self.tables.get(attr.ino)
        if record is not None:
            now = self._clock.now_ns()
            reasons.append(until_words(record.until_ns, now))
        elif attr.locked & Lock.CLOSING:
            reasons.append("it is committed when it is closed")
        return ", ".join(reasons) or "it is locked"

    # Orders of the API

    async def extend(self, attr: Attr, until_ns: int, who: str) -> int:
        """Keep a record until a time. Raises NotFound, Forbidden; durable when this returns."""
        async with self._catalog.write():
            record = self._must(attr)
            until = self._extend(record, until_ns, attr, who)
            now = self._files.attr(attr.ino)
            assert now is not None
            await self._files.setattr(attr.ino, now._replace(atime_ns=until))
        await self._catalog.sync()
        self._files.changed(attr.ino)
        return until

    async def privileged_delete(self, attr: Attr, who: str, reason: str, keep_ns: int) -> None:
        """Delete a record of enterprise mode before its time. Raises NotFound, Forbidden.

        It goes to the trash like any file, as an ordinary file.
        """
        gone: list[tuple[InodeNo, bytes]] = []
        async with self._catalog.write():
            record = self._must(attr)
            if record.mode is RetentionMode.COMPLIANCE and not self.expired(attr.ino):
                raise self._forbidden(attr, "privileged delete")
            if attr.locked & Lock.HELD:
                raise self._forbidden(attr, "privileged delete")
            self._audit.note(
                "retention.privileged_delete", who, path_of(self._catalog, attr.ino), ino=attr.ino,
                reason=reason, until_ns=record.until_ns, mode=record.mode.name.lower(),
            )  # fmt: skip
            self.tables.drop(attr.ino)
            self._lock(attr, 0)
            gone = self._unlink(attr.ino, keep_ns)
        await self._catalog.sync()
        for parent, name in gone:
            self._files.renamed(parent, name)
        if not keep_ns:
            await self._files.purge_many([attr.ino])

    def _unlink(self, ino: InodeNo, keep_ns: int) -> list[tuple[InodeNo, bytes]]:
        """Take all names away, the last into the trash; in a transaction."""
        names = self._catalog.names.links(ino)
        now = clock.now_ns()
        for parent, name in names:
            attr = self._catalog.names.unlink(parent, name, now)
            self._files.touch_links(attr)
        if keep_ns and names:
            self._catalog.trash.put(ino, *names[-1], now, keep_ns)
        return names

    def _must(self, attr: Attr) -> Retained:
        record = self.tables.get(attr.ino)
        if record is None:
            raise NotFound(f"{path_of(self._catalog, attr.ino)} is not a record")
        return record

    # Others that ask

    def may_purge(self, ino: InodeNo) -> bool:
        """Whether a locked file without a name may be deleted for good."""
        return self.expired(ino) and not self._holds.of(ino)

    async def finish_closing(self, ino: InodeNo, who: str) -> None:
        """The last writer closed a file that is to be committed."""
        async with self._catalog.write():
            attr = self._files.attr(ino)
            if attr is None or not attr.locked & Lock.CLOSING:
                return
            await self._files.setattr(ino, self.commit(attr, who))
        self._files.changed(ino)


def period_ns(seconds: float) -> int:
    """A period of the API (math.inf: for ever)."""
    return FOREVER if math.isinf(seconds) else int(seconds * 10**9)


