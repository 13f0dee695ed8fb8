"""What Samba keeps of a file in `user.DOSATTRIB`, and the bit in it that says "on tape".

FILE_ATTRIBUTE_OFFLINE ([MS-FSCC] 2.6) makes Explorer, virus scanners and indexers keep off a file.
It is a fact of the moment and never stored: `shown` puts it in, `stored` takes it out. The value
is NDR, little-endian (Samba's xattr_DOSATTRIB, librpc/idl/xattr.idl):

    bytes        the attributes as text, mostly empty, ended by NUL; padded to 2
    uint16       version
    uint16       version again (the union's switch); padded to 4
    uint32       which fields are valid; not in version 1
    uint32       attributes
    ...          creation time and others, which differ by version
"""

from __future__ import annotations

import struct

NAME = b"user.DOSATTRIB"
READONLY = 0x1
OFFLINE = 0x1000
_WORD = struct.Struct("<I")
_VERSION = struct.Struct("<H")
_VALID_ATTRIB = 0x1
_BEFORE = {1: 0, 2: 4, 3: 4, 4: 4, 5: 4}
"""Bytes between the union's start and the attributes, by version."""
_BARE = struct.pack("<BxHHxxIIQ", 0, 5, 5, _VALID_ATTRIB, OFFLINE, 0)
"""Of a file of which Samba stored nothing: attributes alone, the creation time is not said."""


def shown(value: bytes | None, *, offline: bool) -> bytes | None:
    """The value as Samba may see it now; None if there is none."""
    if not offline:
        return value
    if value is None:
        return _BARE
    return _changed(value, set_bits=OFFLINE)


def stored(value: bytes) -> bytes:
    """The value as it is kept."""
    return _changed(value, clear_bits=OFFLINE)


def read_only(value: bytes) -> bool:
    """Whether the value says that the file is read-only."""
    place = _place(value)
    return place is not None and bool(_WORD.unpack_from(value, place)[0] & READONLY)


def _changed(value: bytes, *, set_bits: int = 0, clear_bits: int = 0) -> bytes:
    """With bits of the attributes set and cleared; what is in no known form stays as it is."""
    place = _place(value)
    if place is None:
        return value
    (bits,) = _WORD.unpack_from(value, place)
    word = _WORD.pack(bits & ~clear_bits | set_bits)
    return value[:place] + word + value[place + _WORD.size :]


def _place(value: bytes) -> int | None:
    """Where the attributes are."""
    text = value.find(b"\0")
    start = text + 1 + (text + 1) % 2
    if text < 0 or start + _VERSION.size > len(value):
        return None
    before = _BEFORE.get(_VERSION.unpack_from(value, start)[0])
    union = start + 2 * _VERSION.size
    if before is None:
        return None
    place = union + -union % 4 + before
    return place if place + _WORD.size <= len(value) else None
