"""Discs, the drives' ledger, the pools' registration and the journal of moves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from ..states import VOLUME_TRANSITIONS, DriveState, VolumeState, check
from ..types import Barcode, ElementAddress, PoolId, SetId, VolumeId
from .connection import Database
from .copies import PROVEN

_COLUMNS = (
    "id, barcode, uuid, set_id, set_index, state, reason, location, capacity, used, created_ns,"
    " burned_ns, verified_ns, written_by, loads, read_errors, write_errors, root_hash, element,"
    " image_sha256, inside, parity_sector, vault, quarantine, former"
)


@dataclass(frozen=True, slots=True)
class Volume:
    """A disc as the catalog knows it; sizes in bytes, times UTC ns."""

    id: VolumeId
    barcode: Barcode
    uuid: str | None
    set_id: SetId | None
    set_index: int | None
    state: VolumeState
    reason: str
    location: str
    capacity: int
    used: int
    created_ns: int
    burned_ns: int | None
    verified_ns: int | None
    written_by: str | None
    loads: int
    read_errors: int
    write_errors: int
    root_hash: str | None
    element: ElementAddress | None = None
    image_sha256: str | None = None
    """Hexadecimal, of the whole image as it was read back."""
    inside: Barcode | None = None
    """The barcode in its VOLUME.json if it is another one: it was made anew from parity."""
    parity_sector: int | None = None
    """Where the parity begins on a parity disc, once that is known."""
    vault: str = ""
    """Where it is to be kept once its set is closed; '': in the library."""
    quarantine: str = ""
    """Why it is not written to, and read only if nothing else will do; '': it is as any other."""
    former: VolumeState | None = None

    @property
    def proven(self) -> bool:
        """Whether a valid copy on it is as good as when it was verified; as `copies.PROVEN`."""
        exported = self.state is VolumeState.EXPORTED and self.former is not None
        state = self.former if exported else self.state
        return state in (VolumeState.FULL, VolumeState.EXPORTED) and not self.quarantine

    @property
    def unverified(self) -> bool:
        """Whether it was never read back here, and nothing but that speaks against it."""
        never = self.state is VolumeState.SUSPECT and self.verified_ns is None
        return never and not self.read_errors and not self.quarantine


class Seat(NamedTuple):
    """What an inventory asks of a disc: of some thousands, so it must be cheap."""

    id: VolumeId
    state: VolumeState
    element: ElementAddress | None


@dataclass(frozen=True, slots=True)
class DriveRecord:
    """A drive's state and ledger."""

    serial: str
    name: str
    state: DriveState
    reason: str
    loads: int
    read_errors: int
    write_errors: int


@dataclass(frozen=True, slots=True)
class Move:
    """A move of the robot that has not been ticked off."""

    id: int
    barcode: Barcode
    src: ElementAddress
    dst: ElementAddress
    started_ns: int


_STATES = {int(state): state for state in VolumeState}


def _volume(row: tuple) -> Volume:  # type: ignore[type-arg]
    values = list(row)
    values[5] = _STATES[row[5]]
    values[-1] = None if row[-1] is None else _STATES[row[-1]]
    return Volume(*values)


