"""Roles, and who somebody is: where they come from and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do. Each route of the API names the least role that it wants."""

    VIEWER = "viewer"
    """Sees files, discs, drives and queues; changes nothing."""
    OPERATOR = "operator"
    """Runs the archive: files to discs and back, the robot, discs in and out."""
    AUDITOR = "auditor"
    """Sees what a viewer sees, the audit log and legal holds; changes nothing."""
    ADMIN = "admin"
    """Everything: retention, holds, policies, tokens, deleting for good."""

    def covers(self, wanted: Role) -> bool:
        """True if this role may do what `wanted` may."""
        return wanted in _COVERS[self]


_COVERS = {
    Role.VIEWER: {Role.VIEWER},
    Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
    Role.AUDITOR: {Role.VIEWER, Role.AUDITOR},
    Role.ADMIN: set(Role),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as the kernel or TLS vouches for it."""

    uid: int = -1
    """Of the process on the Unix socket; -1: it came over TCP."""
    user: str = ""
    """The name of that user."""
    address: str = ""
    """Of the host, over TCP."""
    certificate: str = ""
    """Common name of a client certificate that was verified; '': none was shown."""

    @property
    def local(self) -> bool:
        """True for the Unix socket."""
        return self.uid >= 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who is known: `name` stands in the audit log and tells two persons apart."""

    name: str
    role: Role
    address: str = ""

    def __str__(self) -> str:
        return f"{self.name} at {self.address}" if self.address else self.name
