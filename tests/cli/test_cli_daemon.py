"""hsmfsd that cannot start: each reason is named, with its exit code, and nothing is changed."""

import contextlib
import fcntl
import os
import sqlite3
from types import SimpleNamespace

import pytest

from hsmfs import daemon, errors


@pytest.fixture
def made(hsmctl, tmp_path):
    assert hsmctl("init")[0] == 0
    return tmp_path


def test_wrong_key(hsmfsd, config):
    config.write_text(config.read_text() + "\nverfiy = true\n")
    code, err = hsmfsd()
    assert code == errors.ConfigError.exit_code
    assert "verfiy" in err
    assert "next: " in err


def test_not_initialised(hsmfsd):
    code, err = hsmfsd()
    assert code == errors.NotFound.exit_code
    assert "hsmctl init" in err


def test_two_daemons(hsmfsd, made):
    with (made / "state/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        code, err = hsmfsd()
    assert code == errors.CatalogInUse.exit_code
    assert "process 4711" in err


def test_vanished_pool(hsmfsd, made):
    (made / "pool").rename(made / "gone")
    code, err = hsmfsd()
    assert code == errors.PoolUnavailable.exit_code
    assert "pool pool" in err
    assert not (made / "pool").exists()


def test_unmounted_pool(hsmfsd, made):
    (made / "pool").rename(made / "gone")
    (made / "pool").mkdir()
    code, err = hsmfsd()
    assert code == errors.PoolUnavailable.exit_code
    assert not os.listdir(made / "pool"), err


def test_exchanged_pool(hsmfsd, made):
    (made / "pool/.hsmfs-pool").write_text('{"hsmfs_pool": 1, "uuid": "other"}')
    code, err = hsmfsd()
    assert code == errors.PoolUnavailable.exit_code
    assert "not the pool it was" in err


def test_library_of_another_size(hsmfsd, made, config):
    config.write_text(config.read_text().replace("drives = 2", "drives = 3"))
    code, err = hsmfsd()
    assert code == errors.ConfigError.exit_code
    assert "drives" in err


def test_corrupt_page(hsmfsd, made):
    catalog = made / "state/catalog.db"
    with catalog.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (catalog.stat().st_size - 4096))
    code, err = hsmfsd()
    assert code == errors.CatalogDamaged.exit_code
    assert "catalog.db" in err


def test_newer_schema(hsmfsd, made):
    with contextlib.closing(sqlite3.connect(made / "state/catalog.db")) as catalog:
        catalog.execute("PRAGMA user_version = 999")
    code, err = hsmfsd()
    assert code == errors.SchemaTooNew.exit_code
    assert "newer" in err


def test_wrong_policies(hsmfsd, made, config):
    policies = made / "policies.toml"
    policies.write_text('[[policy]]\nname = "x"\naction = "burn"\n')
    config.write_text(config.read_text() + f'policies = "{policies}"\n')
    code, err = hsmfsd()
    assert code == errors.PolicyError.exit_code
    assert "policies.toml" in err


@pytest.mark.expect_log("hsmfsd failed")
def test_a_bug_is_not_dressed_up(hsmfsd, made, monkeypatch):
    async def broken(*arguments):
        raise RuntimeError("boom")

    monkeypatch.setattr(daemon, "open_pools", broken)
    assert hsmfsd()[0] == 1


@pytest.mark.expect_log("could not be told of the mount")
async def test_servers_that_cannot_be_told_of_the_mount_do_not_end_it(monkeypatch, tmp_path):
    def fails(*_):
        raise ValueError("no JSON")

    async def bury():
        buried.append(True)

    buried = []
    monkeypatch.setattr(daemon.nfsd, "renew", fails)
    monkeypatch.setattr(daemon.smb, "reconnect", fails)
    settings = SimpleNamespace(daemon=SimpleNamespace(mountpoint=tmp_path, state=tmp_path))
    await daemon._renew_shares(settings, SimpleNamespace(bury=bury))
    assert buried
