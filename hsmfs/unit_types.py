"""Fields of pydantic models that are written with a unit (`units`).

A wrong one is reported where it stands in the file.

Apart from `units`, which commands need that must be there before one notices.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from .units import parse_duration, parse_rate, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
"""A pydantic field of bytes."""
Rate = Annotated[int, BeforeValidator(parse_rate)]
"""A pydantic field of bytes a second."""
Duration = Annotated[float, BeforeValidator(parse_duration)]
"""A pydantic field of seconds."""
