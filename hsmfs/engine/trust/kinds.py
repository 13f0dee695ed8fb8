"""Every kind of audit record, with what it says; docs/audit.md has the same table."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "admin.order": "an order to the API, before it is carried out: method, path and body",
    "admin.failed": "that order failed: its record, and why",
    "clock.started": "the compliance clock was set, once, from the wall clock",
    "clock.jumped": "the wall clock was set while the machine ran: by how many seconds",
    "clock.off": "the machine was off, or its clock was set before it started: by how many seconds",
    "daemon.started": "hsmfsd started",
    "daemon.stopped": "hsmfsd stopped cleanly",
    "disc.verified": "a disc was burned and read back: its root hash, files, and the SHA-256 "
    "of its image if it is known",
    "disc.moved": "the robot began to move a disc: from element, to element",
    "disc.retired": "a disc does not count any more: its files have copies on others",
    "file.deleted": "the last name of a file was taken away",
    "file.purged": "files were deleted for good: how many, and their inode numbers",
    "file.recalled": "somebody asked for bytes that are on discs",
    "file.released": "a file's bytes were given up on disk: its copies on discs are all there is",
    "hold.placed": "a legal hold was placed: the reason",
    "hold.added": "files came under a hold: their inode numbers",
    "hold.released": "a legal hold was released: the reason",
    "policy.loaded": "the policy file was read: its SHA-256",
    "rebuild.done": "the catalog was made again from discs; records after the one before are lost",
    "retention.folder": "a retention folder was made, or its settings changed",
    "retention.folder_dropped": "a retention folder is an ordinary one again",
    "retention.committed": "a file became a record: until when it is kept, mode, size",
    "retention.appendable": "an empty record takes bytes at its end from now on",
    "retention.extended": "a record is kept longer: until when",
    "retention.privileged_delete": "a record of enterprise mode was deleted by order: the reason",
    "retention.refused": "retention or a hold forbade an act: which, and why",
}
