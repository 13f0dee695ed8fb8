"""hsmctl seal on a real mount: packages in a retention folder, on record, on discs."""

import json
import os
import subprocess
from pathlib import Path

import apsw
import pytest

from tools.lib.tempfs import TempFs, TempFsError

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture(scope="module")
def fs(tmp_path_factory: pytest.TempPathFactory):
    with TempFs(folder=tmp_path_factory.mktemp("sealed") / "fs") as running:
        yield running


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "seal.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    return path


def test_a_package_is_sealed_kept_and_found_on_a_disc_of_its_own(fs: TempFs, key: Path) -> None:
    scans, into = fs.mountpoint / "scans", fs.mountpoint / "sealed"
    scans.mkdir()
    into.mkdir()
    (scans / "one").write_bytes(b"one" * 10_000)
    fs.control("archive", "--now", "--wait", scans)
    words = (scans, "--into", into, "--name", "case", "--key", key)
    with pytest.raises(TempFsError, match="no retention folder"):
        fs.control("seal", *words)
    fs.control("retention", "set", into, "--mode", "compliance", "--default", "10 y")
    said = fs.control("seal", *words, "--vault", "safe 2")
    assert "1 file" in said
    case = into / "case"
    assert (case / "files/scans/one").read_bytes() == b"one" * 10_000
    with pytest.raises(PermissionError):
        (case / "files/scans/one").unlink()
    with pytest.raises(PermissionError):
        (case / "SHA256SUMS.sealer.sig").unlink()
    assert "intact" in fs.control("seal", "verify", case)
    assert "files" in fs.control("seal", "info", case)
    row = fs.ask("seal", "ls")[-1]
    assert (row["path"], row["kind"], row["files"]) == ("/sealed/case", "made", 1)
    # Its own set: no disc for the vault holds anything else.
    fs.control("archive", "--now", "--wait", "--copies", "2", "--vault", "safe 2", case)
    discs = [v["barcode"] for v in fs.ask("volume", "list") if v["vault"] == "safe 2"]
    assert discs
    for barcode in discs:
        lines = fs.control("find", "--volume", barcode).splitlines()
        assert lines and all("/sealed/case/" in line for line in lines)


def test_bytes_that_are_not_those_of_ingest_are_not_sealed(fs: TempFs, key: Path) -> None:
    path = fs.mountpoint / "one"
    path.write_bytes(b"x" * 5001)
    fs.control("archive", "--now", "--wait", path)
    before = fs.ask("seal", "ls")
    (pool_file,) = [p for p in fs.pool.rglob("*") if p.is_file() and p.stat().st_size == 5001]
    pool_file.write_bytes(b"x" * 5000 + b"y")
    with pytest.raises(TempFsError, match="is not what was archived"):
        fs.control("seal", path, "--into", fs.mountpoint, "--name", "s", "--key", key,
                   "--unprotected")  # fmt: skip
    assert fs.ask("seal", "ls") == before


def test_anchors_and_handovers_are_signed(fs: TempFs, key: Path, tmp_path: Path) -> None:
    (fs.mountpoint / "a").write_bytes(b"x" * 5000)
    fs.control("archive", "--now", "--wait", fs.mountpoint / "a")
    disc = next(v["barcode"] for v in fs.ask("volume", "list") if v["state"] == "full")
    paper, anchor = tmp_path / "paper", tmp_path / "anchor"
    fs.control("volume", "handover", disc, "--to", "J. Doe", "-o", paper, "--key", key)
    facts = json.loads(paper.with_suffix(".json").read_bytes())
    assert facts["discs"][0]["root_hash"] and facts["taken_by"] == "J. Doe"
    words = ["pkeyutl", "-verify", "-pubin", "-inkey", f"{paper}.pem", "-rawin", "-in",
             f"{paper}.json", "-sigfile", f"{paper}.json.sig"]  # fmt: skip
    subprocess.run(["openssl", *words], check=True)
    found = fs.control("audit", "search", "--kind", "custody.signed", "--json")
    assert json.loads(json.loads(found)["detail"])["discs"] == [disc]

    report = tmp_path / "report"
    said = fs.control("verify", "--deep", fs.mountpoint / "a", "-o", report, "--key", key)
    assert "1 parts of copies read, 0 not read" in said and "all intact" in said
    words[4:] = [f"{report}.pem", "-rawin", "-in", f"{report}.json", "-sigfile",
                 f"{report}.json.sig"]  # fmt: skip
    subprocess.run(["openssl", *words], check=True)
    facts = json.loads(Path(f"{report}.json").read_bytes())
    assert facts["files"] == 1 and facts["discs"][0]["root_hash"]
    found = fs.control("audit", "search", "--kind", "integrity.signed", "--json")
    assert json.loads(json.loads(found)["detail"])["record"] == facts["record"]
    assert "not all was compared" in fs.control("verify", fs.mountpoint / "a")
    os.setxattr(fs.mountpoint / "a", "user.checksum.sha256", b"0" * 64)
    with pytest.raises(TempFsError, match=r"status 26(.|\n)*user.checksum.sha256 says"):
        fs.control("verify", fs.mountpoint / "a")
    assert fs.log_tail(10_000).count("not what its client") == 1

    fs.control("audit", "sign", "-o", anchor, "--key", key)
    verify = ("audit", "verify", "--anchor", f"{anchor}.json")
    assert "1 signed anchor" in fs.control(*verify)
    whole = anchor.with_suffix(".json").read_bytes()
    anchor.with_suffix(".json").write_bytes(whole.replace(b"UTC", b"utc"))
    with pytest.raises(TempFsError, match=r"signature of .* does not hold"):
        fs.control(*verify)
    with pytest.raises(TempFsError, match="is no anchor"):
        fs.control("audit", "verify", "--anchor", f"{paper}.json")
    anchor.with_suffix(".json").write_bytes(whole)
    fs.stop()
    with apsw.Connection(str(fs.folder / "state/catalog.db")) as db:
        seq = int(json.loads(whole)["head"].partition(":")[0])
        db.execute("DROP TRIGGER audit_is_not_cut")
        db.execute("DELETE FROM audit WHERE seq >= ?", (seq,))
    fs.start()
    with pytest.raises(TempFsError, match="broken"):
        fs.control(*verify)
