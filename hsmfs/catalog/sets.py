"""Sets of discs with parity, the parity that is not on a disc yet, and discs to be made anew.

A disc's place in its set is in its row of `volumes`: set_index 0 to k-1 are data discs, k to k+m-1
parity discs. All changes here are one row or a few, so that a commit is a step of a set's life.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from ..states import SET_TRANSITIONS, CopyState, SetState, VolumeState, check
from ..types import SetId, VolumeId
from .connection import Database
from .volumes import Volume, Volumes

_COLUMNS = "id, name, uuid, k, m, copy_no, state, magazine, created_ns, closed_ns, root_hash, vault"


UNSEEN = "only the parity of its set tells of it"
"""Why a disc is lost that no catalog and no drive has seen."""


@dataclass(frozen=True, slots=True)
class VolumeSet:
    """A set of at most k data and m parity discs; times UTC ns."""

    id: SetId
    name: str
    uuid: str
    k: int
    m: int
    copy_no: int
    state: SetState
    magazine: int | None
    created_ns: int
    closed_ns: int | None
    root_hash: str | None
    vault: str = ""
    """Where it is to be kept once it is closed; '': in the library."""


@dataclass(frozen=True, slots=True)
class SpooledRow:
    """A parity row of a set in the spool; folded has bit i for the disc of index i."""

    row: int
    file: str
    size: int
    sha256: str
    folded: int


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A disc that is being made anew."""

    volume: VolumeId
    blank: VolumeId | None
    image: str
    started_ns: int
    error: str


def _set(row: tuple) -> VolumeSet:  # type: ignore[type-arg]
    values = list(row)
    values[6] = SetState(row[6])
    return VolumeSet(*values)


