"""The routes of the API, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from . import care, events, library, names, orders, policy, status

ROUTERS: tuple[APIRouter, ...] = (
    status.router,
    names.router,
    orders.router,
    library.router,
    policy.router,
    care.router,
    events.router,
)
