"""The storm guard's rules: who is let through, who is slowed, who is stopped."""

import errno

import pytest
import trio

from hsmfs.catalog.catalog import Catalog
from hsmfs.engine.events import Events
from hsmfs.engine.guard import Guard, Mode, Outcome, rules
from hsmfs.engine.guard.windows import Windows
from hsmfs.errors import GuardRules, NotFound, PosixError
from hsmfs.limits import GUARD_REPORT_ROWS, GUARD_REQUESTERS
from hsmfs.types import ROOT, Requester


@pytest.fixture
def catalog(tmp_path):
    made = Catalog.create(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
async def guard(catalog):
    return Guard(catalog, Events(), Mode.ON)


def who(process, uid=1000, **more):
    return Requester(4711, uid, uid, process, **more)


def outcomes(guard, requester, inos):
    return [guard.ask(requester, ino).outcome.value for ino in inos]


async def test_a_person_and_copying_tools_are_let_through(guard):
    for process in ("cat", "cp", "rsync", "evince", "python3", "smbd", "nautilus", "git"):
        assert outcomes(guard, who(process), range(10)) == ["allow"] * 10
    assert guard.report() == []


@pytest.mark.parametrize(
    ("process", "outcome"),
    [
        ("clamscan", "eacces"), ("clamd", "eacces"), ("savscand", "eacces"),
        ("restic", "eacces"), ("bacula-fd", "eacces"), ("veeamagent64", "eacces"),
        ("tumblerd", "head"), ("gnome-thumbnail", "head"), ("totem-video-thu", "head"),
        ("ffmpegthumbnail", "head"), ("tracker-extract", "head"), ("baloo_file_extr", "head"),
    ],
)  # fmt: skip
async def test_scanners_backups_and_previews_never_bring_a_disc_in(guard, process, outcome):
    verdict = guard.ask(who(process), 5)
    assert verdict.outcome.value == outcome
    with pytest.raises(PosixError) as refused:
        verdict.check()
    assert refused.value.number == errno.EACCES


async def test_a_search_over_some_files_passes_and_over_many_does_not(guard, autojump_clock):
    grep = who("grep")
    assert outcomes(guard, grep, [1, 2, 3, 3, 3, 4]) == ["allow"] * 6
    assert outcomes(guard, grep, [5, 6]) == ["head"] * 2
    assert outcomes(guard, grep, [3]) == ["allow"], "what it was let read, it reads to the end"
    assert outcomes(guard, who("grep", uid=2), [5]) == ["allow"], "another user's search"
    await trio.sleep(601)
    assert outcomes(guard, grep, [7]) == ["allow"]


async def test_twenty_files_in_ten_seconds_are_slow_and_stay_so(guard, autojump_clock):
    scan = who("nfsd", nfs=True)
    assert outcomes(guard, scan, range(19)) == ["allow"] * 19
    assert outcomes(guard, scan, [0, 1, 2]) == ["allow"] * 3, "retries are no new files"
    slowed = []
    guard.slowed = lambda who, rule: slowed.append((who.process, rule.name))
    assert outcomes(guard, scan, [19, 20, 21]) == ["slow"] * 3
    assert slowed == [("nfsd", "storm")], "once"
    await trio.sleep(599)
    assert outcomes(guard, scan, [30]) == ["slow"]
    await trio.sleep(5)
    assert outcomes(guard, scan, [31]) == ["allow"], "ten minutes after it was too fast"
    assert outcomes(guard, who("nfsd", uid=7, nfs=True), [1]) == ["allow"]


async def test_slow_readers_never_reach_the_rate(guard, autojump_clock):
    for ino in range(100):
        assert outcomes(guard, who("cat"), [ino]) == ["allow"]
        await trio.sleep(0.6)


OWN = """
[[rule]]
name = "boss"
uid = [0, 7]
outcome = "allow"

[[rule]]
name = "pacs"          # a comment
client = ["10.1.0.0/16"]
via = ["smb"]
outcome = "eagain"

[[rule]]
name = "raw"
path = ["/raw/**"]
gid = ["root"]
outcome = "eacces"

[[rule]]
name = "nfs"
via = ["nfs"]
outcome = "slow"
"""


async def test_rules_by_user_group_client_way_and_path(guard, catalog):
    async with catalog.write():
        raw = catalog.names.create(ROOT, b"raw", 0o40755, 0, 0, 1).ino
        inside = catalog.names.create(raw, b"x", 0o100644, 0, 0, 1).ino
        outside = catalog.names.create(ROOT, b"y", 0o100644, 0, 0, 1).ino
    await guard.set_rules(OWN)

    def ask(ino=outside, **fields):
        verdict = guard.ask(Requester(1, **{"uid": 1, "gid": 1, "process": "p"} | fields), ino)
        return verdict.rule.name if verdict.rule else None

    assert ask(uid=7, nfs=True) == "boss"
    assert ask(process="smbd", client="10.1.2.3") == "pacs"
    assert ask(process="smbd", client="10.2.2.3") is None
    assert ask(process="p", client="10.1.2.3") is None
    assert ask(inside, gid=0) == "raw"
    assert ask(inside) is None
    assert ask(gid=0) is None
    assert ask(nfs=True) == "nfs"


async def test_opening_is_refused_only_where_reading_would_be(guard):
    def opens(process):
        guard.opens(who(process), 5).check()

    for process in ("cat", "tumblerd", "grep"):
        opens(process)
    with pytest.raises(PosixError):
        opens("clamscan")
    assert [(met.process, met.files) for met in guard.report()] == [("clamscan", 1)]
    await guard.set_mode(Mode.LEARN)
    opens("clamscan")
    await guard.set_mode(Mode.OFF)
    opens("clamscan")
    assert guard.ask(who("clamscan"), 1).outcome is Outcome.ALLOW


async def test_learning_stops_nobody_and_reports(guard, catalog):
    await guard.set_mode(Mode.LEARN)
    slowed = []
    guard.slowed = lambda *who: slowed.append(who)
    assert outcomes(guard, who("clamscan"), [1, 2, 2]) == ["allow"] * 3
    assert outcomes(guard, who("cp"), range(25)) == ["allow"] * 25
    assert not slowed
    found = [(m.process, m.rule, m.outcome, m.learning, m.files) for m in guard.report()]
    assert found == [
        ("cp", "storm", "slow", True, 6),
        ("clamscan", "virus-scanners", "eacces", True, 2),
    ]


async def test_mode_rules_and_report_outlive_a_restart(guard, catalog, nursery, autojump_clock):
    await guard.set_mode(Mode.LEARN)
    await guard.set_rules(OWN)
    await nursery.start(guard.run)
    guard.ask(who("nfsd", nfs=True), 3)
    await trio.sleep(11)
    again = Guard(catalog, Events(), Mode.ON)
    again.load()
    assert (again.mode, again.text, again.own) == (Mode.LEARN, OWN, True)
    assert [(m.rule, m.files) for m in again.report()] == [("nfs", 1)]
    await again.clear()
    await again.reset()
    third = Guard(catalog, Events(), Mode.ON)
    third.load()
    assert third.report() == [] and third.text == rules.default() and not third.own


async def test_the_report_is_saved_at_the_end_too(guard, catalog):
    async with trio.open_nursery() as nursery:
        await nursery.start(guard.run)
        guard.ask(who("clamd"), 3)
        nursery.cancel_scope.cancel()
    again = Guard(catalog, Events(), Mode.ON)
    again.load()
    assert [m.process for m in again.report()] == ["clamd"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[[rule]]\nname = "a"\noutcome = "stop"\n', "line 3"),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nrate = "20 per s"\n', 'write for instance "20'),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nrate = "2000 in 1 s"\n', "1 to 1000"),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nuser = 3\n', "unknown key"),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nuid = ["no-such-user"]\n', "no user"),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nstay = "1 min"\n', "without a rate"),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nvia = ["ftp"]\n', "local, nfs or smb"),
        (
            '[[rule]]\nname = "a"\noutcome = "slow"\nclient = ["1.2.3.4"]\nvia = ["nfs"]\n',
            'via = \\["smb"\\]',
        ),
        ('[[rule]]\nname = "a"\noutcome = "slow"\nclient = ["somewhere"]\n', "somewhere"),
    ],
)
async def test_wrong_rules_change_nothing(guard, text, fault):
    with pytest.raises(GuardRules, match=fault):
        await guard.set_rules(text)
    assert guard.text == rules.default()


