"""What administrators do to media, act by act, for the proof that kills the daemon meanwhile.

Each act may be done again after it was cut off at any point, and then completes what is left.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lib.agreement import MAIL, STORED, discs
from lib.crashlab import Entry, Lab
from lib.tempfs import TempFs, TempFsError

from hsmfs.cli.client import Client
from hsmfs.cli.links import SocketLink
from hsmfs.errors import HsmError

Act = Callable[[Lab], None]
POLL_S = 0.05
LIBRARY = {"drives": 2, "disc": "16 MiB", "magazines": 2}
REMADE = REPACKED = "SET00001"
"""The set of which a disc is made anew, and which is repacked later."""
VAULT = "SET00002"
"""The set that is exported; the other copies of its files stay."""
ADOPTED = "adopted"
"""The folder for files of another hsmfs."""
FOREIGN = {1: "F0001D01", 2: "F0001D02"}
"""Labels of the other hsmfs's discs, by slot."""


def new_fs(folder: Path) -> TempFs:
    """Two drives and small discs; laid out, not yet made."""
    fs = TempFs(
        {
            "library": LIBRARY,
            "engine": {"burn_wait": "1 h"},  # nothing is burned but by order
            "trash": {"keep": "0 s"},
            "sets": {"parity": "raid5", "discs": 3, "release_needs": "copies"},
        },
        folder=folder,
    )
    fs.lay_out()
    return fs


def fill(lab: Lab) -> None:
    """Files of all kinds, one greater than half a disc."""
    for folder in ("a", "b", "c"):
        lab.mkdir(folder)
        lab.write(f"{folder}/empty", b"")
        lab.write(f"{folder}/small", lab.data(3000))
        lab.write(f"{folder}/text", b"text that compresses well\n" * 20_000)
        lab.write(f"{folder}/large", lab.data(5_000_000))
        lab.write(f"{folder}/larger", lab.data(4_200_000))
        lab.link(f"{folder}/small", f"{folder}/small too")


def foreign_discs(folder: Path, lab: Lab) -> dict[str, Entry]:
    """Discs of another hsmfs, put on the shelf of lab's; what adopting them leads to."""
    other = TempFs({"library": LIBRARY}, folder=folder)
    other.lay_out()
    other.control("init")
    for slot, barcode in FOREIGN.items():
        (place,) = (other.folder / f"library/elements/{STORED.start + slot - 1:05d}").iterdir()
        place.rename(place.with_name(barcode))
    shelf = lab.fs.folder / "library/shelf"
    shelf.mkdir()
    tree: dict[str, Entry] = {ADOPTED: ("dir", b""), f"{ADOPTED}/x": ("dir", b"")}
    try:
        other.start()
        (other.mountpoint / "x").mkdir()
        for name, size in (("little", 5000), ("big", 9_000_000), ("great", 10_000_000)):
            data = lab.data(size)
            (other.mountpoint / "x" / name).write_bytes(data)
            tree[f"{ADOPTED}/x/{name}"] = ("file", data)
        other.control("archive", "--now", "--wait", other.mountpoint)
        other.stop()
    finally:
        other.kill()
    for barcode in FOREIGN.values():
        (disc,) = discs(other.folder / "library")[barcode]
        shutil.copytree(disc.folder, shelf / barcode, symlinks=True)
    shutil.rmtree(folder)
    return tree


# The API, which starts no program each time it is asked; a daemon that is gone is a TempFsError.


def ask(lab: Lab, path: str) -> Any:
    """What the API answers."""
    try:
        return Client(SocketLink(lab.fs.socket)).get(path)
    except HsmError as fault:
        raise TempFsError(f"GET {path}: {fault.message}") from fault


def order(lab: Lab, path: str, body: object = None) -> Any:
    """What the API answers to an order."""
    try:
        return Client(SocketLink(lab.fs.socket)).post(path, body, timeout=None)
    except HsmError as fault:
        raise TempFsError(f"POST {path}: {fault.message}") from fault


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Look until it is so. Raises TempFsError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TempFsError(f"{what}: not in {seconds:g} s")
        time.sleep(POLL_S)


def settle(lab: Lab) -> None:
    """Wait until no disc is burned and no set is being closed."""
    until(
        lambda: (
            not ask(lab, "/status")["burns"]
            and all(s["state"] != "closing" for s in ask(lab, "/sets"))
        ),
        "burns ended",
    )


# Acts


def archive(*folders: str) -> Act:
    """The files of folders go to discs, twice."""

    def act(lab: Lab) -> None:
        for folder in folders:
            lab.control("archive", "--now", "--wait", "--copies", "2", str(lab.path(folder)))

    return act


def recall(lab: Lab) -> None:
    """Everything from discs, the ones that are not in drives too."""
    lab.control("release", str(lab.fs.mountpoint))
    for name, entry in lab.model.items():
        if entry and entry[0] == "file":
            lab.read(name)


def move(lab: Lab) -> None:
    """A disc from its slot to the mail slot and back to a slot."""
    with lab.step({}):
        order(lab, "/library/inventory")
        elements = ask(lab, "/library")
    slots = [e for e in elements if e["kind"] == "storage"]
    mail = [e for e in elements if e["kind"] == "import_export"]
    brought = [e["barcode"] for e in mail if e["barcode"]]
    barcode = brought[0] if brought else [e["barcode"] for e in slots if e["barcode"]][-1]
    if not brought:
        lab.control("library", "move", barcode, str(mail[0]["address"]))
    empty = [e for e in slots if e["barcode"] in (None, barcode)]
    lab.control("library", "move", barcode, str(empty[-1]["address"]))


