"""Copies that a policy wants in a vault: sets of their own, asked for when they are closed."""

from __future__ import annotations

from itertools import combinations

import pytest
import trio

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.policy.rules import loads
from hsmfs.engine.schedule import Purpose
from hsmfs.engine.scrub_plan import Piece
from hsmfs.errors import Conflict, PolicyError, VolumeMissing
from hsmfs.library.ports import ElementKind
from hsmfs.library.simulated.hands import put_in, take_out
from hsmfs.states import CopyState, FileState, SetState, VolumeState

RULE = '[[policy]]\nname = "all"\naction = "archive"\ncopies = {copies}\n'
SETS = '[sets]\nparity = "raid5"\ndiscs = 2\n'
DATA = bytes(range(256)) * 8000


@pytest.fixture
def make_vaulted(make_lab, tmp_path):
    def make(copies=2, sets=SETS, vault="vault A", **settings):
        rules = tmp_path / "policies.toml"
        rules.write_text(RULE.format(copies=copies) + (f'vault = "{vault}"\n' if vault else ""))
        return make_lab(more=f'policies = "{rules}"\n{sets}', slots=12, disc="8 MiB", **settings)

    return make


def places(lab, ino) -> dict[str, list]:
    """The discs of a file's valid copies, by where they are to be kept."""
    found: dict[str, list] = {}
    for copy in lab.engine.catalog.copies.all_of(ino):
        if copy.state is CopyState.VALID:
            volume = lab.engine.catalog.volumes.get(copy.where.volume)
            found.setdefault(volume.vault, []).append(volume)
    return found


async def closed(lab) -> None:
    sets = lab.engine.catalog.sets
    await lab.until(lambda: all(s.state is SetState.CLOSED for s in sets.all()), 60)


def requests(lab) -> list:
    return [(r["kind"], r["name"], r["destination"]) for r in lab.engine.vault.requests()]


def wanted_events(engine) -> list:
    return [e for e in engine.events.since(0) if e.kind == "export_wanted"]


async def test_a_closed_vault_set_is_asked_for_and_never_written_again(make_vaulted):
    lab = make_vaulted()
    async with lab.running() as engine:
        one = await lab.file(b"one", DATA)
        await lab.archive(one)
        await closed(lab)
        (here,), (away,) = places(lab, one)[""], places(lab, one)["vault A"]
        assert here.set_id != away.set_id
        name = engine.catalog.sets.of(away.id).name
        assert requests(lab) == [("take out", name, "vault A")]
        await lab.until(lambda: wanted_events(engine), 60)
        (wanted,) = wanted_events(engine)
        assert wanted.fields["name"] == name and wanted.fields["destination"] == "vault A"
        discs = {d.id for d in engine.catalog.sets.discs(away.set_id)}
        assert len(discs) == 2  # its parity disc goes along
        await lab.archive(await lab.file(b"two", DATA))
        assert {d.id for d in engine.catalog.sets.discs(away.set_id)} == discs
        picked = await engine.vault.export([name], None)
        assert {d["destination"] for d in picked["discs"]} == {"vault A"}
        assert name not in [n for _, n, _ in requests(lab)]


async def test_recall_takes_the_copy_that_stays(make_vaulted):
    lab = make_vaulted(drives=3)
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino, release=True)
        await closed(lab)
        await lab.until(lambda: engine.files.attr(ino).state == FileState.MIGRATED)
        (here,), (away,) = places(lab, ino)[""], places(lab, ino)["vault A"]
        loads = engine.catalog.volumes.get(away.id).loads
        assert await lab.read(ino) == DATA
        assert engine.catalog.volumes.get(away.id).loads == loads
        assert engine.catalog.volumes.get(here.id).read_errors == 0


async def test_a_set_that_was_fetched_back_is_to_return(make_vaulted):
    lab = make_vaulted()
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        await closed(lab)
        (offer,) = engine.catalog.vault.offers()
        await engine.vault.export([offer.name], None)
        away = places(lab, ino)["vault A"][0].barcode
        slot = lambda: engine.robot.where(away)  # noqa: E731
        await lab.until(lambda: slot() is None or slot().place.startswith("mail slot"))
        address = slot().address
        take_out(lab.config.library.path, away)
        await engine.mounts.inventory.sync()
        assert requests(lab) == []
        put_in(lab.config.library.path, away, address)
        await engine.vault.bring_in([away])
        assert requests(lab) == [("take out", offer.name, "vault A")]
        with pytest.raises(Conflict, match="to be taken out"):
            await engine.vault.done(offer.name)
        await engine.vault.refuse(offer.name, "the vault is full")
        assert requests(lab) == []


