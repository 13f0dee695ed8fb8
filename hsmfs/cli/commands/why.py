"""hsmctl why: what a reader of a file waits for."""

from __future__ import annotations

from typing import Any

import click

from ...units import format_duration
from ..context import Ctl, json_option, path_query
from ..output import Out, ago


@click.command("why", epilog="\b\nExamples:\n  hsmctl why scans/0001.dcm")
@click.argument("path")
@json_option
def command(ctl: Ctl, path: str) -> None:
    """Say what a reader of the file waits for: disc, place in the queue, drive, seconds."""
    found = ctl.client.get("/why", **path_query(ctl.namespace(path)))
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    title = {"path": ctl.shown(found), "state": found["state"], "answer": found["answer"]}
    ids = ("path", "path_b64", "state", "answer", "inode", "ino")
    for part in (found, found["migration"] or {}):
        for name in ids:
            part.pop(name, None)
    _show(ctl.out, title | found, "")


def _readable(out: Out, name: str, value: Any) -> tuple[str, object]:
    """A label and a value for people: times as ages, seconds as durations."""
    label = name.removesuffix("_ns").removesuffix("_s").replace("_", " ")
    if name.endswith("_ns"):
        return label, ago(value)
    if name.endswith("_s"):
        return label, format_duration(round(value, 1))
    return label, out.state(value) if name.endswith("state") else value


def _show(out: Out, value: dict[str, Any], indent: str) -> None:
    """Names and values; lists of objects are indented below their name."""
    plain = {k: v for k, v in value.items() if not isinstance(v, dict | list) and v is not None}
    width = max((len(name) for name in plain), default=0)
    for name, item in value.items():
        if name in plain:
            label, shown = _readable(out, name, item)
            out.line(f"{indent}{label.ljust(width)}  {shown}")
        elif isinstance(item, dict):
            out.line(f"{indent}{name.replace('_', ' ')}")
            _show(out, item, indent + "  ")
        elif item:
            out.line(f"{indent}{name.replace('_', ' ')}")
            for part in item:
                if isinstance(part, dict):
                    shown = (_readable(out, *item) for item in part.items())
                    out.line(f"{indent}  " + "  ".join(f"{k}: {v}" for k, v in shown))
                else:
                    out.line(f"{indent}  {part}")
