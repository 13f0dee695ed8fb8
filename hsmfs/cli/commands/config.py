"""hsmctl config: checks the configuration, or shows an example with every key explained."""

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
  hsmctl config example > /etc/hsmfs/hsmfs.toml
""",
)
def command() -> None:
    """Check the configuration, or print an example."""


@command.command("check", epilog="\b\nExamples:\n  hsmctl config check ./new.toml")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
def check(ctl: Ctl, file: Path | None) -> None:
    """Check the configuration (or FILE) and name each fault with its line."""
    from ... import config

    path = file or ctl.config_path or config.DEFAULT_PATH
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
