"""The health ledger of a disc or a drive in words, for `hsmctl volume info` and `drive info`."""

from __future__ import annotations

from typing import Any

from ..context import Ctl
from ..output import size, when


def show_health(ctl: Ctl, health: dict[str, Any]) -> None:
    """A disc's tests and faults, and what cannot be told of them."""
    out = ctl.out
    due = when(health["due_ns"]) + (" (overdue)" if health["overdue"] else "")
    scrub, replacing = health["scrub"], health["replacing"]
    out.fields(
        [
            ("health", health["verdict"]),
            ("initial test", when(health["initial_test_ns"])),
            ("last test", when(health["tested_ns"])),
            ("next test", due if health["due_ns"] is not None else None),
            ("class", f"none ({health['standard']['name']}): {health['standard']['why']}"),
            ("read", _read(health)),
            ("being tested", f"{scrub['phase']} {scrub['error']}".strip() if scrub else None),
            ("being replaced", f"{replacing['kind']}, {replacing['state']}"
             f" {replacing['waits_for']}".rstrip() if replacing else None),
        ]
    )  # fmt: skip
    if health["drives"]:
        out.table(
            ("DRIVE", ">LOADS", ">ERRORS", ">READ"),
            [(d["drive"], d["loads"], d["errors"], _read(d)) for d in health["drives"]],
        )
    show_entries(ctl, health["entries"], "drive")


def show_entries(ctl: Ctl, entries: list[dict[str, Any]], where: str) -> None:
    """Faults and tests, the newest first; where: "drive" or "volume"."""
    if not entries:
        return
    ctl.out.table(
        ("WHEN", "WHAT", "IN" if where == "drive" else "DISC", ">SECTOR", "BLAMED", "NOTE"),
        [
            (
                when(e["at_ns"]), e["kind"], e[where],
                "-" if e["sector"] is None else e["sector"], e["blamed"] or "-", e["note"],
            )
            for e in entries
        ],
    )  # fmt: skip


def _read(sums: dict[str, Any]) -> str:
    speed = f", {size(sums['read_speed'])}/s" if sums["read_speed"] else ""
    return size(sums["read_bytes"]) + speed
