"""Sizes, rates and durations as people write them, in both directions.

Bytes are ints, durations are float seconds, rates are bytes a second.
"""

from __future__ import annotations

import re
from decimal import Decimal

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZES: dict[str, int] = {
    **{unit.lower(): 1024**power for power, unit in enumerate(_BINARY)},
    **{unit: 1000**power for power, unit in enumerate(("kb", "mb", "gb", "tb", "pb"), start=1)},
}
_DURATIONS: dict[str, Decimal] = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
    "w": Decimal(604_800),
}
_NUMBER = r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)"
_ONE = re.compile(rf"\s*{_NUMBER}\s*")
_SEVERAL = re.compile(rf"\s*{_NUMBER}(?:\s+{_NUMBER})*\s*")


def parse_size(value: object) -> int:
    """Bytes from an int of bytes or from "64 KiB", "1.5 TB"; ValueError says what was expected."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a size cannot be negative")
        return value
    match = _ONE.fullmatch(value) if isinstance(value, str) else None
    factor = _SIZES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(
            f'{value!r} is not a size: write bytes, or "64 KiB", "10 TiB" (powers of 1024), '
            '"300 GB" (powers of 1000)'
        )
    return round(Decimal(match[1]) * factor)


def format_size(size: int) -> str:
    """A size in bytes for people, to three digits: 1536 is "1.5 KiB"; parse_size reads it."""
    scaled, unit = Decimal(size), 0
    while abs(scaled) >= Decimal("1023.5") and unit < len(_BINARY) - 1:
        scaled, unit = scaled / 1024, unit + 1
    return f"{_three_digits(scaled)} {_BINARY[unit]}"


def parse_rate(value: object) -> int:
    """Bytes a second from "60 MB/s"; ValueError says what was expected."""
    if not isinstance(value, str) or not value.rstrip().endswith("/s"):
        raise ValueError(f'{value!r} is not a rate: write for instance "60 MB/s"')
    rate = parse_size(value.rstrip().removesuffix("/s"))
    if rate == 0:
        raise ValueError("a rate must be more than 0")
    return rate


def format_rate(rate: float) -> str:
    """Bytes a second for people, in powers of 1000 as drives are sold: "60 MB/s"."""
    scaled = Decimal(round(rate))
    for unit in ("B", "kB", "MB"):
        if scaled < 1000:
            return f"{_three_digits(scaled)} {unit}/s"
        scaled /= 1000
    return f"{_three_digits(scaled)} GB/s"


def parse_duration(value: object) -> float:
    """Seconds from "5 min", "0.2 s" or "1 h 30 min"; ValueError says what was expected."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or not _SEVERAL.fullmatch(value):
        raise ValueError(_no_duration(value))
    total = Decimal(0)
    for number, unit in re.findall(_NUMBER, value):
        if unit not in _DURATIONS:
            raise ValueError(_no_duration(value))
        total += Decimal(number) * _DURATIONS[unit]
    return float(total)


YEAR = 366 * 86_400
"""Seconds of a year in a period of retention: no calendar year is longer."""


def parse_period(value: object) -> float:
    """Seconds from "15 y", "30 d" or "forever" (infinite); a year counts as 366 days, so that a
    retention is never shorter than the calendar's. ValueError says what was expected.
    """
    if value == "forever":
        return float("inf")
    years = re.fullmatch(r"\s*(\d+)\s*y\s*", value) if isinstance(value, str) else None
    return float(int(years[1]) * YEAR) if years else parse_duration(value)


def format_period(seconds: float) -> str:
    """A period for people; parse_period reads it."""
    if seconds == float("inf"):
        return "forever"
    years, rest = divmod(seconds, YEAR)
    return f"{int(years)} y" if years and not rest else format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Seconds for people, in at most two units: 5400 is "1 h 30 min"; parse_duration reads it."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if 0 < seconds < 1:
        return f"{_three_digits(Decimal(str(seconds)) * 1000)} ms"
    if seconds < 60:
        return f"{_three_digits(Decimal(str(seconds)))} s"
    left = round(seconds)
    for unit, smaller in (("d", "h"), ("h", "min"), ("min", "s")):
        size, small = int(_DURATIONS[unit]), int(_DURATIONS[smaller])
        if left >= size:
            whole, more = left // size, left % size // small
            return f"{whole} {unit} {more} {smaller}" if more else f"{whole} {unit}"
    raise AssertionError("60 seconds are a minute")


def _three_digits(value: Decimal) -> str:
    if abs(value) >= 100:
        return str(round(value))
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".")


def _no_duration(value: object) -> str:
    return f'{value!r} is not a duration: write "200 ms", "5 s", "15 min", "12 h", "30 d" or "2 w"'
