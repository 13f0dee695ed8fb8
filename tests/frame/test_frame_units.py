"""Sizes, rates and durations in both directions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmfs import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("64 KiB", 65536),
        ("1.5MiB", 3 << 19),
        ("300 GB", 300 * 10**9),
        ("10 TiB", 10 << 40),
        ("7 kb", 7000),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("bad", ["", "64", "KiB", "-1 KiB", "1 Kelvin", -1, True, 1.5])
def test_bad_sizes_say_what_is_expected(bad: object) -> None:
    with pytest.raises(ValueError, match=r"size|negative"):
        units.parse_size(bad)


@given(st.integers(0, 2**60))
def test_formatted_sizes_read_back_to_three_digits(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        ("200 ms", 0.2),
        ("0.2 s", 0.2),
        ("15min", 900),
        ("1 h 30 min", 5400),
        ("30 d", 2_592_000),
        ("2 w", 1_209_600),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("bad", ["", "5", 5, "5 m", "1 month", "s", True, "5 min 3"])
def test_bad_durations_say_what_is_expected(bad: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        units.parse_duration(bad)


@given(st.floats(0.001, 10**9))
def test_formatted_durations_read_back_within_a_twentieth(seconds: float) -> None:
    text = units.format_duration(seconds)
    assert units.parse_duration(text) == pytest.approx(seconds, rel=0.05)


def test_rates() -> None:
    assert units.parse_rate("60 MB/s") == 60_000_000
    assert units.format_rate(60e6) == "60 MB/s"
    for bad in ("60 MB", 60, "0 B/s"):
        with pytest.raises(ValueError, match="rate"):
            units.parse_rate(bad)
