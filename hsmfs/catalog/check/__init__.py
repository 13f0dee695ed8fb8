"""fsck of the catalog: every invariant is a function of its own, named after what must hold.

Each looks at one snapshot in a thread and yields findings; repairs are carried out apart, in
batches of the write transaction. Looks at the catalog alone: pools and library are compared in
`engine/fsck.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import trio

from ... import crash
from ...errors import CatalogDamaged
from ...limits import BATCH_ROWS, BATCH_SECONDS
from ..catalog import Catalog
from . import copies, media, names, queues, ranges, rows, structure
from .finding import Check, Finding, Severity

__all__ = ["CHECKS", "FINDINGS_KEPT", "Check", "Finding", "Severity", "repair", "run"]

CHECKS: tuple[Check, ...] = (
    structure.file_is_sound,
    structure.indexes_hold_their_tables,
    structure.schema_is_expected,
    structure.root_is_a_folder,
    structure.counters_are_ahead,
    names.names_have_inodes,
    names.names_lie_in_folders,
    names.names_are_legal,
    names.folders_have_one_name,
    names.folders_are_reachable,
    names.inodes_have_names,
    names.link_counts_are_right,
    names.unlinked_are_in_the_trash,
    names.trash_holds_the_unlinked,
    rows.rows_have_inodes,
    rows.kept_versions_have_their_bytes,
    rows.locks_have_reasons,
    rows.copies_have_inodes,
    rows.digests_have_a_use,
    rows.digests_are_whole,
    rows.links_have_targets,
    rows.only_files_have_a_state,
    ranges.ranges_lie_in_the_file,
    ranges.ranges_do_not_touch,
    ranges.states_agree_with_ranges,
    ranges.premigrated_are_on_discs,
    ranges.absent_bytes_are_on_discs,
    ranges.base_versions_are_not_ahead,
    copies.copies_have_volumes,
    copies.valid_copies_are_on_burned_volumes,
    copies.pending_copies_have_a_burn,
    copies.copies_are_contiguous,
    copies.copies_end_with_the_version,
    copies.copies_are_told_apart,
    copies.copies_lie_on_the_disc,
    queues.recalls_have_something_to_bring,
    queues.migrations_are_of_this_version,
    queues.burns_agree_with_volumes,
    queues.burning_volumes_have_a_burn,
    queues.volumes_are_described,
    media.media_rows_have_volumes,
    media.exports_and_requests_are_of_exported,
    media.members_have_sets,
    media.members_agree_with_their_set,
    media.rebuilds_can_be_made,
    queues.moves_have_ended,
    queues.adoptions_have_ended,
)
FINDINGS_KEPT = 100_000
"""Findings of one check that are kept; a catalog with more is past repair one by one."""


async def run(
    catalog: Catalog, begun: Callable[[str], None] = lambda name: None, *, at_once: int = 1
) -> list[Finding]:
    """All findings, by check; begun is called with each check's name before it starts.

    A snapshot a check, so that a long fsck does not keep the WAL from being checkpointed.
    at_once: checks that run side by side, where nobody else needs the processors.
    """
    found: dict[str, list[Finding]] = {}
    todo = iter(CHECKS)

    async def work() -> None:
        for check in todo:
            name = check.__name__
            begun(name)
            try:
                found[name] = await catalog.read(
                    lambda reports, check=check: _bounded(check(reports.db))  # type: ignore[misc]
                )
            except CatalogDamaged as fault:
                found[name] = [Finding(name, Severity.ERROR, "catalog", fault.message)]

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work)
    return [finding for check in CHECKS for finding in found[check.__name__]]


def _bounded(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for _, finding in zip(range(FINDINGS_KEPT), findings, strict=False)]


async def repair(catalog: Catalog, findings: Iterable[Finding]) -> int:
    """Carry out the fixes, in batches; how many. Durable when this returns."""
    todo = [finding.fix for finding in findings if finding.fix is not None]
    done = 0
    while done < len(todo):
        async with catalog.write():
            until = time.monotonic() + BATCH_SECONDS
            for fix in todo[done : done + BATCH_ROWS]:
                fix(catalog)
                done += 1
                if time.monotonic() > until:
                    break
            catalog.names.folders_changed()
        crash.point("fsck.repair.committed")
        await trio.lowlevel.checkpoint()
    await catalog.sync()
    return done
