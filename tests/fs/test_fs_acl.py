"""ACLs: format, the mode's side of them, inheritance."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmfs.errors import PosixError
from hsmfs.fs.acl import GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, Acl

NOBODY = 0xFFFFFFFF
perms = st.integers(0, 7)


def acl(owner=7, group=5, other=0, *, user=None, mask=None):
    entries = [(USER_OBJ, owner, NOBODY)]
    if user is not None:
        entries.append((USER, user, 1000))
    entries.append((GROUP_OBJ, group, NOBODY))
    if mask is not None:
        entries.append((MASK, mask, NOBODY))
    return Acl((*entries, (OTHER, other, NOBODY)))


def test_value_of_the_kernel():
    value = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *e) for e in ((1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY))
    )
    parsed = Acl.parse(value)
    assert parsed.mode == 0o644
    assert parsed.minimal
    assert parsed.value() == value


@given(perms, perms, perms, perms, perms)
def test_what_is_written_is_read(owner, group, other, user, mask):
    one = acl(owner, group, other, user=user, mask=mask)
    assert Acl.parse(one.value()) == one


@pytest.mark.parametrize(
    "value", [b"", b"\1\0\0\0", b"\2\0\0\0\1", struct.pack("<IHHI", 2, USER_OBJ, 7, NOBODY)]
)
def test_nonsense_is_refused(value):
    with pytest.raises(PosixError):
        Acl.parse(value)


def test_no_entries_is_no_acl():
    assert Acl.parse(b"\2\0\0\0") is None


def test_mask_stands_for_the_group():
    assert acl(7, 7, 1, user=7, mask=4).mode == 0o741
    assert acl(7, 7, 1, user=7, mask=4).with_mode(0o620).bits(MASK) == 2
    assert acl(7, 7, 1, user=7, mask=4).with_mode(0o620).bits(GROUP_OBJ) == 7
    assert acl(7, 7, 1).with_mode(0o620).bits(GROUP_OBJ) == 2


def test_inherited_is_what_was_asked_for_and_allowed():
    default = acl(7, 7, 5, user=6, mask=7)
    access, mode = default.inherited(0o100640)
    assert mode == 0o100640
    assert access.bits(MASK) == 4
    assert access.bits(USER) == 6
    assert access.bits(OTHER) == 0


def test_groups_with_ids_are_kept():
    one = Acl(((USER_OBJ, 7, 0), (GROUP_OBJ, 5, 0), (GROUP, 3, 77), (MASK, 7, 0), (OTHER, 0, 0)))
    assert Acl.parse(one.value()) == one
