"""The configuration: /etc/hsmfs/hsmfs.toml as frozen models.

Unknown keys are refused, every fault is named with its line, and nothing is read from the
environment. `hsmfs.example.toml` explains each key; a test keeps it and these models together.
Sizes are bytes, durations seconds, rates bytes a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hsmfs import limits, places, tomlfile
from hsmfs.errors import ConfigError
from hsmfs.unit_types import Duration, Rate, Size
from hsmfs.units import format_size

EXAMPLE = "hsmfs.example.toml"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"'{path}' must be an absolute path")
    return path


def _always_verify(value: object) -> object:
    if value is not True:
        raise ValueError(
            "reading back after a burn cannot be switched off: a copy counts only when its bytes "
            "were read from the disc and compared, and a release trusts nothing less"
        )
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


RoleName = Literal["viewer", "operator", "auditor", "admin"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DaemonConfig(_Table):
    """Where the daemon keeps and offers things."""

    mountpoint: AbsolutePath
    state: AbsolutePath = Path("/var/lib/hsmfs")
    socket: AbsolutePath = places.SOCKET
    socket_group: Name | None = None
    socket_role: RoleName = "admin"
    """Of those who are let in by socket_group; root is always admin."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["logfmt", "json"] = "logfmt"
    allow_other: bool = True


class PoolConfig(_Table):
    """A directory that holds resident bytes."""

    name: Name
    path: AbsolutePath
    tier: Literal["fast", "disk"] = "disk"
    capacity: Annotated[Size, Field(gt=0)] | None = None
    """None: as large as its filesystem."""
    high: Annotated[int, Field(ge=1, le=100)] = 90
    """Percent of the capacity above which files are released (fast tier: demoted)."""
    low: Annotated[int, Field(ge=0, le=99)] = 80


class FsConfig(_Table):
    """How the mount behaves."""

    head: Annotated[Size, Field(le=2**30)] = 64 * 1024
    entry_timeout: Duration = 300.0
    attr_timeout: Duration = 300.0
    wait_limit: Annotated[Duration, Field(gt=0)] = 900.0
    max_waiters: Annotated[int, Field(ge=1, le=limits.WAITERS)] = limits.WAITERS
    nfs_wait: Annotated[Duration, Field(ge=0, le=20)] = 2.0
    """So long a thread of nfsd waits for a disc before the client must ask again."""
    guests: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (65534,)
    """Users who are nobody in particular: they give no orders by control xattrs."""
    migrated_open: Literal["direct", "buffered"] = "direct"
    read_ahead: Annotated[Size, Field(ge=4096, le=2**26)] = limits.READ_AHEAD_BYTES
    sync_interval: Annotated[Duration, Field(ge=0.1, le=60)] = 1.0


class RecallConfig(_Table):
    """Recalls: of what is not in the library, and how much of it may be ordered at once."""

    shelf_wait: Annotated[Duration, Field(ge=0)] = 60.0
    """So long a reader waits for a disc that an operator must bring; then it gets an error."""
    budget_exchanges: Annotated[int, Field(ge=0)] = 50
    """Discs that one `hsmctl recall` may have fetched without --over-budget; 0: any number."""
    budget_bytes: Size = 10**12
    """Bytes that it may bring in; 0: any number."""


class PrefetchConfig(_Table):
    """Files brought in before they are read: see docs/prefetch.md."""

    share: Annotated[int, Field(ge=0, le=100)] = 10
    """Percent of a pool that they may fill; 0: nothing is brought in beforehand."""
    siblings: Literal["off", "study", "folder"] = "study"
    """What is brought in beside a file that a reader wants, from the same disc."""
    siblings_size: Size = 2 * 10**9
    """Bytes of it, beside one file."""
    worklist: AbsolutePath | None = None
    """Folder into which lists are put; None: none is watched."""


