"""Reed-Solomon parity over the images of a volume set, byte by byte, by ISA-L at memory speed.

The field is GF(2^8) with the polynomial 0x11d and the generator 2, as in Linux's RAID 6: parity row
r of data discs 0..k-1 is the sum of 2^(r*j) * disc j, so row 0 (P) is their exclusive or. Images
count as padded with zeros to the longest. The maths is docs/disc-format.md section 8.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

from hsmfs.errors import ConfigError

POLYNOMIAL = 0x11D
MATRIX = "vandermonde-2"
"""The name of the coefficients in VOLUME.json."""
_LIBRARY = "libisal.so.2"
_TABLE = 32
"""Bytes that ISA-L expands a coefficient to."""

Buffer = bytes | bytearray | memoryview


def coefficient(row: int, index: int) -> int:
    """What data disc `index` (from 0) is multiplied with in parity row `row`: 2^(row*index)."""
    return power(row * index)


def power(exponent: int) -> int:
    """2 to that power, in the field."""
    return _tables()[0][exponent % 255]


def multiply(a: int, b: int) -> int:
    """The product of two elements of the field."""
    if a == 0 or b == 0:
        return 0
    exponents, logarithms = _tables()
    return exponents[(logarithms[a] + logarithms[b]) % 255]


def inverse(a: int) -> int:
    """1/a. Raises ZeroDivisionError."""
    if a == 0:
        raise ZeroDivisionError("zero has no inverse")
    exponents, logarithms = _tables()
    return exponents[-logarithms[a] % 255]


@cache
def _tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Powers of 2, and the exponent of each element but 0."""
    exponents = [1]
    while len(exponents) < 255:
        doubled = exponents[-1] << 1
        exponents.append(doubled ^ POLYNOMIAL if doubled > 255 else doubled)
    logarithms = [0] * 256
    for exponent, value in enumerate(exponents):
        logarithms[value] = exponent
    return tuple(exponents), tuple(logarithms)


@lru_cache(4096)
def solution(lost: tuple[int, ...], rows: tuple[int, ...]) -> dict[int, tuple[int, ...]] | None:
    """How lost data discs follow from syndromes: for each its factors of the rows' syndromes.

    The syndrome of a row is the row itself plus its coefficient times every data disc that is not
    lost. None if there are fewer rows than lost discs. Only as many rows as needed have a factor.
    """
    if len(rows) < len(lost):
        return None
    size = len(lost)
    matrix = [
        [coefficient(row, index) for index in lost] + [int(i == j) for j in range(size)]
        for i, row in enumerate(rows[:size])
    ]
    for column in range(size):
        pivot = next(i for i in range(column, size) if matrix[i][column])
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        scale = inverse(matrix[column][column])
        matrix[column] = [multiply(scale, value) for value in matrix[column]]
        for i in range(size):
            if i != column and matrix[i][column]:
                factor = matrix[i][column]
                matrix[i] = [
                    value ^ multiply(factor, other)
                    for value, other in zip(matrix[i], matrix[column], strict=True)
                ]
    spare = (0,) * (len(rows) - size)
    return {index: (*matrix[at][size:], *spare) for at, index in enumerate(lost)}


class Combination:
    """Linear combinations of byte strings: output i is the sum of rows[i][j] * source j.

    Safe to use from several threads; the calls run without Python's lock. Raises ConfigError when
    ISA-L is not installed.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.outputs, self.sources = len(rows), len(rows[0])
        self._isal = _isal()
        flat = bytes(value for row in rows for value in row)
        self._expanded = ctypes.create_string_buffer(_TABLE * len(flat))
        self._isal.ec_init_tables(self.sources, self.outputs, flat, self._expanded)

    def store(self, sources: Sequence[Buffer], outputs: Sequence[Buffer], length: int) -> None:
        """Overwrite the first length bytes of each output."""
        sources_, kept = _pointers(sources, length)
        outputs_, kept_too = _pointers(outputs, length, writable=True)
        self._isal.ec_encode_data(
            length, self.sources, self.outputs, self._expanded, sources_, outputs_
        )
        del kept, kept_too

    def add(self, source: int, data: Buffer, outputs: Sequence[Buffer], length: int) -> None:
        """Add the share of one source to the first length bytes of each output."""
        pointers, kept = _pointers([data], length)
        outputs_, kept_too = _pointers(outputs, length, writable=True)
        self._isal.ec_encode_data_update(
            length, self.sources, self.outputs, source, self._expanded, pointers[0], outputs_
        )
        del kept, kept_too


def parity_of(indices: Sequence[int], rows: Sequence[int]) -> Combination:
    """The combination that makes parity rows of the data discs with these indices."""
    return Combination([[coefficient(row, index) for index in indices] for row in rows])


def recover(
    lost: Sequence[int], wanted: int, syndromes: Mapping[int, Buffer], length: int
) -> bytearray | None:
    """The bytes of data disc `wanted`, one of the lost, from the syndromes by row.

    None if too few rows are there.
    """
    rows = tuple(sorted(syndromes))
    factors = solution(tuple(lost), rows)
    if factors is None:
        return None
    result = bytearray(length)
    if length:
        _factors(factors[wanted]).store([syndromes[row] for row in rows], [result], length)
    return result


@lru_cache(1024)
def _factors(factors: tuple[int, ...]) -> Combination:
    return Combination([factors])


@cache
def _isal() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise ConfigError(
            f"parity needs the library {_LIBRARY}: {error}", next_step="apt install libisal2"
        ) from error
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.ec_init_tables.argtypes = [number, number, ctypes.c_char_p, pointer]
    library.ec_init_tables.restype = None
    library.ec_encode_data.argtypes = [number, number, number, pointer, pointer, pointer]
    library.ec_encode_data.restype = None
    library.ec_encode_data_update.argtypes = [
        number, number, number, number, pointer, pointer, pointer,
    ]  # fmt: skip
    library.ec_encode_data_update.restype = None
    return library


def _pointers(
    buffers: Sequence[Buffer], length: int, *, writable: bool = False
) -> tuple[ctypes.Array[ctypes.c_void_p], list[object]]:
    """Addresses for C, and what must live as long as they are used."""
    kept: list[object] = []
    pointers = (ctypes.c_void_p * len(buffers))()
    for at, buffer in enumerate(buffers):
        if len(buffer) < length:
            raise ValueError(f"{len(buffer)} bytes given, {length} are needed")
        if isinstance(buffer, bytes):
            if writable:
                raise TypeError("bytes cannot be written to")
            kept.append(buffer)
            pointers[at] = ctypes.cast(ctypes.c_char_p(buffer), ctypes.c_void_p)
        else:
            view = ctypes.c_char.from_buffer(buffer)
            kept.append(view)
            pointers[at] = ctypes.addressof(view)
    return pointers, kept
