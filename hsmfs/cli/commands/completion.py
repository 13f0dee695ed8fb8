"""hsmctl completion: scripts for bash and zsh."""

from __future__ import annotations

import click


@click.command(
    "completion",
    epilog="""\b
Examples:
  hsmctl completion bash > /etc/bash_completion.d/hsmctl
  hsmctl completion zsh > /usr/share/zsh/site-functions/_hsmctl
""",
)
@click.argument("shell", type=click.Choice(("bash", "zsh")))
def command(shell: str) -> None:
    """Print the script that completes hsmctl's commands and options in a shell."""
    from click.shell_completion import get_completion_class

    from ..main import hsmctl

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(hsmctl, {}, "hsmctl", "_HSMCTL_COMPLETE").source())
