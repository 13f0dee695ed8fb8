"""hsmctl init: makes the pools, the library and an empty catalog."""

from __future__ import annotations

import click

from ..context import Ctl, json_option


@click.command(
    "init",
    epilog="""\b
Examples:
  hsmctl init
  hsmctl --config ./hsmfs.toml init
""",
)
@json_option
def command(ctl: Ctl) -> None:
    """Make a new hsmfs as the configuration says.

    Marks the pools' folders, builds a simulated library if one is configured, and writes an empty
    catalog into [daemon] state. Nothing that is there already is touched; a second run is refused.
    """
    from dataclasses import asdict

    import trio

    from ...engine.setup import init

    made = trio.run(init, ctl.config)
    if ctl.out.as_json:
        ctl.out.json(asdict(made))
        return
    out = ctl.out
    out.fields(
        [
            ("catalog", ctl.config.daemon.state),
            ("pools", ", ".join(made.pools)),
            ("library", f"{made.discs:,} slots, {'built' if made.library else 'was there'}"),
        ]
    )
    out.line("ready: 'hsmctl mount' mounts it")
