"""How many blank discs a year are needed: growth, discs that fail, discs that are repacked.

Pure over one snapshot of the catalog: rates come from what happened, and each answer says what was
assumed where history does not tell. Nothing is taken from data sheets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..catalog.refreshes import Refresh
from ..catalog.reports import Reports
from ..catalog.volumes import Volume
from ..config import Config
from ..states import VolumeState
from ..types import VolumeId
from .refresh import REPACK, units

YEAR_NS = 365 * 86_400 * 10**9
_BAD = (VolumeState.DAMAGED, VolumeState.LOST)
_HOLDING = (VolumeState.FULL, VolumeState.SUSPECT, VolumeState.EXPORTED)
_RULE = 3.0
"""Rule of three: what never happened in n disc-years has a rate below 3/n with 95 % confidence."""
_SHORT = 90
"""Days of history below which growth is told to rest on little."""


def forecast(reports: Reports, config: Config, now_ns: int, growth: int | None) -> dict[str, Any]:
    """Discs for the next year. growth: bytes a year if the admin knows it, else from history."""
    volumes = reports.volumes.all()
    burned = [v for v in volumes if v.burned_ns is not None]
    orders = reports.refreshes.all()
    assumed: list[str] = []
    grown = _growth(burned, orders, config, now_ns, growth, assumed)
    lost = _losses(burned, reports.health.accused(), now_ns, assumed)
    repack = _repack(reports, config, assumed)
    total = grown + lost["discs"] + repack["discs"]
    blanks = len(reports.volumes.blanks())
    return {
        "discs_a_year": round(total, 2),
        "growth": round(grown, 2),
        "losses": lost,
        "repack": repack,
        "blanks": blanks,
        "blanks_last_years": round(blanks / total, 2) if total else None,
        "scrub": _scrub(reports, config, volumes),
        "assumed": assumed,
    }


def _growth(
    burned: Sequence[Volume],
    orders: Sequence[Refresh],
    config: Config,
    now_ns: int,
    growth: int | None,
    assumed: list[str],
) -> float:
    if growth is not None:
        sets = config.sets
        discs = growth * config.engine.copies / config.library.disc
        if sets is not None and sets.m:
            discs *= sets.discs / sets.k
            assumed.append(f"{sets.k}+{sets.m} discs in each set, all of them full")
        assumed.append(
            f"{growth} bytes a year as given, {config.engine.copies} copies as engine.copies says"
            " (policies may ask for more), discs filled whole, no gain by compression"
        )
        return discs
    if not burned:
        assumed.append("nothing was burned yet: no growth is known")
        return 0.0
    first = min(v.burned_ns or now_ns for v in burned)
    days = max(1.0, (now_ns - first) / 86_400e9)
    window = min(365.0, days)
    since = max(first, now_ns - YEAR_NS)
    recent = [v for v in burned if (v.burned_ns or 0) >= since]
    size, copied = sum(v.used for v in recent), _copied(burned, orders, config, since)
    assumed.append(
        f"growth goes on as in the last {window:.0f} days: {len(recent)} discs burned, and of the"
        f" {size} bytes on them at most {copied} came from discs that were retired"
        + ("; that is little history" if days < _SHORT else "")
    )
    grown = max(0.0, 1 - copied / size) if size else 1.0
    return len(recent) * grown * 365.0 / window


def _copied(
    burned: Sequence[Volume], orders: Sequence[Refresh], config: Config, since_ns: int
) -> int:
    """Bytes that went from discs retired since then to others: of a disc to be repacked no more
    than is alive on one that is repacked by itself."""
    kinds = {row.volume: row.kind for row in orders if (row.retired_ns or 0) >= since_ns}
    below = config.scrub.repack_below or 100
    return sum(
        v.used * (below if kinds[v.id] == REPACK else 100) // 100 for v in burned if v.id in kinds
    )


def _losses(
    burned: Sequence[Volume], accused: Collection[VolumeId], now_ns: int, assumed: list[str]
) -> dict[str, Any]:
    """A disc that was retired failed if it was ever found bad; one that a rebuilt catalog has not
    tested yet did not."""
    years = sum((now_ns - (v.burned_ns or now_ns)) / YEAR_NS for v in burned)
    failed = sum(
        v.state in _BAD
        or (v.state is VolumeState.SUSPECT and not v.unverified)
        or (v.state is VolumeState.RETIRED and (v.id in accused or bool(v.quarantine)))
        for v in burned
    )
    holding = sum(v.state in _HOLDING for v in burned)
    rate = failed / years if years else 0.0
    upper = _RULE / years if years and not failed else None
    if failed:
        assumed.append(f"discs go on failing as they did: {failed} in {years:.2f} disc-years")
    elif years >= _RULE:
        assumed.append(
            f"no disc failed in {years:.2f} disc-years, so none is expected; with 95 % confidence"
            f" the rate is below {_RULE / years:.3f} a disc-year (rule of three)"
        )
    else:
        assumed.append(
            f"no disc failed in {years:.2f} disc-years: too few to tell how often they fail"
        )
    return {
        "discs": round(rate * holding, 2),
        "at_most": None if upper is None else round(min(holding, upper * holding), 2),
        "rate_a_disc_year": round(rate, 5),
        "failed": failed,
        "disc_years": round(years, 3),
    }


def _repack(reports: Reports, config: Config, assumed: list[str]) -> dict[str, Any]:
    below = config.scrub.repack_below
    if not below:
        assumed.append("nothing is repacked by itself (scrub.repack_below is 0)")
        return {"discs": 0, "retired": 0}
    retired, alive = 0, 0
    for unit in units(reports):
        sums = [reports.refreshes.alive(volume.id) for volume in unit]
        if sum(s[1] for s in sums) and sum(s[0] for s in sums) * 100 < below * sum(
            s[1] for s in sums
        ):
            retired += len(unit)
            alive += sum(s[0] for s in sums)
    assumed.append(f"discs of which less than {below} % is alive today are repacked this year")
    return {"discs": -(-alive // config.library.disc), "retired": retired}


def _scrub(reports: Reports, config: Config, volumes: Sequence[Volume]) -> dict[str, Any]:
    """What the tests of a year read, and how long one drive is at it."""
    interval = config.scrub.interval
    used = sum(v.used for v in volumes if v.state in (VolumeState.FULL, VolumeState.SUSPECT))
    size = used * config.scrub.share / 100 * (365 * 86_400 / interval) if interval else 0.0
    pairs = reports.health.pairs()
    read, ns = sum(p.read_bytes for p in pairs), sum(p.read_ns for p in pairs)
    speed = read * 1e9 / ns if ns else None
    return {
        "bytes_a_year": int(size),
        "drive_hours_a_year": round(size / speed / 3600, 2) if speed else None,
        "read_speed": int(speed) if speed else None,
    }
