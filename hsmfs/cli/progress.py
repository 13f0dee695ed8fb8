"""Long orders on the terminal: a bar while they run, a line when they end, failures one a line.

The bar (rich) is drawn on standard error and only on a terminal; a pipe gets the last line alone.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from ..errors import Conflict, DaemonUnreachable
from .context import Ctl
from .output import failures, plural, size


def run(ctl: Ctl, path: str, body: object, doing: str, done: str) -> int:
    """Give the order, show how it goes, and return the exit code."""
    last = follow(ctl, path, body, doing)
    if not ctl.out.as_json:
        ctl.out.line(f"{plural(last['files'], 'file')} {done} ({size(last['bytes'])})")
    return _failed(ctl, last)


def follow(ctl: Ctl, path: str, body: object, doing: str) -> dict[str, Any]:
    """Give the order, show how it goes (in JSON, a line a step), and return its end."""
    steps = ctl.client.lines("POST", path, body)
    if ctl.out.as_json:
        last: dict[str, Any] = {}
        for last in steps:
            ctl.out.json_line(last)
    else:
        last = _show(steps, doing) if sys.stderr.isatty() else _last(steps)
    if last.get("kind") != "end":
        raise DaemonUnreachable("hsmfsd ended the answer early", next_step="see its log")
    return last


def report(ctl: Ctl, outcome: dict[str, Any], done: str, freed: str = "") -> int:
    """Show what an act came to, and return the exit code."""
    if ctl.out.as_json:
        ctl.out.json(outcome)
    else:
        amount = f", {size(outcome['bytes'])} {freed}" if freed else ""
        ctl.out.line(f"{plural(outcome['files'], 'file')} {done}{amount}")
    return _failed(ctl, outcome)


def _failed(ctl: Ctl, outcome: dict[str, Any]) -> int:
    """Name the failures; the exit code is theirs if they agree."""
    if not outcome["failed"]:
        return 0
    found = outcome["failures"]
    if not ctl.out.as_json:
        failures(ctl.out, found, [ctl.shown(failure) for failure in found])
        if outcome["failed"] > len(found):
            ctl.out.warn(f"and {outcome['failed'] - len(found):,} more")
    codes = {failure["exit_code"] for failure in found}
    return codes.pop() if len(codes) == 1 else Conflict.exit_code


def _last(steps: Iterable[dict[str, Any]]) -> dict[str, Any]:
    newest = collections.deque(steps, maxlen=1)
    return newest[0] if newest else {}


def _show(steps: Iterable[dict[str, Any]], doing: str) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    last: dict[str, Any] = {}
    with ExitStack() as stack:
        bar = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[files]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )
        )
        task = bar.add_task(doing, total=None, files="", note="")
        for last in steps:
            # An empty file counts as a byte, so that a folder of them moves the bar, too.
            bar.update(
                task,
                total=last["bytes"] + last["files"],
                completed=last["bytes_done"] + last["files_done"],
                files=f"{last['files_done']:,} of {plural(last['files'], 'file')}",
                note=last["note"],
            )
    return last
