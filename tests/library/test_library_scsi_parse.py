"""Answers of SCSI devices, byte by byte as they were recorded or as the standards print them."""

from __future__ import annotations

import pytest

from hsmfs.library.ports import DiscStatus, ElementKind
from hsmfs.library.scsi import elements, inquiry, mmc
from hsmfs.library.scsi.elements import Span
from hsmfs.library.scsi.sense import Key, parse


def tag(label: str) -> bytes:
    return label.encode().ljust(32)


def descriptor(
    address: int, bits: int, *, source: int | None = None, label: str = "", rest: bytes = b"",
    codes: bytes = bytes(2),
) -> bytes:  # fmt: skip
    valid = bytes((0x80,)) if source is not None else bytes(1)
    return (
        address.to_bytes(2, "big") + bytes((bits, 0)) + codes + bytes(3) + valid
        + (source or 0).to_bytes(2, "big") + tag(label) + rest
    )  # fmt: skip


def page(kind: int, flags: int, *descriptors: bytes) -> bytes:
    body = b"".join(descriptors)
    head = bytes((kind, flags)) + len(descriptors[0]).to_bytes(2, "big") + bytes(1)
    return head + len(body).to_bytes(3, "big") + body


def answer(*pages: bytes) -> bytes:
    body = b"".join(pages)
    return bytes(5) + len(body).to_bytes(3, "big") + body


def test_fixed_sense_of_an_unreadable_sector() -> None:
    sense = parse(bytes.fromhex("f00003000012340a00000000110500000000"))
    assert sense is not None
    assert (sense.key, sense.asc, sense.ascq) == (Key.MEDIUM_ERROR, 0x11, 0x05)
    assert sense.information == 0x1234
    assert str(sense) == "unrecovered read error (sense 3/11/05)"


def test_fixed_sense_without_a_valid_information_field() -> None:
    sense = parse(bytes.fromhex("700002ffffffff0a000000003a0200000000"))
    assert sense is not None
    assert sense.no_medium
    assert sense.information is None


def test_descriptor_sense_with_information() -> None:
    sense = parse(bytes.fromhex("720311050000000c000a80000000000000abcdef"))
    assert sense is not None
    assert (sense.key, sense.information) == (Key.MEDIUM_ERROR, 0xABCDEF)


def test_deferred_sense_is_told_apart() -> None:
    sense = parse(bytes.fromhex("710004000000000a000000004400"))
    assert sense is not None
    assert sense.deferred


def test_short_sense_has_no_codes() -> None:
    sense = parse(bytes.fromhex("70000600000000"[:16]).ljust(8, b"\0"))
    assert sense is not None
    assert (sense.key, sense.asc) == (Key.UNIT_ATTENTION, 0)


@pytest.mark.parametrize("data", [b"", b"\x70", bytes(18), b"\x7f" * 18])
def test_no_sense_in_other_bytes(data: bytes) -> None:
    assert parse(data) is None


@pytest.mark.parametrize(
    ("key", "asc", "ascq", "becoming", "changed"),
    [
        (2, 0x04, 0x01, True, False),
        (2, 0x04, 0x08, True, False),
        (2, 0x04, 0x18, False, False),
        (6, 0x28, 0x00, False, True),
        (6, 0x28, 0x01, False, True),
        (6, 0x3B, 0x12, False, True),
        (6, 0x29, 0x00, False, False),
    ],
)
def test_what_a_sense_means(key: int, asc: int, ascq: int, becoming: bool, changed: bool) -> None:
    sense = parse(bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq)))
    assert sense is not None
    assert (sense.becoming_ready, sense.changed) == (becoming, changed)


def test_address_page_as_tgt_gives_it() -> None:
    data = bytes.fromhex("170000001d120001000103e8000807d0000201f400020000")
    assert elements.parse_spans(data) == [
        Span(ElementKind.TRANSPORT, 1, 1),
        Span(ElementKind.STORAGE, 1000, 8),
        Span(ElementKind.IMPORT_EXPORT, 2000, 2),
        Span(ElementKind.DRIVE, 500, 2),
    ]


