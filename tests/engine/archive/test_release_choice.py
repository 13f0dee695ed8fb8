"""What the releaser chooses: the least worth first, past what rules keep, within bounds."""

from __future__ import annotations

from hsmfs.catalog import reports
from hsmfs.engine import release_choice
from hsmfs.engine.policy.match import Ruleset
from hsmfs.engine.policy.rules import loads
from hsmfs.engine.release_choice import Wanted, choose
from hsmfs.states import FileState

DAY = 86_400 * 10**9
NOW = 1000 * DAY


async def filled(site):
    """Ten files, the first the oldest, all of one size."""
    inos = []
    for n in range(10):
        ino = await site.file(b"f%d" % n, 1 << 20)
        async with site.catalog.write():
            attr = site.catalog.inodes.get_raw(ino)
            then = (100 + n) * DAY
            site.catalog.inodes.put(
                attr._replace(atime_ns=then, mtime_ns=then, blocks=2048, dirty=False)
            )
            site.catalog.db.execute("UPDATE inodes SET btime_ns = 0 WHERE ino = ?", (ino,))
            site.catalog.inodes.set_state(ino, FileState.PREMIGRATED)
        inos.append(ino)
    return inos


async def chosen(site, text="", need=1 << 40, recalled=None):
    rules = Ruleset(loads(text).policy, copies=1, head=65536)
    wanted = Wanted(site.pool.id, need, DAY, NOW, recalled or {})
    found = await site.catalog.read(lambda reports: choose(reports, rules, wanted))
    return [candidate.attr.ino for candidate in found]


async def test_least_worth_first_and_no_more_than_needed(site, monkeypatch):
    inos = await filled(site)
    for share in (0.0, 1.0):  # by a scan, and by the index
        monkeypatch.setattr(reports, "SCAN_SHARE", share)
        assert await chosen(site) == inos
    assert await chosen(site, need=2 << 20) == inos[:3], "each keeps its head"


async def test_what_rules_keep_and_what_just_came_is_passed_over(site, monkeypatch):
    monkeypatch.setattr(release_choice, "CANDIDATES", 2)
    inos = await filled(site)
    never = '[[policy]]\nname = "n"\naction = "never"\nfile = ["f[0-6]"]'
    assert await chosen(site, never) == inos[7:9]
    assert await chosen(site, never, recalled={inos[7]: NOW - 1}) == inos[8:]


async def test_a_part_that_came_back_may_go_again(site):
    inos = await filled(site)
    async with site.catalog.write():
        for ino in inos:
            site.catalog.inodes.set_state(ino, FileState.PARTIAL)
        site.catalog.inodes.set_version(inos[0], 2, 1)
    assert await chosen(site) == inos[1:], "what was overwritten in part is on no disc"
