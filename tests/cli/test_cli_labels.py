"""A sheet of labels: every barcode that a changer reads has room on its label."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from reportlab.lib.units import mm

from hsmfs.cli import labels
from hsmfs.errors import HsmError

PRINTABLE = "".join(map(chr, range(32, 127)))


@pytest.mark.parametrize("length", range(1, labels.LONGEST + 1))
def test_bars_and_quiet_zones_fit(length: int) -> None:
    dice = random.Random(length)
    for barcode in ("W" * length, "".join(dice.choices(PRINTABLE, k=length)).strip() or "-"):
        bars = labels.bars(barcode)
        assert bars.valid and bars.width <= labels.WIDTH * mm
        assert min(bars.lquiet, bars.rquiet) >= 10 * bars.barWidth  # ISO/IEC 15417
        assert bars.barWidth >= 5 / 600 * 72


def test_short_barcodes_have_the_widest_bars() -> None:
    assert labels.bars("S0001D03").barWidth == 8 * labels.DOT * mm


@pytest.mark.parametrize("barcode", ["W" * 33, "DISC\t1", "D\u0131SC1"])
def test_what_has_no_room_or_no_bars_is_refused(tmp_path: Path, barcode: str) -> None:
    sheet = tmp_path / "labels.pdf"
    with pytest.raises(HsmError, match="up to 32 printable ASCII"):
        labels.write(sheet, [{"barcode": barcode}])
    assert not sheet.exists()
