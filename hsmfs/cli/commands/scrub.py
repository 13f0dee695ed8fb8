"""hsmctl scrub: reading discs again before they are needed."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import bar, plural, size, when


@click.group(
    "scrub",
    epilog="""\b
Examples:
  hsmctl scrub run S0001D03
  hsmctl scrub run --share 5
  hsmctl scrub status
  hsmctl scrub pause
""",
)
def command() -> None:
    """Test discs: read them while nobody else wants the drive."""


@command.command(
    "run", epilog="\b\nExamples:\n  hsmctl scrub run\n  hsmctl scrub run SET00001 --share 10"
)
@click.argument("discs", nargs=-1, metavar="[VOLUME...]")
@click.option("--share", type=click.IntRange(1, 100), help="Percent of each disc to read.")
@json_option
def run(ctl: Ctl, discs: tuple[str, ...], share: int | None) -> None:
    """Test discs, or all discs of sets, or all that hold something."""
    done = ctl.client.post("/scrub", {"discs": list(discs), "share": share})
    if ctl.out.as_json:
        ctl.out.json(done)
        return
    new = done["detail"]["new"]
    ctl.out.line(f"{plural(new, 'disc')} queued; 'hsmctl scrub status' tells how far")


@command.command("status", epilog="\b\nExamples:\n  hsmctl scrub status")
@json_option
def status(ctl: Ctl) -> None:
    """Show what is being tested, what waits, and what is due next."""
    found = ctl.client.get("/scrub")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    days = found["interval_s"] / 86_400
    next_due = f"{found['next_due_disc']}, {when(found['next_due_ns'])}"
    out.fields(
        [
            ("scrubbing", "paused" if found["paused"] else "on"),
            ("interval", f"{days:g} days, {found['share']} % of a disc" if days else "on request"),
            ("discs", found["discs"]),
            ("overdue", found["overdue"]),
            ("next due", next_due if found["next_due_disc"] else None),
        ]
    )
    out.table(
        ("DISC", "PHASE", "DRIVE", "DONE", ">", ">SPEED", ">BAD", "ASKED BY", "WAITS FOR"),
        [
            (
                s["disc"], s["phase"], s["drive"] or "-", bar(s["done"], s["size"]),
                size(s["done"]), size(s["speed"]) + "/s" if s["speed"] else "-", s["bad"],
                s["requester"], s["error"],
            )
            for s in found["queue"]
        ],
    )  # fmt: skip


@command.command(
    "pause", epilog="\b\nExamples:\n  hsmctl scrub pause\n  hsmctl scrub pause S0001D03"
)
@click.argument("discs", nargs=-1, metavar="[VOLUME...]")
@json_option
def pause(ctl: Ctl, discs: tuple[str, ...]) -> None:
    """Let all tests wait, or those of some discs; it stays so over restarts."""
    _act(ctl, "pause", discs)


@command.command("resume", epilog="\b\nExamples:\n  hsmctl scrub resume")
@click.argument("discs", nargs=-1, metavar="[VOLUME...]")
@json_option
def resume(ctl: Ctl, discs: tuple[str, ...]) -> None:
    """Go on where the tests were."""
    _act(ctl, "resume", discs)


def _act(ctl: Ctl, act: str, discs: tuple[str, ...]) -> None:
    done = ctl.client.post(f"/scrub/{act}", {"discs": list(discs)})
    if ctl.out.as_json:
        ctl.out.json(done)
    else:
        what = " ".join(discs) or "all tests"
        ctl.out.line(f"{what}: {'waiting' if act == 'pause' else 'going on'}")
