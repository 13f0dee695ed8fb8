"""Structured logs: one record a line on standard error, as logfmt or JSON.

A thin layer over the standard library's logging, so that records of libraries look the same. Under
systemd each line carries its priority (sd-daemon(3)) and no time, which the journal knows. Names of
any bytes are safe: what is not text is escaped, and no value can break a line.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, TextIO

from . import clock

LINES_WAITING = 10_000
"""Lines that may wait for a thread to write them."""
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS |= {ord("\n"): "\\n", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_PLAIN = re.compile(r"[ -\[\]-~]*").fullmatch
_PLAIN_BYTES = re.compile(rb"[ -\[\]-~]*").fullmatch
"""Nothing but printable ASCII without a backslash."""
_TO_QUOTE = re.compile(r'[ "=]').search


class Log:
    """A room's logger: an event in a few words, and what it was about as fields.

    `log.info("recalled", ino=42, volume="S0012D03", seconds=3.2)`
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """An error with its traceback: for what should not have happened."""
        self._log(logging.ERROR, event, {**fields, "error": error}, error)

    def _log(
        self,
        level: int,
        event: str,
        fields: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            # The event is not a format string: a % in it stays.
            self._logger.log(level, "%s", event, extra={"fields": fields}, exc_info=error)


def get(name: str) -> Log:
    """The log of a module: `log = logs.get(__name__)`."""
    return Log(name)


def setup(
    level: str = "info",
    style: Literal["logfmt", "json"] = "logfmt",
    stream: TextIO | None = None,
    *,
    journal: bool | None = None,
    aside: bool = False,
) -> None:
    """Send all records of this process to stream (standard error), once; a second call replaces.

    journal: whether the journal reads the stream; None finds out as systemd.exec(5) says.
    aside: a thread writes, since a disk or a journal that is busy may make it wait; `flush` waits.
    """
    # What no line shows need not be found out for each (Python's logging documentation).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    stream = stream or sys.stderr
    handler = _Aside(stream) if aside else logging.StreamHandler(stream)
    handler.setFormatter(Formatter(style, is_journal(stream) if journal is None else journal))
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if not isinstance(h.formatter, Formatter)]
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))


def flush() -> None:
    """Return when all that was logged is written."""
    for handler in logging.getLogger().handlers:
        handler.acquire()
        try:
            handler.flush()
        finally:
            handler.release()


class _Aside(logging.StreamHandler[TextIO]):
    """Makes the line at once; a thread writes it, together with those that came meanwhile."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._writer = clock.Beside("log")
        self._lines: deque[str] = deque()
        self._asked = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
            if not self._asked:
                self._asked = True
                self._writer.do(self._write)
            elif len(self._lines) >= LINES_WAITING:
                self.flush()  # whoever logs faster than it can be written has to wait
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self._writer.end()
        super().flush()

    def _write(self) -> None:
        self._asked = False  # before the lines are taken: one that comes later is written later
        lines = "".join(self._lines.popleft() for _ in range(len(self._lines)))
        with contextlib.suppress(OSError, ValueError):  # there is nowhere left to tell it
            self.stream.write(lines)
            self.stream.flush()


def is_journal(stream: TextIO) -> bool:
    """Whether the journal is at the other end: JOURNAL_STREAM is the stream's device:inode."""
    try:
        at = os.fstat(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, as in tests
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"


class Formatter(logging.Formatter):
    """A record as one line."""

    def __init__(self, style: Literal["logfmt", "json"], journal: bool) -> None:
        super().__init__()
        self._render = _json if style == "json" else _logfmt
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {}
        if not self._journal:
            second, rest = divmod(record.created, 1)
            fields["time"] = f"{_second(int(second))}.{int(rest * 1000):03d}Z"
        fields["level"] = record.levelname.lower()
        fields["room"] = record.name.removeprefix("hsmfs.")
        fields["event"] = record.getMessage()
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        line = self._render({name: _plain(value) for name, value in fields.items()})
        return f"<{_PRIORITY.get(record.levelno, 2)}>{line}" if self._journal else line


class RepeatLimit(logging.Filter):
    """Stops floods: of warnings and errors with the same event, 50 in 10 s pass, the rest count.

    When the flood is over its next record says how many were left out. Lines of info are never
    dropped: one for each file moved is what they are for.
    """

    def __init__(self, burst: int = 50, seconds: float = 10.0) -> None:
        super().__init__()
        self._burst, self._seconds = burst, seconds
        self._windows: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        key = (record.name, record.levelno, record.getMessage())
        started, count = self._windows.get(key, (now, 0))
        if now - started >= self._seconds:
            if count > self._burst:
                fields = getattr(record, "fields", {})
                record.fields = {**fields, "left_out": count - self._burst}
            self._forget_old(now)
            started, count = now, 0
        self._windows[key] = (started, count + 1)
        return count < self._burst

    def _forget_old(self, now: float) -> None:
        """Bounds the table; floods that are not over yet keep their count for the next record."""
        for key, (started, count) in list(self._windows.items()):
            if now - started >= self._seconds and count <= self._burst:
                del self._windows[key]


@functools.lru_cache(maxsize=4)
def _second(at: int) -> str:
    """A second of UTC; many lines are of the same one."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def printable(name: bytes | str) -> str:
    """A name of any bytes as one line of text: controls, bad UTF-8 and backslashes are escaped."""
    if _PLAIN(name) if isinstance(name, str) else _PLAIN_BYTES(name):
        return name if isinstance(name, str) else name.decode()
    data = _encoded(name) if isinstance(name, str) else name
    text = data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return text.translate(_CONTROLS)


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that no file name has
        return name.encode("utf-8", "backslashreplace")


def _plain(value: object) -> str | int | float | bool | None:
    if type(value) is int:
        return value
    match value:
        case Enum():
            return value.name.lower()
        case None | bool() | int():
            return value
        case float():
            return round(value, 6)
        case bytes() | str():
            return printable(value)
        case PurePath():
            return printable(bytes(value))
        case _:
            return printable(str(value))


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _logfmt(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: str | float | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and not _TO_QUOTE(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'
