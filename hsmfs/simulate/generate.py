"""Makes traces as hospitals make them. What is assumed, and from which papers, is in the docs.

A library is filled in the order of time, disc after disc, studies whole. From one seed comes one
trace.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from ..catalog.queues import RecallClass
from .model import sectors
from .trace import Place, Request, Trace

DAY = 86_400.0
YEAR = 365.0 * DAY
HOURS = (1, 1, 1, 1, 1, 2, 4, 9, 16, 20, 21, 20, 16, 17, 19, 18, 15, 10, 7, 6, 5, 4, 3, 2)
"""Exams of each hour of a working day, relative: a morning and an afternoon hump."""
PRIORS = 7.6
PRIORS_SPREAD = 12.3
"""Earlier studies of a patient who has any: mean and standard deviation."""
HAVE_PRIORS = 0.597
RELEVANT = 0.61
"""The share of them that a radiologist wants to see."""
AGES = ((3, 0.562), (6, 0.72), (12, 0.846), (24, 0.914), (60, 0.995), (120, 1.0))
"""How many of those are no older than so many months."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What lies on the discs: so many of so many bytes, filled over so many years, by now full.

    study: bytes of one, the median; spread: sigma of its logarithm.
    """

    magazines: int = 278
    discs_per_magazine: int = 12
    disc_bytes: int = 300 * 10**9
    years: float = 10.0
    study: int = 150 * 10**6
    spread: float = 1.0

    @property
    def discs(self) -> int:
        return self.magazines * self.discs_per_magazine

    def empty(self) -> Trace:
        """A trace about these discs with nothing asked for."""
        count = range(self.discs)
        per = self.discs_per_magazine
        names = [f"M{n // per + 1:03d}D{n % per + 1:02d}" for n in count]
        return Trace([], names, [n // per + 1 for n in count])

    def place(self, age: float, rng: random.Random) -> Place:
        """Where a study of that age in seconds lies; several discs are filled at a time."""
        share = 1.0 - min(1.0, age / (self.years * YEAR))
        last = self.discs - 1
        disc = min(last, max(0, round(share * last + rng.gauss(0.0, 3.0))))
        return Place(disc, rng.randrange(sectors(self.disc_bytes)))

    def size(self, rng: random.Random) -> int:
        """Bytes of a study."""
        return max(2**20, min(8 * 10**9, int(self.study * math.exp(rng.gauss(0.0, self.spread)))))


def _moments(rate: float, seconds: float, start: float, rng: random.Random) -> list[float]:
    """Poisson arrivals by the day's curve, on average `rate` a second, from an hour of the day."""
    mean = sum(HOURS) / len(HOURS)
    top = rate * max(HOURS) / mean
    found, at = [], 0.0
    while (at := at + rng.expovariate(top)) < seconds:
        hour = int((start * 3600 + at) % DAY // 3600)
        if rng.random() < HOURS[hour] / max(HOURS):
            found.append(at)
    return found


def _binomial(count: int, share: float, rng: random.Random) -> int:
    return sum(rng.random() < share for _ in range(count))


def prior_age(rng: random.Random) -> float:
    """Seconds since a relevant prior study was made, as AGES says."""
    share = rng.random()
    low_months, low = 0.0, 0.0
    for months, upto in AGES:
        if share < upto:
            part = (share - low) / (upto - low)
            return (low_months + part * (months - low_months)) * YEAR / 12
        low_months, low = months, upto
    return low_months * YEAR / 12


def priors(
    archive: Archive,
    seed: int,
    *,
    hours: float = 24.0,
    exams_a_day: float = 1000.0,
    online_months: float = 24.0,
    start_hour: float = 7.0,
) -> Trace:
    """Readers open the relevant prior studies that are no longer on disk (over online_months)."""
    rng, trace = random.Random(seed), archive.empty()
    online = online_months / 12 * YEAR
    shape = (PRIORS / PRIORS_SPREAD) ** 2
    for at in _moments(exams_a_day / DAY, hours * 3600, start_hour, rng):
        if rng.random() >= HAVE_PRIORS:
            continue
        count = round(rng.gammavariate(shape, PRIORS / shape))
        ages = [prior_age(rng) for _ in range(_binomial(count, RELEVANT, rng))]
        trace.requests += [
            Request(at, RecallClass.INTERACTIVE, archive.size(rng), (archive.place(age, rng),))
            for age in ages
            if age > online
        ]
    return trace


def scattered(archive: Archive, seed: int, *, size: int, at: float = 0.0) -> Trace:
    """A bulk restore of so many bytes: studies from anywhere in the archive, asked for at once."""
    rng, trace = random.Random(seed), archive.empty()
    left = size
    while left > 0:
        one = archive.size(rng)
        age = rng.random() * archive.years * YEAR
        trace.requests.append(Request(at, RecallClass.BULK, one, (archive.place(age, rng),)))
        left -= one
    return trace


def storm(
    archive: Archive, seed: int, *, requests: int, seconds: float, allowed: int = 20
) -> Trace:
    """A program runs over the archive. What is more than allowed is bulk, as the guard makes it."""
    rng, trace = random.Random(seed), archive.empty()
    for number, at in enumerate(sorted(rng.random() * seconds for _ in range(requests))):
        place = archive.place(rng.random() * archive.years * YEAR, rng)
        urgency = RecallClass.INTERACTIVE if number < allowed else RecallClass.BULK
        trace.requests.append(Request(at, urgency, archive.size(rng), (place,)))
    return trace


def hot_set(
    archive: Archive,
    seed: int,
    *,
    hours: float,
    requests: int,
    studies: int = 20_000,
    exponent: float = 0.8,
) -> Trace:
    """Readers ask by Zipf's law: the n-th most wanted study n**-exponent as often as the first."""
    rng, trace = random.Random(seed), archive.empty()
    known = [
        (archive.size(rng), archive.place(rng.random() * archive.years * YEAR, rng))
        for _ in range(studies)
    ]
    weights = list(accumulate((n + 1) ** -exponent for n in range(studies)))
    for at in _moments(requests / (hours * 3600), hours * 3600, 0.0, rng):
        size, place = known[bisect_left(weights, rng.random() * weights[-1])]
        trace.requests.append(Request(at, RecallClass.INTERACTIVE, size, (place,)))
    return trace


def burns(archive: Archive, seed: int, *, hours: float, discs: int) -> Trace:
    """Discs that are full in the spool and want to be burned, on the archive's last discs."""
    rng, trace = random.Random(seed), archive.empty()
    for number, at in enumerate(sorted(rng.random() * hours * 3600 for _ in range(discs))):
        disc = archive.discs - 1 - number
        trace.requests.append(
            Request(at, RecallClass.BULK, archive.disc_bytes, (Place(disc, 0),), True)
        )
    return trace
