"""Triggers: whether a rule is to run now. Pure; times of day are local, the rest UTC ns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .rules import Rule

DEFAULT_EVERY = 3600.0
"""Seconds between runs of a rule that names no trigger."""
PAUSE = 60.0
"""A watermark or a waiting volume starts a rule at most so often, in seconds."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What triggers look at."""

    now_ns: int
    last_ns: int | None
    """When the rule ran last; None: never."""
    started_ns: int
    above_watermark: bool


def due(rule: Rule, at: Situation) -> bool:
    """Whether the rule is to run; `waiting` then still asks for enough files."""
    windows = [_window(text) for text in rule.at if "-" in text]
    now = local(at.now_ns)
    inside = not windows or any(_inside(window, now) for window in windows)
    since = at.started_ns if at.last_ns is None else at.last_ns
    idle = None if at.last_ns is None else (at.now_ns - at.last_ns) / 1e9
    rested = idle is None or idle >= PAUSE
    if rule.watermark and at.above_watermark and rested and inside:
        return True
    if rule.waiting is not None and rested and inside:
        return True
    if any(_passed(text, since, at.now_ns) for text in rule.at if "-" not in text):
        return True
    every = rule.every
    if every is None and not (rule.watermark or rule.at or rule.waiting is not None):
        every = DEFAULT_EVERY
    if every is not None and inside and (rule.every is not None or not rule.at):
        return idle is None or idle >= every
    if windows and rule.every is None:
        return inside and any(_opened_since(window, now, since, idle is None) for window in windows)
    return False


def local(now_ns: int) -> datetime:
    """Local time of a UTC ns, as the file's times of day mean it."""
    return datetime.fromtimestamp(now_ns / 1e9, UTC).astimezone()


def _window(text: str) -> tuple[str, str]:
    start, _, end = text.partition("-")
    return start, end


def _clock(text: str, day: datetime) -> datetime:
    hour, minute = text.split(":")
    return day.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)


def _inside(window: tuple[str, str], now: datetime) -> bool:
    start, end = (_clock(text, now) for text in window)
    return start <= now < end if start < end else now >= start or now < end


def _passed(text: str, since_ns: int, now_ns: int) -> bool:
    now = local(now_ns)
    last = _clock(text, now)
    if last > now:
        last -= timedelta(days=1)
    return since_ns < last.timestamp() * 1e9


def _opened_since(window: tuple[str, str], now: datetime, since_ns: int, first: bool) -> bool:
    """Once a window: it opened after the last run, or none was since the start."""
    opened = _clock(window[0], now)
    if opened > now:
        opened -= timedelta(days=1)
    return first or since_ns < opened.timestamp() * 1e9
