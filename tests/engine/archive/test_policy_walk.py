"""Policies that look at names: down the folders that can match, or by the index: the same files."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsmfs.engine.policy import walk
from hsmfs.engine.policy.globs import compiled
from hsmfs.engine.policy.match import Ruleset
from hsmfs.engine.policy.rules import loads
from hsmfs.engine.policy.select import page, queries, selection
from hsmfs.engine.policy.way import Way

NAMES = ("a", "b", "ab", "**", "a*", "?", "[ab]", "*", "a**", "[a/b]")


@example([["**", "**", "a"]], ["a"])
@given(
    st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=2),
    st.lists(st.sampled_from(("a", "b", "ab", "c")), min_size=1, max_size=4),
)
def test_a_way_never_loses_what_the_pattern_matches(patterns, names):
    globs = tuple("/" + "/".join(p) for p in patterns)
    path = "/".join(["", *names]).encode()
    whole = compiled(globs)
    matches = whole is None or bool(whole.fullmatch(path))
    way = Way(globs)
    at, lost = way.start, way.ends(way.start)
    for name in names[:-1]:
        at = way.enter(at, name.encode())
        lost = lost or way.ends(at)
    may = not lost and way.may_match(at, names[-1].encode())
    assert may >= matches
    if not way.odd:
        assert may == matches
        assert not way.all_match(at) or matches


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('path = ["/ct/**"]', 4),
        ('path = ["/*/2019/*.dcm"]', 2),
        ('file = ["x*"]', 4),
        ('path = ["/ct/2019/", "/mr/x.dcm"]', 3),
        ('path = ["/c**/x.dcm"]', 2),
        ('path = ["/**"]\nmin_size = 11', 1),
    ],
)
async def test_the_walk_finds_what_the_index_finds(site, monkeypatch, text, count):
    monkeypatch.setattr(walk, "FEW", 0)
    monkeypatch.setattr(walk, "PAGE", 3)
    monkeypatch.setattr(walk, "FOLDERS", 2)
    for top in (b"ct", b"mr"):
        folder = await site.folder(top)
        await site.file(b"x.dcm", 10, folder)
        year = await site.folder(b"2019", folder)
        await site.file(b"x.dcm", 10 if top == b"ct" else 11, year)
        await site.file(b"note.txt", 10, year)
    ct, linked = await site.folder(b"ct2"), await site.file(b"z.txt", 5)
    async with site.catalog.write():
        site.catalog.names.link(linked, ct, b"x2.txt", 1)
    await site.file(b"z.dcm", 5, (await site.folder(b"z")))
    await site.file(b"w.txt", 5, await site.folder(b"w", site.catalog.names.lookup(1, b"ct").ino))
    rules = loads(f'[[policy]]\nname = "r"\naction = "archive"\n{text}').policy
    chosen = selection(Ruleset(rules, copies=1, head=0).matchers[0], ())
    (query,) = queries(chosen, 10**18)
    found, weighed = [], [0, 0]
    for method in ("page", "weigh"):
        way = walk.Walk(chosen, query, 10**18)
        while way.todo:
            got = await site.catalog.read(getattr(way, method))
            if method == "page":
                found += got
            else:
                weighed = [a + b for a, b in zip(weighed, got, strict=True)]
    by_index, _ = await site.catalog.read(
        lambda reports: page(reports, chosen, query, 10**18, walk_place())
    )
    assert sorted(a.ino for a in found) == sorted(a.ino for a in by_index)
    assert len(found) == count
    assert weighed == [count, sum(a.size for a in found)]


def walk_place():
    from hsmfs.catalog.reports import Place

    return Place()