def test_address_page_behind_a_block_descriptor() -> None:
    data = bytes.fromhex("1f00000800000000000008001d1200000001000100040000000000500001")
    kinds = [span.kind for span in elements.parse_spans(data + bytes(2))]
    assert ElementKind.IMPORT_EXPORT not in kinds


def test_slots_with_labels() -> None:
    data = answer(
        page(
            2, 0x80, descriptor(1000, 0x09, label="S0001D01", rest=bytes(4)),
            descriptor(1001, 0x08, rest=bytes(4)),
            descriptor(1002, 0x0D, rest=bytes(4), codes=b"\x30\x03"),
        )
    )  # fmt: skip
    full, empty, broken = elements.parse(data)
    assert (full.address, full.full, full.access, full.label) == (1000, True, True, "S0001D01")
    assert (empty.full, empty.label) == (False, "")
    assert broken.exception == (0x30, 0x03)


def test_drive_with_its_identification_and_the_disc_s_origin() -> None:
    device = b"HL-DT-ST" + b"BD-RE BU50N".ljust(16) + b"K9ABC123"
    rest = bytes(4) + bytes((2, 1, 0, len(device))) + device
    data = answer(page(4, 0x80, descriptor(500, 0x01, source=1003, label="A1", rest=rest)))
    [drive] = elements.parse(data)
    assert (drive.source, drive.designator) == (1003, device)
    assert not drive.access


def test_alternate_tags_are_stepped_over() -> None:
    rest = bytes(4) + tag("OTHER") + bytes(4) + bytes((2, 1, 0, 4)) + b"ABCD"
    data = answer(page(4, 0xC0, descriptor(500, 0x09, label="A1", rest=rest)))
    [drive] = elements.parse(data)
    assert (drive.label, drive.designator) == ("A1", b"ABCD")


def test_last_descriptor_cut_behind_its_label_counts() -> None:
    whole = answer(
        page(2, 0x80, *(descriptor(n, 9, label=f"D{n}", rest=bytes(8)) for n in range(3)))
    )
    assert [s.label for s in elements.parse(whole[:-8])] == ["D0", "D1", "D2"]
    assert [s.label for s in elements.parse(whole[:-9])] == ["D0", "D1"]


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_cut_answers_give_whole_elements_only(cut: int) -> None:
    whole = answer(page(2, 0x80, descriptor(1, 9, label="LONG-LABEL", rest=bytes(4))))
    assert all(s.label == "LONG-LABEL" for s in elements.parse(whole[:cut]))


def test_page_of_no_known_kind_ends_it() -> None:
    assert list(elements.parse(answer(page(9, 0, bytes(16))))) == []


def test_designators_of_the_unit_alone() -> None:
    unit = bytes((1, 3, 0, 8)) + bytes.fromhex("5000c50012345678")
    port = bytes((1, 0x93, 0, 8)) + bytes.fromhex("5000c50099999999")
    assert inquiry.designators(unit + port) == [bytes.fromhex("5000c50012345678")]


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (0x00, DiscStatus.BLANK),
        (0x01, DiscStatus.INCOMPLETE),
        (0x0E, DiscStatus.CLOSED),
        (0x13, DiscStatus.CLOSED),
    ],
)
def test_disc_information(flags: int, status: DiscStatus) -> None:
    found = mmc.parse_disc_information(bytes((0, 0x20, flags)) + bytes(31))
    assert (found.status, found.erasable) == (status, bool(flags & 0x10))


def test_free_blocks_of_a_blank_dvd() -> None:
    data = bytes.fromhex("002601010007410100000000000000000023054000000010" + "00" * 8)
    assert mmc.parse_free_bytes(data) == 2_295_104 * 2048
    assert mmc.parse_free_bytes(b"") == 0
