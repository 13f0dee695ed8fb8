"""hsmctl config: checks the configuration, has it read again, or shows an example of it."""

from __future__ import annotations

from pathlib import Path

import click

from ..context import Ctl, json_option


@click.group(
    "config",
    epilog="""\b
Examples:
  hsmctl config check
  hsmctl config check ./new.toml
  hsmctl config reload
  hsmctl config example > /etc/hsmfs/hsmfs.toml
""",
)
def command() -> None:
    """Check the configuration, have the daemon read it again, or print an example."""


@command.command("check", epilog="\b\nExamples:\n  hsmctl config check ./new.toml")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
def check(ctl: Ctl, file: Path | None) -> None:
    """Check the configuration (or FILE) and name each fault with its line."""
    from ... import config

    path = file or ctl.file
    found = config.load(path)
    if ctl.out.as_json:
        ctl.out.json({"file": str(path), "ok": True, "config": found.model_dump(mode="json")})
    else:
        ctl.out.line(f"{path}: no faults")


@command.command("example", epilog="\b\nExamples:\n  hsmctl config example | less")
def example() -> None:
    """Print a configuration with every key explained and every default shown."""
    from ... import config

    click.echo(config.example(), nl=False)


@command.command("reload", epilog="\b\nExamples:\n  hsmctl config check && hsmctl config reload")
@json_option
def reload(ctl: Ctl) -> None:
    """Make the daemon read its configuration again; a wrong one changes nothing.

    Keys of the scheduler, recalls, prefetches and watermarks count at once: nothing that waits or
    is under way is lost or begun anew. What needs a restart is named.
    """
    found = ctl.client.post("/config/reload")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    taken = ", ".join(found["taken"]) or "nothing changed that counts at once"
    out.line(f"{found['file']}: {taken}")
    if found["later"]:
        out.warn("after a restart: " + ", ".join(found["later"]))
