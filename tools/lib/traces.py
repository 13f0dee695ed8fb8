"""The six traces of the scheduler's proof, on the 42U library of the issue's class."""

from __future__ import annotations

from hsmfs.engine.schedule import Rules
from hsmfs.library.simulated.timing import Timing
from hsmfs.simulate.generate import Archive, burns, hot_set, priors, scattered, storm
from hsmfs.simulate.model import Model
from hsmfs.simulate.trace import Trace

ARCHIVE = Archive(magazines=278, discs_per_magazine=12, disc_bytes=300 * 10**9)
TIMING = Timing(
    exchange_s=30.0, load_s=20.0, seek_s=0.2, read_bytes_per_s=60e6, write_bytes_per_s=60e6
)
"""An exchange is two moves, away and in: 60 s."""
LIBRARIES = {
    "magazines move whole, three units of six drives": Model(3, TIMING, 6, True),
    "discs move singly, eighteen drives": Model(18, TIMING),
}
TB = 10**12


def rules(model: Model) -> Rules:
    """hsmfs's defaults for a library of this size."""
    earn = int(TIMING.read_bytes_per_s * (2 * TIMING.exchange_s + TIMING.load_s))
    return Rules(reserved=1, quiet=0.5, earn=earn, spare=max(1, model.units // 9))


def traces(size: int, hours: float) -> dict[str, Trace]:
    """By name; size: bytes of the bulk restore; hours: so long interactive requests come."""
    readers = priors(ARCHIVE, 1, hours=hours)
    bulk = scattered(ARCHIVE, 2, size=size)
    return {
        "interactive priors": readers,
        "bulk": bulk,
        "mixed": readers.merged(bulk),
        "storm": readers.merged(storm(ARCHIVE, 3, requests=5000, seconds=1800.0, allowed=10)),
        "burn under reads": readers.merged(burns(ARCHIVE, 4, hours=24.0, discs=48)),
        "one hot set": hot_set(ARCHIVE, 5, hours=24.0, requests=1000, studies=60, exponent=1.0),
    }
