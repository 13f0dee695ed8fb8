"""The guess of how long a recall takes."""

from hsmfs.engine.eta import Speeds, expected

SPEEDS = Speeds(exchange=60, load=20, seek=0.2, read_rate=50e6)
IDLE = {"before_on_disc": 0, "discs_before": 0, "bytes_before": 0, "drives": 2, "run_cap": 600}


def test_loaded_and_idle_is_seek_and_read():
    assert expected(SPEEDS, size=50_000_000, in_drive=True, **IDLE) == 1.2


def test_a_disc_in_its_slot_costs_two_moves_and_a_load():
    assert expected(SPEEDS, size=0, in_drive=False, **IDLE) == 140.2


def test_discs_before_share_the_drives_and_end_at_the_run_cap():
    busy = IDLE | {"discs_before": 4, "bytes_before": 10**15}
    assert expected(SPEEDS, size=0, in_drive=False, **busy) == (140 + 600) * 4 / 2 + 140.2


def test_no_drive_no_guess():
    assert expected(SPEEDS, size=0, in_drive=True, **IDLE | {"drives": 0}) is None
