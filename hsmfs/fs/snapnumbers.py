"""Inode numbers and names of the past, each worked out from the other and kept nowhere.

A number holds a time, in whole minutes, and the number of the inode that it shows. So it is the
same after a restart, as handles of NFS clients need it, and never one of the catalog's.
"""

from __future__ import annotations

import time
from calendar import timegm

from ..types import InodeNo

PAST = 1 << 62
"""Numbers from here on are of the past; larger than any of the catalog's, and positive as int64."""
SNAPSHOTS = InodeNo(PAST)
"""The folder that holds a folder for each time."""
MINUTE_NS = 60 * 10**9
_FORMAT = "@GMT-%Y.%m.%d-%H.%M.%S"
"""What Windows and Samba call a time ([MS-SMB2] 2.2.32.2, vfs_shadow_copy2(8))."""
_INODE_BITS = 37
"""So many numbers the catalog may give: 1,000 a second for four years, 100 for forty."""
_MINUTES = 1 << 62 - _INODE_BITS
_BEGIN_NS = timegm((2020, 1, 1, 0, 0, 0)) * 10**9
"""The first minute; there are numbers for 63 years."""


def number(ino: InodeNo, time_ns: int) -> InodeNo | None:
    """The number of an inode at a time that `whole` made; None: there is none."""
    minute = (time_ns - _BEGIN_NS) // MINUTE_NS
    if ino >> _INODE_BITS or not 0 <= minute < _MINUTES:
        return None
    return InodeNo(PAST | minute << _INODE_BITS | ino)


def split(number: int) -> tuple[InodeNo, int]:
    """The inode that a number shows, and when, in UTC ns."""
    minute = (number - PAST) >> _INODE_BITS
    return real(number), _BEGIN_NS + minute * MINUTE_NS


def real(number: int) -> InodeNo:
    """The inode whose attributes count; a number of the catalog's is itself, SNAPSHOTS is 0."""
    return InodeNo(number if number < PAST else number & ((1 << _INODE_BITS) - 1))


def name_of(time_ns: int) -> bytes:
    """What the folder of a time is called."""
    return time.strftime(_FORMAT, time.gmtime(time_ns // 10**9)).encode()


def time_of(name: bytes) -> int | None:
    """The time that a folder is called by, UTC ns; None: not a whole minute, or no time at all."""
    try:
        found = timegm(time.strptime(name.decode("ascii"), _FORMAT)) * 10**9
    except ValueError:
        return None
    return found if found % MINUTE_NS == 0 and name_of(found) == name else None
