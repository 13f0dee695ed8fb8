"""Bugs planted on purpose, one at a time: what the simulation must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: what it breaks, and how it is planted in this process."""

    name: str
    breaks: str
    plant: Callable[[], None]


MUTANTS: dict[str, Mutant] = {}