async def test_a_mail_slot_that_fills_meanwhile_is_waited_for(make_vaulted, monkeypatch):
    """Not a trouble of the robot; tests fail of its warning."""
    monkeypatch.setattr("hsmfs.engine.transfer.LOOK_EVERY_S", 0.05)
    lab = make_vaulted(sets="")
    root, others = lab.config.library.path, []
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        (away,) = places(lab, ino)["vault A"]
        export = engine.robot.export

        async def filled(barcode):
            monkeypatch.setattr(engine.robot, "export", export)
            for place in engine.robot.elements.values():
                if place.kind is ElementKind.IMPORT_EXPORT:
                    others.append(f"N0001D{place.address:02}")
                    put_in(root, others[-1], place.address)
            await engine.robot.inventory()
            return await export(barcode)

        monkeypatch.setattr(engine.robot, "export", filled)
        await engine.vault.export([away.barcode], None)
        await lab.until(lambda: others)
        assert not engine.vault.leaving()[0]["ready"]
        for other in others:
            take_out(root, other)
        await lab.until(lambda: engine.vault.leaving()[0]["ready"], 60)


async def test_single_discs_are_asked_for_too(make_vaulted):
    lab = make_vaulted(sets="")
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        (away,) = places(lab, ino)["vault A"]
        assert requests(lab) == [("take out", away.barcode, "vault A")]
        assert [e.kind for e in engine.events.since(0)].count("export_wanted") == 1


@pytest.mark.parametrize("rounds", [1, 3])
async def test_copies_lie_in_different_sets(make_vaulted, rounds):
    """Also when files come one after the other and sets are full in between."""
    lab = make_vaulted(copies=3, vault="", sets='[sets]\nparity = "raid0"\ndiscs = 2\n')
    async with lab.running() as engine:
        inos = []
        for number in range(rounds):
            inos.append(await lab.file(b"f%d" % number, DATA))
            await lab.archive(inos[-1])
        sets = {ino: [volume.set_id for volume in places(lab, ino)[""]] for ino in inos}
        for found in sets.values():
            assert len(found) == 3 and len(set(found)) == 3 and None not in found
        # Nor do two copies meet in a set by way of other files: a set holds one copy of each.
        for group in engine.catalog.sets.all():
            held = [
                {c.ino for c in engine.catalog.copies.laid(disc.id, 0, 100)}
                for disc in engine.catalog.sets.discs(group.id)
            ]
            assert all(not a & b for a, b in combinations(held, 2))


async def test_two_copies_here_do_not_do_for_the_vault(make_vaulted):
    lab = make_vaulted(vault="", sets="")
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        assert len(places(lab, ino)[""]) == 2
        await engine.migrator.archive([ino], copies=2, vault="vault A")
        await lab.settle()
        assert len(places(lab, ino)["vault A"]) == 1
        await engine.migrator.archive([ino], copies=2, vault="vault A")
        await lab.settle()
        assert len(places(lab, ino)["vault A"]) == 1


async def test_a_replaced_vault_disc_is_replaced_for_the_vault(make_vaulted, monkeypatch):
    monkeypatch.setattr("hsmfs.engine.refresh.LOOK", 0.1)
    lab = make_vaulted(sets="")
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        (old,) = places(lab, ino)["vault A"]
        await engine.refresher.ask([old], "refresh", "test")
        await lab.until(lambda: not engine.catalog.refreshes.open(), flush=True)
        (new,) = places(lab, ino)["vault A"]
        assert new.id != old.id and len(places(lab, ino)[""]) == 1
        assert engine.catalog.volumes.get(old.id).state is VolumeState.RETIRED
        assert requests(lab) == [("take out", new.barcode, "vault A")]


def test_a_vault_wants_a_copy_that_stays():
    with pytest.raises(PolicyError, match="one copy must stay"):
        loads(RULE.format(copies=1) + 'vault = "vault A"\n')
    (rule,) = loads(RULE.format(copies=2) + 'vault = "vault A"\n').policy
    assert rule.vault == "vault A"


async def test_explain_names_the_vault(make_vaulted):
    lab = make_vaulted()
    async with lab.running() as engine:
        ino = await lab.file(b"f", DATA)
        (verdict,) = engine.policies.explain(engine.files.attr(ino), b"/f")
        assert (verdict.copies, verdict.vault) == (2, "vault A")


async def test_a_disc_that_is_being_read_leaves_all_the_same(make_lab, monkeypatch):
    """Its test would go on for hours; one more waits for the drive."""
    monkeypatch.setattr("hsmfs.engine.transfer.LOOK_EVERY_S", 0.05)
    monkeypatch.setattr("hsmfs.engine.scrub.pieces", lambda *_, **__: [Piece(0, 2048)])
    lab = make_lab(drives=1)
    async with lab.running() as engine, trio.open_nursery() as nursery:
        ino = await lab.file(b"f", DATA)
        await lab.archive(ino)
        disc, _ = lab.disc(ino)
        await engine.scrubber.ask([disc], "test")
        await lab.until(lambda: engine.scrubber.progress.get(disc.id) is not None
                        and engine.scrubber.progress[disc.id].drive)  # fmt: skip

        async def reads():
            with pytest.raises(VolumeMissing, match="leaves the library"):
                async with engine.mounts.use(disc.id, Purpose.READ, urgency=RecallClass.IDLE):
                    raise AssertionError("it got the disc")

        nursery.start_soon(reads)
        await lab.until(lambda: len(engine.mounts.status()["claims"]) == 2)
        await engine.vault.export([disc.barcode], "safe")
        await lab.until(
            lambda: engine.robot.where(disc.barcode).kind is ElementKind.IMPORT_EXPORT, 20
        )
        assert engine.catalog.health.scrubs() == []


