"""Whether the spool holds the parity of all the sets that policies would fill at once."""

from __future__ import annotations

from pathlib import Path

from ...config import Config
from ...errors import PolicyError
from ...units import format_size
from .match import Ruleset


def check_room(config: Config, rules: Ruleset, source: Path) -> None:
    """Raises PolicyError if the spool is too small for what the rules of that file ask for."""
    parity = config.parity_spool(rules.sets)
    needed = config.library.disc + parity
    limit = config.engine.spool_limit
    if limit < needed:
        raise PolicyError(
            f"{source}: its copies and vaults fill {rules.sets} sets at once, whose parity needs"
            f" {format_size(parity)} of the spool beside one image: engine.spool_limit is"
            f" {format_size(limit)}, {format_size(needed)} are needed",
            next_step="raise engine.spool_limit, or ask for fewer copies or places",
        )
