"""hsmctl version: which hsmfs this is, and which one the daemon runs."""

from __future__ import annotations

import click

from ... import __version__
from ..context import Ctl, json_option


@click.command("version", epilog="\b\nExamples:\n  hsmctl version")
@json_option
def command(ctl: Ctl) -> None:
    """Show the version of hsmctl, and of the daemon if it runs."""
    from ...errors import HsmError

    try:
        daemon = ctl.client.get("/status")["version"]
    except HsmError:
        daemon = None  # no daemon, or no configuration: then there is only our own
    if ctl.out.as_json:
        ctl.out.json({"hsmctl": __version__, "hsmfsd": daemon})
        return
    ctl.out.line(f"hsmctl {__version__}")
    ctl.out.line(f"hsmfsd {daemon or 'not running'}")
