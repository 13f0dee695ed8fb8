"""Traces: who asked for what, when, and where it lies; as JSON lines (docs/scheduler.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..catalog.queues import RecallClass
from ..errors import TraceError

VERSION = 1
UNKNOWN = -1
"""The magazine of a disc of which the trace does not say it."""
CLASSES = {u.name.lower(): u for u in RecallClass}


class Place(NamedTuple):
    """Where a copy begins: the number of a disc in the trace, and its sector."""

    disc: int
    sector: int


class Request(NamedTuple):
    """Bytes that are wanted at a moment (seconds from the start), or a disc to be burned.

    places: the copies, any of which will do; for a burn the blank disc.
    """

    at: float
    urgency: RecallClass
    size: int
    places: tuple[Place, ...]
    burn: bool = False


@dataclass
class Trace:
    """Requests in the order of time. discs: their names; magazines: the one each lies in."""

    requests: list[Request] = field(default_factory=list)
    discs: list[str] = field(default_factory=list)
    magazines: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that are to be read."""
        return sum(r.size for r in self.requests if not r.burn)

    def merged(self, other: Trace) -> Trace:
        """Both at the same time; they must be about the same discs."""
        if self.discs != other.discs:
            raise TraceError("these traces are not about the same discs")
        both = sorted([*self.requests, *other.requests], key=lambda r: r.at)
        return Trace(both, self.discs, self.magazines)

    def only(self, urgency: RecallClass) -> Trace:
        """The requests of a class alone."""
        found = [r for r in self.requests if r.urgency is urgency]
        return Trace(found, self.discs, self.magazines)


def load(path: Path) -> Trace:
    """Read a trace. Raises TraceError with the line that is wrong."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"cannot read the trace {path}: {error}") from error


def parse(lines: Iterable[str], name: str = "trace") -> Trace:
    """As `load`, for lines."""
    trace = Trace()
    known: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if number == 1:
                if record["hsmfs_trace"] != VERSION:
                    raise ValueError(f"version {record['hsmfs_trace']} is not {VERSION}")
                continue
            trace.requests.append(_request(record, trace, known))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"no key {error}" if isinstance(error, KeyError) else str(error)
            raise TraceError(f"{name}, line {number}: {what}") from error
    trace.requests.sort(key=lambda r: r.at)
    return trace


def _request(record: dict[str, Any], trace: Trace, known: dict[str, int]) -> Request:
    places = []
    for copy in record["copies"]:
        disc = str(copy["disc"])
        if disc not in known:
            known[disc] = len(trace.discs)
            trace.discs.append(disc)
            trace.magazines.append(int(copy.get("magazine", UNKNOWN)))
        places.append(Place(known[disc], int(copy.get("sector", 0))))
    size, at, op = int(record["bytes"]), float(record["t"]), record.get("op", "recall")
    if size <= 0 or not places or op not in ("recall", "burn") or not at < float("inf"):
        raise ValueError("needs bytes above 0, at least one copy, and op recall or burn")
    return Request(at, CLASSES[record["class"]], size, tuple(places), op == "burn")


def dump(trace: Trace) -> Iterator[str]:
    """The lines of a trace."""
    yield json.dumps({"hsmfs_trace": VERSION}) + "\n"
    for r in trace.requests:
        copies = [
            {"disc": trace.discs[p.disc], "sector": p.sector} | _magazine(trace.magazines[p.disc])
            for p in r.places
        ]
        record = {"t": r.at, "class": r.urgency.name.lower(), "bytes": r.size, "copies": copies}
        yield json.dumps(record | ({"op": "burn"} if r.burn else {})) + "\n"


def _magazine(number: int) -> dict[str, int]:
    return {} if number == UNKNOWN else {"magazine": number}
