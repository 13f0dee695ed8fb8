"""A small reader of ISO 9660 (ECMA-119) level 3 with Rock Ridge (SUSP 1.12, RRIP 1.12).

It reads only what hsmfs needs of a single closed session, through a function that gives whole
sectors, so that an image and a drive are the same to it. Sizes are bytes, places are 2048-byte
sectors.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hsmfs.errors import ForeignDisc
from hsmfs.types import SECTOR

ReadAt = Callable[[int, int], bytes]
"""(first sector, count) -> count * 2048 bytes."""

_BATCH = 512
_DIRECTORY, _MULTI_EXTENT = 0x02, 0x80


@dataclass(frozen=True, slots=True)
class Entry:
    """One name on a disc; path is relative to the root, bytes."""

    path: bytes
    mode: int
    """st_mode, from Rock Ridge PX."""
    uid: int
    gid: int
    nlink: int
    ino: int
    sector: int
    size: int
    target: bytes = b""
    record: int = 0
    """Byte of the disc at which its directory record begins."""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Iso:
    """An opened filesystem.

    sectors is how many the medium really has, if known. Raises ForeignDisc if there is no ISO 9660
    filesystem or it is cut off, and whatever read_at raises.
    """

    def __init__(self, read_at: ReadAt, sectors: int | None = None) -> None:
        self._read_at = read_at
        if sectors is not None and sectors < 17:
            raise ForeignDisc(f"only {sectors} sectors: no ISO 9660 filesystem has room in that")
        pvd = self.read_sectors(16, 1)
        if pvd[:6] != b"\x01CD001":
            raise ForeignDisc("no ISO 9660 primary volume descriptor in sector 16")
        if struct.unpack_from("<H", pvd, 128)[0] != SECTOR:
            raise ForeignDisc("the disc's logical blocks are not 2048 bytes")
        self.volume_id = pvd[40:72].rstrip(b" \0").decode("ascii", "replace")
        self.sectors: int = struct.unpack_from("<I", pvd, 80)[0]
        """Sectors that the filesystem says it has (volume space size)."""
        if sectors is not None and sectors < self.sectors:
            raise ForeignDisc(f"the disc is cut off: {sectors} of {self.sectors} sectors are there")
        self.root: tuple[int, int] = struct.unpack_from("<I4xI", pvd, 156 + 2)
        """First sector and bytes of the root folder."""

    def walk(self) -> Iterator[Entry]:
        """Every name but the root, folders before what is in them. Raises ForeignDisc."""
        pending = [(b"", *self.root)]
        seen = set()
        while pending:
            prefix, sector, size = pending.pop()
            if sector in seen:
                raise ForeignDisc(f"the folder in sector {sector} contains itself")
            seen.add(sector)
            for entry in self._folder(prefix, sector, size):
                yield entry
                if entry.is_dir:
                    pending.append((entry.path + b"/", entry.sector, entry.size))

    def find(self, path: bytes) -> Entry | None:
        """The entry of a path relative to the root, or None. Raises ForeignDisc."""
        sector, size = self.root
        prefix, found = b"", None
        for name in path.split(b"/"):
            if found is not None and not found.is_dir:
                return None
            wanted = prefix + name
            found = next((e for e in self._folder(prefix, sector, size) if e.path == wanted), None)
            if found is None:
                return None
            prefix, sector, size = wanted + b"/", found.sector, found.size
        return found

    def read(self, entry: Entry) -> bytes:
        """All bytes of a file: for the small ones that describe the disc."""
        count = -(-entry.size // SECTOR)
        pieces = [
            self.read_sectors(entry.sector + at, min(_BATCH, count - at))
            for at in range(0, count, _BATCH)
        ]
        return b"".join(pieces)[: entry.size]

    def read_sectors(self, sector: int, count: int) -> bytes:
        """Whole sectors. Raises ForeignDisc if the disc ends before."""
        data = self._read_at(sector, count)
        if len(data) != count * SECTOR:
            raise ForeignDisc(f"the disc ends before sector {sector + count}")
        return data

    def _folder(self, prefix: bytes, sector: int, size: int) -> Iterator[Entry]:
        joined: Entry | None = None
        for at in range(0, -(-size // SECTOR), _BATCH):
            block = self.read_sectors(sector + at, min(_BATCH, -(-size // SECTOR) - at))
            for place, record in _records(block):
                entry = self.entry(prefix, record, (sector + at) * SECTOR + place)
                if joined is not None:
                    if entry.sector != joined.sector + -(-joined.size // SECTOR):
                        raise ForeignDisc(f"extents of {joined.path!r} are not in one piece")
                    entry = _longer(joined, entry.size)
                joined = entry if record[25] & _MULTI_EXTENT else None
                if joined is None and record[32:34] not in (b"\x01\x00", b"\x01\x01"):
                    yield entry

    def entry(self, prefix: bytes, record: bytes, place: int = 0) -> Entry:
        """A directory record, at byte place of the disc, with all its Rock Ridge fields."""
        extent, size = struct.unpack_from("<I4xI", record, 2)
        rock = _Rock()
        name_length = record[32]
        rock.take(record[33 + name_length + 1 - name_length % 2 :], self.read_sectors)
        mode = rock.mode or (stat.S_IFDIR if record[25] & _DIRECTORY else stat.S_IFREG)
        name = rock.name or record[33 : 33 + name_length].partition(b";")[0]
        return Entry(prefix + name, mode, *rock.owner, extent, size, rock.symlink(), place)


def _longer(entry: Entry, more: int) -> Entry:
    return Entry(
        entry.path,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.nlink,
        entry.ino,
        entry.sector,
        entry.size + more,
        entry.target,
        entry.record,
    )


def _records(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Directory records (ECMA-119 section 9.1) with their places in the block.

    None crosses a sector, zeros fill its rest.
    """
    at = 0
    while at < len(block):
        length = block[at]
        if length == 0:
            at += SECTOR - at % SECTOR
            continue
        record = block[at : at + length]
        if length < 34 or at % SECTOR + length > SECTOR or 33 + record[32] > length:
            raise ForeignDisc("a directory record is damaged")
        yield at, record
        at += length


