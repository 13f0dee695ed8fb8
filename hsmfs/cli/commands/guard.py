"""hsmctl guard: which programs may bring discs in, and whom that stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...units import format_duration
from ..context import Ctl, json_option
from ..output import ago, plural

OUTCOMES = ("allow", "slow", "head", "eagain", "eacces")


@click.group(
    "guard",
    invoke_without_command=True,
    epilog="""\b
Examples:
  hsmctl guard
  hsmctl guard mode learn
  hsmctl guard report
  hsmctl guard set backups allow
""",
)
@click.pass_context
def command(context: click.Context) -> None:
    """Show the guard against recall storms (without a command, as show), or change it live."""
    if context.invoked_subcommand is None:
        context.invoke(show)


@command.command("show", epilog="\b\nExamples:\n  hsmctl guard show")
@json_option
def show(ctl: Ctl) -> None:
    """Show the mode and the rules in force, in the order in which they are asked."""
    found = ctl.client.get("/guard")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    origin = "given by an admin" if found["own"] else "as they come with hsmfs"
    out.line(f"mode {found['mode']}; {plural(len(found['rules']), 'rule')}, {origin}")
    out.table(
        ("RULE", "OUTCOME", "RATE", "STAYS", "ABOUT"),
        [
            (
                rule["name"], rule["outcome"], rule["rate"] or "-",
                format_duration(rule["stay_s"]) if rule["stay_s"] else "-", _about(rule),
            )
            for rule in found["rules"]
        ],
    )  # fmt: skip


def _about(rule: dict[str, Any]) -> str:
    keys = ("uid", "gid", "process", "via", "client", "path")
    parts = [f"{key} {', '.join(map(str, rule[key]))}" for key in keys if rule[key]]
    return "; ".join(parts) or "everybody"


@command.command("rules", epilog="\b\nExamples:\n  hsmctl guard rules > guard.toml")
@json_option
def rules(ctl: Ctl) -> None:
    """Print the rules in force as TOML, for 'hsmctl guard load'."""
    found = ctl.client.get("/guard")
    if ctl.out.as_json:
        ctl.out.json({"toml": found["toml"]})
    else:
        click.echo(found["toml"], nl=False)


@command.command("load", epilog="\b\nExamples:\n  hsmctl guard load guard.toml")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
def load(ctl: Ctl, file: Path) -> None:
    """Put the rules of FILE in force, now and over restarts; a wrong one changes nothing."""
    answer = ctl.client.post("/guard/rules", {"rules": file.read_text(encoding="utf-8")})
    _in_force(ctl, answer)


@command.command("reset", epilog="\b\nExamples:\n  hsmctl guard reset")
@json_option
def reset(ctl: Ctl) -> None:
    """Put the rules that come with hsmfs in force again."""
    _in_force(ctl, ctl.client.post("/guard/rules", {}))


def _in_force(ctl: Ctl, answer: dict[str, Any]) -> None:
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{plural(answer['detail']['rules'], 'rule')} in force")


@command.command("set", epilog="\b\nExamples:\n  hsmctl guard set backups allow")
@click.argument("rule")
@click.argument("outcome", type=click.Choice(OUTCOMES))
@json_option
def set_(ctl: Ctl, rule: str, outcome: str) -> None:
    """Change the OUTCOME of one RULE, now and over restarts."""
    answer = ctl.client.post("/guard/outcome", {"rule": rule, "outcome": outcome})
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"rule {rule}: {outcome}")


@command.command("mode", epilog="\b\nExamples:\n  hsmctl guard mode learn")
@click.argument("mode", type=click.Choice(("on", "learn", "off")))
@json_option
def mode(ctl: Ctl, mode: str) -> None:
    """Let the rules act (on), only report (learn), or neither (off); also after a restart."""
    answer = ctl.client.post("/guard/mode", {"mode": mode})
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"mode {mode}")


@command.command(
    "report", epilog="\b\nExamples:\n  hsmctl guard report\n  hsmctl guard report --clear"
)
@click.option("--clear", is_flag=True, help="Begin a new report.")
@json_option
def report(ctl: Ctl, clear: bool) -> None:
    """Say whom rules stopped, or in learning mode would have stopped: the most files first."""
    if clear:
        answer = ctl.client.post("/guard/report/clear")
        if ctl.out.as_json:
            ctl.out.json(answer)
        else:
            ctl.out.line("the report begins anew")
        return
    found = ctl.client.get("/guard/report")
    out = ctl.out
    if out.as_json:
        out.json(found)
    elif not found:
        out.line("no rule decided yet")
    else:
        out.table(
            ("PROCESS", ">UID", "FROM", "RULE", "OUTCOME", ">FILES", "FIRST", "LAST", "FILE"),
            [
                (
                    r["process"], r["uid"], r["client"] or r["via"], r["rule"],
                    f"({r['outcome']})" if r["learning"] else r["outcome"], f"{r['files']:,}",
                    ago(r["first_ns"]), ago(r["last_ns"]), ctl.shown(r),
                )
                for r in found
            ],
        )  # fmt: skip
        if any(r["learning"] for r in found):
            out.line("outcomes in brackets were not carried out: the guard was learning")
