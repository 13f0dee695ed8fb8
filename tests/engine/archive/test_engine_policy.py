"""Policies: the file, which rule decides and why, when rules run, and what a dry run counts."""

from __future__ import annotations

import stat
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmfs.engine.demote import Demoter
from hsmfs.engine.policies import Policies
from hsmfs.engine.policy import rules
from hsmfs.engine.policy.globs import compiled
from hsmfs.engine.policy.match import Matcher, Ruleset
from hsmfs.engine.policy.when import Situation, due
from hsmfs.errors import NotFound, PolicyError
from hsmfs.states import FileState
from hsmfs.types import Attr, DataVersion, InodeNo

HOUR = 3600 * 10**9
NOW = 10_000 * HOUR


def attr(**changes):
    one = DataVersion(1)
    base = Attr(
        InodeNo(5), stat.S_IFREG | 0o644, 0, 0, 1, 0, 1000, 8, 0, 0, 0, 0,
        int(FileState.RESIDENT), None, one, one, False, False, 0, 1,
    )  # fmt: skip
    return base._replace(**changes)


def ruleset(text, copies=1):
    return Ruleset(rules.loads(text).policy, copies=copies, head=65536)


def rule(text):
    return rules.loads(f'[[policy]]\nname = "r"\naction = "archive"\n{text}').policy[0]


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/a/*.dcm", b"/a/x.dcm", True),
        ("/a/*.dcm", b"/a/b/x.dcm", False),
        ("/a/**", b"/a/b/x.dcm", True),
        ("/a/", b"/a/b", True),
        ("/**/x", b"/x", True),
        ("/**/x", b"/a/b/x", True),
        ("/a/?", "/a/病".encode(), True),
        ("/a/?", b"/a/\xff", True),
        ("/a/[0-9]", b"/a/7", True),
        ("/a/[!0-9]", b"/a/7", False),
        ("/a/*", b"/a/new\nline", True),
        ("/a.b", b"/aXb", False),
    ],
)
def test_globs(pattern, path, fits):
    assert bool(compiled([pattern]).fullmatch(path)) is fits


@given(st.binary(min_size=1).filter(lambda name: b"/" not in name))
def test_star_matches_any_name(name):
    assert compiled(["/*"]).fullmatch(b"/" + name)


def test_example_loads_and_shows_every_key():
    found = rules.loads(rules.example())
    assert {r.action for r in found.policy} == {"archive", "release", "demote", "never"}
    shown = rules.example()
    for key in rules.Rule.model_fields:
        assert f"\n{key} = " in shown or f"\n# {key} = " in shown, key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('acton = "x"', "did you mean 'action'"),
        ('path = ["a"]', "must begin with '/'"),
        ('file = ["a/b"]', "put it under 'path'"),
        ('owner = ["no-such-user"]', "no user is called"),
        ('at = ["25:00"]', "is not a time"),
        ("copies = 99", "less than or equal to 8"),
        ("min_size = 9\nmax_size = 3", "no file can match"),
        ('release = true\nafter = "1 d"', "keep one of the two"),
    ],
)
def test_faults_name_line_and_cause(text, message):
    with pytest.raises(PolicyError, match=r"policies line [1-9]") as caught:
        rule(text)
    assert message in str(caught.value)


def test_a_never_rule_takes_no_trigger():
    with pytest.raises(PolicyError, match=r"line 4: policy #1\.every: means nothing"):
        rules.loads('[[policy]]\nname = "n"\naction = "never"\nevery = "1 h"\n')


TWO = """
[[policy]]
name = "keep"
action = "never"
path = ["/keep/**"]
[[policy]]
name = "old"
action = "archive"
modified = "2 h"
copies = 2
[[policy]]
name = "all"
action = "archive"
[[policy]]
name = "big"
action = "release"
min_size = 5000
"""


def test_first_match_of_its_kind_decides():
    two = ruleset(TWO)
    assert two.decide("archive", attr(), b"/a", NOW).name == "old"
    assert two.decide("archive", attr(mtime_ns=NOW), b"/a", NOW).name == "all"
    assert two.decide("archive", attr(), b"/keep/a", NOW).name == "keep"
    assert two.decide("release", attr(size=9000), b"/a", NOW).name == "big"
    assert two.decide("release", attr(), b"/a", NOW) is None
    assert two.forbidden(attr(), b"/keep/x", NOW) == "keep"


def test_sets_that_are_filled_at_once():
    assert ruleset("").sets == 1
    assert ruleset(TWO).sets == 2
    rule = '[[policy]]\nname = "{0}"\naction = "archive"\ncopies = {1}\nvault = "{0}"\n'
    vaults = rule.format("a", 2) + rule.format("b", 3)
    assert ruleset(vaults).sets == 4, "1, 2, and the one in a, the one in b"


def test_wishes_do_not_depend_on_age():
    assert ruleset(TWO).wishes(attr(mtime_ns=NOW), b"/a").copies == 2
    assert ruleset("").wishes(attr(), b"/a").copies == 1


