"""The audit log on discs: hsm-disc puts it together and judges it without a catalog."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsmfs.catalog.audit import Head
from hsmfs.disc import described
from hsmfs.engine.trust.verify import verify
from hsmfs.states import VolumeState


def judged(repo: Path, *paths: Path, part: bool = False) -> dict:
    words = [sys.executable, str(repo / "tools/hsm-disc"), "audit", "--json", *map(str, paths)]
    done = subprocess.run(words + ["--part"] * part, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (1 if found["problems"] else 0), done.stderr
    return found


async def discs(site) -> list[Path]:
    """Three discs, the oldest first."""
    async with site.running():
        for name in (b"a", b"b", b"c"):
            await site.archive(await site.file(name, 1000))
            async with site.catalog.write():
                site.trust.audit.note("file.deleted", "somebody", name.decode())
    site.sound()
    found = list((site.root / "library").rglob("*.iso"))
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


async def test_from_discs_alone(site, repo):
    images = await discs(site)
    heads = []
    for path in images:
        with described.image(path) as reader:
            heads.append(Head.parse(reader.label.audit_head).seq)
    assert heads == sorted(set(heads))
    found = judged(repo, *images)
    assert (found["first"], found["last"], found["problems"]) == (1, heads[-1], [])
    assert found["records"] == heads[-1]
    verdict = await verify(site.catalog)
    assert (verdict.breaks, verdict.anchors) == ((), 3)


async def test_a_disc_that_is_not_given_is_missed(site, repo):
    one, two, three = await discs(site)
    assert "missing" in judged(repo, one, three)["problems"][0]
    assert judged(repo, two, three, part=True)["problems"] == []


async def test_a_bit_of_an_image_is_found(site, repo):
    one, *others = await discs(site)
    with one.open("r+b") as image:
        image.seek(-1, 2)
        last = image.read(1)[0]
        image.seek(-1, 2)
        image.write(bytes([last ^ 4]))
    problems = judged(repo, one, *others)["problems"]
    assert len(problems) == 1
    assert str(one) in problems[0]


async def test_a_log_written_anew_does_not_fit_the_discs(site):
    await discs(site)
    async with site.catalog.write():
        db = site.catalog.db
        db.execute("DROP TRIGGER audit_is_not_changed")
        prev = site.trust.audit.log.hash_of(1)
        for record in list(site.trust.audit.log.after(1)):
            made = record._replace(actor="nobody")
            prev = made.computed(prev)
            db.execute("UPDATE audit SET actor = ?, hash = ? WHERE seq = ?",
                       ("nobody", prev, record.seq))
    breaks = (await verify(site.catalog)).breaks
    assert len(breaks) == 3
    assert all("bears another hash" in one.what for one in breaks)


async def test_a_log_that_is_cut_off(site):
    await discs(site)
    async with site.catalog.write():
        site.catalog.db.execute("DROP TRIGGER audit_is_not_cut")
        site.catalog.db.execute("DELETE FROM audit WHERE seq > 4")
    assert {one.seq for one in (await verify(site.catalog)).breaks} == {5}


@pytest.mark.parametrize("harm", ["change", "drop", "swap", "cut"])
async def test_an_export_is_judged(harm, site, repo, tmp_path):
    await discs(site)
    lines, prev = [], bytes(32)
    for record in site.trust.audit.log.after(0):
        lines.append(record.line(prev))
        prev = record.hash
    export = tmp_path / "audit.jsonl"
    export.write_bytes(b"".join(lines))
    assert judged(repo, export)["problems"] == []
    if harm == "change":
        lines[3] = lines[3].replace(b'"done"', b'"none"')
    elif harm == "drop":
        del lines[3]
    elif harm == "swap":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        del lines[-1]
    export.write_bytes(b"".join(lines))
    problems = judged(repo, export)["problems"]
    # An end that is gone is known only to who has seen it: a disc, or another export.
    assert bool(problems) == (harm != "cut")
    assert all("record" in problem for problem in problems)


@pytest.mark.expect_log("burn given up|another disc is taken|drive|fault")
async def test_what_a_failed_burn_would_have_borne_is_on_the_next_disc(site, repo):
    site.fail({"kind": "burn_fails", "at_byte": 65536})
    images = [path for path in await discs(site) if path.parent.name in full(site)]
    assert len(images) == 3
    assert judged(repo, *images)["problems"] == []


def full(site) -> list[str]:
    return site.volumes(VolumeState.FULL)