class Sets:
    """Rows of `volume_sets`, `set_parity` and `rebuilds`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._volumes = Volumes(db)

    # Sets

    def get(self, set_id: SetId) -> VolumeSet | None:
        """The set, or None."""
        return self._one("id = ?", set_id)

    def named(self, name: str) -> VolumeSet | None:
        """The set of that name, or None."""
        return self._one("name = ?", name)

    def by_uuid(self, uuid: str) -> VolumeSet | None:
        """The set with that uuid on its discs, or None."""
        return self._one("uuid = ?", uuid)

    def _one(self, where: str, value: int | str) -> VolumeSet | None:
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM volume_sets WHERE {where}", (value,)):
            return _set(row)
        return None

    def all(self) -> list[VolumeSet]:
        """Every set, the oldest first."""
        return [_set(row) for row in self._db.execute(
            f"SELECT {_COLUMNS} FROM volume_sets ORDER BY id"
        )]  # fmt: skip

    def unfinished(self) -> list[VolumeSet]:
        """Sets that are open or closing, the oldest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM volume_sets WHERE state < ? ORDER BY id",
            (int(SetState.CLOSED),),
        )
        return [_set(row) for row in rows]

    def discs(self, set_id: SetId) -> list[Volume]:
        """The set's discs by index, as they are now."""
        rows = self._db.execute(
            "SELECT id FROM volumes WHERE set_id = ? ORDER BY set_index", (set_id,)
        ).fetchall()
        found = [self._volumes.get(VolumeId(volume)) for (volume,) in rows]
        return [volume for volume in found if volume is not None]

    def of(self, volume: VolumeId) -> VolumeSet | None:
        """The set that the disc belongs to, or None."""
        for row in self._db.execute(
            f"SELECT {_COLUMNS} FROM volume_sets WHERE id ="
            " (SELECT set_id FROM volumes WHERE id = ?)",
            (volume,),
        ):
            return _set(row)
        return None

    def add(
        self, k: int, m: int, copy_no: int, magazine: int | None, now_ns: int, vault: str = ""
    ) -> VolumeSet:
        """A new open set of k data and m parity discs; its name is its number."""
        # A catalog that was made from discs has names that are not the numbers of their rows.
        for (number,) in self._db.execute(
            "SELECT max(coalesce(max(id), 0), coalesce(max(CAST(substr(name, 4) AS INTEGER)), 0))"
            " + 1 FROM volume_sets"
        ):
            self._db.execute(
                "INSERT INTO volume_sets"
                " (id, name, uuid, k, m, copy_no, magazine, created_ns, vault)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (number, f"SET{number:05d}", str(uuid.uuid4()), k, m, copy_no, magazine, now_ns,
                 vault),
            )
        made = self.get(SetId(self._db.last_insert_rowid()))
        assert made is not None
        return made

    def take_over(
        self, name: str, uuid: str, k: int, m: int, copy_no: int, created_ns: int
    ) -> VolumeSet:
        """A set that another catalog closed; its name gets a mark, as ours count from 1 too."""
        self._db.execute(
            "INSERT INTO volume_sets (name, uuid, k, m, copy_no, state, created_ns, closed_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?7, ?7)",
            (f"{name}-{uuid[:8]}", uuid, k, m, copy_no, int(SetState.CLOSED), created_ns),
        )
        made = self.get(SetId(self._db.last_insert_rowid()))
        assert made is not None
        return made

    def add_lost(
        self,
        set_id: SetId,
        index: int,
        uuid: str | None,
        barcode: str,
        capacity: int,
        now_ns: int,
        *,
        ours: bool = False,
    ) -> VolumeId:
        """A member that nobody has seen, known by the set's parity: lost, so that it can be made.

        A barcode that another disc bears gets a mark; with ours a row that knows of no burn there
        is older than the burn, and is taken. uuid: None if it is not known.
        """
        row = self._volumes.by_barcode(barcode)
        if row is not None and ours and row.state in (VolumeState.BLANK, VolumeState.BURNING):
            volume = row.id
        else:
            mark = (uuid or f"{set_id}")[:8]
            name = barcode if row is None else f"{barcode}-{mark}"
            volume = self._volumes.add(name, capacity, now_ns)
            self._volumes.set_inside(volume, barcode if row is not None else None)
        self._db.execute(
            "UPDATE volumes SET uuid = ?, state = ?, reason = ?, former = ? WHERE id = ?",
            (uuid, int(VolumeState.LOST), UNSEEN, int(VolumeState.SUSPECT), volume),
        )
        self.join(volume, set_id, index)
        return volume

    def set_state(self, set_id: SetId, state: SetState) -> None:
        """Raises ValueError if states.SET_TRANSITIONS does not allow it."""
        old = self.get(set_id)
        assert old is not None
        check(SET_TRANSITIONS, old.state, state)
        self._db.execute("UPDATE volume_sets SET state = ? WHERE id = ?", (int(state), set_id))

    def close(self, set_id: SetId, root_hash: str | None, now_ns: int) -> None:
        """All discs of the set are verified: the parity in the spool is not needed any more."""
        self.set_state(set_id, SetState.CLOSED)
        self._db.execute(
            "UPDATE volume_sets SET closed_ns = ?, root_hash = ? WHERE id = ?",
            (now_ns, root_hash, set_id),
        )
        self._db.execute("UPDATE set_parity SET file = '' WHERE set_id = ?", (set_id,))

    def remove(self, set_id: SetId) -> None:
        """Forget a set that has no disc."""
        self._db.execute("DELETE FROM volume_sets WHERE id = ?", (set_id,))
        self._db.execute("DELETE FROM set_parity WHERE set_id = ?", (set_id,))

    @property
    def archive(self) -> str | None:
        """The uuid that all discs of this archive bear; None in catalogs of before that."""
        found: str | None = self._db.execute("SELECT value FROM meta WHERE key = 'archive'").get
        return found

    def last_root(self) -> str | None:
        """The root hash of the set that was closed last."""
        for (root,) in self._db.execute(
            "SELECT root_hash FROM volume_sets WHERE root_hash IS NOT NULL"
            " ORDER BY closed_ns DESC, id DESC LIMIT 1"
        ):
            return str(root)
        return None

    # Places

    def join(self, volume: VolumeId, set_id: SetId, index: int) -> None:
        """The disc has that place in the set, and is to be kept where the set is."""
        self._db.execute(
            "UPDATE volumes SET set_id = ?1, set_index = ?2,"
            " vault = (SELECT vault FROM volume_sets WHERE id = ?1) WHERE id = ?3",
            (set_id, index, volume),
        )

    def one_a_place(self) -> None:
        """Of several discs in one place of a set the last that was made has it.

        A disc that was made anew may lie beside the one that it replaced, as like as two eggs.
        """
        rank = (
            f"(({{0}}.state NOT IN ({int(VolumeState.LOST)}, {int(VolumeState.RETIRED)})),"
            " {0}.inside IS NOT NULL, coalesce({0}.burned_ns, 0), {0}.barcode)"
        )
        self._db.execute(
            "UPDATE volumes SET set_id = NULL, set_index = NULL, vault = ''"
            " WHERE set_id IS NOT NULL AND EXISTS (SELECT 1 FROM volumes o"
            " WHERE o.set_id = volumes.set_id AND o.set_index = volumes.set_index"
            f" AND {rank.format('o')} > {rank.format('volumes')})"
        )

    def leave(self, volume: VolumeId) -> None:
        """The disc is in no set any more."""
        self._db.execute(
            "UPDATE volumes SET set_id = NULL, set_index = NULL, vault = '' WHERE id = ?", (volume,)
        )

    def replace_disc(self, old: VolumeId, new: VolumeId, reason: str) -> None:
        """The disc `new` holds the image of `old`: the two rows change their media.

        The row `old`, to which all copies point, gets the new disc's barcode and health and is as
        `new` was left by `Volumes.close`; the row `new` becomes the old medium, retired or lost.
        """
        one, two = self._volumes.get(old), self._volumes.get(new)
        assert one is not None and two is not None
        inside = one.inside or one.barcode
        # The rows change their discs: what the old one did in drives says nothing of the new one.
        self._db.execute("UPDATE pairs SET apart = 0 WHERE volume IN (?, ?)", (old, new))
        gone = VolumeState.LOST if one.state is VolumeState.LOST else VolumeState.RETIRED
        self._db.execute("UPDATE volumes SET barcode = ? WHERE id = ?", (f"\0{one.barcode}", old))
        self._db.execute(
            "UPDATE volumes SET barcode = ?, state = ?, reason = ?, location = ?, capacity = ?,"
            " loads = ?, read_errors = ?, write_errors = ?, element = ?, former = ?, burned_ns = ?,"
            " verified_ns = ?, written_by = ?, set_id = NULL, set_index = NULL WHERE id = ?",
            (one.barcode, int(gone), reason, one.location, one.capacity, one.loads,
             one.read_errors, one.write_errors, one.element,
             int(VolumeState.RETIRED) if gone is VolumeState.LOST else None, one.burned_ns,
             one.verified_ns, one.written_by, new),
        )  # fmt: skip
        self._db.execute(
            "UPDATE volumes SET barcode = ?, state = ?, reason = '', location = ?, capacity = ?,"
            " loads = ?, read_errors = ?, write_errors = ?, element = ?, former = NULL,"
            " burned_ns = ?, verified_ns = ?, written_by = ?, inside = ? WHERE id = ?",
            (two.barcode, int(two.state), two.location, two.capacity, two.loads,
             two.read_errors, two.write_errors, two.element, two.burned_ns, two.verified_ns,
             two.written_by, inside if inside != two.barcode else None, old),
        )  # fmt: skip

    def replace_parity(self, old: VolumeId, new: VolumeId, reason: str) -> None:
        """The burned disc `new` is the set's parity disc in the place of `old`."""
        gone = self._volumes.get(old)
        assert gone is not None and gone.set_id is not None and gone.set_index is not None
        self.leave(old)
        self.join(new, gone.set_id, gone.set_index)
        if gone.state is VolumeState.LOST:
            self._db.execute(
                "UPDATE volumes SET former = ?, reason = ? WHERE id = ?",
                (int(VolumeState.RETIRED), reason, old),
            )
        else:
            self._volumes.set_state(old, VolumeState.RETIRED, reason)

    def heal(self, volume: VolumeId, limit: int) -> int:
        """Damaged parts on a disc that was made anew are valid again; how many of at most limit."""
        self._db.execute(
            "UPDATE copies SET state = ? WHERE id IN"
            " (SELECT id FROM copies WHERE volume = ? AND state = ? LIMIT ?)",
            (int(CopyState.VALID), volume, int(CopyState.DAMAGED), limit),
        )
        return int(self._db.changes())

    # Parity in the spool

    def parity(self, set_id: SetId) -> dict[int, SpooledRow]:
        """The rows that were begun, by number."""
        rows = self._db.execute(
            "SELECT row, file, size, sha256, folded FROM set_parity WHERE set_id = ?", (set_id,)
        )
        return {row[0]: SpooledRow(*row) for row in rows}

    def set_parity(self, set_id: SetId, row: SpooledRow) -> None:
        """This is now the row; the file that it names is complete and durable."""
        self._db.execute(
            "INSERT OR REPLACE INTO set_parity VALUES (?, ?, ?, ?, ?, ?)",
            (set_id, row.row, row.file, row.size, row.sha256, row.folded),
        )

    def forget_parity(self, set_id: SetId) -> None:
        """The rows in the spool are gone or wrong: they are made anew."""
        self._db.execute("DELETE FROM set_parity WHERE set_id = ?", (set_id,))

    def spooled(self) -> set[str]:
        """Names in the spool that are still needed: parity, and images made anew."""
        return {
            name
            for (name,) in self._db.execute(
                "SELECT file FROM set_parity UNION SELECT image FROM rebuilds"
            )
            if name
        }

    # Discs made anew

    def rebuilds(self) -> list[Rebuild]:
        """What is under way or was cut off, the oldest first."""
        rows = self._db.execute(
            "SELECT volume, blank, image, started_ns, error FROM rebuilds ORDER BY started_ns"
        )
        return [Rebuild(*row) for row in rows]

    def rebuild(self, volume: VolumeId) -> Rebuild | None:
        """The rebuild of a disc, or None."""
        return next((r for r in self.rebuilds() if r.volume == volume), None)

    def put_rebuild(self, rebuild: Rebuild) -> None:
        """Begin a rebuild, or take its next step."""
        self._db.execute(
            "INSERT OR REPLACE INTO rebuilds VALUES (?, ?, ?, ?, ?)",
            (rebuild.volume, rebuild.blank, rebuild.image, rebuild.started_ns, rebuild.error),
        )

    def end_rebuild(self, volume: VolumeId) -> None:
        """It is done or was given up."""
        self._db.execute("DELETE FROM rebuilds WHERE volume = ?", (volume,))
