"""How answers look: aligned text for people, JSON for programs, colours only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..units import format_duration, format_size

_COLOURS = {
    "resident": "blue",
    "premigrated": "green",
    "partial": "yellow",
    "migrated": "cyan",
    "full": "green",
    "up": "green",
    "valid": "green",
    "burning": "yellow",
    "suspect": "yellow",
    "pending": "yellow",
    "down": "red",
    "damaged": "red",
    "lost": "red",
    "failed": "red",
    "dead": "red",
}


class Out:
    """Prints answers in the form that was asked for."""

    def __init__(self, as_json: bool, no_color: bool = False) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty()
        self._colour = self.terminal and not no_color

    def json(self, value: object) -> None:
        """One JSON document."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=not self.terminal))

    def json_line(self, value: object) -> None:
        """One line of JSON, for streams."""
        click.echo(json.dumps(value))

    def line(self, text: str = "") -> None:
        """A line for people."""
        click.echo(text)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        click.echo(self.style(text, "yellow"), err=True)

    def style(self, text: str, colour: str, *, bold: bool = False) -> str:
        """The text in a colour, on a terminal."""
        return click.style(text, fg=colour, bold=bold) if self._colour else text

    def state(self, name: str | None) -> str:
        """A state in its colour."""
        return self.style(name, _COLOURS[name]) if name in _COLOURS else name or "-"

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns; a head that starts with '>' is aligned to the right."""
        texts = [[str(cell) for cell in row] for row in rows]
        titles = [head.lstrip(">") for head in heads]
        widths = [
            max([_width(title), *(_width(row[i]) for row in texts)])
            for i, title in enumerate(titles)
        ]
        for row in ([self.style(title, "bright_black") for title in titles], *texts):
            cells = []
            for head, width, cell in zip(heads, widths, row, strict=True):
                space = " " * (width - _width(cell))
                cells.append(space + cell if head.startswith(">") else cell + space)
            click.echo("  ".join(cells).rstrip())

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; None is left out."""
        known = [(name, value) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            click.echo(f"{self.style(name.ljust(width), 'bright_black')}  {value}")


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two, colours none."""
    import unicodedata

    plain = click.unstyle(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in plain)
    return len(plain) - sum(unicodedata.combining(c) > 0 for c in plain) + wide


def ago(time_ns: int | None) -> str:
    """How long ago, for people."""
    if time_ns is None:
        return "never"
    seconds = (time.time_ns() - time_ns) / 1e9
    return "now" if seconds < 1 else f"{format_duration(float(int(seconds)))} ago"


def when(time_ns: int | None) -> str:
    """A moment in local time."""
    if time_ns is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))


def size(value: int) -> str:
    """Bytes for people."""
    return format_size(value)


def percent(part: int, whole: int) -> str:
    """A share, rounded."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def bar(part: int, whole: int, width: int = 20) -> str:
    """A share as a bar of text."""
    filled = min(width, round(width * part / whole)) if whole else 0
    return "#" * filled + "." * (width - filled)


def plural(number: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,200 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def failures(out: Out, found: list[dict[str, Any]], shown: list[str]) -> None:
    """Files that an act was refused for, one a line on standard error."""
    for failure, path in zip(found, shown, strict=True):
        out.warn(f"{path}: {failure['error']}; {failure['next_step']}")