async def test_without_mail_slots_each_disc_is_told_when_it_lies_in_its_slot(make_lab, monkeypatch):
    """Also one that was being read when it was ordered out."""
    monkeypatch.setattr("hsmfs.engine.transfer.LOOK_EVERY_S", 0.05)
    lab = make_lab(drives=1, mail=0)
    async with lab.running() as engine:
        for number in range(2):
            await lab.archive(await lab.file(b"f%d" % number, DATA))
        discs = engine.catalog.volumes.all(VolumeState.FULL)
        told = lambda: [  # noqa: E731
            (e.fields["count"], e.fields["left"])
            for e in engine.events.since(0) if e.kind == "discs_to_take"
        ]  # fmt: skip
        async with engine.mounts.use(discs[1].id, Purpose.READ):
            await engine.vault.export([disc.barcode for disc in discs], "safe")
            await lab.until(told)
        await lab.until(lambda: told() == [(1, 1), (2, 0)])
        assert all(disc["ready"] and "slot" in disc["place"] for disc in engine.vault.leaving())


LOG = "label|differs|lost|volume missing"


def two_with(lab, label: str, other: str) -> None:
    """The robot reads the label on the disc `other` too."""
    lab.fail({"kind": "label", "barcode": other, "reads_as": label})


@pytest.mark.expect_log(LOG)
async def test_a_label_on_two_discs_keeps_no_other_disc_here(make_lab, monkeypatch):
    """The first one ordered out cannot be told from another one; its orders end when it can."""
    monkeypatch.setattr("hsmfs.engine.transfer.LOOK_EVERY_S", 0.05)
    lab = make_lab()
    async with lab.running() as engine:
        for number in range(2):
            await lab.archive(await lab.file(b"f%d" % number, DATA))
        twice, once = engine.catalog.volumes.all(VolumeState.FULL)
        blank = engine.catalog.volumes.all(VolumeState.BLANK)[0].barcode
        two_with(lab, twice.barcode, blank)
        await engine.mounts.look(rescan=True)
        await engine.vault.export([twice.barcode], "safe")
        await engine.vault.export([once.barcode], "safe")
        place = lambda disc: engine.robot.where(disc.barcode)  # noqa: E731
        await lab.until(lambda: place(once).kind is ElementKind.IMPORT_EXPORT)
        assert engine.mounts.status()["robot"] == "ready"
        first, second = engine.vault.leaving()
        assert (first["ready"], second["ready"]) == (False, True)
        assert "take both out" in first["problem"] and " and " in first["place"]
        assert second["problem"] == ""
        told = [e for e in engine.events.since(0) if "take both out" in str(e.fields)]
        assert len(told) == 2  # once for each of the discs, not at every look
        lab.fail()
        take_out(lab.config.library.path, once.barcode)
        await lab.until(lambda: place(twice).kind is ElementKind.IMPORT_EXPORT)


@pytest.mark.expect_log(LOG)
async def test_a_label_on_two_discs_is_not_imported_and_the_others_are(make_lab):
    lab = make_lab()
    async with lab.running() as engine:
        for number in range(2):
            await lab.archive(await lab.file(b"f%d" % number, DATA))
        one, other = engine.catalog.volumes.all(VolumeState.FULL)
        mail = next(e for e in engine.robot.elements.values()
                    if e.kind is ElementKind.IMPORT_EXPORT)  # fmt: skip
        for disc in (one, other):
            await engine.mounts.take_out(disc.barcode)
        await engine.mounts.move(one.barcode, mail.address)
        two_with(lab, one.barcode, other.barcode)
        found = await engine.vault.bring_in()
        assert found["imported"] == [] and list(found["refused"]) == [one.barcode]
        lab.fail()
        assert (await engine.vault.bring_in())["imported"] == [one.barcode]


@pytest.mark.expect_log(LOG + "|recall|copy")
async def test_a_label_on_two_discs_is_no_trouble_of_the_robot(make_lab):
    """Who reads the disc is told; who reads another one does not wait."""
    lab = make_lab(drives=1, more="recall_retries = 0\n")
    async with lab.running() as engine:
        inos = [await lab.file(b"f%d" % number, DATA) for number in range(2)]
        for ino in inos:
            await lab.archive(ino, release=True)
        (twice, _), (once, _) = map(lab.disc, inos)
        for disc in (twice, once):
            await engine.mounts.take_out(disc.barcode)
        two_with(lab, twice.barcode, engine.catalog.volumes.all(VolumeState.BLANK)[0].barcode)
        await engine.mounts.look(rescan=True)
        with pytest.raises(Exception, match=f"the label {twice.barcode} is on the discs in"):
            async with engine.mounts.use(twice.id, Purpose.READ):
                raise AssertionError("it got the disc")
        assert not [e for e in engine.events.since(0) if e.kind == "robot_trouble"]
        assert await lab.read(inos[1]) == DATA