class GuardConfig(_Table):
    """The storm guard; its rules are changed with `hsmctl guard`."""

    mode: Literal["on", "learn", "off"] = "on"
    """Until an admin says otherwise with `hsmctl guard mode`."""
    slow_discs: Annotated[int, Field(ge=1, le=100_000)] = 12
    """Discs that the slow lane may fetch in an hour."""


class TrashConfig(_Table):
    """How long a deleted file can be had back."""

    keep: Duration = 7 * 86_400.0
    alarm: Annotated[int, Field(ge=0)] = 10_000
    """Deletions, replacements and overwrites of archived files in a minute; 0: never."""
    freeze: bool = False
    """An alarm stops the trash from being emptied, until 'hsmctl trash thaw'."""


class VersionsConfig(_Table):
    """Older versions: which a disc must not be retired with, and which are kept without a disc."""

    keep_for: Duration | None = None
    """So long after they were overwritten; None: as long as the trash."""
    keep_last: Annotated[int, Field(ge=0, le=1000)] = 0
    """And so many of each file, however old."""
    keep_unarchived: Size = 64 * 2**20
    """Largest file that is copied before it is changed in place if no disc has it; 0: never."""
    settle: Duration = 600.0
    """It must have lain still for so long."""
    keep_share: Annotated[int, Field(ge=0, le=100)] = 10
    """Percent of a pool that such old bytes may fill."""


class SnapshotsConfig(_Table):
    """The folder through which users see the tree as it was: see docs/undelete.md."""

    name: Annotated[str, Field(pattern=r"^(\.?[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?$")] = ".snapshots"
    """In the mount's root; empty: there is none."""
    listed: bool = False
    """Whether a listing of the root names it."""
    hourly: Annotated[int, Field(ge=0, le=10_000)] = 24
    """Whole hours that it lists, as far as the trash reaches."""
    daily: Annotated[int, Field(ge=0, le=10_000)] = 31
    """And whole days (UTC)."""


class LibraryConfig(_Table):
    """The robot, its drives and its discs."""

    kind: Literal["simulated", "scsi"]
    path: AbsolutePath | None = None
    """Simulated: its folder."""
    changer: str = ""
    """SCSI, as all keys of this kind: see `library.scsi.config`."""
    drive_devices: tuple[str, ...] = ()
    burner: Literal["growisofs", "xorriso"] = "growisofs"
    barcodes: bool = True
    """False: the changer reads none; see `library.labels`."""
    drives: Annotated[int, Field(ge=1, le=limits.DRIVES)] = 3
    magazines: Annotated[int, Field(ge=1, le=4096)] = 28
    slots_per_magazine: Annotated[int, Field(ge=1, le=limits.MAGAZINE_SLOTS)] = 12
    import_export: Annotated[int, Field(ge=0, le=limits.MAGAZINE_SLOTS)] = 12
    drives_per_magazine: Annotated[int, Field(ge=0, le=limits.DRIVES)] = 0
    """0: discs move singly. Else magazines move whole, each into a unit of so many drives."""
    arms: Annotated[int, Field(ge=1, le=15)] = 1
    disc: Annotated[Size, Field(ge=2**20)] = 300 * 10**9
    exchange: Duration = 60.0
    load: Duration = 20.0
    seek: Duration = 0.2
    read_rate: Rate = 60 * 10**6
    write_rate: Rate = 60 * 10**6

    @property
    def units(self) -> int:
        """What takes a disc, or a magazine where these move whole."""
        return self.drives // (self.drives_per_magazine or 1)


class EngineConfig(_Table):
    """Migration, recall and release."""

    spool: AbsolutePath = Path("/var/lib/hsmfs/spool")
    spool_limit: Annotated[Size, Field(gt=0)] = 1200 * 10**9
    policies: AbsolutePath | None = None
    copies: Annotated[int, Field(ge=1, le=limits.COPIES)] = 1
    compression: Annotated[int, Field(ge=0, le=19)] = 3
    """The zstd level; 0 stores all files plain."""
    burn_wait: Duration = 86_400.0
    recall_drives: Annotated[int, Field(ge=0)] | None = None
    """Drives that never burn; None: one if there are two or more."""
    run_cap: Annotated[Duration, Field(gt=0)] = 600.0
    min_residence: Duration = 600.0
    recall_retries: Annotated[int, Field(ge=0, le=100)] = 3
    recall_retry_wait: Duration = 10.0
    verify: Annotated[Literal[True], BeforeValidator(_always_verify)] = True


