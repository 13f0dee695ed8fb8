"""What is known of the health of a disc or a drive, as plain values, and what cannot be known.

ISO/IEC 29121 and ECMA-413 class a disc by its highest error rate in an initial and in periodic
tests. MMC-6 has no command for error rates, so no class is told here: only what a drive reports.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import clock
from ..catalog.health import Entry, Kind, Pair, Scrub
from ..catalog.refreshes import Refresh
from ..catalog.volumes import Volume
from ..states import VolumeState
from ..types import VolumeId
from .scrub_due import due_times
from .views import word

if TYPE_CHECKING:
    from .service import Engine

STANDARDS = "ISO/IEC 29121, ECMA-413"
NO_CLASS = (
    "ordinary drives do not report error rates (LDC, BIS, RSER, PI sum 8): MMC has no command for"
    " them, so the class of these standards needs a test drive of a laboratory"
)


def of_volume(engine: Engine, volume: Volume) -> dict[str, Any]:
    """A disc's ledger: tests, faults, which drives had it, and when it is due."""
    health = engine.catalog.health
    pairs = health.pairs(volume=volume.id)
    entries = health.of_volume(volume.id)
    due = due_times(engine.catalog, engine.config.scrub.interval).get(volume.id)
    interval = engine.config.scrub.interval
    due = due if interval else None
    return {
        "disc": volume.barcode,
        "standard": {"name": STANDARDS, "class": None, "why": NO_CLASS},
        "verdict": _verdict(volume, entries),
        "initial_test_ns": volume.burned_ns,
        "tested_ns": _last_test(volume, entries),
        "due_ns": due,
        "overdue": due is not None and due <= clock.now_ns(),
        "interval_s": interval,
        "written_by": volume.written_by,
        **_sums(pairs),
        "drives": [_pair(engine, pair) for pair in pairs],
        "entries": [_entry(engine, entry) for entry in entries],
        "scrub": _scrub(engine, health.scrub(volume.id)),
        "replacing": _refresh(engine.catalog.refreshes.get(volume.id)),
    }


def of_drive(engine: Engine, serial: str) -> dict[str, Any]:
    """A drive's ledger: faults, and which discs it had."""
    pairs = engine.catalog.health.pairs(serial=serial)
    record = next((d for d in engine.catalog.volumes.drives() if d.serial == serial), None)
    written = [v for v in engine.catalog.volumes.all() if v.written_by == serial]
    bad = (VolumeState.SUSPECT, VolumeState.DAMAGED)
    worst = sorted((p for p in pairs if p.errors), key=lambda p: -p.errors)[:20]
    return {
        "drive": record.name if record else serial,
        "serial": serial,
        "state": word(record.state) if record else "unknown",
        "reason": record.reason if record else "",
        "blamed": {
            "reading": record.read_errors if record else 0,
            "writing": record.write_errors if record else 0,
        },
        "discs_written": len(written),
        "discs_written_now_bad": sum(v.state in bad for v in written),
        **_sums(pairs),
        "discs_with_errors": [
            {"disc": _barcode(engine, p.volume), "loads": p.loads, "errors": p.errors}
            for p in worst
        ],
        "entries": [
            _entry(engine, entry) for entry in engine.catalog.health.of_drive(serial)
        ],
    }


def scrubs(engine: Engine) -> dict[str, Any]:
    """The queue of scrubs, what is in hand, and what comes next."""
    interval = engine.config.scrub.interval
    health = engine.catalog.health
    rows = health.scrubs()
    dues = due_times(engine.catalog, interval) if interval else {}
    queued = {row.volume for row in rows}
    now = clock.now_ns()
    coming = sorted((due, v) for v, due in dues.items() if v not in queued)
    return {
        "paused": health.paused,
        "interval_s": interval,
        "share": engine.config.scrub.share,
        "discs": len(dues),
        "overdue": sum(due <= now for due in dues.values()),
        "next_due_ns": coming[0][0] if coming else None,
        "next_due_disc": _barcode(engine, coming[0][1]) if coming else None,
        "queue": [_scrub(engine, row) for row in rows],
    }


def replacements(engine: Engine) -> list[dict[str, Any]]:
    """Discs that are being replaced, and those that were."""
    found = []
    for row in engine.catalog.refreshes.all():
        shown = _refresh(row)
        assert shown is not None
        found.append({"disc": _barcode(engine, row.volume), **shown})
    return found


def _verdict(volume: Volume, entries: list[Entry]) -> str:
    """In words what a drive's reading tells: not a class of the standards."""
    if volume.quarantine:
        return f"under quarantine: {volume.quarantine}"
    if volume.state in (VolumeState.SUSPECT, VolumeState.DAMAGED, VolumeState.LOST):
        return f"{word(volume.state)}: {volume.reason}" if volume.reason else word(volume.state)
    if volume.burned_ns is None:
        return "blank" if volume.state is VolumeState.BLANK else word(volume.state)
    if volume.verified_ns is None:
        return "never read whole"
    if any(entry.kind == Kind.TEST.value for entry in entries):
        return "read without a fault at its last test"
    return "read without a fault after the burn; not tested since"


def _last_test(volume: Volume, entries: list[Entry]) -> int | None:
    tests = [e.at_ns for e in entries if e.kind in (Kind.TEST.value, Kind.TEST_BAD.value)]
    return max([*tests, *([volume.verified_ns] if volume.verified_ns else [])], default=None)


def _sums(pairs: list[Pair]) -> dict[str, Any]:
    size, ns = sum(p.read_bytes for p in pairs), sum(p.read_ns for p in pairs)
    return {
        "loads": sum(p.loads for p in pairs),
        "errors": sum(p.errors for p in pairs),
        "read_bytes": size,
        "read_speed": int(size * 1e9 / ns) if ns else None,
    }


def _pair(engine: Engine, pair: Pair) -> dict[str, Any]:
    return {"drive": _drive(engine, pair.serial), **_sums([pair])}


def _entry(engine: Engine, entry: Entry) -> dict[str, Any]:
    shown = asdict(entry)
    shown["volume"] = _barcode(engine, entry.volume)
    shown["drive"] = _drive(engine, shown.pop("serial"))
    return shown


def _scrub(engine: Engine, row: Scrub | None) -> dict[str, Any] | None:
    if row is None:
        return None
    now = engine.scrubber.progress.get(row.volume)
    volume = engine.catalog.volumes.get(row.volume)
    size = volume.used if volume else 0
    phase = now.phase if now else "paused" if row.paused else "waiting"
    return {
        "disc": volume.barcode if volume else str(row.volume),
        "requester": row.requester,
        "asked_ns": row.asked_ns,
        "share": row.share,
        "phase": phase,
        "drive": now.drive if now else "",
        "done": now.done if now else row.position,
        "size": size,
        "checked": row.checked,
        "speed": int(now.speed) if now else 0,
        "bad": len(row.bad),
        "error": row.error,
    }


def _refresh(row: Refresh | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "kind": row.kind,
        "order": row.id,
        "requester": row.requester,
        "state": word(row.state),
        "asked_ns": row.asked_ns,
        "retired_ns": row.retired_ns,
        "certificate": row.certificate,
        "waits_for": row.error,
    }


def _barcode(engine: Engine, volume: VolumeId) -> str:
    found = engine.catalog.volumes.get(volume)
    return found.barcode if found else str(volume)


def _drive(engine: Engine, serial: str) -> str:
    return next((d.name for d in engine.library.drives if d.serial == serial), serial)
