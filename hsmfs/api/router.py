"""Routes that say who may ask: a role is part of each declaration, and what has none is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request

from ..engine.access import Role

F = TypeVar("F", bound=Callable[..., Any])
ROLE, SECOND = "x-role", "x-second-person"
"""Where a route has them, also in /openapi.json."""


class Routes:
    """A group of routes under one tag. `router` is what the application includes."""

    def __init__(self, tag: str) -> None:
        self.router = APIRouter(tags=[tag])

    def get(self, path: str, role: Role, **more: Any) -> Callable[[F], F]:
        """A question, for those whose role covers this one."""
        return self.router.get(path, openapi_extra={ROLE: role.value}, **more)

    def post(
        self, path: str, role: Role, *, second: bool = False, **more: Any
    ) -> Callable[[F], F]:
        """An order. second: destructive, so that the two-person rule holds for it."""
        marks = {ROLE: role.value, SECOND: second}
        return self.router.post(path, openapi_extra=marks, **more)


def declared(request: Request) -> tuple[Role | None, bool]:
    """The role that the route of a request wants, and whether it wants a second person."""
    marks = getattr(request.scope.get("route"), "openapi_extra", None) or {}
    role = marks.get(ROLE)
    return Role(role) if role else None, bool(marks.get(SECOND))