class ScheduleConfig(_Table):
    """Who gets the drives: see docs/scheduler.md."""

    interactive_age_limit: Annotated[Duration, Field(gt=0)] = 900.0
    standard_deadline: Duration = 900.0
    standard_share: Annotated[int, Field(ge=0, le=100)] = 20
    """Percent of the drives, as bulk_share."""
    standard_age_limit: Annotated[Duration, Field(gt=0)] = 7200.0
    bulk_deadline: Duration = 4 * 3600.0
    bulk_share: Annotated[int, Field(ge=0, le=100)] = 10
    bulk_age_limit: Annotated[Duration, Field(gt=0)] = 3 * 86_400.0
    quiet: Duration = 0.5
    quiet_limit: Duration = 30.0
    quiet_bytes: Size = 10**9
    quiet_count: Annotated[int, Field(ge=1)] = 100
    earn: Size | None = None
    """None: what a drive reads in the time that it takes to load a disc."""
    spare: Annotated[int, Field(ge=0, le=limits.DRIVES)] | None = None
    """None: one for each nine drives."""
    spare_for: Duration = 3600.0
    keep: Duration = 120.0
    calm: Duration = 10.0
    half_life: Annotated[Duration, Field(gt=0)] = 3600.0


class SetsConfig(_Table):
    """Discs that stand up for each other. Without this table each disc is a set of its own."""

    parity: Literal["raid0", "raid5", "raid6"] = "raid6"
    discs: Annotated[int, Field(ge=1, le=limits.SET_DISCS)] = 12
    """Of a set, parity discs among them."""
    close_wait: Duration = 7 * 86_400.0
    release_needs: Literal["copies", "parity"] = "parity"

    @property
    def m(self) -> int:
        """Parity discs of a set."""
        return {"raid0": 0, "raid5": 1, "raid6": 2}[self.parity]

    @property
    def k(self) -> int:
        """Data discs of a set."""
        return self.discs - self.m


class CatalogConfig(_Table):
    """Copies of the catalog that outlive it."""

    snapshot_every: Annotated[int, Field(ge=1, le=1000)] = 10
    """Discs: each that many carry a snapshot, and every disc if the catalog is small."""
    backup: AbsolutePath | None = None
    """Folder for backups, best on another host; None: no automatic ones."""
    backup_interval: Annotated[Duration, Field(ge=60)] = 3600.0
    backup_keep: Annotated[int, Field(ge=1, le=10_000)] = 48


class ScrubConfig(_Table):
    """Reading discs again before they are needed, and replacing those that fail."""

    interval: Duration = 365 * 86_400.0
    """0: only when it is asked for."""
    share: Annotated[int, Field(ge=1, le=100)] = 100
    """Percent of a disc that is read."""
    drives: Annotated[int, Field(ge=1, le=limits.DRIVES)] = 1
    """Drives that test discs at once, at most."""
    rate: Rate | None = None
    """None: as fast as the drive reads."""
    replace: bool = True
    """A disc that failed its test is made anew, or its files are put on other discs."""
    repack_below: Annotated[int, Field(ge=0, le=100)] = 0
    """Percent of living bytes below which a disc is repacked; 0: never by itself."""


_ADDRESS = r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{1,5}$"


