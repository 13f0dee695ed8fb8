"""The guess of how long a recall takes."""

from hsmfs.catalog.queues import RecallClass
from hsmfs.config import LibraryConfig
from hsmfs.engine.eta import DriveNow, Outlook, Serving, Speeds, Terms, Wanted, forecast
from hsmfs.engine.pace import ENOUGH, Pace

SPEEDS = Speeds(exchange=60, load=20, seek=0.2, read_rate=50e6)
NOW, BULK = RecallClass.INTERACTIVE, RecallClass.BULK


def play(drives, *line, robot_in=0.0, arms=1, run_cap=600, earn=0):
    return forecast(drives, line, robot_in=[robot_in] * arms, terms=Terms(run_cap, earn))


def ready(*args, **terms):
    return {volume: outlook.ready for volume, outlook in play(*args, **terms).items()}


def drive(name, volume=None, **more):
    return DriveNow(name, SPEEDS, volume, volume is not None, **more)


def want(volume, urgency=NOW, size=50_000_000, **more):
    return Wanted(volume, urgency, size, **more)


def test_reading_is_seek_and_transfer():
    assert SPEEDS.reading(50_000_000) == 1.2


def test_in_a_drive_empty_drive_and_full_drive():
    assert ready([drive("a", 1)], want(1)) == {1: 0}
    assert ready([drive("a")], want(1)) == {1: 80}
    assert ready([drive("a", 2)], want(1)) == {1: 140}


def test_one_arm_serves_two_drives_one_after_the_other():
    found = ready([drive("a"), drive("b")], want(1), want(2), robot_in=10)
    assert found == {1: 90, 2: 150}
    found = ready([drive("a"), drive("b")], want(1), want(2), robot_in=10, arms=2)
    assert found == {1: 90, 2: 90}


def test_a_more_urgent_reader_waits_for_one_chunk_and_others_for_the_run():
    busy = Serving(9, BULK, 5, 1000, ran=100)
    drives = [drive("a", 9, serving=busy)]
    chunk = SPEEDS.reading(4 << 20)
    assert ready(drives, want(1, NOW))[1] == 5 + chunk + 140
    assert ready(drives, want(1, BULK))[1] == 5 + 500 + 140
    burn = [drive("a", 9, serving=Serving(9, BULK, 5, 1000, burns=True))]
    assert ready(burn, want(1, NOW))[1] == 1005 + 140


def test_in_the_order_of_the_line_what_lies_in_a_drive_first():
    found = play([drive("a", 4)], want(3, size=0), want(2, size=0), want(4, size=0))
    assert found[4] == Outlook(0, 0.2, 0)
    assert [(round(found[v].ready, 3), found[v].ahead) for v in (3, 2)] == [(140.2, 1), (280.4, 2)]


def test_bulk_has_no_more_drives_than_it_earns_and_waits_until_it_is_ripe():
    two = [drive("a"), drive("b")]
    line = [want(1, BULK), want(2, BULK)]
    assert ready(two, *line) == {1: 80, 2: 140}
    assert ready(two, *line, earn=10**9) == {1: 80, 2: 81.2 + 140}
    assert ready(two, want(1, BULK, wait=30)) == {1: 110}


def test_no_drive_no_guess():
    assert ready([], want(1)) == {}


def test_times_are_learned_and_one_jam_says_nothing():
    pace = Pace(LibraryConfig(kind="scsi", exchange="60 s", load="20 s", seek="1 s"))
    assert pace.of("a").exchange == 60
    for _ in range(5):
        pace.moved(30, 2)
        pace.loaded("a", 33)
        pace.read("a", 100 << 20, 5, 10)
        pace.read("a", 40_000, 10, 3)
    pace.moved(4000, 1)
    found = pace.of("a")
    assert (found.exchange, found.load) == (15, 33)
    assert 0.25 < found.seek < 0.3 and 10e6 < found.read_rate < 22e6
    assert pace.of("b").load == 33, "a drive nobody knows is as the others"


def test_a_drive_has_the_rate_of_earlier_runs():
    config = LibraryConfig(kind="scsi", read_rate="60 MB/s")
    assert Pace(config, {"a": (ENOUGH, 100.0)}).of("a").read_rate == ENOUGH / 100
    assert Pace(config, {"a": (1000, 100.0)}).of("a").read_rate == 60e6


def test_discs_of_a_magazine_cost_one_exchange():
    """Both drives of the unit, and then the next magazine when both are free."""
    drives = [drive(name, unit="u") for name in "ab"]
    line = [want(n, carrier=-1, size=0) for n in (1, 2)] + [want(3, carrier=-2, size=0)]
    found = {v: round(t, 3) for v, t in ready(drives, *line).items()}
    assert found == {1: 80, 2: 80, 3: 80.2 + 140}
    here = [drive(name, unit="u", carrier=-1) for name in "ab"]
    assert ready(here, want(1, carrier=-1), robot_in=50) == {1: 20}
