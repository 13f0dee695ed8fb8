"""Reconciling: the robot is right, and each difference says what it means."""

from dataclasses import dataclass

import pytest

from hsmfs.library.journal import DifferenceKind as Kind
from hsmfs.library.journal import reconcile
from hsmfs.library.ports import Element, ElementKind


@dataclass
class Move:
    token: int
    barcode: str
    src: int
    dst: int


def shelves(gripper=None, **slots):
    """Slots 1, 2, 3 as s1, s2, s3: a barcode, "?" for a label that does not read, or nothing."""
    held = {"s1": None, "s2": None, "s3": None} | slots
    yield Element(100, ElementKind.TRANSPORT, full=bool(gripper), barcode=gripper)
    for name, barcode in held.items():
        number = int(name[1:])
        label = None if barcode == "?" else barcode
        yield Element(
            number, ElementKind.STORAGE, full=bool(barcode), barcode=label, magazine=1, slot=number
        )


def kinds(differences):
    return [(d.kind, d.barcode, d.found) for d in differences]


def test_all_as_expected():
    assert reconcile(shelves(s1="A"), {"A": 1, "B": None}) == []


def test_moved_by_hand():
    (found,) = reconcile(shelves(s2="A"), {"A": 1})
    assert (found.kind, found.expected, found.found) == (Kind.MOVED, 1, 2)
    assert found.meaning == "A is in magazine 1 slot 2, not in magazine 1 slot 1"


def test_swapped():
    differences = reconcile(shelves(s1="B", s2="A"), {"A": 1, "B": 2})
    assert kinds(differences) == [(Kind.SWAPPED, "A", 2), (Kind.SWAPPED, "B", 1)]


def test_three_in_a_ring_were_moved():
    differences = reconcile(shelves(s1="C", s2="A", s3="B"), {"A": 1, "B": 2, "C": 3})
    assert [d.kind for d in differences] == [Kind.MOVED] * 3


def test_missing_returned_unknown_unlabelled():
    differences = reconcile(shelves(s1="?", s2="R", s3="U"), {"M": 1, "R": None})
    assert kinds(differences) == [
        (Kind.UNLABELLED, None, 1),
        (Kind.MISSING, "M", None),
        (Kind.RETURNED, "R", 2),
        (Kind.UNKNOWN, "U", 3),
    ]


def test_duplicate_label():
    differences = reconcile(shelves(s1="A", s2="A"), {"A": 1})
    assert kinds(differences) == [(Kind.DUPLICATE, "A", 1), (Kind.DUPLICATE, "A", 2)]


@pytest.mark.parametrize(
    ("where", "found", "says"),
    [
        ({"s1": "A"}, 1, "never left"),
        ({"s2": "A"}, 2, "arrived"),
        ({"gripper": "A"}, 100, "still holds it"),
        ({"s3": "A"}, 3, "by hand"),
    ],
)
def test_half_done_move(where, found, says):
    (difference,) = reconcile(shelves(**where), {"A": 1}, [Move(7, "A", 1, 2)])
    assert (difference.kind, difference.found, difference.token) == (Kind.HALF_DONE, found, 7)
    assert says in difference.meaning


def test_lost_on_the_way():
    (difference,) = reconcile(shelves(), {"A": 1}, [Move(7, "A", 1, 2)])
    assert (difference.kind, difference.token) == (Kind.MISSING, 7)


def test_element_that_the_robot_no_longer_has():
    (difference,) = reconcile(shelves(s1="A"), {"A": 77})
    assert "element 77" in difference.meaning