class AccessConfig(_Table):
    """The API over TCP: see docs/access.md."""

    listen: Annotated[str, Field(pattern=_ADDRESS)] | None = None
    """ADDRESS:PORT; None: only the Unix socket."""
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    client_ca: AbsolutePath | None = None
    """None: no client certificates, only tokens."""
    certificates: dict[str, RoleName] = {}
    """Role by common name of client certificates."""
    rate: Annotated[float, Field(gt=0)] = 50.0
    """Requests a second of one token or certificate."""
    failures: Annotated[int, Field(ge=1)] = 6
    """Failed logins a minute from one address."""
    two_person: bool = False
    approval_time: Annotated[Duration, Field(gt=0)] = 86_400.0


class TraceConfig(_Table):
    """Recording what is asked of the discs, for `hsmctl simulate`."""

    file: AbsolutePath | None = None
    """None: only while an admin says so with `hsmctl trace start`."""
    size: Annotated[Size, Field(ge=2**16)] = 100 * 10**6
    """Bytes above which the file is turned over."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 5
    """Older files."""


class AuditConfig(_Table):
    """Where audit records go besides the catalog and the discs."""

    syslog: Annotated[str, Field(pattern=r"^(udp|tcp|tls)://[^/\s]+$")] | None = None
    """None: nowhere."""


class SealConfig(_Table):
    """What `hsmctl` signs with: docs/sealing.md. The daemon reads none of these files."""

    key: AbsolutePath | None = None
    """Private Ed25519 key, PEM; None: each command must be told."""
    certificate: AbsolutePath | None = None
    """The key's; None: the bare public key is given out."""
    tsa: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """RFC 3161 authority that is asked for timestamps; None: none is."""
    tsa_ca: AbsolutePath | None = None
    """Its certificate, PEM, by which timestamps are checked."""


class Config(_Table):
    """The whole file."""

    daemon: DaemonConfig
    pool: Annotated[tuple[PoolConfig, ...], Field(max_length=limits.POOLS)]
    fs: FsConfig = FsConfig()
    trash: TrashConfig = TrashConfig()
    versions: VersionsConfig = VersionsConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    recall: RecallConfig = RecallConfig()
    prefetch: PrefetchConfig = PrefetchConfig()
    guard: GuardConfig = GuardConfig()
    library: LibraryConfig
    engine: EngineConfig = EngineConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    catalog: CatalogConfig = CatalogConfig()
    scrub: ScrubConfig = ScrubConfig()
    audit: AuditConfig = AuditConfig()
    access: AccessConfig = AccessConfig()
    trace: TraceConfig = TraceConfig()
    seal: SealConfig = SealConfig()
    sets: SetsConfig | None = None

    @property
    def parity_discs(self) -> int:
        """Parity discs of each set."""
        return self.sets.m if self.sets is not None else 0

    def parity_spool(self, sets: int) -> int:
        """Bytes of the spool for the parity of so many sets that are filled at once.

        Each has its rows there until they are burned, and one more row is made beside an old one.
        """
        m = self.parity_discs
        return (m * sets + 1) * self.library.disc if m else 0

    @property
    def recall_drives(self) -> int:
        """Drives kept for recalls, or units of them, with the default worked out."""
        if self.engine.recall_drives is not None:
            return self.engine.recall_drives
        return 1 if self.library.units > 1 else 0


def load(path: Path = places.CONFIG) -> Config:
    """Read the configuration; raises ConfigError with file, line, key and cause of each fault."""
    return tomlfile.load(path, Config, _faults, error=ConfigError)


def loads(text: str, name: str = "configuration") -> Config:
    """As `load`, for text that is called `name` in messages."""
    return tomlfile.loads(text, Config, _faults, name=name, error=ConfigError)


def example() -> str:
    """A configuration with every key explained and every default shown."""
    return resources.files("hsmfs").joinpath(EXAMPLE).read_text(encoding="utf-8")


