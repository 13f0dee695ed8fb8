"""hsmctl seal: sealed, signed packages of files, readable in place and verifiable anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import BadSeal, Conflict, HsmError
from ..context import Ctl, json_option, path_query
from ..output import plural, size, when
from ..signing import CERT, FILE, KEY, signer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...sealing.package import Sealed

FOLDER = click.Path(path_type=Path, file_okay=False)


class Group(click.Group):
    """`hsmctl seal PATH...` makes a package; `ls`, `verify`, `info` and `sign` are about them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["make", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not {"-h", "--help"} & set(args):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(
    "seal",
    cls=Group,
    epilog="""\b
Examples:
  hsmctl seal records/ward-7 --into /srv/archive/sealed --name case-12 --key seal.pem
  hsmctl seal verify /srv/archive/sealed/case-12 --sealer seal.pub
""",
)
def command() -> None:
    """Sealed packages: copies of files under a manifest with SHA-256 and an Ed25519 signature.

    A package is a folder of plain files. It is read where it lies, and verified anywhere with
    sha256sum and openssl. 'hsmctl seal PATH...' is 'hsmctl seal make PATH...'.
    """


@command.command(
    "make",
    epilog="""\b
Examples:
  hsmctl seal make scans/2019 --into /srv/archive/sealed --name ct-2019 --key seal.pem
  hsmctl seal make a.pdf b.pdf --into sealed --name case-12 --receiver court.pem --vault 'safe 2'
""",
)
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--into", required=True, type=FOLDER, help="A folder of the mount.")
@click.option("--name", required=True, help="Of the package, a new folder there.")
@click.option("--reason", default="", help="Stands in the manifest.")
@KEY
@CERT
@click.option("--receiver", type=FILE, help="Public key or certificate of the other party.")
@click.option("--tsa", metavar="URL", help="RFC 3161 authority.  [default: [seal] tsa]")
@click.option("--vault", metavar="PLACE", help="Archive it; one copy on sets for there.")
@click.option("--copies", type=click.IntRange(2, 8), default=2, help="With --vault.  [default: 2]")
@click.option("--unprotected", is_flag=True, help="Also where no retention guards the package.")
@json_option
def make(
    ctl: Ctl, paths: tuple[Path, ...], into: Path, name: str, reason: str, key: Path | None,
    cert: Path | None, receiver: Path | None, tsa: str | None, vault: str | None, copies: int,
    unprotected: bool,
) -> None:  # fmt: skip
    """Seal copies of files and folders in the new folder INTO/NAME.

    INTO must lie in a retention folder: there every file of the package becomes a record that
    nobody changes. What was archived is compared with its checksum of then.
    """
    from ...sealing import keys, package

    by = signer_of(ctl, key, cert)
    if "/" in name or name in ("", ".", ".."):
        raise click.BadParameter("must be the name of a folder", param_hint="--name")
    for path in paths:
        ctl.namespace(str(path))
    if not unprotected and not _guarded(ctl, into):
        raise Conflict(
            f"{into} lies in no retention folder: what is sealed there could be deleted",
            next_step="'hsmctl retention set' first, or seal with --unprotected",
        )
    folder = into / name
    where = path_query(ctl.namespace(str(folder)))

    def note(made: Sealed) -> dict[str, Any]:
        return {
            "path": where, "sha256": made.sha256, "key_sha256": by.party.fingerprint,
            "name": by.party.name, "files": made.files, "bytes": made.bytes,
            "stamped": made.stamped, "reason": reason,
        }  # fmt: skip

    made = package.make(
        folder, [_absolute(path) for path in paths], by,
        keys.party(receiver) if receiver else None,
        reason=reason, tsa=tsa or ctl.config.seal.tsa, told=_against_ingest(ctl),
        recorded=lambda made: ctl.client.post("/seals", note(made)),
        authority=ctl.config.seal.tsa_ca,
    )  # fmt: skip
    if vault is not None:
        body = {"paths": [where], "copies": copies, "vault": vault}
        for _ in ctl.client.lines("POST", "/archive", body):
            pass
    _told(ctl, made, note(made))


def _told(ctl: Ctl, made: Sealed, note: dict[str, Any]) -> None:
    if ctl.out.as_json:
        ctl.out.json({**note, "path": str(made.folder)})
        return
    ctl.out.line(f"{made.folder}: {plural(made.files, 'file')} sealed ({size(made.bytes)})")
    ctl.out.line(f"SHA-256 of SHA256SUMS: {made.sha256}")
    if made.stamped:
        ctl.out.line(f"timestamp {made.stamped}")


def _guarded(ctl: Ctl, into: Path) -> bool:
    """Whether a folder is a retention folder, or lies below one."""
    here = ctl.namespace(str(into)).rstrip(b"/") + b"/"
    import base64

    found = ctl.client.get("/retention/folders")["folders"]
    return any(
        here.startswith(base64.b64decode(one["path_b64"]).rstrip(b"/") + b"/") for one in found
    )


def _absolute(path: Path) -> Path:
    """With its name, also for '.'; a link at the end stays one."""
    return Path(os.path.abspath(path))


def _against_ingest(ctl: Ctl) -> Callable[[bytes, int, str], None]:
    """Compares what was sealed with the checksum that the archive has of the file."""

    def told(path: bytes, count: int, sha256: str) -> None:
        info = ctl.client.get("/info", **path_query(ctl.namespace(os.fsdecode(path))))
        if info["sha256"] not in (None, sha256) and not info["dirty"]:
            raise BadSeal(
                f"{os.fsdecode(path)} is not what was archived: SHA-256 {sha256}, not"
                f" {info['sha256']}",
                next_step="see 'hsmctl verify'; nothing was sealed",
            )

    return told


@command.command("sign", epilog="\b\nExamples:\n  hsmctl seal sign sealed/case-12 --key court.key")
@click.argument("folder", type=FOLDER)
@KEY
@CERT
@json_option
def sign(ctl: Ctl, folder: Path, key: Path | None, cert: Path | None) -> None:
    """Sign a package as its receiver: that it was taken over as it is. It is verified first."""
    from ...sealing import package

    by = signer_of(ctl, key, cert)
    found = package.verify(folder)
    if found.wrong:
        raise BadSeal(f"{folder} is not signed: {found.wrong[0]}")
    package.countersign(folder, by)
    import hashlib

    sha256 = hashlib.sha256((folder / package.SUMS).read_bytes()).hexdigest()
    note = {
        "kind": "signed", "path": path_query(ctl.namespace(str(folder))), "sha256": sha256,
        "key_sha256": by.party.fingerprint, "name": by.party.name,
    }  # fmt: skip
    ctl.client.post("/seals", note)
    if ctl.out.as_json:
        ctl.out.json(note)
    else:
        ctl.out.line(f"{folder} is signed by its receiver")


@command.command(
    "verify",
    epilog="""\b
Examples:
  hsmctl seal verify sealed/case-12 --sealer seal.pub
  hsmctl seal verify /media/disc/files/sealed/case-12 --sealer seal.pub --tsa-ca tsa.pem
""",
)
@click.argument("folders", metavar="PACKAGE...", nargs=-1, required=True, type=FOLDER)
@click.option("--sealer", type=FILE, help="The sealer's public key or certificate, as you know it.")
@click.option("--tsa-ca", type=FILE, help="The authority's certificate.  [default: [seal] tsa_ca]")
@json_option
def verify(
    ctl: Ctl, folders: tuple[Path, ...], sealer: Path | None, tsa_ca: Path | None
) -> None:
    """Check signatures, timestamp, and every byte; works without the daemon, on a copy too.

    Without --sealer the key in the package is believed: that shows that nothing was changed since,
    not who sealed it.
    """
    from ...sealing import keys, package

    known = keys.party(sealer) if sealer else None
    bad = 0
    for folder in folders:
        found = package.verify(folder, sealer=known, authority=tsa_ca or _authority(ctl))
        bad += bool(found.wrong)
        if ctl.out.as_json:
            ctl.out.json_line({"path": str(folder), "files": found.files, "bytes": found.bytes,
                               "said": found.said, "wrong": found.wrong})  # fmt: skip
            continue
        verdict = "NOT INTACT" if found.wrong else "intact"
        ctl.out.line(f"{folder}: {verdict}, {plural(found.files, 'file')} ({size(found.bytes)})")
        for text in found.said:
            ctl.out.line(f"  {text}")
        for text in found.wrong:
            ctl.out.warn(f"  {text}")
    if bad:
        raise BadSeal(f"{plural(bad, 'package')} not intact")


def _authority(ctl: Ctl) -> Path | None:
    """The configured one; a package outside is verified without any configuration."""
    try:
        return ctl.config.seal.tsa_ca
    except HsmError:
        return None


@command.command("info", epilog="\b\nExamples:\n  hsmctl seal info sealed/case-12")
@click.argument("folder", metavar="PACKAGE", type=FOLDER)
@json_option
def info(ctl: Ctl, folder: Path) -> None:
    """Show what a package says of itself; verifies nothing."""
    from ...sealing import package

    try:
        facts = json.loads((folder / package.MANIFEST).read_bytes())
        entries, parties = facts["entries"], facts["parties"]
    except (OSError, ValueError, KeyError) as fault:
        raise BadSeal(f"{folder} is no sealed package: {fault}") from fault
    if ctl.out.as_json:
        ctl.out.json(facts)
        return
    stamp = folder / package.STAMP
    files = [entry for entry in entries if entry["kind"] == "file"]
    ctl.out.fields([
        ("sealed", facts["sealed"]), ("reason", facts["reason"] or None),
        *((who, f"{one['name']} key {one['key_sha256']}".strip()) for who, one in parties.items()),
        ("signed by receiver", "yes" if (folder / package.RECEIVER).exists() else "no"),
        ("timestamp", _stamped(stamp) if stamp.exists() else "none"),
        ("files", f"{len(files):,}, {size(sum(entry['bytes'] for entry in files))}"),
    ])  # fmt: skip


def _stamped(path: Path) -> str:
    from ...sealing import timestamp

    return timestamp.at(path.read_bytes())


@command.command("ls", epilog="\b\nExamples:\n  hsmctl seal ls")
@json_option
def ls(ctl: Ctl) -> None:
    """List the packages that are on record, the oldest first."""
    found = ctl.client.get("/seals")
    if ctl.out.as_json:
        ctl.out.json(found)
        return
    ctl.out.table(
        ("WHEN", "WHAT", "PACKAGE", ">FILES", ">SIZE", "KEY"),
        [
            (when(r["at_ns"]), r["kind"], r["path"], r.get("files", ""),
             size(r["bytes"]) if "bytes" in r else "", r["key_sha256"][:16])
            for r in found
        ],
    )  # fmt: skip
