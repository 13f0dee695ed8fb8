"""A sheet of disc labels as a PDF: the barcode in Code 128 and what a person wants to read.

Drawn with reportlab, imported only when a sheet is made. Sizes are millimetres of an A4 page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import HsmError
from .output import size, when

COLUMNS, ROWS = 2, 7
WIDTH, HEIGHT = 99.0, 38.0
LEFT, TOP = 6.0, 15.5
LONGEST = 32
"""Characters that a changer reads (SMC-3, the volume identifier of a volume tag)."""
DOT = 25.4 / 600
"""Of a printer; the narrowest bar is whole dots of it, so that all are printed alike."""
NARROWEST = (8, 7, 6, 5)
"""Dots of the narrowest bar; a long barcode takes the widest with which it fits on its label."""


def write(path: Path, discs: Sequence[dict[str, Any]]) -> int:
    """Write the sheet; returns its pages. Raises OSError, HsmError as `bars`."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    canvas = Canvas(str(path), pagesize=A4, invariant=1)
    canvas.setTitle("hsmfs disc labels")
    per_page = COLUMNS * ROWS
    for number, disc in enumerate(discs):
        place = number % per_page
        if number and not place:
            canvas.showPage()
        x = (LEFT + place % COLUMNS * WIDTH) * mm
        y = A4[1] - (TOP + (place // COLUMNS + 1) * HEIGHT) * mm
        bars(disc["barcode"]).drawOn(canvas, x, y + 21 * mm)
        canvas.setFont("Courier-Bold", 13)
        canvas.drawString(x + 4 * mm, y + 15.5 * mm, disc["barcode"])
        for row, text in enumerate(lines(disc)):
            # A font of Adobe's CJK set: destinations and names may be Chinese.
            ascii_only = text.isascii()
            canvas.setFont("Helvetica" if ascii_only else "STSong-Light", 8)
            canvas.drawString(x + 4 * mm, y + (11.5 - 3.6 * row) * mm, text)
    canvas.save()
    return max(1, -(-len(discs) // per_page))


def bars(barcode: str) -> Any:
    """What draws the barcode, with the quiet zones beside it. Raises HsmError if it has no room."""
    from reportlab.graphics.barcode import code128
    from reportlab.lib.units import mm

    if len(barcode) > LONGEST or not (barcode.isascii() and barcode.isprintable()):
        raise HsmError(
            f"disc {barcode!r}: a label holds up to {LONGEST} printable ASCII characters",
            next_step="print this label by other means, or leave the disc out",
        )
    for dots in NARROWEST:
        drawn = code128.Code128(barcode, barHeight=12 * mm, barWidth=dots * DOT * mm)
        if drawn.width <= WIDTH * mm:
            break
    return drawn


def lines(disc: dict[str, Any]) -> list[str]:
    """What is written under the bars."""
    group = f"set {disc['set']}, disc {disc['index']} of {disc['of']}" if disc["set"] else "no set"
    return [
        f"{group}; burned {when(disc['burned_ns'])[:10]}; {size(disc['used'])}",
        f"to: {disc['destination']}"[:70],
        f"uuid {disc['uuid'] or '-'}",
    ]
