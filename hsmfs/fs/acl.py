"""POSIX ACLs as the kernel stores them in xattrs, and the rules that tie them to the mode.

The kernel checks permissions; a server of FUSE_POSIX_ACL must keep mode and ACL equal and work out
what a new inode inherits: POSIX.1e draft 17 section 23.1.3, Linux fs/posix_acl.c. The format is
that of linux/posix_acl_xattr.h, version 2, little-endian.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from ..errors import PosixError

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_VERSION = 2
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_MINIMAL = (USER_OBJ, GROUP_OBJ, OTHER)


@dataclass(frozen=True, slots=True)
class Acl:
    """Entries (tag, permissions, id) in the kernel's order."""

    entries: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, value: bytes) -> Acl | None:
        """The ACL in an xattr's value, None if it has no entries. Raises PosixError EINVAL."""
        if len(value) < _HEAD.size or _HEAD.unpack_from(value)[0] != _VERSION:
            raise PosixError(errno.EINVAL, "not an ACL of version 2")
        body = value[_HEAD.size :]
        if len(body) % _ENTRY.size:
            raise PosixError(errno.EINVAL, "an ACL that is cut off")
        entries = tuple(_ENTRY.iter_unpack(body))
        if not entries:
            return None
        if any(sum(e[0] == tag for e in entries) != 1 for tag in _MINIMAL):
            raise PosixError(errno.EINVAL, "an ACL needs one entry each for owner, group, others")
        return cls(entries)

    def value(self) -> bytes:
        """As an xattr's value."""
        return _HEAD.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in self.entries)

    @property
    def minimal(self) -> bool:
        """True if the mode says it all."""
        return len(self.entries) == len(_MINIMAL)

    def bits(self, tag: int) -> int | None:
        """Permissions of the only entry of a tag."""
        return next((perm for t, perm, _ in self.entries if t == tag), None)

    @property
    def mode(self) -> int:
        """The nine bits of the mode that stand for this ACL: the mask is the group's class."""
        mask = self.bits(MASK)
        group = self.bits(GROUP_OBJ) if mask is None else mask
        return (self.bits(USER_OBJ) or 0) << 6 | (group or 0) << 3 | (self.bits(OTHER) or 0)

    def with_mode(self, mode: int) -> Acl:
        """After chmod: owner, mask (without one the group) and others are the mode's."""
        group = GROUP_OBJ if self.bits(MASK) is None else MASK
        new = {USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, OTHER: mode & 7}
        return Acl(tuple((tag, new.get(tag, perm), who) for tag, perm, who in self.entries))

    def inherited(self, mode: int) -> tuple[Acl, int]:
        """For a new inode below this default ACL: its access ACL, and its mode.

        What the creator did not ask for is masked out; the umask plays no part.
        """
        group = GROUP_OBJ if self.bits(MASK) is None else MASK
        allowed = {USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, OTHER: mode & 7}
        acl = Acl(tuple((tag, perm & allowed.get(tag, 7), who) for tag, perm, who in self.entries))
        return acl, mode & ~0o777 | acl.mode
