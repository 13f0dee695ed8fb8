"""hsmctl info: everything known of a file."""

from __future__ import annotations

from typing import Any

import click

from ...units import format_size
from ..context import Ctl, json_option, path_query, paths_argument
from ..output import Out, ago, size, when


@click.command(
    "info",
    epilog="""\b
Examples:
  hsmctl info scans/0001.dcm
  hsmctl info --json scans/0001.dcm | jq .copies
""",
)
@paths_argument
@json_option
def command(ctl: Ctl, paths: tuple[str, ...]) -> None:
    """Show where a file's bytes are: state, disk, each copy with its disc and sectors."""
    found = [ctl.client.get("/info", **path_query(ctl.namespace(path))) for path in paths]
    if ctl.out.as_json:
        ctl.out.json(found[0] if len(found) == 1 else found)
        return
    for number, info in enumerate(found):
        if number:
            ctl.out.line()
        _show(ctl, info)


def _show(ctl: Ctl, info: dict[str, Any]) -> None:
    out, entry = ctl.out, info["entry"]
    names = [
        ctl.shown({"path_b64": raw, "ino": entry["ino"]}) for raw in info["paths_b64"]
    ] or [ctl.shown(entry)]
    on_disk = size(entry["disk_bytes"])
    if info["absent"]:
        gone = sum(end - start for start, end in info["absent"])
        on_disk += f" ({size(gone)} only on discs)"
    out.fields(
        [
            *(("path", name) for name in names),
            ("link to", info["target"]),
            ("inode", f"{entry['ino']}, version {info['version']}"),
            ("kind", entry["kind"]),
            ("state", out.state(entry["state"]) if entry["state"] else None),
            ("size", f"{format_size(entry['size'])} ({entry['size']:,} bytes)"),
            ("on disk", on_disk if entry["kind"] == "file" else None),
            ("pool", info["pool"]),
            ("owner", f"{entry['uid']}:{entry['gid']}, mode {entry['mode'] & 0o7777:04o}"),
            ("modified", when(entry["mtime_ns"])),
            ("pinned", "yes" if entry["pinned"] else None),
            ("open", f"{info['open_handles']} times" if info["open_handles"] else None),
            ("sha256", info["sha256"]),
            ("copies", f"{info['proven_copies']} proven" if entry["kind"] == "file" else None),
            ("waits", _waits(info)),
            ("kept off discs", info["disputed"]),
        ]
    )
    if info["copies"]:
        _copies(out, info["copies"])


def _copies(out: Out, copies: list[dict[str, Any]]) -> None:
    out.table(
        ("COPY", "VERSION", "STATE", "DISC", "DISC IS", "PLACE", ">SECTOR", ">STORED", "BYTES"),
        [
            (
                copy["copy_no"], f"{copy['version']}{'' if copy['current'] else ' (old)'}",
                out.state(copy["state"]), copy["volume"], out.state(copy["volume_state"]),
                copy["place"], copy["sector"],
                size(copy["stored"]) + (" zstd" if copy["compressed"] else ""),
                "all" if copy["parts"] == 1
                else f"{copy['offset']}-{copy['offset'] + copy['length']}"
                f" (part {copy['part'] + 1} of {copy['parts']})",
            )
            for copy in copies
        ],
    )  # fmt: skip


def _waits(info: dict[str, Any]) -> str | None:
    if recall := info["recall"]:
        return f"to be recalled, {recall['urgency']}, since {ago(recall['since_ns'])}"
    if migration := info["migration"]:
        return f"to be archived by {migration['policy']}, since {ago(migration['since_ns'])}"
    return None