def test_explain_says_why_not():
    keep, old, everything, big = ruleset(TWO).explain(attr(mtime_ns=NOW), b"/a", NOW)
    assert keep.reasons == ("path /a is not in /keep/**",)
    assert old.reasons == ("it was modified 0 s ago, 2 h are wanted",)
    assert everything.decides and not everything.reasons
    assert "less than min_size" in big.reasons[0]
    assert not any(v.decides for v in ruleset(TWO).explain(attr(), b"/keep/a", NOW)[1:])


def test_matcher_keys():
    found = Matcher(rule('owner = [7]\nowner_group = [8]\nstate = ["premigrated"]'))
    assert not found.matches(attr(), b"/a", NOW)
    assert len(found.why_not(attr(), b"/a", NOW)) == 3
    good = attr(uid=7, gid=8, state=int(FileState.PREMIGRATED))
    assert found.matches(good, b"/a", NOW)


def at(clock, day=5):
    return int(datetime.fromisoformat(f"2026-06-0{day}T{clock}").astimezone().timestamp() * 1e9)


def is_due(text, now, last=None, started=None, above=False):
    return due(rule(text), Situation(now, last, started or now - HOUR, above))


def test_triggers():
    every = 'every = "2 h"'
    assert is_due(every, NOW) and is_due(every, NOW, NOW - 2 * HOUR)
    assert not is_due(every, NOW, NOW - HOUR)
    assert is_due("", NOW, NOW - HOUR) and not is_due("", NOW, NOW - HOUR // 2)
    two = 'at = ["02:00"]'
    assert is_due(two, at("02:01"), at("01:59"))
    assert not is_due(two, at("02:10"), at("02:01"))
    night = 'at = ["20:00-06:00"]'
    assert is_due(night, at("23:00"), at("12:00")) and not is_due(night, at("23:00"), at("21:00"))
    assert not is_due(night, at("12:00"))
    both = f"{every}\n{night}"
    assert is_due(both, at("03:00"), at("00:30")) and not is_due(both, at("12:00"), at("03:00"))
    assert is_due("watermark = true", NOW, above=True) and not is_due("watermark = true", NOW)
    assert is_due('waiting = "1 GB"', NOW)


def with_policies(site) -> Policies:
    demoter = Demoter(site.catalog, site.pools, site.files, site.events)
    return Policies(
        site.catalog, site.pools, site.migrator, site.releaser, demoter, site.events, site.config
    )


@pytest.fixture
async def policies(site):
    return with_policies(site)


async def test_policies_that_the_spool_has_no_room_for(make_site, tmp_path):
    engine = 'compression = 0\n[sets]\nparity = "raid6"\ndiscs = 5\n'
    site = await make_site(disc="8 MiB", spool="70 MiB", engine=engine)
    found = with_policies(site)
    source = tmp_path / "policies.toml"
    text = '[[policy]]\nname = "a"\naction = "archive"\ncopies = {}\n'
    source.write_text(text.format(3))
    await found.load(source)
    assert site.migrator.spool.for_parity == 7 * (8 << 20)
    source.write_text(text.format(4))
    with pytest.raises(PolicyError, match=r"4 sets at once.*spool_limit is 70 MiB"):
        await found.load(source)
    assert found.rules.sets == 3 and site.migrator.spool.for_parity == 7 * (8 << 20)


async def test_dry_run_and_run(site, policies, tmp_path):
    folder = await site.folder("病人".encode())
    for number in range(3):
        await site.file(b"im%d.dcm" % number, 1000, folder)
    await site.file(b"notes.txt", 50)
    source = tmp_path / "policies.toml"
    source.write_text(
        '[[policy]]\nname = "dicom"\naction = "archive"\npath = ["/病人/**"]\ncopies = 2\n'
        '[[policy]]\nname = "gone"\naction = "release"\naccessed = "0 s"\n'
    )
    assert await policies.load(source) == 2
    dicom, gone = await policies.dry_run()
    assert (dicom.files, dicom.bytes, dicom.discs, gone.files) == (3, 3000, 2, 0)
    assert site.catalog.queues.migrations_waiting()[0] == 0
    assert [o.files for o in await policies.run_now("dicom")] == [3]
    assert {m.copies for m in site.catalog.queues.migrations()} == {2}
    assert (await policies.dry_run("dicom"))[0].files == 0, "they are queued already"
    by_hand = await site.file(b"by hand", 10, folder)
    await site.migrator.archive([by_hand])
    assert site.catalog.queues.migration(by_hand).copies == 2, "as the policy wants"
    with pytest.raises(NotFound):
        await policies.run_now("no such rule")
    source.write_text("[[policy]]\nname = 'x'\n")
    with pytest.raises(PolicyError, match="line 1"):
        await policies.load(source)
    assert len(policies.rules.matchers) == 2
