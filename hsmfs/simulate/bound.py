"""A time below which no policy at all can serve a trace. The proof is in docs/scheduler.md."""

from __future__ import annotations

from collections import defaultdict

from .model import Model, sectors
from .trace import Request, Trace


def makespan_bound(trace: Trace, model: Model) -> float:
    """Seconds from the first request to the end of the last one that every schedule needs.

    The library starts with empty units. Requests that come later only make it longer, so the
    largest of the bounds of what comes from some moment on, counted from the first request, holds.
    """
    requests = trace.requests
    if not requests:
        return 0.0
    start = requests[0].at
    best = _work_bound(trace, requests, model, empty=True)
    step = max(1, len(requests) // 8)
    for at in range(step, len(requests), step):
        later = requests[at:]
        best = max(best, later[0].at - start + _work_bound(trace, later, model, empty=False))
    timing = model.timing
    for request in requests:
        shortest = timing.reading(0, 0, sectors(request.size))
        if request.burn:
            shortest += timing.writing(request.size)
        best = max(best, request.at - start + shortest)
    return best


def _work_bound(trace: Trace, requests: list[Request], model: Model, *, empty: bool) -> float:
    """Of requests that all wait already. Not empty: every drive may hold what is wanted."""
    timing = model.timing
    cargo_of = trace.magazines if model.whole_magazines else range(len(trace.discs))
    reading: defaultdict[int, float] = defaultdict(float)
    anywhere = 0.0
    for request in requests:
        seconds = timing.reading(0, 0, sectors(request.size))
        if request.burn:
            seconds += timing.writing(request.size)
        if len(request.places) == 1:
            reading[request.places[0].disc] += seconds
        else:
            anywhere += seconds
    cargos: defaultdict[int, float] = defaultdict(float)
    for disc, seconds in reading.items():
        cargos[cargo_of[disc]] += timing.load_s + seconds
    fetched = len(cargos) if empty else max(0, len(cargos) - model.units)
    loads_saved = 0.0 if empty else timing.load_s * model.drives
    moves = (fetched + max(0, fetched - model.units)) * timing.exchange_s
    work = max(0.0, sum(cargos.values()) - loads_saved) + anywhere
    least = min(timing.reading(0, 0, sectors(r.size)) for r in requests)
    robot = moves / model.arms + timing.load_s + least if fetched else 0.0
    # A unit stands still while the robot serves it, so its time is moves and work.
    return max(robot, (moves + work / model.drives_per_unit) / model.units)
