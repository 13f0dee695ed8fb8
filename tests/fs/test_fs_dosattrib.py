"""What Samba is told of files on disc, and that telling it costs no more than it must."""

import contextlib
import errno
import os
import struct

import pytest
from pyfuse3 import FUSEError

from hsmfs.fs import dosattrib
from hsmfs.fs.dosattrib import NAME, OFFLINE
from hsmfs.states import FileState

HIDDEN_ARCHIVE = 0x22
# As Samba 4.17 stores it, and as its python bindings pack versions 1 to 4.
STORED = {
    1: "307832320000010001000000220000000000000000000000000000000000000000000000f22fce733a0b0000"
       "0000000000000000",
    2: "30783232000002000200000000000000220000000000000000000000000000000000000000000000f22fce73"
       "3a0b0000000000000000000000000000000000006e6d00",
    3: "000003000300000000000000220000000000000000000000000000000000000000000000f22fce733a0b0000"
       "0000000000000000",
    4: "000004000400000000000000220000000000000000000000f22fce733a0b0000",
    5: "00000500050000000000000022000000f22fce733a0b0000",
}  # fmt: skip
FIVE = bytes.fromhex(STORED[5])


def attributes(value: bytes) -> int:
    """Of version 5."""
    (bits,) = struct.unpack_from("<I", value, 12)
    return bits


@pytest.mark.parametrize("version", STORED)
def test_only_the_bit_changes(version):
    value = bytes.fromhex(STORED[version])
    shown = dosattrib.shown(value, offline=True)
    [place] = [i for i in range(len(value)) if shown[i] != value[i]]
    assert (value[place - 1], shown[place]) == (HIDDEN_ARCHIVE, OFFLINE >> 8)
    assert dosattrib.stored(shown) == value
    assert dosattrib.shown(value, offline=False) == value


@pytest.mark.parametrize(
    "odd", [b"", b"\0", b"no end", b"0x22\0", FIVE[:15], b"\0\0\x09\0\x09\0\0\0" + b"\xff" * 16]
)
def test_what_is_in_no_known_form_stays(odd):
    assert dosattrib.shown(odd, offline=True) == odd
    assert dosattrib.stored(odd) == odd


async def test_a_stub_is_offline_until_it_is_resident(world):
    ops, who = world.operations, world.caller()
    ino = await world.stub(b"s", b"x" * 10)
    bare = await ops.getxattr(ino, NAME, who)
    assert attributes(bare) == OFFLINE
    assert list(await ops.listxattr(ino, who)) == []
    assert world.catalog.xattrs.get(ino, NAME) is None
    # What a client stores comes without the bit, or, from a copy of a stub, with it.
    await ops.setxattr(ino, NAME, dosattrib.shown(FIVE, offline=True), who)
    assert world.catalog.xattrs.get(ino, NAME) == FIVE
    assert attributes(await ops.getxattr(ino, NAME, who)) == OFFLINE | HIDDEN_ARCHIVE
    async with world.catalog.write():
        world.catalog.inodes.set_state(ino, FileState.PREMIGRATED)
    assert await ops.getxattr(ino, NAME, who) == FIVE


async def test_nothing_is_made_up_for_what_is_on_disk(world):
    ops, who = world.operations, world.caller()
    info, entry = await ops.create(1, b"f", 0o100644, os.O_RDWR, who)
    for ino in (entry.st_ino, 1):
        with pytest.raises(FUSEError) as caught:
            await ops.getxattr(ino, NAME, who)
        assert caught.value.errno == errno.ENODATA
    with pytest.raises(FUSEError) as caught:
        await ops.getxattr(999, NAME, who)
    assert caught.value.errno == errno.ESTALE
    await ops.release(info.fh)


async def test_a_question_is_one_query(world):
    """smbd asks three attributes of each file of a folder that is listed."""
    ops, who = world.operations, world.caller()
    ino = await world.stub(b"s", b"x")
    await ops.lookup(1, b"s", who)
    asked = []
    world.catalog.db.exec_trace = lambda cursor, sql, bindings: asked.append(sql) or True
    try:
        for name in (NAME, b"security.NTACL", b"user.SAMBA_PAI"):
            asked.clear()
            with contextlib.suppress(FUSEError):
                await ops.getxattr(ino, name, who)
            assert len(asked) <= 1, asked
        await ops.setxattr(ino, NAME, FIVE, who)
        for question in (ops.getxattr(ino, NAME, who), ops.listxattr(ino, who)):
            asked.clear()
            await question
            assert len(asked) == 1, asked
    finally:
        world.catalog.db.exec_trace = None
