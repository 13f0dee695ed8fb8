"""hsmctl volume quarantine: discs that an admin does not trust."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "quarantine",
    epilog="""\b
Examples:
  hsmctl volume quarantine S0001D03 --reason 'fell down'
  hsmctl volume quarantine S0001D03 --lift
""",
)
@click.argument("discs", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--reason", help="For the log and the next admin.")
@click.option("--lift", is_flag=True, help="They are as any other disc again.")
@json_option
def quarantine(ctl: Ctl, discs: tuple[str, ...], reason: str | None, lift: bool) -> None:
    """Spare discs, or all of a set, until it is known what ails them.

    Nothing is written to them. They are read only where no other copy and no other disc of the set
    will do, and in tests. Files are not released on their word.
    """
    if lift == bool(reason):
        raise click.UsageError("Give --reason, or --lift.")
    body = {"discs": list(discs), "reason": "" if lift else reason}
    done = ctl.client.post("/quarantine", body)
    if ctl.out.as_json:
        ctl.out.json(done)
        return
    state = "not under quarantine any more" if lift else "under quarantine"
    for disc in done["detail"]["discs"]:
        ctl.out.line(f"disc {disc} is {state}")
