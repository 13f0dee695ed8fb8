"""hsmctl policy: checks the policy file, explains a file's fate, and runs rules now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..context import Ctl, json_option, path_query
from ..output import plural, size


@click.group(
    "policy",
    epilog="""\b
Examples:
  hsmctl policy check
  hsmctl policy explain scans/0001.dcm
  hsmctl policy run --dry-run
""",
)
def command() -> None:
    """Check policies, explain what they say of a file, or run them now."""


@command.command("check", epilog="\b\nExamples:\n  hsmctl policy check ./new-policies.toml")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
def check(ctl: Ctl, file: Path | None) -> None:
    """Check the policy file (or FILE) and name each fault with its line. Needs no daemon."""
    from ...engine.policy import rules
    from ...engine.policy.match import Ruleset
    from ...engine.policy.room import check_room
    from ...errors import NotFound

    path = file or ctl.config.engine.policies
    if path is None:
        raise NotFound(
            "no policy file is configured", next_step="set [engine] policies, or name a file"
        )
    found, config = rules.load(path), ctl.config
    check_room(
        config, Ruleset(found.policy, copies=config.engine.copies, head=config.fs.head), path
    )
    if ctl.out.as_json:
        shown = [
            {"name": r.name, "action": r.action, "copies": r.copies, "vault": r.vault}
            for r in found.policy
        ]
        ctl.out.json({"file": str(path), "ok": True, "rules": shown})
        return
    ctl.out.line(f"{path}: {plural(len(found.policy), 'rule')}, no faults")
    for rule in found.policy:
        if wanted := _copies(rule.copies, rule.vault):
            ctl.out.line(f"{rule.name} ({rule.action})  {wanted}")


@command.command("example", epilog="\b\nExamples:\n  hsmctl policy example | less")
def example() -> None:
    """Print a policy file with every key explained."""
    from ...engine.policy import rules

    click.echo(rules.example(), nl=False)


@command.command("explain", epilog="\b\nExamples:\n  hsmctl policy explain scans/0001.dcm")
@click.argument("path")
@json_option
def explain(ctl: Ctl, path: str) -> None:
    """Say for each rule whether it acts on the file, and if not, why."""
    found = ctl.client.get("/policy/explain", **path_query(ctl.namespace(path)))
    out = ctl.out
    if out.as_json:
        out.json(found)
    elif not found:
        out.line("no policies are in force")
    else:
        for verdict in found:
            _verdict(ctl, verdict)


def _verdict(ctl: Ctl, verdict: dict[str, Any]) -> None:
    reasons = "; ".join(verdict["reasons"])
    if not reasons and verdict["decides"]:
        reasons = _copies(verdict["copies"], verdict["vault"])
    if not reasons and not verdict["decides"]:
        reasons = "an earlier rule decides"
    mark = ctl.out.style("acts", "green") if verdict["decides"] else "-   "
    ctl.out.line(f"{mark}  {verdict['rule']} ({verdict['action']})  {reasons}".rstrip())


def _copies(copies: int | None, vault: str | None) -> str:
    """What a rule asks for, in words; '' if it leaves that to the configuration."""
    if copies is None:
        return ""
    kept = f", one of them to be kept in {vault}" if vault else ""
    return ("1 copy" if copies == 1 else f"{copies} copies") + kept


@command.command(
    "run",
    epilog="""\b
Examples:
  hsmctl policy run --dry-run
  hsmctl policy run cold-scans
""",
)
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Only count: files, bytes and discs.")
@json_option
def run(ctl: Ctl, name: str | None, dry_run: bool) -> None:
    """Run all rules, or the one of that NAME, now, whatever their triggers say."""
    body = {"name": name, "dry_run": dry_run}
    found = ctl.client.post("/policy/run", body, timeout=None)
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.table(
        ("RULE", "ACTION", ">FILES", ">SIZE", ">DISCS", ">REFUSED"),
        [
            (
                o["rule"], o["action"], f"{o['files']:,}", size(o["bytes"]), o["discs"] or "-",
                o["refused"] or "-",
            )
            for o in found
        ],
    )  # fmt: skip
    if dry_run:
        out.line("nothing was done")


@command.command("load", epilog="\b\nExamples:\n  hsmctl policy check && hsmctl policy load")
@json_option
def load(ctl: Ctl) -> None:
    """Make the daemon read its policy file again; a wrong one changes nothing."""
    answer = ctl.client.post("/policy/load")
    if ctl.out.as_json:
        ctl.out.json(answer)
    else:
        ctl.out.line(f"{plural(answer['detail']['rules'], 'rule')} in force")
