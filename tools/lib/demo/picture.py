"""What a person sees of the demo: a live picture on a terminal, lines elsewhere.

One picture of bars, the robot, the drives and the newest notes; threads may change it at any time.
Without a terminal each change of a drive, the robot or a step is a line with the seconds passed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_NOTES = 6
_NARROW = 100
"""Columns below which bars are short."""
_STYLES = {
    "empty": "dim", "idle": "dim", "loading": "yellow", "burning": "bold red",
    "verifying": "magenta", "reading": "bold green", "down": "reverse red",
}  # fmt: skip


def size(number: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.2f} GB"


@dataclass(slots=True)
class Bar:
    """How far one step has come, in files and bytes."""

    title: str
    files: int
    bytes: int
    files_done: int = 0
    bytes_done: int = 0
    began: float = 0.0
    ended: float = 0.0


@dataclass(slots=True)
class Drive:
    """What a drive does; done is a part of 1, or None if it cannot be said."""

    name: str
    disc: str = ""
    what: str = "empty"
    detail: str = ""
    done: float | None = None


class Picture:
    """The demo's picture, as a context manager around its steps."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self.console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._bars: dict[str, Bar] = {}
        self._drives: dict[str, Drive] = {}
        self._robot = "at rest"
        self._step = ""
        self._notes: deque[Text] = deque(maxlen=_NOTES)
        self._live: Live | None = None
        if live:
            self._live = Live(
                console=console, get_renderable=self._render, refresh_per_second=10,
                transient=True, redirect_stderr=False,
            )  # fmt: skip

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays: the demo's own words."""
        self.console.print(text, style=style or None, highlight=False, markup=False)

    def step(self, title: str) -> None:
        """What is being done from now on."""
        with self._lock:
            self._step = title
        self.console.print(Text(f"==> {title}", "bold cyan"))

    def bar(self, title: str, files: int, size_bytes: int) -> None:
        """Begin a bar."""
        with self._lock:
            self._bars[title] = Bar(title, files, size_bytes, began=time.monotonic())

    def advance(self, title: str, files: int, size_bytes: int) -> None:
        """Move a bar on by so much."""
        with self._lock:
            bar = self._bars[title]
            self._reach(bar, bar.files_done + files, bar.bytes_done + size_bytes)

    def reach(self, title: str, files: int, size_bytes: int) -> None:
        """Move a bar to a place."""
        with self._lock:
            self._reach(self._bars[title], files, size_bytes)

    def _reach(self, bar: Bar, files: int, size_bytes: int) -> None:
        bar.files_done, bar.bytes_done = files, size_bytes
        if files >= bar.files and not bar.ended:
            bar.ended = time.monotonic()

    def took(self, title: str) -> float:
        """Seconds that a bar needed so far."""
        bar = self._bars[title]
        return (bar.ended or time.monotonic()) - bar.began

    def robot(self, text: str) -> None:
        """What the robot does."""
        with self._lock:
            changed, self._robot = text != self._robot, text
        if changed and text != "at rest":
            self._line("robot", text)

    def drive(
        self, name: str, what: str, *, disc: str = "", detail: str = "", done: float | None = None
    ) -> None:
        """What a drive does: a word of the table of styles, and to what."""
        with self._lock:
            old = self._drives.get(name, Drive(name))
            self._drives[name] = Drive(name, disc, what, detail, done)
        if (old.what, old.disc) != (what, disc) and what not in ("empty", "idle", "ejecting"):
            self._line(name, f"{what} {disc}")

    def note(self, text: str, style: str = "", *, file: bool = False) -> None:
        """Something happened; to a single file, which is too much for lines on paper."""
        with self._lock:
            self._notes.append(Text(f"{self._seconds():6.1f} s  {text}", style))
        if not file:
            self._line("", text)

    def _line(self, who: str, text: str) -> None:
        if self._live is None:
            self.say(f"{self._seconds():6.1f} s  {who + ': ' if who else ''}{text}")

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _render(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = [self._bars_table(), self._library_table()]
            if self._notes:
                notes = Text("\n", no_wrap=True, overflow="ellipsis").join(self._notes)
                parts.append(_panel("what happened", notes))
            title = f"{self._step}   {self._seconds():.0f} s"
            return Panel(Group(*parts), title=title, box=box.ROUNDED, border_style="cyan")

    def _width(self) -> int:
        return 28 if self.console.width >= _NARROW else 14

    def _bars_table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for justify in ("left", "left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        for bar in self._bars.values():
            table.add_row(
                bar.title, ProgressBar(max(bar.bytes, 1), bar.bytes_done, width=self._width()),
                f"{bar.files_done:,}/{bar.files:,} files",
                f"{size(bar.bytes_done)}/{size(bar.bytes)}",
                f"{(bar.ended or time.monotonic()) - bar.began:.1f} s",
            )  # fmt: skip
        return table

    def _library_table(self) -> Panel:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, min_width=9)
        table.add_column(no_wrap=True, min_width=10)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for drive in sorted(self._drives.values(), key=lambda drive: drive.name):
            meter: RenderableType = ""
            detail = drive.detail
            if drive.done is not None:
                meter = ProgressBar(1.0, min(drive.done, 1.0), width=self._width())
                detail = f"{drive.done:4.0%}  {detail}"
            style = _STYLES.get(drive.what, "")
            table.add_row(drive.name, drive.disc, Text(drive.what, style), meter, detail)
        robot = Text(f"robot  {self._robot}", "bold yellow" if self._robot != "at rest" else "dim")
        return _panel("the library", Group(robot, table))


def _panel(title: str, inside: RenderableType) -> Panel:
    return Panel(inside, title=title, box=box.ROUNDED, border_style="dim")
