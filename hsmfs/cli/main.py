"""hsmctl: finds the command, imports only it, and turns errors into messages and exit codes.

The commands are a file each in commands/. Nothing heavy is imported before a command runs, so that
`hsmctl --help` and completion answer at once.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import HsmError
from .context import Ctl, Server

COMMANDS = {
    "init": "init",
    "mount": "mount",
    "umount": "umount",
    "status": "status",
    "df": "df",
    "ls": "ls",
    "info": "info",
    "why": "why",
    "find": "find",
    "archive": "archive",
    "recall": "recall",
    "prefetch": "prefetch",
    "release": "release",
    "pin": "pin",
    "cancel": "cancel",
    "queue": "queue",
    "waiters": "waiters",
    "guard": "guard",
    "policy": "policy",
    "export": "export",
    "library": "library",
    "volume": "volume",
    "scrub": "scrub",
    "media": "media",
    "request": "request",
    "drive": "drive",
    "events": "events",
    "adopt": "adopt",
    "trash": "trash",
    "undelete": "undelete",
    "versions": "versions",
    "restore": "restore",
    "rollback": "rollback",
    "retention": "retention",
    "hold": "hold",
    "audit": "audit",
    "token": "token",
    "whoami": "whoami",
    "requests": "requests",
    "approve": "approve",
    "seal": "seal",
    "verify": "verify",
    "fsck": "fsck",
    "catalog": "catalog",
    "rebuild": "rebuild",
    "trace": "trace",
    "simulate": "simulate",
    "config": "config",
    "completion": "completion",
    "version": "version",
}
"""Commands in the order of the help, with the module of each in commands/."""


class Lazy(click.Group):
    """A group whose commands are modules, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = importlib.import_module(f"hsmfs.cli.commands.{module}").command
        assert isinstance(found, click.Command)
        return found


def exit_codes() -> list[tuple[int, str]]:
    """Every exit code and what it means, from errors.py."""
    found = {0: "Done", 2: "The arguments are wrong", 130: "Interrupted"}
    todo: list[type[HsmError]] = [HsmError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.exit_code not in found or HsmError in kind.__bases__:
            found[kind.exit_code] = (kind.__doc__ or "").split(".")[0].split(";")[0]
    found[1] = "It failed; the message says why"
    return sorted(found.items())


_EPILOG = """\b
Exit codes:
{codes}

\b
Examples:
  hsmctl init && hsmctl mount          make an hsmfs and mount it
  hsmctl status                        is all well?
  hsmctl archive --now --wait scans/   put a folder on discs and wait for it
  hsmctl why scans/0001.dcm            what does a reader of it wait for?
  hsmctl --server https://nas:8443 --token-file ~/.hsmfs-token status
""".format(codes="\n".join(f"  {code:<4}{meaning}" for code, meaning in exit_codes()))


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration.  [default: /etc/hsmfs/hsmfs.toml]",
)  # fmt: skip
@click.option("--server", metavar="URL", help="Ask the hsmfsd of another machine by TLS.")
@click.option("--token-file", type=_FILE, help="To --server: a file with a token, mode 600.")
@click.option("--cert", type=_FILE, help="To --server: a client certificate, PEM.")
@click.option("--key", type=_FILE, help="Its key, if it is not in the same file.")
@click.option("--ca", type=_FILE, help="Who vouches for --server.  [default: the system's CAs]")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")
@click.option("--no-color", is_flag=True, help="No colours, also on a terminal.")
@click.pass_context
def hsmctl(
    ctx: click.Context,
    config_path: Path | None,
    server: str | None,
    token_file: Path | None,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    as_json: bool,
    no_color: bool,
) -> None:
    """Administers hsmfs: one namespace over disk and discs in a robotic library.

    A PATH is one under the mountpoint, absolute or from the working directory; with --server one
    from the namespace's root.
    """
    if server is None and (token_file or cert or key or ca):
        raise click.UsageError("--token-file, --cert, --key and --ca belong to --server")
    other = None if server is None else Server(server, token_file, cert, key, ca)
    ctx.obj = Ctl(config_path, as_json, no_color, other)
    if no_color:
        ctx.color = False


def main(argv: Sequence[str] | None = None) -> int:
    """The command `hsmctl`; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = hsmctl.main(arguments, prog_name="hsmctl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("hsmctl: interrupted; what was begun goes on in the daemon", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output, such as `head`, has gone
        return 0
    except HsmError as fault:
        _show(fault, "--json" in arguments)
        return fault.exit_code
    except OSError as fault:
        own = HsmError(str(fault), next_step="look at free space and permissions there")
        _show(own, "--json" in arguments)
        return own.exit_code


def _show(fault: HsmError, as_json: bool) -> None:
    if as_json:
        body = {
            "error": getattr(fault, "kind", type(fault).__name__),
            "cause": fault.message,
            "next_step": fault.next_step,
            "exit_code": fault.exit_code,
        }
        click.echo(json.dumps(body), err=True)
        return
    click.echo(f"hsmctl: {fault.message}", err=True)
    if fault.next_step:
        click.echo(f"  next: {fault.next_step}", err=True)


if __name__ == "__main__":
    sys.exit(main())