class Volumes:
    """Rows of `volumes`, `drives`, `pools`, `moves` and `carries`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # Volumes

    def get(self, volume: VolumeId) -> Volume | None:
        """The volume, or None."""
        return self._one("id = ?", volume)

    def by_barcode(self, barcode: str) -> Volume | None:
        """The volume with that label, or None."""
        return self._one("barcode = ?", barcode)

    def number(self, barcode: str) -> VolumeId | None:
        """The id of the volume with that label, or None: a third of what the row costs."""
        found: VolumeId | None = self._db.execute(
            "SELECT id FROM volumes WHERE barcode = ?", (barcode,)
        ).get
        return found

    def by_uuid(self, uuid: str) -> Volume | None:
        """The volume with that uuid inside, or None; one that was made anew before the old one."""
        gone = f"({int(VolumeState.LOST)}, {int(VolumeState.RETIRED)})"
        return self._one(f"uuid = ? ORDER BY state IN {gone}", uuid)

    def _one(self, where: str, value: int | str) -> Volume | None:
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM volumes WHERE {where}", (value,)):
            return _volume(row)
        return None

    def all(self, state: VolumeState | None = None) -> list[Volume]:
        """Volumes by barcode, all or those in one state."""
        where, values = ("", ()) if state is None else ("WHERE state = ?", (int(state),))
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM volumes {where} ORDER BY barcode", values
        )
        return [_volume(row) for row in rows]

    def seats(self) -> dict[Barcode, Seat]:
        """All volumes, as far as an inventory asks."""
        rows = self._db.execute("SELECT barcode, id, state, element FROM volumes")
        return {
            barcode: Seat(volume, _STATES[state], element)
            for barcode, volume, state, element in rows
        }

    def proven(self) -> set[VolumeId]:
        """Volumes whose valid copies are as good as when they were verified: `Volume.proven`."""
        rows = self._db.execute(f"SELECT v.id FROM volumes v WHERE {PROVEN}")
        return {VolumeId(volume) for (volume,) in rows}

    def read_back(self, states: Collection[VolumeState]) -> dict[VolumeId, int]:
        """When discs in the library in these states were last read back without a fault; 0: never
        by us."""
        rows = self._db.execute(
            "SELECT id, coalesce(verified_ns, 0) FROM volumes WHERE element IS NOT NULL"
            f" AND state IN ({', '.join('?' * len(states))})",
            tuple(map(int, states)),
        )
        return {VolumeId(volume): at_ns for volume, at_ns in rows}

    def blanks(self) -> dict[VolumeId, Barcode]:
        """Blank discs in the library that may be written to, by barcode."""
        rows = self._db.execute(
            "SELECT id, barcode FROM volumes WHERE state = ? AND location = 'library'"
            " AND element IS NOT NULL AND quarantine = '' ORDER BY barcode",
            (int(VolumeState.BLANK),),
        )
        found: dict[VolumeId, Barcode] = dict(rows)  # thousands, so it must be cheap
        return found

    def add(self, barcode: str, capacity: int, now_ns: int) -> VolumeId:
        """A blank disc, seen for the first time."""
        self._db.execute(
            "INSERT INTO volumes (barcode, state, capacity, created_ns) VALUES (?, ?, ?, ?)",
            (barcode, int(VolumeState.BLANK), capacity, now_ns),
        )
        return VolumeId(self._db.last_insert_rowid())

    def size_blanks(self, capacity: int) -> None:
        """What blank discs hold by the present configuration."""
        self._db.execute(
            "UPDATE volumes SET capacity = ?1 WHERE state = ?2 AND capacity != ?1",
            (capacity, int(VolumeState.BLANK)),
        )

    def set_state(self, volume: VolumeId, state: VolumeState, reason: str = "") -> None:
        """Change the state. Raises ValueError if states.VOLUME_TRANSITIONS does not allow it."""
        old = self.get(volume)
        assert old is not None
        check(VOLUME_TRANSITIONS, old.state, state)
        self._db.execute(
            "UPDATE volumes SET state = ?, reason = ? WHERE id = ?", (int(state), reason, volume)
        )

    def set_location(self, volume: VolumeId, location: str) -> None:
        """Where the disc is: 'library', or the operator's words."""
        self._db.execute("UPDATE volumes SET location = ? WHERE id = ?", (location, volume))

    def set_vault(self, volume: VolumeId, vault: str) -> None:
        """Where the disc is to be kept; '': in the library."""
        self._db.execute("UPDATE volumes SET vault = ? WHERE id = ?", (vault, volume))

    def set_quarantine(self, volume: VolumeId, reason: str) -> None:
        """Put the disc under quarantine; '': lift it."""
        self._db.execute("UPDATE volumes SET quarantine = ? WHERE id = ?", (reason, volume))

    def set_element(self, volume: VolumeId, element: ElementAddress | None) -> None:
        """Where the robot has the disc; None: outside the library."""
        self._db.execute("UPDATE volumes SET element = ? WHERE id = ?", (element, volume))

    def go_away(self, volume: VolumeId, state: VolumeState, reason: str) -> None:
        """The disc is EXPORTED or LOST; what it was before is kept for `come_back`."""
        old = self.get(volume)
        assert old is not None
        self.set_state(volume, state, reason)
        if old.former is None:
            self._db.execute(
                "UPDATE volumes SET former = ? WHERE id = ?", (int(old.state), volume)
            )

    def come_back(self, volume: VolumeId) -> VolumeState:
        """An exported or lost disc is in the library again, as good as it was before."""
        old = self.get(volume)
        assert old is not None
        state = old.former
        if state is None:
            state = VolumeState.BLANK if old.uuid is None else VolumeState.FULL
        self.set_state(volume, state)
        self._db.execute(
            "UPDATE volumes SET former = NULL, location = 'library' WHERE id = ?", (volume,)
        )
        return state

    def start(self, volume: VolumeId, uuid: str, audit_head: str | None = None) -> None:
        """A burn of the volume begins under this uuid, with this head of the audit chain on it."""
        self.set_state(volume, VolumeState.BURNING)
        self._db.execute(
            "UPDATE volumes SET uuid = ?, audit_head = ? WHERE id = ?", (uuid, audit_head, volume)
        )

    def never_begun(self, volume: VolumeId) -> None:
        """The burn failed before anything was written: the disc is blank."""
        self.set_state(volume, VolumeState.BLANK)
        self._db.execute(
            "UPDATE volumes SET uuid = NULL, audit_head = NULL WHERE id = ?", (volume,)
        )

    def close(
        self,
        volume: VolumeId,
        used: int,
        serial: str,
        root_hash: str,
        now_ns: int,
        image_sha256: str | None = None,
    ) -> None:
        """The commit point of a burn: the disc was read back and is full."""
        self.set_state(volume, VolumeState.FULL)
        self._db.execute(
            "UPDATE volumes SET used = ?, burned_ns = ?, verified_ns = ?, written_by = ?,"
            " root_hash = ?, image_sha256 = ? WHERE id = ?",
            (used, now_ns, now_ns, serial, root_hash, image_sha256, volume),
        )

    def audit_heads(self) -> list[tuple[str, str]]:
        """(barcode, head of the audit chain) of discs that bear one and were read back."""
        rows = self._db.execute(
            "SELECT barcode, audit_head FROM volumes WHERE audit_head IS NOT NULL"
            " AND burned_ns IS NOT NULL ORDER BY id"
        )
        return [(barcode, head) for barcode, head in rows]

    def newest_audit_seq(self) -> int:
        """The last record of the audit log that a disc in use bears; 0: none."""
        return int(
            self._db.execute(
                "SELECT coalesce(max(CAST(audit_head AS INTEGER)), 0) FROM volumes"
                " WHERE audit_head IS NOT NULL AND burned_ns IS NOT NULL AND state IN (?, ?)",
                (int(VolumeState.FULL), int(VolumeState.EXPORTED)),
            ).get
        )

    def take_over(
        self, volume: VolumeId, uuid: str, used: int, root_hash: str, burned_ns: int
    ) -> None:
        """A disc that was burned elsewhere: full, but never read back by us, and outside so far."""
        old = self.get(volume)
        assert old is not None
        if old.state is VolumeState.DAMAGED:
            self.set_state(volume, VolumeState.SUSPECT)
        self.set_state(volume, VolumeState.EXPORTED)
        self._db.execute(
            "UPDATE volumes SET uuid = ?, used = ?, root_hash = ?, burned_ns = ?,"
            " verified_ns = NULL, reason = '', former = ? WHERE id = ?",
            (uuid, used, root_hash, burned_ns, int(VolumeState.FULL), volume),
        )

    def burned_by(self, volume: VolumeId, serial: str) -> None:
        """Which drive burned the disc, or a word for it."""
        self._db.execute("UPDATE volumes SET written_by = ? WHERE id = ?", (serial, volume))

    def forget(self, volume: VolumeId) -> None:
        """There is no such disc; nothing may point to it."""
        self._db.execute("DELETE FROM volumes WHERE id = ?", (volume,))

    def verified(self, volume: VolumeId, now_ns: int) -> None:
        """The disc was read back without a fault."""
        self._db.execute("UPDATE volumes SET verified_ns = ? WHERE id = ?", (now_ns, volume))

    def set_image(self, volume: VolumeId, used: int, sha256: str, root_hash: str) -> None:
        """What a parity disc of its set tells of the disc's image."""
        self._db.execute(
            "UPDATE volumes SET used = ?, image_sha256 = ?, root_hash = ? WHERE id = ?",
            (used, sha256, root_hash, volume),
        )

    def set_parity_sector(self, volume: VolumeId, sector: int) -> None:
        """Where the parity begins on a parity disc."""
        self._db.execute("UPDATE volumes SET parity_sector = ? WHERE id = ?", (sector, volume))

    def set_inside(self, volume: VolumeId, barcode: str | None) -> None:
        """The barcode in VOLUME.json is another one than the label's."""
        self._db.execute("UPDATE volumes SET inside = ? WHERE id = ?", (barcode, volume))

    def count(self, volume: VolumeId, *, loads: int = 0, reads: int = 0, writes: int = 0) -> None:
        """Add to the disc's loads and errors."""
        self._db.execute(
            "UPDATE volumes SET loads = loads + ?, read_errors = read_errors + ?,"
            " write_errors = write_errors + ? WHERE id = ?",
            (loads, reads, writes, volume),
        )

    # Drives

    def drives(self) -> list[DriveRecord]:
        """All drives ever seen, by name."""
        rows = self._db.execute(
            "SELECT serial, name, state, reason, loads, read_errors, write_errors FROM drives"
            " ORDER BY name"
        )
        return [
            DriveRecord(serial, name, DriveState(state), *rest)
            for serial, name, state, *rest in rows
        ]

    def see_drive(self, serial: str, name: str) -> None:
        """A drive is there, under this name."""
        self._db.execute(
            "INSERT INTO drives (serial, name) VALUES (?, ?)"
            " ON CONFLICT (serial) DO UPDATE SET name = excluded.name",
            (serial, name),
        )

    def set_drive(self, serial: str, state: DriveState, reason: str) -> None:
        """Take a drive up or down."""
        self._db.execute(
            "UPDATE drives SET state = ?, reason = ? WHERE serial = ?",
            (int(state), reason, serial),
        )

    def count_drive(
        self, serial: str, *, loads: int = 0, reads: int = 0, writes: int = 0
    ) -> None:
        """Add to the drive's loads and errors."""
        self._db.execute(
            "UPDATE drives SET loads = loads + ?, read_errors = read_errors + ?,"
            " write_errors = write_errors + ? WHERE serial = ?",
            (loads, reads, writes, serial),
        )

    # Pools

    def register_pool(self, name: str, tier: str, uuid: str) -> PoolId:
        """The pool's number; a known uuid keeps its number under a new name or tier."""
        for (found,) in self._db.execute("SELECT id FROM pools WHERE uuid = ?", (uuid,)):
            self._db.execute(
                "UPDATE pools SET name = ?, tier = ? WHERE id = ?", (name, tier, found)
            )
            return PoolId(found)
        self._db.execute(
            "INSERT INTO pools (name, tier, uuid) VALUES (?, ?, ?)", (name, tier, uuid)
        )
        return PoolId(self._db.last_insert_rowid())

    def pools(self) -> dict[str, tuple[PoolId, str]]:
        """Registered pools: name to (number, uuid)."""
        rows = self._db.execute("SELECT name, id, uuid FROM pools")
        return {name: (PoolId(found), uuid) for name, found, uuid in rows}

    # Journal of moves

    def begin_move(self, barcode: str, src: int, dst: int, now_ns: int) -> int:
        """Write a move down before it starts."""
        self._db.execute(
            "INSERT INTO moves (barcode, src, dst, started_ns) VALUES (?, ?, ?, ?)",
            (barcode, src, dst, now_ns),
        )
        return int(self._db.last_insert_rowid())

    def finish_move(self, move: int, ok: bool, now_ns: int) -> None:
        """Tick a move off; ok means that the disc lies where it was to go."""
        self._db.execute(
            "UPDATE moves SET finished_ns = ?, ok = ? WHERE id = ?", (now_ns, int(ok), move)
        )
        if ok:
            self._db.execute(
                "UPDATE volumes SET element = (SELECT dst FROM moves WHERE id = ?1)"
                " WHERE barcode = (SELECT barcode FROM moves WHERE id = ?1)",
                (move,),
            )

    def open_moves(self) -> list[Move]:
        """Moves that were begun and not ticked off."""
        rows = self._db.execute(
            "SELECT id, barcode, src, dst, started_ns FROM moves WHERE finished_ns IS NULL"
            " ORDER BY id"
        )
        return [Move(*row) for row in rows]

    def begin_carry(self, magazine: int, unit: int | None, now_ns: int) -> int:
        """Write a magazine's way down before it starts; unit: None for the rack."""
        self._db.execute(
            "INSERT INTO carries (magazine, unit, started_ns) VALUES (?, ?, ?)",
            (magazine, unit, now_ns),
        )
        return int(self._db.last_insert_rowid())

    def finish_carry(self, carry: int, ok: bool, now_ns: int) -> None:
        """Tick a magazine's way off."""
        self._db.execute(
            "UPDATE carries SET finished_ns = ?, ok = ? WHERE id = ?", (now_ns, int(ok), carry)
        )

    def open_carries(self) -> list[tuple[int, int, int | None]]:
        """Those that were begun and not ticked off: number, magazine, unit."""
        return list(
            self._db.execute(
                "SELECT id, magazine, unit FROM carries WHERE finished_ns IS NULL ORDER BY id"
            )
        )
