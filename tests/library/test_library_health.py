"""Blame: a disc and a drive accuse each other until one of them is cleared elsewhere."""

import pytest

from hsmfs.library.health import Attempt, Blame, blame, ledger, may_pair


def history(text):
    """ "1A- 2A+": drive 1 failed with disc A, drive 2 did well with it."""
    return [Attempt(word[0], word[1], word[2] == "+") for word in text.split()]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("1A-", Blame.UNDECIDED),
        ("1A- 2A+", Blame.DRIVE),
        ("1A- 2A-", Blame.MEDIUM),
        ("1A- 1B+", Blame.MEDIUM),
        ("1A- 1B-", Blame.DRIVE),
        ("1A- 1A-", Blame.UNDECIDED),
        ("1A- 1A+", Blame.UNDECIDED),
        ("1A- 1B+ 2A+", Blame.UNDECIDED),
        ("1A- 2A- 1B-", Blame.UNDECIDED),
        ("1A- 2A- 1B- 1C-", Blame.DRIVE),
        ("1B- 1C- 1D+ 1A- 2A-", Blame.MEDIUM),
    ],
)
def test_blame(text, verdict):
    assert blame(history(text), "1", "A") is verdict


def test_failing_pair_is_not_tried_again():
    tries = history("1A- 2B+")
    assert not may_pair(tries, "1", "A")
    assert may_pair(tries, "2", "A")
    assert may_pair(tries, "1", "B")
    assert may_pair(history("1A- 1A+"), "1", "A")


def test_counters_are_separate():
    counted = ledger(history("1A- 1B- 1C- 2D- 3D- 2E+ 3E+"))
    assert counted.drives == {"1": 3}
    assert counted.volumes == {"D": 2}
