"""Sealed packages: what changes is named, and stock tools say the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hsmfs.errors import BadSeal, ConfigError, Conflict, HsmError
from hsmfs.sealing import keys as k
from hsmfs.sealing import package, sums, timestamp

from .conftest import Authority, openssl


def nobody(path: bytes, size: int, sha256: str) -> None:
    pass


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "one").write_bytes(b"one" * 1000)
    (tree / "odd\nname\\").write_bytes(b"odd")
    (tree / "link").symlink_to("one")
    single = tmp_path / "single.txt"
    single.write_bytes(b"")
    return [tree, single]


@pytest.fixture
def sealed(tmp_path: Path, sources: list[Path], keys: Path) -> Path:
    by = k.signer(keys / "sealer.key", keys / "sealer.crt")
    receiver = k.party(keys / "receiver.pub")
    made = package.make(
        tmp_path / "case", sources, by, receiver, reason="why", tsa=None, told=nobody
    )
    assert (made.files, made.bytes) == (3, 3003)
    return tmp_path / "case"


def stock(sealed: Path, who: str = "sealer") -> bool:
    """As docs/sealing.md says."""
    pem, pub = sealed / f"{who}.pem", sealed.parent / "pub.pem"
    if b"CERTIFICATE" in pem.read_bytes():
        openssl("x509", "-in", pem, "-pubkey", "-noout", "-out", pub)
    else:
        pub.write_bytes(pem.read_bytes())
    signed = openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", pub, "-rawin", "-in", sealed / "SHA256SUMS",
        "-sigfile", sealed / f"SHA256SUMS.{who}.sig", check=False,
    )  # fmt: skip
    words = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return signed.returncode == 0 == subprocess.run(words, cwd=sealed, check=False).returncode


def test_whole(sealed: Path, keys: Path) -> None:
    found = package.verify(sealed, sealer=k.party(keys / "sealer.pub"))
    assert found.wrong == [] and found.files == 6
    assert "CN=City Hospital" in found.said[0]
    assert stock(sealed)
    assert (sealed / "files/tree/one").read_bytes() == b"one" * 1000
    assert (sealed / "files/tree/one").stat().st_mode & 0o222 == 0


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


CHANGES = {
    "files/tree/one": lambda s: flip(s / "files/tree/one"),
    "odd\\nname": lambda s: flip(s / "files/tree/odd\nname\\"),
    "SEAL.json": lambda s: flip(s / "SEAL.json"),
    "signature does not hold": lambda s: flip(s / "SHA256SUMS.sealer.sig"),
    "files/single.txt is missing": lambda s: (s / "files/single.txt").unlink(),
    "files/new does not belong": lambda s: (s / "files/new").write_bytes(b"x"),
    "link files/tree/link was changed": lambda s: (
        (s / "files/tree/link").unlink(), (s / "files/tree/link").symlink_to("empty")
    ),
    "link files/lnk does not belong": lambda s: (s / "files/lnk").symlink_to("tree"),
    "folder files/tree/more does not belong": lambda s: (s / "files/tree/more").mkdir(),
    "folder files/tree/empty is missing": lambda s: (s / "files/tree/empty").rmdir(),
    "files/tree/one is missing": lambda s: (
        (s / "files/tree/one").unlink(), (s / "files/tree/one").symlink_to("/dev/null")
    ),
}  # fmt: skip


@pytest.mark.parametrize("named", CHANGES)
def test_changed(sealed: Path, keys: Path, named: str) -> None:
    CHANGES[named](sealed)
    found = package.verify(sealed, sealer=k.party(keys / "sealer.pub"))
    assert any(named in text for text in found.wrong), found.wrong


def test_a_line_of_the_sums_changed(sealed: Path, keys: Path) -> None:
    """Whoever changes a file and its sum breaks the signature, for stock tools as well."""
    path = sealed / "SHA256SUMS"
    flip(sealed / "files/tree/one")
    sha = subprocess.run(
        ["sha256sum", sealed / "files/tree/one"], check=True, capture_output=True
    ).stdout[:64]
    lines = path.read_bytes().split(b"\n")
    path.chmod(0o644)
    path.write_bytes(b"\n".join(sha + x[64:] if x.endswith(b"tree/one") else x for x in lines))
    assert not stock(sealed)
    assert package.verify(sealed).wrong == ["the sealer's signature does not hold"]


def test_another_sealer(sealed: Path, keys: Path) -> None:
    found = package.verify(sealed, sealer=k.party(keys / "other.pub"))
    assert "not the one expected" in found.wrong[0]


def test_both_parties(sealed: Path, keys: Path) -> None:
    with pytest.raises(BadSeal):
        package.countersign(sealed, k.signer(keys / "other.key"))
    package.countersign(sealed, k.signer(keys / "receiver.key"))
    assert len(package.verify(sealed).said) == 2
    assert stock(sealed, "receiver")
    with pytest.raises(Conflict):
        package.countersign(sealed, k.signer(keys / "receiver.key"))
    flip(sealed / "SHA256SUMS.receiver.sig")
    assert package.verify(sealed).wrong == ["the receiver's signature does not hold"]


def test_timestamp(
    tmp_path: Path, sources: list[Path], keys: Path, tsa: Authority
) -> None:
    by = k.signer(keys / "sealer.key")
    made = package.make(
        tmp_path / "case", sources, by, None, reason="", tsa=tsa.url, told=nobody
    )
    sealed = made.folder
    assert made.stamped
    assert package.verify(sealed, authority=tsa.ca).wrong == []
    words = ("ts", "-verify", "-data", sealed / "SHA256SUMS.sealer.sig", "-in",
             sealed / "SHA256SUMS.sealer.tsr", "-CAfile", tsa.ca)  # fmt: skip
    assert "Verification: OK" in openssl(*words).stdout
    flip(sealed / "SHA256SUMS.sealer.sig")
    found = package.verify(sealed, authority=tsa.ca)
    assert len(found.wrong) == 2 and "timestamp does not hold" in found.wrong[1]


def test_a_timestamp_that_is_wanted_and_missing(sealed: Path, tsa: Authority) -> None:
    assert package.verify(sealed, authority=tsa.ca).wrong == ["there is no timestamp"]
    with pytest.raises(HsmError, match="no timestamp from"):
        timestamp.ask("http://127.0.0.1:1/", b"x")
    with pytest.raises(BadSeal):
        timestamp.at(b"nonsense")


@pytest.mark.parametrize(
    ("who", "tsa", "fault"),
    [
        ("told", None, KeyboardInterrupt), ("tsa", "http://127.0.0.1:1/", HsmError),
        ("recorded", None, KeyboardInterrupt),
    ],
)  # fmt: skip
def test_what_fails_commits_nothing_and_leaves_nothing(
    tmp_path: Path, sources: list[Path], keys: Path, who: str, tsa: str | None,
    fault: type[BaseException], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    modes = set[int]()
    real = package.shutil.rmtree

    def look(folder: Path, **how: bool) -> None:
        modes.update(p.stat().st_mode & 0o777 for p in folder.rglob("*") if p.is_file())
        real(folder, **how)

    monkeypatch.setattr(package.shutil, "rmtree", look)
    by = k.signer(keys / "sealer.key")
    how = {"told": nobody} | ({who: dies} if who != "tsa" else {})
    with pytest.raises(fault):
        package.make(tmp_path / "case", sources, by, None, reason="", tsa=tsa, **how)
    assert modes == {0o600}
    assert not (tmp_path / "case").exists()
    package.make(tmp_path / "case", sources, by, None, reason="", tsa=None, told=nobody)
    with pytest.raises(Conflict, match="exists already"):
        package.make(tmp_path / "case", sources, by, None, reason="", tsa=None, told=nobody)
    (tmp_path / "case" / package.SEALER).unlink()
    with pytest.raises(BadSeal, match="not a whole one"):
        package.verify(tmp_path / "case")
    with pytest.raises(BadSeal, match="names no receiver"):
        package.countersign(tmp_path / "case", by)


def test_a_package_is_not_sealed_into_itself(
    tmp_path: Path, sources: list[Path], keys: Path
) -> None:
    by, top = k.signer(keys / "sealer.key"), sources[0]
    (tmp_path / "way").symlink_to(top)
    for into in (top / "case", tmp_path / "way" / "empty" / "case"):
        with pytest.raises(Conflict, match="which is to be sealed"):
            package.make(into, [top], by, None, reason="", tsa=None, told=nobody)
        assert not into.exists()


def test_a_copy_is_not_kept_for_as_long_as_the_record_was(
    tmp_path: Path, sources: list[Path], keys: Path
) -> None:
    """atime of a record is until when it is kept, and asks for as much where it is copied to."""
    os.utime(sources[1], (5_000_000_000, 7))
    by = k.signer(keys / "sealer.key")
    package.make(tmp_path / "case", sources, by, None, reason="", tsa=None, told=nobody)
    found = (tmp_path / "case/files/single.txt").stat()
    assert (found.st_atime < 5_000_000_000, found.st_mtime) == (True, 7)


def test_what_is_no_file_is_not_sealed(tmp_path: Path, keys: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    by = k.signer(keys / "sealer.key")
    with pytest.raises(Conflict, match="neither file"):
        package.make(
            tmp_path / "c", [tmp_path / "pipe"], by, None, reason="", tsa=None, told=nobody
        )
    with pytest.raises(Conflict, match="same name"):
        package.make(
            tmp_path / "d", [tmp_path / "a/x", tmp_path / "x"], by, None, reason="", tsa=None,
            told=nobody,
        )  # fmt: skip


def test_keys(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the certificate"):
        k.signer(keys / "other.key", keys / "sealer.crt")
    with pytest.raises(ConfigError, match="no private key"):
        k.signer(keys / "sealer.pub")
    with pytest.raises(BadSeal, match="neither"):
        k.party(keys / "sealer.key")
    openssl("genpkey", "-algorithm", "rsa", "-out", tmp_path / "rsa.pem")
    with pytest.raises(ConfigError, match="Ed25519"):
        k.signer(tmp_path / "rsa.pem")
    assert k.party(keys / "sealer.crt").fingerprint == k.party(keys / "sealer.pub").fingerprint


@pytest.mark.parametrize("path", [b"plain", b"with \\ and \n and \r", b"\xff"])
def test_lines_of_sums(path: bytes) -> None:
    assert list(sums.parse(b"# x\n" + sums.line("0" * 64, path))) == [(path, "0" * 64)]


def test_lines_that_are_none() -> None:
    with pytest.raises(BadSeal, match="line 2"):
        list(sums.parse(b"\nnonsense\n"))
