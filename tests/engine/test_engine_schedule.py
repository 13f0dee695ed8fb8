"""The rules of who gets which drive."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.schedule import (
    Assign,
    Board,
    ClaimView,
    ClassRule,
    DiscOrder,
    DriveView,
    Effort,
    Purpose,
    PutAway,
    PutBack,
    Rules,
    Yield,
    fewest_exchanges,
)

READ, BURN = Purpose.READ, Purpose.BURN
NOW, STANDARD, BULK, IDLE = RecallClass
RULES = Rules(run_cap=60, bulk=ClassRule(1000, 0.34, 3600), quiet_limit=0)


def drive(serial, volume=None, *, at_work=None, **kw):
    """at_work: the class that it is busy for."""
    busy = {"busy": True, "purpose": READ, "urgency": at_work} if at_work is not None else {}
    full = {"volume": volume, "carrier": volume, "holds": volume is not None}
    return DriveView(serial, **full | busy | kw)


def claim(number, volume, urgency=NOW, purpose=READ, since=0.0, **kw):
    return ClaimView(number, volume, purpose, urgency, since, **kw)


def decide(now, drives, claims, rules=RULES, *, arms=1, **kw):
    board = Board(rules)
    for one in claims:
        board.put(one, one.since)
    return board.decide(now, drives, arms=arms, **kw).actions


def test_urgent_first():
    claims = [claim(1, 1, BULK), claim(2, 2, STANDARD), claim(3, 3, NOW)]
    assert decide(1, [drive("a")], claims) == [Assign(3, "a")]


def test_age_overrides_urgency():
    claims = [claim(1, 1, BULK, since=0), claim(2, 2, NOW, since=3599)]
    assert decide(3600, [drive("a")], claims) == [Assign(1, "a")]


def test_loaded_before_exchange_then_bulk_by_bytes():
    claims = [claim(1, 1, BULK, bytes=9), claim(2, 2, BULK), claim(3, 3, BULK, bytes=10)]
    assert decide(1, [drive("a", 2)], claims) == [Assign(2, "a")]
    assert decide(1, [drive("a")], claims) == [Assign(3, "a")]


def test_waits_for_the_busy_drive_that_has_the_disc():
    drives = [drive("a", 1, at_work=NOW), drive("b")]
    assert decide(1, drives, [claim(1, 1)]) == []


def test_takes_an_empty_drive_before_one_with_a_disc_that_is_wanted():
    drives = [drive("a", 7), drive("b", 8), drive("c")]
    wanted = [claim(1, 1), claim(2, 7, BULK)]
    assert decide(1, drives, wanted) == [Assign(1, "c"), Assign(2, "a")]
    assert decide(1, drives[:2], wanted) == [PutAway("b"), Assign(2, "a")]


def test_a_robot_does_one_thing_at_a_time():
    drives, claims = [drive("a"), drive("b")], [claim(1, 1), claim(2, 2)]
    assert decide(1, drives, claims) == [Assign(1, "a")]
    assert decide(1, drives, claims, arms=2) == [Assign(1, "a"), Assign(2, "b")]
    assert decide(1, drives, claims, arms=0) == []


def test_keeps_loaded_what_is_asked_for_again_and_again():
    board = Board(RULES)
    for number, volume in enumerate([7, 7, 7, 8]):
        board.put(claim(number, volume), number)
        board.drop(number)
    board.put(claim(9, 1), 10)
    assert board.decide(10, [drive("a", 7), drive("b", 8)], arms=1).actions == [PutAway("b")]


def test_reserved_drives_never_burn():
    rules = Rules(reserved=1)
    burns = [claim(i, i, BULK, BURN) for i in range(1, 4)]
    drives = [drive("a"), drive("b"), drive("c")]
    assert len(decide(1, drives, burns, rules, arms=3)) == 2
    drives[0] = drive("a", at_work=BULK, purpose=BURN)
    assert len(decide(1, drives, burns, rules, arms=3)) == 1
    assert len(decide(1, [drive("a")], burns, rules)) == 1, "the last drive does everything"


def test_a_full_pool_lets_burns_go_before_readers():
    rules = Rules(reserved=1)
    claims = [claim(1, 1, NOW), claim(2, 2, BULK, BURN)]
    drives = [drive("a"), drive("b")]
    assert decide(1, drives, claims, rules) == [Assign(1, "a")]
    assert decide(1, drives, claims, rules, pressure=1.0) == [Assign(2, "a")]


def test_a_down_drive_gives_its_disc_up():
    drives = [drive("a", 1, up=False), drive("b")]
    assert decide(1, drives, [claim(1, 1)]) == [PutAway("a")]
    drives = [drive("a", 1), drive("b")]
    apart = decide(1, drives, [claim(1, 1)], may_pair=lambda serial, volume: serial != "a")
    assert apart == [PutAway("a")]


def test_without_the_robot_only_discs_in_drives():
    drives = [drive("a", 1), drive("b")]
    assert decide(1, drives, [claim(1, 1), claim(2, 2)], arms=0) == [Assign(1, "a")]


def test_yield():
    bulk = [drive("a", 9, at_work=BULK)]
    assert decide(10, bulk, [claim(1, 1, BULK)]) == []
    assert decide(60, bulk, [claim(1, 1, BULK)]) == [Yield("a")]
    assert decide(10, bulk, [claim(1, 1, NOW)]) == [Yield("a")]
    assert decide(10, bulk, [claim(1, 1, NOW)], arms=0) == [], "it could not be fetched yet"
    assert decide(10, bulk, [claim(1, 9, NOW)], arms=0) == [Yield("a")], "it need not be fetched"
    assert decide(60, bulk, []) == []
    both = [drive("a", 8, at_work=STANDARD), drive("b", 9, at_work=BULK)]
    claims = [claim(1, 1), claim(2, 2)]
    assert decide(10, both, claims) == [Yield("b")], "no more than the robot can serve"
    burning = [drive("a", 9, at_work=BULK, purpose=BURN)]
    assert decide(100, burning, claims) == []


def test_the_run_cap_is_looked_at_in_time():
    board = Board(RULES)
    board.put(claim(1, 1, BULK), 0)
    assert board.decide(10, [drive("a", 9, at_work=BULK, started=5)], arms=1).again_at == 65


def test_a_share_is_owed_after_the_deadline():
    """A third of three drives is one."""
    drives = [
        drive("a", 7, at_work=NOW, started=990),
        drive("b", 8, at_work=NOW, started=990),
        drive("c"),
    ]
    claims = [claim(1, 1, BULK, since=0), claim(2, 2, NOW, since=900)]
    assert decide(999, drives, claims) == [Assign(2, "c")]
    assert decide(1000, drives, claims) == [Assign(1, "c")]
    drives[0] = drive("a", 7, at_work=BULK, started=990)
    assert decide(1000, drives, claims) == [Assign(2, "c")], "it has its share"
    drives[2] = drive("c", 9, at_work=NOW, started=990)
    assert decide(1000, drives, claims) == [], "and keeps it"


def test_bulk_waits_until_nothing_more_comes():
    rules = Rules(quiet=5, quiet_limit=20, quiet_bytes=100, quiet_count=10)
    board = Board(rules)
    board.put(claim(1, 1, BULK, last=0), 0)
    found = board.decide(4, [drive("a")], arms=1)
    assert (found.actions, found.again_at) == ([], 5)
    for now in range(5, 20):
        assert not board.put(claim(1, 1, BULK, last=now), now)
        assert board.decide(now, [drive("a")], arms=1).actions == []
    assert board.decide(20, [drive("a")], arms=1).actions == [Assign(1, "a")]
    for much in ({"bytes": 100}, {"count": 10}):
        assert decide(1, [drive("a")], [claim(1, 1, BULK, last=1, **much)], rules)
    unripe = [claim(1, 1, BULK, last=1)]
    assert decide(1, [drive("a")], unripe, rules) == []
    assert decide(1, [drive("a", 1)], unripe, rules) == [Assign(1, "a")], "nothing is fetched"


def test_no_quiet_time_is_longer_than_the_age_limit():
    rules = Rules(quiet=1e6, quiet_limit=1e6, bulk=ClassRule(age_limit=100))
    board = Board(rules)
    board.put(claim(1, 1, BULK, last=0), 0)
    assert board.decide(99, [drive("a")], arms=1).again_at == 100
    assert board.decide(100, [drive("a")], arms=1).actions == [Assign(1, "a")]


def test_a_second_drive_is_earned():
    rules = Rules(earn=100, quiet_limit=0, bulk=ClassRule(deadline=50))
    drives = [drive("a", 9, at_work=BULK), drive("b")]
    assert decide(1, drives, [claim(1, 1, BULK, bytes=199)], rules) == []
    assert decide(1, drives, [claim(1, 1, BULK, bytes=200)], rules) == [Assign(1, "b")]
    assert decide(50, drives, [claim(1, 1, BULK, bytes=1)], rules) == [Assign(1, "b")]
    assert decide(1, drives, [claim(1, 1, NOW, bytes=1)], rules) == [Assign(1, "b")]


def test_a_spare_drive_while_interactive_requests_come():
    rules = Rules(spare=1, spare_for=100, keep=10, quiet_limit=0)
    board = Board(rules)
    board.put(claim(1, 1, NOW), 0)
    board.drop(1)
    board.put(claim(2, 2, BULK), 0)
    drives = [drive("a", 9, at_work=BULK), drive("b", 1, idle_since=1)]
    found = board.decide(5, drives, arms=1)
    assert (found.actions, found.again_at) == ([], 11)
    assert board.decide(11, drives, arms=1).actions == [PutAway("b")]
    drives[1] = drive("b")
    assert board.decide(12, drives, arms=1).actions == []
    assert board.decide(100, drives, arms=1).actions == [Assign(2, "b")]


def test_magazines_move_whole():
    def bay(serial, unit, volume=None, magazine=None, **kw):
        return drive(
            serial, volume, unit=unit, **kw | {"carrier": magazine, "holds": bool(magazine)}
        )

    two = [claim(1, 11, BULK, carrier=1, bytes=1), claim(2, 12, BULK, carrier=1, bytes=1)]
    other = claim(3, 21, BULK, carrier=2, bytes=1)
    empty = [bay("a", "x"), bay("b", "x")]
    assert decide(1, empty, [other, *two]) == [Assign(1, "a")], "of which more is wanted"
    here = [bay("a", "x", None, 1), bay("b", "x", None, 1)]
    assert decide(1, here, [other, *two], arms=0) == [Assign(1, "a"), Assign(2, "b")]
    assert decide(1, here, [other]) == [PutAway("a")]
    half = [bay("a", "x", 11, 1, at_work=BULK), bay("b", "x", None, 1)]
    assert decide(1, half, [other]) == [], "one of its drives reads"
    assert decide(1, half, [claim(4, 21, NOW, carrier=2)]) == [Yield("a")]
    assert decide(1, half, [claim(4, 12, NOW, carrier=1)], arms=0) == [Assign(4, "b")]


serials = st.sampled_from("abcdef")
volumes = st.integers(1, 8)


@st.composite
def pictures(draw):
    names = draw(st.lists(serials, unique=True, min_size=1))
    held = draw(st.permutations(range(1, 9)))
    drives = []
    for name, volume in zip(names, held, strict=False):
        busy = draw(st.none() | st.sampled_from(RecallClass))
        burning = {"purpose": BURN} if busy is not None and draw(st.booleans()) else {}
        volume = volume if draw(st.booleans()) else None
        drives.append(drive(name, volume, at_work=busy, up=draw(st.booleans()), **burning))
    claims = [
        claim(
            number,
            draw(volumes),
            *draw(st.sampled_from([*((u, READ) for u in RecallClass), (BULK, BURN)])),
            draw(st.floats(0, 100)),
            bytes=draw(st.integers(0, 10)),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    old = ClassRule(draw(st.floats(1, 100)), draw(st.floats(0, 1)), draw(st.floats(1, 100)))
    rules = Rules(
        draw(st.integers(0, 3)), 60, old, old, old, quiet_limit=0, earn=draw(st.integers(0, 9)),
        spare=draw(st.integers(0, 3)),
    )  # fmt: skip
    return drives, claims, rules


@given(pictures(), st.integers(0, 2), st.floats(0, 1))
def test_safety(picture, arms, pressure):
    drives, claims, rules = picture
    by_serial, by_id = {d.serial: d for d in drives}, {c.id: c for c in claims}
    actions = decide(100, drives, claims, rules, arms=arms, pressure=pressure)
    used = [a.drive for a in actions]
    assert len(used) == len(set(used)), "no drive twice"
    given_out = [by_id[a.claim].volume for a in actions if isinstance(a, Assign)]
    assert len(given_out) == len(set(given_out)), "no disc twice"
    burns = sum(d.purpose is BURN and d.up for d in drives)
    moves = 0
    for action in actions:
        place = by_serial[action.drive]
        if isinstance(action, Yield):
            assert place.busy and place.purpose is READ
            continue
        assert not place.busy
        if isinstance(action, PutAway):
            assert place.holds
            moves += 1
            continue
        wanted = by_id[action.claim]
        assert place.up
        holders = [d.serial for d in drives if d.volume == wanted.volume]
        assert holders in ([], [action.drive]), "no disc in two drives"
        assert holders or not place.holds, "no disc onto another"
        moves += not holders
        burns += wanted.purpose is BURN
    assert moves <= arms
    up = sum(d.up for d in drives)
    assert burns <= max(1, up - rules.reserved, sum(d.purpose is BURN for d in drives))


@given(pictures())
def test_nobody_starves(picture):
    """The oldest reader over its age limit gets a drive, or has one emptied, if one is free."""
    drives, claims, rules = picture
    # A scrub may wait for ever. Reckoned as the board does: 100 - 1e-65 would be 100.
    aged = [c for c in claims if c.urgency is not IDLE and c.since <= 100 - rules.bulk.age_limit]
    if not aged:
        return
    oldest = min(aged, key=lambda c: (c.since, c.id))
    if oldest.purpose is BURN:
        return
    actions = decide(100, drives, claims, rules)
    there = next((d for d in drives if d.volume == oldest.volume), None)
    free = [d.serial for d in drives if d.up and not d.busy]
    if there is None and free:
        first = actions[0]
        assert isinstance(first, PutAway) or first.claim == oldest.id
    if there is not None and not there.busy:
        assert there.serial in [a.drive for a in actions]


@given(st.lists(st.integers(2, 6), min_size=40, max_size=40))
def test_a_bulk_claim_under_a_storm_waits_no_longer_than_the_age_limit(storm):
    """One drive, runs of 10 s, a new interactive claim at each step."""
    board = Board(Rules(bulk=ClassRule(age_limit=100), quiet_limit=0))
    board.put(claim(0, 1, BULK, since=0), 0)
    for step, volume in enumerate(storm, start=1):
        board.put(claim(step, volume, NOW, since=step * 10.0), step * 10.0)
        (done,) = board.decide(step * 10.0, [drive("a")], arms=1).actions
        if done.claim == 0:
            assert step * 10 <= 100
            return
        board.drop(done.claim)
    raise AssertionError("starved")


def test_the_line_of_all_that_wait_is_about_that_of_the_levels():
    board = Board(replace(RULES, quiet=5, quiet_limit=20))
    waiting = [
        claim(1, 1, IDLE), claim(2, 2, BULK, bytes=1), claim(3, 3, BULK, bytes=2),
        claim(4, 4, BULK, BURN), claim(5, 5, STANDARD), claim(6, 6, NOW, since=1),
        claim(7, 7, NOW), claim(8, 8, BULK, since=-4000), claim(9, 9, BULK, last=0),
    ]  # fmt: skip
    for one in waiting:
        board.put(one, 0)
    assert [c.id for c in board.line(0)] == [8, 7, 6, 5, 4, 3, 2, 1, 9]


changes = st.tuples(
    st.integers(0, 5), st.booleans(), st.integers(0, 9), volumes, st.sampled_from(RecallClass),
    st.sampled_from(Purpose),
)  # fmt: skip


@given(st.lists(changes, min_size=30, max_size=30), st.integers(0, 30))
def test_a_board_that_changed_decides_as_a_new_one(steps, changed):
    """Claims that come, change and go, and rules before, leave nothing behind but memory."""
    rules = replace(RULES, spare_for=0)
    others = replace(rules, quiet_limit=1e9, quiet=1e9, bulk=ClassRule(1, 1, 1), earn=10**9)
    board, left = Board(others), {}
    for step, (number, comes, size, volume, urgency, purpose) in enumerate(steps):
        if step == changed:
            board.change(rules, step)
        if comes:
            left[number] = claim(number, volume, urgency, purpose, float(step), bytes=size)
            board.put(left[number], step)
        else:
            left.pop(number, None)
            board.drop(number)
    board.change(rules, 30)
    drives = [drive("a"), drive("b", 1)]
    assert len(board) == len(left)
    assert board.decide(40, drives, arms=2).actions == decide(
        40, drives, left.values(), rules, arms=2
    )


def test_order_within_a_disc():
    order = DiscOrder()
    for key, urgency, sector in [("a", BULK, 30), ("b", BULK, 10), ("c", BULK, 20), ("d", NOW, 5)]:
        order.add(key, urgency, sector, 7, float(sector))
    assert (order.urgency, order.bytes, order.since(NOW)) == (NOW, 28, 5.0)
    assert list(order.from_sector(0)) == ["d"]
    order.remove("d")
    order.remove("d")
    assert order.urgency is BULK
    assert list(order.from_sector(15)) == ["c", "a", "b"]
    order.change("b", NOW)
    assert list(order.from_sector(15)) == ["b"]
    assert order.since(STANDARD) is None


def test_the_copy_that_costs_the_fewest_exchanges():
    effort = {"drive": Effort.NONE, "queue": Effort.SHARED}

    def of(disc):
        return effort.get(disc, Effort.EXCHANGE)

    assert fewest_exchanges([("x",), ("queue",), ("y",)], of) == ("queue",)
    assert fewest_exchanges([("x",), ("drive",)], of) == ("drive",)
    assert fewest_exchanges([("x",), ("y",)], of) == ("x",)
    assert fewest_exchanges([("x", "queue", "y", "drive")], of, need=2) == ("queue", "drive")
    assert fewest_exchanges([("x", "drive"), ("queue",)], of) == ("queue",)
    with pytest.raises(ValueError):
        fewest_exchanges([("x",)], of, need=2)


def test_a_scrub_leaves_the_last_unit_to_who_used_one_a_moment_ago():
    board = Board(RULES)
    board.put(claim(1, 1, IDLE), 0.0)
    board.used(STANDARD, 100.0)
    busy = drive("a", 9, at_work=STANDARD)
    soon = board.decide(105, [busy, drive("b")], arms=1)
    assert (soon.actions, soon.again_at) == ([], 110)
    assert board.decide(105, [drive("a"), drive("b")], arms=1).actions == [Assign(1, "a")]
    assert board.decide(110, [busy, drive("b")], arms=1).actions == [Assign(1, "b")]


def unit(name, carrier, **more):
    """Two drives that share a magazine; more: of both."""
    holds = carrier is not None
    return [
        drive(f"{name}{n}", **{"unit": name, "carrier": carrier, "holds": holds} | more)
        for n in (1, 2)
    ]


def test_a_disc_that_its_drive_may_not_use_is_put_back_for_the_next_one():
    one, two = unit("u", -1)
    here = [replace(one, volume=7), two]
    wanted = [claim(1, 7, carrier=-1)]
    apart = {"may_pair": lambda serial, volume: serial != "u1"}
    assert decide(1, here, wanted, arms=0, **apart) == [PutBack("u1")]
    down = [replace(one, volume=7, up=False), two]
    assert decide(1, down, wanted, arms=0) == [PutBack("u1")]
    assert decide(1, [replace(down[0], busy=True), two], wanted) == []
    assert decide(1, here, wanted, in_units=False, **apart) == []
    assert decide(1, unit("u", -1), wanted, in_units=False) == []
    assert decide(1, [replace(one, up=False), two], wanted, arms=0) == [Assign(1, "u2")]


def test_a_magazine_leaves_a_unit_of_which_no_drive_will_do():
    down, up = unit("u", -1, up=False), unit("v", None)
    wanted = [claim(1, 7, carrier=-1)]
    assert decide(1, down + up, wanted) == [PutAway("u1")]
    assert decide(1, down + up, wanted, arms=0) == []
    assert decide(1, down, wanted) == []  # there is no other unit
    stuck = [replace(down[0], busy=True), down[1]]
    assert decide(1, stuck + up, wanted) == []
    apart = {"may_pair": lambda serial, volume: serial.startswith("v")}
    assert decide(1, unit("u", -1) + up, wanted, **apart) == [PutAway("u1")]