def close(lab: Lab) -> None:
    """Parity for the sets that are not full."""
    with lab.step({}):
        for group in ask(lab, "/sets"):
            if group["state"] == "open":
                lab.fs.control("volume", "close", group["set"])
        until(lambda: all(s["state"] == "closed" for s in ask(lab, "/sets")), "sets closed")


def rebuild(lab: Lab) -> None:
    """A disc of a set is taken away by hand, and made anew from the others."""
    shelf = lab.fs.folder / "library/shelf"

    def members() -> list[str]:
        return [d["disc"] for d in ask(lab, f"/sets/{REMADE}")["discs"]]

    with lab.step({}):
        gone = set(os.listdir(shelf)) - set(FOREIGN.values())
        if not gone:
            there = discs(lab.fs.folder / "library")
            disc = next(d for m in members() for d in there[m] if d.address in STORED)
            os.rename(disc.folder, shelf / disc.folder.name)
            gone = {disc.folder.name}
        order(lab, "/library/inventory")
        (barcode,) = gone
        if barcode in members():
            try:
                lab.fs.control("volume", "rebuild", barcode, "--wait")
            except TempFsError:
                if barcode in members():  # else the order of a former life was done just now
                    raise
        # Its last steps come after the new disc took the old one's place.
        until(lambda: not ask(lab, f"/sets/{REMADE}")["rebuilds"], "the order is done")


def export(lab: Lab) -> None:
    """A set leaves the library: an operator takes its discs from the mail slots."""
    library = lab.fs.folder / "library"
    with lab.step({}):
        members = {d["disc"] for d in ask(lab, f"/sets/{VAULT}")["discs"]}
        inside = {m for m in members if not (library / "shelf" / m).exists()}
        leaving = {disc["barcode"] for disc in ask(lab, "/export")}
        if inside - leaving:
            lab.fs.control("volume", "export", *sorted(inside - leaving), "--to", "vault")

        def taken() -> bool:
            order(lab, "/library/inventory")
            for disc in (d for name in sorted(inside) for d in discs(library)[name]):
                if disc.address in MAIL:
                    os.rename(disc.folder, library / "shelf" / disc.folder.name)
                    inside.discard(disc.folder.name)
            return not inside

        until(taken, f"{VAULT} taken away")
        order(lab, "/library/inventory")


def import_(lab: Lab) -> None:
    """The operator brings it back."""
    with lab.step({}):
        _bring(lab, [d["disc"] for d in ask(lab, f"/sets/{VAULT}")["discs"]])


def _bring(lab: Lab, barcodes: Iterable[str]) -> None:
    """Discs from the shelf into slots, as many at a time as there are mail slots."""
    library = lab.fs.folder / "library"
    wanted = list(barcodes)

    def brought() -> bool:
        mail = [library / f"elements/{address:05d}" for address in MAIL]
        free = [slot for slot in mail if slot.exists() and not any(slot.iterdir())]
        outside = [b for b in wanted if (library / "shelf" / b).exists()]
        for barcode, slot in zip(outside, free, strict=False):
            os.rename(library / "shelf" / barcode, slot / barcode)
        order(lab, "/import", {"names": []})
        there = discs(library)
        return all(
            d.address is not None and d.address not in MAIL for b in wanted for d in there[b]
        )

    until(brought, "discs brought in")


def lose_catalog(lab: Lab) -> None:
    """The state directory is lost; the catalog is made again from discs and pools."""
    state, lost = lab.fs.folder / "state", lab.fs.folder / "lost"
    if not lost.exists():
        lab.fs.stop()
        state.rename(lost)
        state.mkdir()
    if not (state / "catalog.db").exists():
        lab.fs.control("rebuild")
    if lab.fs.daemon is None:
        lab.fs.start()
    with lab.step({}):
        # Nobody has seen the discs read back: until then their copies do not count.
        if any(volume["state"] == "suspect" for volume in ask(lab, "/volumes")):
            lab.fs.control("scrub", "run")
        until(
            lambda: all(volume["state"] != "suspect" for volume in ask(lab, "/volumes")),
            "discs verified",
        )


def adopt(tree: dict[str, Entry]) -> Act:
    """Discs of another hsmfs: their files come into the namespace, then they into the library."""

    def act(lab: Lab) -> None:
        if ADOPTED not in lab.model:
            lab.mkdir(ADOPTED)
        shelf = lab.fs.folder / "library/shelf"
        images = lab.fs.folder / "images"
        images.mkdir(exist_ok=True)
        for barcode in FOREIGN.values():
            if (shelf / barcode).exists() and not (images / f"{barcode}.iso").exists():
                os.link(shelf / barcode / "disc.iso", images / f"{barcode}.iso")
        lab.control("volume", "adopt", str(images), "--into", str(lab.path(ADOPTED)))
        lab.model |= tree
        with lab.step({}):
            _bring(lab, FOREIGN.values())

    return act


def repack(lab: Lab) -> None:
    """Most of what a set holds is deleted; the rest goes to other discs, and its discs retire."""
    for name in ("a/text", "a/larger", "a/large"):
        if lab.model.get(name):
            lab.unlink(name)

    def states() -> set[str]:
        return {r["state"] for r in ask(lab, "/replacements")}

    with lab.step({}):
        order(lab, "/trash/purge")
        if not states():
            lab.fs.control("volume", "repack", REPACKED)

        def done() -> bool:
            if states() == {"done"}:
                return True
            lab.fs.control("archive", "--now", "--wait", "--copies", "2", lab.path("a"))
            # The set that the files went to is not full: only its parity makes their copies count.
            for found in ask(lab, "/sets"):
                if found["state"] == "open" and found["data_discs"]:
                    lab.fs.control("volume", "close", found["set"])
            return states() == {"done"}

        until(done, f"{REPACKED} retired")
