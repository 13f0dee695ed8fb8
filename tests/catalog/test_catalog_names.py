"""Names, and the folder that is remembered while names in it come and go."""

from __future__ import annotations

import contextlib
import stat

import pytest

from hsmfs.catalog.catalog import Catalog
from hsmfs.states import Lock
from hsmfs.types import ROOT

FILE, DIR = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


@pytest.fixture
async def catalog(tmp_path):
    catalog = Catalog.create(tmp_path)
    yield catalog
    catalog.close()


ACTS = {
    "create": lambda c, f: c.names.create(f.ino, b"new", FILE, 0, 0, 9),
    "mkdir": lambda c, f: c.names.create(f.ino, b"new", DIR, 0, 0, 9),
    "unlink": lambda c, f: c.names.unlink(f.ino, b"a", 9),
    "rmdir": lambda c, f: c.names.rmdir(f.ino, b"d", 9),
    "in": lambda c, f: c.names.rename(ROOT, b"e", f.ino, b"e", 9),
    "out": lambda c, f: c.names.rename(f.ino, b"d", ROOT, b"d", 9),
    "exchange": lambda c, f: c.names.exchange(f.ino, b"d", ROOT, b"b", 9),
    "moved": lambda c, f: c.names.rename(ROOT, b"f", ROOT, b"g", 9),
    "link": lambda c, f: c.names.link(c.names.lookup(ROOT, b"b").ino, f.ino, b"b", 9),
    "chmod": lambda c, f: c.inodes.put(f._replace(mode=DIR & ~0o111)),
    "lock": lambda c, f: c.inodes.set_locked(f.ino, Lock.HELD),
    "by SQL": lambda c, f: c.db.execute("UPDATE inodes SET uid = 5 WHERE ino = ?", (f.ino,)),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("act", ACTS)
async def test_a_folder_is_remembered_as_it_is(catalog, act, fails):
    async with catalog.write():
        folder = catalog.names.create(ROOT, b"f", DIR, 0, 0, 1)
        for name, mode in (b"a", FILE), (b"d", DIR):
            catalog.names.create(folder.ino, name, mode, 0, 0, 2)
        for name, mode in (b"e", DIR), (b"b", FILE):
            catalog.names.create(ROOT, name, mode, 0, 0, 2)
    before = catalog.inodes.get_raw(folder.ino)
    with contextlib.suppress(ZeroDivisionError):
        async with catalog.write():
            ACTS[act](catalog, before)
            1 / (not fails)
    known = catalog.inodes.get_raw(folder.ino)
    assert known == await catalog.read(lambda reports: reports.inodes.get_raw(folder.ino))
    assert (known == before) == fails
