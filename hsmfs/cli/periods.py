"""Periods and moments that people type: "15 y", "forever", "2040-12-31"."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from ..units import format_period, parse_duration, parse_period

FOREVER_NS = 2**63 - 1


class Period(click.ParamType[float]):
    """A period such as "15 y" or "30 d", as seconds; "forever" is infinite."""

    name = "period"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_period(value)
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class Moment(click.ParamType[int]):
    """A date, or a date and time, of UTC, as nanoseconds; "forever" is never."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "forever":
            return FOREVER_NS
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date: write 2040-12-31 or 2040-12-31T12:00", param, ctx)
        return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp()) * 10**9


class Past(Moment):
    """A date as `Moment`, or how long ago, such as "2 h", as nanoseconds of UTC."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return time.time_ns() - int(parse_duration(value) * 1e9)
        except ValueError:
            return super().convert(value, param, ctx)


def seconds(value: float | None) -> float | None:
    """As the API wants it: None is for ever."""
    return None if value is None or value == float("inf") else value


def shown_period(value: float | None) -> str:
    """A period of the API for people."""
    return "forever" if value is None else format_period(value)


def shown_until(time_ns: int | None) -> str:
    """A moment of the API for people, UTC."""
    if time_ns is None:
        return "-"
    if time_ns >= FOREVER_NS:
        return "forever"
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