def _faults(config: Config) -> Iterator[tuple[tomlfile.Loc, str]]:
    """What no single key can know: names used twice, folders in each other, impossible sums."""
    if not config.pool:
        yield ("pool",), "at least one [[pool]] is needed"
    seen: set[str] = set()
    for index, pool in enumerate(config.pool):
        if pool.low >= pool.high:
            yield ("pool", index, "low"), f"{pool.low} must be below high = {pool.high}"
        if pool.name in seen:
            yield ("pool", index, "name"), f"{pool.name!r} is used twice"
        seen.add(pool.name)
    yield from _nested_folders(config)
    if config.access.listen and not (config.access.certificate and config.access.key):
        yield ("access", "listen"), "needs certificate and key: the API speaks only TLS over TCP"
    if config.access.certificates and config.access.client_ca is None:
        yield ("access", "certificates"), "needs client_ca, which vouches for them"
    engine, library = config.engine, config.library
    sets = config.sets
    if sets is not None and sets.k < 1:
        yield ("sets", "discs"), f"{sets.discs} leave no data disc beside {sets.m} of parity"
    parity = config.parity_spool(engine.copies)
    if engine.spool_limit < library.disc + parity:
        disc = format_size(library.disc)
        what = f"must hold at least one disc's image ({disc})"
        if parity:
            what += f" and {format_size(parity)} for parity"
        yield ("engine", "spool_limit"), what
    if config.recall_drives >= library.units and library.units > 0 and config.recall_drives:
        what = "units of drives" if library.drives_per_magazine else "drives"
        yield (
            ("engine", "recall_drives"),
            f"{config.recall_drives} of {library.units} {what} leaves none to burn",
        )
    yield from _whole_magazines(library)
    if library.arms > 1 and (library.kind == "scsi" or not library.barcodes):
        what = "a SCSI library" if library.kind == "scsi" else "a changer without barcodes"
        yield ("library", "arms"), f"must be 1: {what} makes one move at a time"
    if library.kind == "simulated" and library.path is None:
        yield ("library", "path"), "a simulated library needs its folder"
    if len(library.drive_devices) > library.drives:
        yield (
            ("library", "drive_devices"),
            f"{len(library.drive_devices)} for {library.drives} drives",
        )
    slots = library.magazines * library.slots_per_magazine + library.import_export
    if slots + library.drives + 1 > limits.LIBRARY_SLOTS:
        yield ("library", "magazines"), f"{slots} slots: a changer names {limits.LIBRARY_SLOTS}"


def _whole_magazines(library: LibraryConfig) -> Iterator[tuple[tomlfile.Loc, str]]:
    group = library.drives_per_magazine
    if not group:
        return
    where = ("library", "drives_per_magazine")
    if library.kind == "scsi":
        yield where, "SMC-3 has no element for a magazine: a SCSI library moves discs singly"
    if library.drives % group:
        yield where, f"{library.drives} drives make no units of {group}"
    if not library.barcodes:
        yield ("library", "barcodes"), "must be true where magazines move whole"
    if library.import_export and "import_export" in library.model_fields_set:
        yield ("library", "import_export"), "must be 0 where magazines move whole"


def _nested_folders(config: Config) -> Iterator[tuple[tomlfile.Loc, str]]:
    """Our own folders must not lie under the mount (a deadlock), nor a pool in another one."""
    mountpoint = config.daemon.mountpoint
    pools: list[tuple[tomlfile.Loc, Path]] = [
        (("pool", index, "path"), pool.path) for index, pool in enumerate(config.pool)
    ]
    others: list[tuple[tomlfile.Loc, Path]] = [
        (("daemon", "state"), config.daemon.state),
        (("daemon", "socket"), config.daemon.socket),
        (("engine", "spool"), config.engine.spool),
    ]
    if config.library.path is not None:
        others.append((("library", "path"), config.library.path))
    for where, path in pools + others:
        if path.is_relative_to(mountpoint):
            yield where, f"{path} must not lie under the mountpoint {mountpoint}"
    for where, path in pools:
        for other_where, other in pools:
            if where != other_where and path.is_relative_to(other):
                yield where, f"{path} must not lie in another pool, {other}"


def fields(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a table by key; required keys are left out. For docs and tests."""
    return {
        name: field.default
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
