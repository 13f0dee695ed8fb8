"""Two trees that must stay the same: one on hsmfs, one in a plain directory, which is the model.

Every operation is done in both. What it returns, or the errno it fails with, must be equal, and
so must everything that a user can see afterwards: kinds, modes, owners, links, sizes, targets,
xattrs, times that were set, and bytes. The kernel's own filesystem is so the oracle.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Seen = dict[str, Any]

CLOCK_TOLERANCE_S = 20.0
"""Times that were not set are those of the operation, which is not at once in both trees."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
"""Flags of renameat2."""


class Differs(AssertionError):
    """hsmfs did not do what the plain directory did."""


class Twin:
    """Operations on a pair of folders; handles are pairs of descriptors."""

    def __init__(self, mount: Path, plain: Path) -> None:
        self.mount, self.plain = mount, plain
        self.handles: list[tuple[int, int]] = []
        for root in (mount, plain):
            root.mkdir()

    def both(self, what: str, act: Callable[[Path], Any]) -> Any:
        """The result of act on both roots; None if it fails, with the same errno, on both."""
        return self._same(what, lambda: act(self.mount), lambda: act(self.plain))

    def on_handle(self, what: str, number: int, act: Callable[[int], Any]) -> Any:
        """The result of act on both descriptors of an open file; None if there is none open."""
        if not self.handles:
            return None
        ours, theirs = self.handles[number % len(self.handles)]
        return self._same(what, lambda: act(ours), lambda: act(theirs))

    def _same(self, what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Any:
        wanted, wanted_errno = _outcome(theirs)
        found, found_errno = _outcome(ours)
        if found_errno != wanted_errno:
            raise Differs(f"{what}: {_name(found_errno)} on hsmfs, not {_name(wanted_errno)}")
        if found != wanted:
            raise Differs(f"{what}: {_short(found)} on hsmfs, not {_short(wanted)}")
        return found

    def open(self, path: str, flags: int) -> None:
        """A file open in both trees from now on."""
        pair: list[int] = []

        def act(root: Path) -> None:
            pair.append(os.open(root / path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644))

        try:
            self.both(f"open {path} {flags:#o}", act)
        finally:
            if len(pair) == 2:
                self.handles.append((pair[1], pair[0]))  # the plain one is opened first
            elif pair:
                os.close(pair[0])

    def close(self, number: int) -> None:
        if self.handles:
            for fd in self.handles.pop(number % len(self.handles)):
                os.close(fd)

    def drop_handles(self) -> None:
        """Close all; those of a daemon that is dead cannot be closed well."""
        for pair in self.handles:
            for fd in pair:
                try:
                    os.close(fd)
                except OSError as fault:
                    if fault.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                        raise
        self.handles.clear()

    def compare(self, *, content: bool) -> None:
        """Raise Differs unless both trees look the same; content recalls what is on discs only."""
        found, wanted = survey(self.mount), survey(self.plain)
        if found.keys() != wanted.keys():
            more, less = found.keys() - wanted.keys(), wanted.keys() - found.keys()
            raise Differs(f"only on hsmfs: {sorted(more)}; not on hsmfs: {sorted(less)}")
        for path, entry in wanted.items():
            _compare(path, found[path], entry)
            if content and stat.S_ISREG(entry["mode"]):
                ours, theirs = digest(self.mount / path), digest(self.plain / path)
                if ours != theirs:
                    raise Differs(f"{path}: SHA-256 {ours} on hsmfs, not {theirs}")


def rename(root: Path, old: str, new: str, flags: int) -> None:
    """renameat2(2). Raises OSError."""
    one, two = os.fsencode(root / old), os.fsencode(root / new)
    if _LIBC.renameat2(_AT_FDCWD, one, _AT_FDCWD, two, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def fsync(path: Path) -> None:
    """fsync of a file or folder. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def survey(root: Path) -> dict[str, Seen]:
    """What lstat, readlink and listxattr say of everything below root, and of root."""
    seen = {".": look(root)}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            seen[str(path.relative_to(root))] = look(path)
    return seen


def look(path: Path) -> Seen:
    """What a user can see of a path without reading it."""
    info = os.lstat(path)
    seen: Seen = {"mode": info.st_mode, "owner": (info.st_uid, info.st_gid)}
    if not stat.S_ISDIR(info.st_mode):
        seen |= {"nlink": info.st_nlink, "size": info.st_size}
    if stat.S_ISLNK(info.st_mode):
        seen["target"] = os.readlink(path)
    names = os.listxattr(path, follow_symlinks=False)
    seen["xattrs"] = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if name.startswith("user.") and not name.startswith("user.hsm.")
    }
    seen["mtime"] = info.st_mtime_ns
    return seen


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(path: str, found: Seen, wanted: Seen) -> None:
    for key, value in wanted.items():
        if found[key] == value:
            continue
        if key == "mtime" and abs(found[key] - value) < CLOCK_TOLERANCE_S * 1e9 and _fresh(value):
            continue
        raise Differs(f"{path}: {key} {_short(found[key])} on hsmfs, not {_short(value)}")


def _fresh(mtime_ns: int) -> bool:
    """Whether a time is one that an operation left, and none that was set: those are long ago."""
    return time.time_ns() - mtime_ns < 86_400 * 10**9


def _outcome(act: Callable[[], Any]) -> tuple[Any, int]:
    try:
        return act(), 0
    except OSError as fault:
        if fault.errno is None or fault.errno == errno.ENOTCONN:
            raise
        return None, fault.errno


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number)) if number else "success"


def _short(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > 40:
        return f"{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:12]}"
    return repr(value)
