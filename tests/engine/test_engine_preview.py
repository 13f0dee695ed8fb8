"""What a recall would cost, compared with what it does cost."""

from hsmfs.catalog.queues import RecallClass
from hsmfs.engine.preview import preview
from hsmfs.states import VolumeState

HEAD = 64 * 1024
STANDARD = RecallClass.STANDARD


async def test_discs_and_exchanges_are_what_the_recall_needs(make_lab):
    """Two copies of everything: one disc of each pair will do, and the other is not fetched."""
    lab = make_lab(copies=2)
    async with lab.running() as engine:
        inos = []
        for name in (b"a", b"b"):  # on a pair of discs each
            inos.append(await lab.file(name, b"x" * 5_000_000))
            await lab.archive(inos[-1], release=True)
        for drive in engine.library.drives:
            await engine.mounts.take_out(engine.robot.in_drive(drive))
        roots = [engine.files.attr(ino) for ino in inos]
        told = await preview(engine, roots, STANDARD)
        loads = {v.id: v.loads for v in engine.catalog.volumes.all()}
        for ino in inos:
            await engine.recaller.request(ino, STANDARD, "test")
        await lab.until(lambda: not engine.catalog.queues.recalls())
        fetched = {v.id for v in engine.catalog.volumes.all() if v.loads > loads[v.id]}
        assert (told.files, told.bytes, told.exchanges) == (2, 2 * (5_000_000 - HEAD), 2)
        assert len(fetched) == 2 and told.discs == 2 and told.seconds is not None
        assert {d.place for d in told.of_discs} == {"to be fetched"}
        again = await preview(engine, roots, STANDARD)
        assert (again.files, again.on_disk, again.exchanges) == (0, 2, 0)


async def test_what_is_in_a_drive_outside_and_lost_is_told_apart(make_lab):
    lab = make_lab(drives=1)
    async with lab.running() as engine:
        inos = []
        for name in (b"a", b"b", b"c"):
            inos.append(await lab.file(name, b"x" * 300_000))
            await lab.archive(inos[-1], release=True)
        discs = [lab.disc(ino)[0] for ino in inos]
        async with engine.catalog.write():
            engine.catalog.volumes.set_state(discs[0].id, VolumeState.LOST, "test")
            engine.catalog.volumes.set_state(discs[1].id, VolumeState.EXPORTED, "shelf")
        roots = [engine.files.attr(ino) for ino in inos]
        told = await preview(engine, roots, STANDARD)
        assert (told.files, told.outside, told.unreadable, told.exchanges) == (3, 1, 1, 0)
        assert {d.barcode: d.place for d in told.of_discs} == {
            discs[1].barcode: "outside", discs[2].barcode: "in a drive"
        }  # fmt: skip
