"""hsmctl volume refresh, repack, replacements, certificate: discs that are replaced by others."""

from __future__ import annotations

import click

from ..context import Ctl, json_option
from ..output import when


@click.command(
    "refresh",
    epilog="""\b
Examples:
  hsmctl volume refresh S0001D03
  hsmctl volume refresh SET00001 --files
""",
)
@click.argument("discs", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--files", is_flag=True, help="Copy the files, also where parity could rebuild.")
@click.option("--cancel", is_flag=True, help="Forget an order; its discs stay as they are.")
@json_option
def refresh(ctl: Ctl, discs: tuple[str, ...], files: bool, cancel: bool) -> None:
    """Put what is on a disc or set on new ones: it is suspect, old, or of a smaller generation.

    A data disc of a set with parity is made anew from the others. Else its files are copied from
    any good copy; the disc counts until they were burned and read back, then it is retired.
    """
    _order(ctl, "refresh", discs, cancel, files=files)


@click.command(
    "repack",
    epilog="\b\nExamples:\n  hsmctl volume repack S0001D03\n  hsmctl volume repack SET00001",
)
@click.argument("discs", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--cancel", is_flag=True, help="Forget an order; its discs stay as they are.")
@json_option
def repack(ctl: Ctl, discs: tuple[str, ...], cancel: bool) -> None:
    """Put the living files of a disc whose files are mostly dead on others, and retire it.

    A disc of a set with parity takes its whole set along. Files in the trash are waited for.
    """
    _order(ctl, "repack", discs, cancel)


def _order(
    ctl: Ctl, kind: str, discs: tuple[str, ...], cancel: bool, *, files: bool = False
) -> None:
    out = ctl.out
    if cancel:
        done = ctl.client.post("/replacements/cancel", {"discs": list(discs)})
        out.json(done) if out.as_json else out.line(f"{' '.join(discs)}: not replaced")
        return
    body = {"kind": kind, "discs": list(discs), "files": files}
    done = ctl.client.post("/replacements", body)
    if out.as_json:
        out.json(done)
        return
    found = done["detail"]["discs"]
    for disc, what in found.items():
        out.line(f"disc {disc}: {what}")
    if "rebuild" in found.values():
        out.line("'hsmctl volume set info' of its set tells how far a rebuild is")
    if set(found.values()) - {"rebuild"}:
        out.line("'hsmctl volume replacements' tells how far")


@click.command("replacements", epilog="\b\nExamples:\n  hsmctl volume replacements")
@json_option
def replacements(ctl: Ctl) -> None:
    """List discs that are being replaced, and those that were."""
    found = ctl.client.get("/replacements")
    out = ctl.out
    if out.as_json:
        out.json(found)
        return
    out.table(
        ("DISC", "WHY", "STATE", "ASKED", "ASKED BY", "RETIRED", "CERTIFICATE", "WAITS FOR"),
        [
            (
                r["disc"], r["kind"], r["state"], when(r["asked_ns"]), r["requester"],
                when(r["retired_ns"]), r["certificate"] or "-", r["waits_for"],
            )
            for r in found
        ],
    )  # fmt: skip


@click.command("certificate", epilog="\b\nExamples:\n  hsmctl volume certificate S0001D03 | lp")
@click.argument("disc", metavar="VOLUME")
@json_option
def certificate(ctl: Ctl, disc: str) -> None:
    """Print the destruction certificate of a retired disc: what was on it, with SHA-256."""
    found = ctl.client.get(f"/replacements/{disc}/certificate")
    if ctl.out.as_json:
        ctl.out.json(found)
    else:
        ctl.out.line(found["text"].rstrip("\n"))
