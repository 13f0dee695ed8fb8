"""How long a rebuild still takes: one figure over all phases."""

from __future__ import annotations

import pytest

from hsmfs.engine.rebuild.outlook import ASSUMED, Outlook

UNITS = {"snapshot": 10**9, "manifests": 10**6, "names": 10**6, "pools": 10**5, "fsck": 10**6}


def cost(*phases):
    return sum(UNITS[phase] * ASSUMED[phase] for phase in phases)


def test_nobody_can_tell_before_the_first_disc():
    outlook = Outlook()
    assert outlook.left(0, 0, 5) is None
    outlook.expect(**UNITS)
    assert outlook.left(0, 12, 5) is None
    assert outlook.left(1, 12, 60) == pytest.approx(11 * 60 + cost(*UNITS))


def test_phases_to_come_are_in_it_and_follow_the_pace_of_those_that_are_over():
    outlook = Outlook()
    outlook.expect(**UNITS)
    outlook.begin("snapshot", 600)
    outlook.begin("manifests", 2 * cost("snapshot"))  # this machine is half as fast
    assert outlook.left(0, 10**6, 0) == pytest.approx(
        2 * cost("manifests", "names", "pools", "fsck")
    )
    # Its own pace counts in a phase that tells its steps.
    assert outlook.left(250_000, 10**6, 100) == pytest.approx(
        300 + 2 * cost("names", "pools", "fsck")
    )
    outlook.begin("names", 2 * cost("manifests"))
    assert outlook.left(0, 0, 1.5) == pytest.approx(
        2 * cost("names") - 1.5 + 2 * cost("pools", "fsck")
    )
    assert outlook.left(0, 0, 10**6) == pytest.approx(2 * cost("pools", "fsck"))
    outlook.begin("pools", 2 * cost("names"))
    outlook.begin("fsck", 2 * cost("pools"))
    assert outlook.left(20, 20, 7) == 0


def test_a_run_that_goes_on_after_all_was_made_tells_nothing_before_it_knows():
    outlook = Outlook()
    outlook.begin("fsck", 0)
    assert outlook.left(0, 20, 0) is None
    assert outlook.left(5, 20, 10) == 30
