"""Bodies of the API's orders; answers are the views of the engine.

A path is given as text or, if its bytes are not UTF-8, as base64; one of the two is enough.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..limits import COPIES


class Body(BaseModel):
    """A JSON object without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PathRef(Body):
    """A path from the namespace's root."""

    path: str | None = None
    path_b64: str | None = None

    @model_validator(mode="after")
    def _one(self) -> PathRef:
        self.raw()
        return self

    def raw(self) -> bytes:
        """The path's bytes. Raises ValueError."""
        if self.path_b64 is not None:
            try:
                return base64.b64decode(self.path_b64, validate=True)
            except binascii.Error as fault:
                raise ValueError(f"path_b64 is not base64: {fault}") from fault
        if self.path is None:
            raise ValueError("path or path_b64 is needed")
        return self.path.encode("utf-8", "surrogateescape")


Paths = Annotated[list[PathRef], Field(min_length=1, max_length=100_000)]


class PathsOrder(Body):
    """An order about files; a folder stands for all files below it."""

    paths: Paths


class ArchiveOrder(PathsOrder):
    """Put files on discs. Without paths, but with `now`: burn what waits."""

    paths: Annotated[list[PathRef], Field(max_length=100_000)] = Field(default_factory=list)
    copies: Annotated[int, Field(ge=1, le=COPIES)] | None = None
    """None: what the policies or the configuration say."""
    now: bool = False
    """Burn what waits, also if the discs do not become full."""
    release: bool = False
    wait: bool = False
    vault: Annotated[str, Field(max_length=500)] | None = None
    """Where one of two or more copies is to be kept, on sets of its own; None: as policies say."""
    accept: bool = False
    """Files that are not what their client's checksum says go to discs as they are."""

    @model_validator(mode="after")
    def _some(self) -> ArchiveOrder:
        if not self.paths and (self.wait or not self.now):
            raise ValueError("paths are needed")
        return self


class RecallOrder(PathsOrder):
    """Bring files in from discs."""

    urgency: Literal["interactive", "standard", "bulk"] = "standard"
    wait: bool = False
    over_budget: bool = False
    """Also if it needs more than [recall] budget_exchanges or budget_bytes."""


class PrefetchOrder(Body):
    """Bring files in before they are read."""

    patients: list[str] = []
    """PatientID (0010,0020)."""
    studies: list[str] = []
    """StudyInstanceUID (0020,000D)."""
    paths: list[str] = []
    """From the namespace's root; a folder stands for all files below it."""


class ReleaseOrder(PathsOrder):
    """Give up bytes on disk."""

    even_open: bool = False
    """Files that somebody has open, too: who reads on waits for the disc."""


class PinOrder(PathsOrder):
    """Keep files on disk, or no longer."""

    pinned: bool = True


class FailOrder(Body):
    """End waits: those that match all that is given, or everyone's."""

    ino: int | None = None
    volume: str | None = None
    pid: int | None = None
    uid: int | None = None
    process: str | None = None
    client: str | None = None
    everyone: bool = False
    error: Literal["EIO", "EAGAIN", "EACCES", "ETIMEDOUT"] = "EIO"

    @model_validator(mode="after")
    def _some(self) -> FailOrder:
        given = (self.ino, self.volume, self.pid, self.uid, self.process, self.client)
        if not self.everyone and all(value is None for value in given):
            raise ValueError("say whose waits to end, or everyone = true")
        return self


class GuardRulesOrder(Body):
    """Put rules in force."""

    rules: Annotated[str, Field(max_length=1_000_000)] | None = None
    """TOML; None: those that come with hsmfs."""


class GuardModeOrder(Body):
    """Let the rules act, only report, or neither."""

    mode: Literal["on", "learn", "off"]


class GuardOutcomeOrder(Body):
    """Change what one rule does."""

    rule: str
    outcome: Literal["allow", "slow", "head", "eagain", "eacces"]


class MoveOrder(Body):
    """Move a disc to an element of the library."""

    barcode: str
    address: Annotated[int, Field(ge=0, le=65_535)]


class DriveOrder(Body):
    """Take a drive up or down."""

    state: Literal["up", "down"]
    reason: Annotated[str, Field(max_length=500)] = ""


class AdoptOrder(Body):
    """Take the tree in a folder of this machine into the namespace, or give it back."""

    source: PathRef
    target: PathRef | None = None
    link: bool = False
    """Share the files with the tree by hard links instead of moving them."""
    pool: str | None = None
    undo: bool = False


class RestoreOrder(Body):
    """Bring a deleted file back."""

    ino: int
    path: PathRef | None = None
    """None: where it was."""
    recursive: bool = False


class UndeleteOrder(PathsOrder):
    """Bring back what was deleted at or below paths."""

    since_ns: int = 0
    """Only what was deleted after that time."""
    dry_run: bool = False


class RollbackOrder(Body):
    """Take a tree back to a time."""

    path: PathRef
    to_ns: Annotated[int, Field(gt=0)]
    dry_run: bool = False


class VersionOrder(Body):
    """Bring an older version of a file back."""

    path: PathRef
    version: Annotated[str, Field(pattern=r"^\d{1,19}\.\d{1,19}$")]
    """As `/versions` names it."""
    to: PathRef | None = None
    """A new name for it; None: in the file's place."""


class FreezeOrder(Body):
    """Keep what is in the trash, or let it go on."""

    frozen: bool


class PolicyOrder(Body):
    """Run the policies now."""

    name: str | None = None
    """One of them; None: all."""
    dry_run: bool = False


class BackupOrder(Body):
    """Back the catalog up to a folder of this machine, or to a single file."""

    path: Annotated[str, Field(min_length=1)] | None = None
    """Absolute; None: the folder in the configuration."""
    file: bool = False
    """The path is to be one file."""
    keep: Annotated[int, Field(ge=1)] | None = None
    """Backups that stay in the folder; None: as the configuration says."""
    new_folder: bool = False
    """The folder may be empty although backups went there before."""


class TraceOrder(Body):
    """Record a trace."""

    file: Annotated[str, Field(min_length=1, pattern=r"^/")] | None = None
    """Absolute; None: the one in the configuration, or trace.jsonl in the state folder."""


class SampleOrder(Body):
    """Rehearse a rebuild with some discs."""

    discs: Annotated[int, Field(ge=1, le=1000)] = 3


class FsckOrder(Body):
    """Compare catalog, pools, discs and queues."""

    repair: bool = False
    deep: bool = False
    """Read archived files on disk and compare their checksums."""


class VerifyOrder(PathsOrder):
    """Compare files with the checksums of their ingest."""

    deep: bool = False
    """Read every copy on discs, too."""
    anew: bool = False
    """From the beginning, also if the same order was cut off within a day."""


class DiscsOrder(Body):
    """Discs by barcode, or all those of a set by its name."""

    discs: list[str] = []


class QuarantineOrder(DiscsOrder):
    """Spare discs: nothing is written to them, and they are read only if nothing else will do."""

    reason: Annotated[str, Field(max_length=500)] = ""
    """For the next admin; '': lift the quarantine."""


class ScrubOrder(DiscsOrder):
    """Test discs; none: all that hold something."""

    share: Annotated[int, Field(ge=1, le=100)] | None = None
    """Percent to read; None: as the configuration says."""


class ReplaceOrder(DiscsOrder):
    """Replace discs."""

    kind: Literal["refresh", "repack"]
    files: bool = False
    """Copy the files, also if the disc could be made anew from parity."""
