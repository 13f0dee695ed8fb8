"""The routes of the API, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from . import care, catalog, events, library, media, names, orders, policy, sets, status, vault

ROUTERS: tuple[APIRouter, ...] = (
    status.router,
    names.router,
    orders.router,
    library.router,
    media.router,
    sets.router,
    vault.router,
    policy.router,
    care.router,
    catalog.router,
    events.router,
)
