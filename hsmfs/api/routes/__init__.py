"""The routes of the API, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from . import (
    access,
    audit,
    care,
    catalog,
    events,
    guard,
    holds,
    library,
    media,
    names,
    orders,
    policy,
    prefetch,
    retention,
    seals,
    sets,
    status,
    trace,
    vault,
    verify,
)

_GROUPS = (
    status, access, names, orders, prefetch, library, media, sets, vault, policy, retention, holds,
    audit, seals, verify, care, guard, catalog, trace, events,
)  # fmt: skip
ROUTERS: tuple[APIRouter, ...] = tuple(group.routes.router for group in _GROUPS)