async def test_one_outcome_is_changed_and_comments_stay(guard):
    await guard.set_rules(OWN)
    await guard.set_outcome("pacs", Outcome.HEAD)
    assert guard.text == OWN.replace('"eagain"', '"head"')
    with pytest.raises(NotFound, match="no rule 'nobody'"):
        await guard.set_outcome("nobody", Outcome.HEAD)


async def test_memory_is_bounded(guard, monkeypatch):
    for number in range(GUARD_REQUESTERS + 50):
        guard.ask(who("p", uid=number), 1)
    assert len(guard._windows) == GUARD_REQUESTERS
    windows = Windows(keep=10, seconds=60)
    for ino in range(100):
        window, _, _ = windows.ask((1, "p", ""), ino, 0.0)
    assert list(window.asked) == list(range(90, 100))
    monkeypatch.setattr("hsmfs.engine.guard.guard.GUARD_REPORT_ROWS", 10)
    for number in range(20):
        guard.ask(who("clamd", uid=number), 1)
    assert len(guard.report()) == 10 < GUARD_REPORT_ROWS


def test_the_defaults_explain_every_key_and_outcome():
    text = rules.default()
    for key in rules.Rule.model_fields:
        assert f"#   {key}" in text or f"#   {key}," in text or f", {key} " in text, key
    for outcome in Outcome:
        assert f" {outcome.value} " in text
