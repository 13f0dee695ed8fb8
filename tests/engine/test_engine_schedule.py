"""The rules of who gets which drive."""

from hypothesis import given
from hypothesis import strategies as st

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.schedule import (
    Assign,
    ClaimView,
    DriveView,
    Purpose,
    PutAway,
    Rules,
    decide,
    must_yield,
)

READ, BURN = Purpose.READ, Purpose.BURN
NOW, BULK, STANDARD = RecallClass.INTERACTIVE, RecallClass.BULK, RecallClass.STANDARD
RULES = Rules(reserved=0, age_limit=3600)


def drive(serial, volume=None, **kw):
    return DriveView(serial, volume=volume, holds_disc=volume is not None, **kw)


def claim(number, volume, urgency=NOW, purpose=READ, since=0.0, **kw):
    return ClaimView(number, volume, purpose, urgency, since, **kw)


def test_urgent_first():
    claims = [claim(1, 1, BULK), claim(2, 2, STANDARD), claim(3, 3, NOW)]
    assert decide(1, [drive("a")], claims, RULES) == [Assign(3, "a")]


def test_age_overrides_urgency():
    claims = [claim(1, 1, BULK, since=0), claim(2, 2, NOW, since=3599)]
    assert decide(3600, [drive("a")], claims, RULES) == [Assign(1, "a")]


def test_loaded_before_exchange_then_bytes():
    claims = [claim(1, 1, bytes=9), claim(2, 2, bytes=1), claim(3, 3, bytes=10)]
    assert decide(1, [drive("a", 2)], claims, RULES) == [Assign(2, "a")]
    assert decide(1, [drive("a")], claims, RULES) == [Assign(3, "a")]


def test_waits_for_the_busy_drive_that_has_the_disc():
    drives = [drive("a", 1, busy=True), drive("b")]
    assert decide(1, drives, [claim(1, 1)], RULES) == []


def test_takes_an_empty_drive_before_one_with_a_disc_that_is_wanted():
    drives = [drive("a", 7), drive("b", 8), drive("c")]
    assert decide(1, drives, [claim(1, 1), claim(2, 7, BULK)], RULES) == [
        Assign(1, "c"),
        Assign(2, "a"),
    ]
    assert decide(1, drives[:2], [claim(1, 1), claim(2, 7, BULK)], RULES) == [
        Assign(1, "b"),
        Assign(2, "a"),
    ]


def test_reserved_drives_never_burn():
    rules = Rules(reserved=1, age_limit=10)
    burns = [claim(i, i, BULK, BURN) for i in range(1, 4)]
    drives = [drive("a"), drive("b"), drive("c")]
    assert len(decide(1, drives, burns, rules)) == 2
    drives[0] = drive("a", busy=True, burning=True)
    assert len(decide(1, drives, burns, rules)) == 1
    assert len(decide(1, [drive("a")], burns, rules)) == 1, "the last drive does everything"


def test_a_down_drive_gives_its_disc_up():
    drives = [drive("a", 1, up=False), drive("b")]
    assert decide(1, drives, [claim(1, 1)], RULES) == [PutAway("a")]
    assert decide(1, [drive("a", 1), drive("b")], [claim(1, 1, avoid=frozenset("a"))], RULES) == [
        PutAway("a")
    ]


def test_without_the_robot_only_discs_in_drives():
    drives = [drive("a", 1), drive("b")]
    claims = [claim(1, 1), claim(2, 2)]
    assert decide(1, drives, claims, RULES, robot_works=False) == [Assign(1, "a")]


def test_yield():
    old = [claim(1, 1, BULK)]
    assert not must_yield(10, 0, BULK, old, drive="a", run_cap=60)
    assert must_yield(60, 0, BULK, old, drive="a", run_cap=60)
    assert must_yield(10, 0, BULK, [claim(1, 1, NOW)], drive="a", run_cap=60)
    assert not must_yield(60, 0, BULK, [], drive="a", run_cap=60)


serials = st.sampled_from("abcdef")
volumes = st.integers(1, 8)


@st.composite
def pictures(draw):
    names = draw(st.lists(serials, unique=True, min_size=1))
    loaded = draw(st.permutations(range(1, 9)))
    drives = []
    for name, volume in zip(names, loaded, strict=False):
        held = volume if draw(st.booleans()) else None
        busy = draw(st.booleans())
        up = draw(st.booleans())
        burning = busy and draw(st.booleans())
        drives.append(drive(name, held, up=up, busy=busy, burning=burning))
    claims = [
        claim(
            number,
            draw(volumes),
            draw(st.sampled_from(RecallClass)),
            draw(st.sampled_from(Purpose)),
            draw(st.floats(0, 100)),
            bytes=draw(st.integers(0, 10)),
            avoid=draw(st.frozensets(serials, max_size=2)),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    return drives, claims, Rules(draw(st.integers(0, 3)), draw(st.floats(1, 100)))


@given(pictures(), st.booleans())
def test_safety(picture, robot):
    drives, claims, rules = picture
    by_serial, by_id = {d.serial: d for d in drives}, {c.id: c for c in claims}
    actions = decide(100, drives, claims, rules, robot_works=robot)
    used = [a.drive for a in actions]
    assert len(used) == len(set(used)), "no drive twice"
    given_out = [by_id[a.claim].volume for a in actions if isinstance(a, Assign)]
    assert len(given_out) == len(set(given_out)), "no disc twice"
    burns = sum(d.burning and d.up for d in drives)
    for action in actions:
        place = by_serial[action.drive]
        assert not place.busy
        if isinstance(action, PutAway):
            assert robot and place.volume is not None
            continue
        wanted = by_id[action.claim]
        assert place.up and action.drive not in wanted.avoid
        holders = [d.serial for d in drives if d.volume == wanted.volume]
        assert holders in ([], [action.drive]), "no disc in two drives"
        assert robot or place.volume == wanted.volume
        burns += wanted.purpose is BURN
    up = sum(d.up for d in drives)
    assert burns <= max(1, up - rules.reserved, sum(d.burning for d in drives))


@given(pictures())
def test_nobody_starves(picture):
    """The oldest claim over the age limit gets a drive, or its disc on its way, if one is free."""
    drives, claims, rules = picture
    # A scrub may wait for ever.
    able = [c for c in claims if c.urgency is not RecallClass.IDLE]
    aged = [c for c in able if 100 - c.since >= rules.age_limit]
    if not any(c.purpose is READ for c in aged):
        return
    oldest = min(aged, key=lambda c: (c.since, c.id))
    if oldest.purpose is BURN:
        return
    actions = decide(100, drives, claims, rules)
    there = next((d for d in drives if d.volume == oldest.volume), None)
    free = [d.serial for d in drives if d.up and not d.busy and d.serial not in oldest.avoid]
    if there is None and free:
        assert any(isinstance(a, Assign) and a.claim == oldest.id for a in actions)
    if there is not None and not there.busy:
        assert there.serial in [a.drive for a in actions]


@given(st.lists(st.integers(2, 6), min_size=40, max_size=40))
def test_a_bulk_claim_under_a_storm_waits_no_longer_than_the_age_limit(storm):
    """One drive, runs of 10 s, a new interactive claim at each step."""
    waiting = [claim(0, 1, BULK, since=0)]
    rules = Rules(0, 100)
    for step, volume in enumerate(storm, start=1):
        waiting.append(claim(step, volume, NOW, since=step * 10.0))
        (done,) = decide(step * 10.0, [drive("a")], waiting, rules)
        if done.claim == 0:
            assert step * 10 <= 100
            return
        waiting = [c for c in waiting if c.id != done.claim]
    raise AssertionError("starved")
