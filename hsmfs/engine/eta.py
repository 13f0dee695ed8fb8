"""How long a recall will take, by what the configuration says of robot and drives; pure.

An honest guess and not a promise: it knows the queue as it is, and that nobody more urgent comes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds and bytes per second; a rate of 0 means no delay."""

    exchange: float
    load: float
    seek: float
    read_rate: float


def reading(speeds: Speeds, size: int) -> float:
    """Seconds to find and read size bytes of a loaded disc."""
    return speeds.seek + (size / speeds.read_rate if speeds.read_rate else 0.0)


def mounting(speeds: Speeds) -> float:
    """Seconds to put one disc away, fetch another and spin it up."""
    return 2 * speeds.exchange + speeds.load


def expected(
    speeds: Speeds,
    *,
    size: int,
    in_drive: bool,
    before_on_disc: int,
    discs_before: int,
    bytes_before: int,
    drives: int,
    run_cap: float,
) -> float | None:
    """Seconds until size bytes are on disk; None if no drive is up.

    before_on_disc: bytes wanted first of the same disc. discs_before, bytes_before: claims that go
    first, and what they want; they share the drives, and none runs longer than run_cap.
    """
    if drives <= 0:
        return None
    ahead = 0.0
    if discs_before:
        run = min(run_cap, reading(speeds, bytes_before // discs_before))
        ahead = (mounting(speeds) + run) * discs_before / drives
    mount = 0.0 if in_drive else mounting(speeds)
    return ahead + mount + reading(speeds, before_on_disc + size)
