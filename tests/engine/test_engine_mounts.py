"""What a decision of the daemon costs while thousands of discs are wanted."""

from types import SimpleNamespace

import trio
import trio.testing

from hsmfs.engine.schedule import Purpose

WANTED = 300


async def test_a_disc_that_failed_does_not_slow_decisions_about_others(lab, monkeypatch):
    """Each decision looked at each claim again, and at all others for each, from then on."""
    mounts, ledger = lab.engine.mounts, lab.engine.mounts.ledger
    monkeypatch.setattr(
        mounts, "_admit", lambda disc, _: SimpleNamespace(barcode=f"X{disc}", quarantine="")
    )
    asked, may_pair = [], ledger.may_pair

    def counted(serial, barcode):
        asked.append(barcode)
        return may_pair(serial, barcode)

    monkeypatch.setattr(ledger, "may_pair", counted)
    mounts.robot_care.trouble = "nothing is fetched"
    ledger._failed[lab.engine.library.drives[0].serial, "X7"] = False

    async def want(disc):
        async with mounts.use(disc, Purpose.READ):
            pass

    async with trio.open_nursery() as nursery:
        for disc in range(1, WANTED + 1):
            nursery.start_soon(want, disc)
        await trio.testing.wait_all_tasks_blocked()
        asked.clear()
        assert len(mounts._claims) == WANTED
        mounts._poke()
        await trio.testing.wait_all_tasks_blocked()
        assert set(asked) == {"X7"} and len(asked) < 10
        nursery.cancel_scope.cancel()
    assert not mounts._claims
    mounts.robot_care.trouble = ""
