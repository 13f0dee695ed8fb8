"""The rules as the configuration says."""

from __future__ import annotations

from ...config import Config
from .rules import ClassRule, Rules


def rules(config: Config) -> Rules:
    """The rules of [schedule] and [engine]."""
    said, library = config.schedule, config.library
    group = library.drives_per_magazine
    spare = library.drives // 9
    if group:  # of units
        spare = min(library.units - 1, max(1, spare // group))
    earn = int(library.read_rate * (2 * library.exchange + library.load))
    return Rules(
        reserved=config.recall_drives,
        run_cap=config.engine.run_cap,
        interactive=ClassRule(age_limit=said.interactive_age_limit),
        standard=ClassRule(
            said.standard_deadline, said.standard_share / 100, said.standard_age_limit
        ),
        bulk=ClassRule(said.bulk_deadline, said.bulk_share / 100, said.bulk_age_limit),
        quiet=said.quiet,
        quiet_limit=said.quiet_limit,
        quiet_bytes=said.quiet_bytes,
        quiet_count=said.quiet_count,
        earn=earn if said.earn is None else said.earn,
        spare=spare if said.spare is None else said.spare,
        spare_for=said.spare_for,
        keep=said.keep,
        calm=said.calm,
        half_life=said.half_life,
    )