class _Rock:
    """Rock Ridge fields of one directory record, following its continuation areas."""

    def __init__(self) -> None:
        self.name = b""
        self.mode = 0
        self.owner = (0, 0, 1, 0)
        """uid, gid, nlink, inode."""
        self._links: list[tuple[int, bytes]] = []

    def take(self, area: bytes, read: ReadAt) -> None:
        """Read the system use area (SUSP section 4), then where it continues (CE)."""
        for _ in range(64):
            after = None
            while len(area) >= 4 and area[2] >= 4:
                sign, data = area[:2], area[4 : area[2]]
                if sign == b"CE" and len(data) >= 24:
                    after = struct.unpack_from("<I4xI4xI", data)
                elif sign == b"ST":
                    break
                else:
                    self._field(sign, data)
                area = area[area[2] :]
            if after is None:
                return
            sector, offset, length = after
            area = read(sector, -(-(offset + length) // SECTOR))[offset : offset + length]
        raise ForeignDisc("the continuation areas of a name have no end")

    def _field(self, sign: bytes, data: bytes) -> None:
        if sign == b"NM" and not data[0] & 0x06:
            self.name += data[1:]
        elif sign == b"PX" and len(data) >= 32:
            mode, nlink, uid, gid = struct.unpack_from("<I4xI4xI4xI", data)
            self.mode = mode
            self.owner = (
                uid,
                gid,
                nlink,
                struct.unpack_from("<I", data, 32)[0] if len(data) >= 40 else 0,
            )
        elif sign == b"SL":
            rest = data[1:]
            while len(rest) >= 2:
                self._links.append((rest[0], rest[2 : 2 + rest[1]]))
                rest = rest[2 + rest[1] :]

    def symlink(self) -> bytes:
        """The target (RRIP section 4.1.3.1): components, a flag 1 joins one to the next."""
        target = b""
        for flags, text in self._links:
            target += {2: b".", 4: b"..", 8: b""}.get(flags & 0x0E, text)
            target += b"" if flags & 1 else b"/"
        return target[:-1] if len(target) > 1 and target.endswith(b"/") else target
