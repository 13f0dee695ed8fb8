"""Parity: the field, encoding in one go and one by one, every loss of up to two discs."""

from __future__ import annotations

import itertools
import random

import pytest

from hsmfs.disc.parity import coefficient, inverse, multiply, parity_of, recover, solution

SIZE = 3 * 2048 + 17


def discs(count: int) -> list[bytes]:
    rng = random.Random(count)
    return [rng.randbytes(SIZE) for _ in range(count)]


def test_field() -> None:
    assert multiply(2, 0x80) == 0x1D
    assert all(multiply(a, inverse(a)) == 1 for a in range(1, 256))
    assert [coefficient(1, j) for j in range(9)] == [1, 2, 4, 8, 16, 32, 64, 128, 0x1D]


def test_rows_are_p_and_q() -> None:
    data = discs(5)
    rows = [bytearray(SIZE), bytearray(SIZE)]
    parity_of(range(5), (0, 1)).store(data, rows, SIZE)
    for at in (0, 5000, SIZE - 1):
        p = q = 0
        for j, one in enumerate(data):
            p ^= one[at]
            q ^= multiply(coefficient(1, j), one[at])
        assert (rows[0][at], rows[1][at]) == (p, q)


def test_discs_added_one_by_one_in_any_order() -> None:
    data = discs(10)
    whole = [bytearray(SIZE), bytearray(SIZE)]
    parity_of(range(10), (0, 1)).store(data, whole, SIZE)
    bit_by_bit = [bytearray(SIZE), bytearray(SIZE)]
    for j in (7, 0, 9, 3, 1, 2, 8, 4, 6, 5):
        parity_of([j], (0, 1)).add(0, data[j], bit_by_bit, SIZE)
    assert bit_by_bit == whole


@pytest.mark.parametrize("lost", list(itertools.combinations(range(6), 2)), ids=str)
def test_two_lost_discs(lost: tuple[int, int]) -> None:
    """4+2: any two of six; numbers 4 and 5 are the parity discs."""
    data = discs(4)
    rows = [bytearray(SIZE), bytearray(SIZE)]
    parity_of(range(4), (0, 1)).store(data, rows, SIZE)
    gone = [j for j in lost if j < 4]
    left = [row for row in (0, 1) if row + 4 not in lost]
    syndromes = {row: bytearray(rows[row]) for row in left}
    for j in range(4):
        if j not in lost and left:
            parity_of([j], left).add(0, data[j], list(syndromes.values()), SIZE)
    for j in gone:
        assert recover(gone, j, syndromes, SIZE) == data[j]


def test_too_many_lost() -> None:
    assert solution((0, 1, 2), (0, 1)) is None
    assert recover([0, 1], 0, {0: bytes(8)}, 8) is None
