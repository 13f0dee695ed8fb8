"""The routes of the API, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from . import (
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
    retention,
    sets,
    status,
    vault,
)

ROUTERS: tuple[APIRouter, ...] = (
    status.router,
    names.router,
    orders.router,
    library.router,
    media.router,
    sets.router,
    vault.router,
    policy.router,
    retention.router,
    holds.router,
    audit.router,
    care.router,
    guard.router,
    catalog.router,
    events.router,
)
