"""The routes of the API, one file a subject."""

from __future__ import annotations

from fastapi import APIRouter

from . import status

ROUTERS: tuple[APIRouter, ...] = (status.router,)
