"""hsmctl catalog without a daemon, killed at each step: the last good backup stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

HSMCTL = "import sys; from hsmfs.cli.main import main; sys.exit(main(sys.argv[1:]))"


def test_backup_list_verify_restore(hsmctl, tmp_path):
    assert hsmctl("init")[0] == 0
    dest = str(tmp_path / "backups")
    code, out, err = hsmctl("catalog", "backup", dest, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["new_pieces"] == made["pieces"]
    assert json.loads(hsmctl("catalog", "list", dest, "--json")[1])[0]["name"] == made["name"]
    assert json.loads(hsmctl("catalog", "verify", dest, "--json")[1])["ok"] is True
    assert hsmctl("catalog", "restore", dest)[0] == 5
    (found,) = tmp_path.rglob("catalog.db")
    found.unlink()
    code, out, _ = hsmctl("catalog", "restore", dest)
    assert (code, "fsck" in out) == (0, True)
    assert hsmctl("fsck")[0] == 0
    assert hsmctl("catalog", "list")[0] == 2
    (tmp_path / "file").touch()
    code, _, err = hsmctl("catalog", "backup", str(tmp_path / "file/under"))
    assert (code, "Traceback" in err, "Not a directory" in err) == (1, False, True)


def test_a_single_file_is_backup_and_source(hsmctl, tmp_path):
    assert hsmctl("init")[0] == 0
    dest = str(tmp_path / "catalog.zst")
    code, out, err = hsmctl("catalog", "backup", "--file", dest, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert json.loads(hsmctl("catalog", "list", dest, "--json")[1])[0]["name"] == made["name"]
    assert json.loads(hsmctl("catalog", "verify", dest, "--json")[1])["ok"] is True
    assert hsmctl("catalog", "backup", "--file", str(tmp_path))[0] == 3  # a folder
    assert hsmctl("catalog", "backup", "--file", dest, "--keep", "2")[0] == 2
    (found,) = tmp_path.rglob("catalog.db")
    found.unlink()
    assert hsmctl("catalog", "restore", dest)[0] == 0
    assert hsmctl("fsck")[0] == 0


def test_an_empty_folder_that_held_backups_is_a_mount_that_went_away(hsmctl, tmp_path):
    assert hsmctl("init")[0] == 0
    dest = tmp_path / "mnt"
    assert hsmctl("catalog", "backup", str(dest))[0] == 0
    dest.rename(tmp_path / "host")
    for left in (None, dest.mkdir):
        if left:
            left()
        code, _, err = hsmctl("catalog", "backup", str(dest))
        assert (code, "mount it" in err) == (4, True)
        assert not dest.exists() or not list(dest.iterdir())
    assert hsmctl("catalog", "backup", str(dest), "--new-folder")[0] == 0
    assert hsmctl("catalog", "backup", str(dest))[0] == 0


@pytest.mark.slow
def test_a_killed_backup_leaves_the_file_that_was_there(hsmctl, config, tmp_path):
    assert hsmctl("init")[0] == 0
    order = ["catalog", "backup", "--file", str(tmp_path / "catalog.zst"), "--json"]
    first = json.loads(hsmctl(*order)[1])["name"]
    command = [sys.executable, "-c", HSMCTL, "--config", str(config), *order]
    env = {**os.environ, "HSMFS_CRASH": "backup.file.written"}
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    found = json.loads(hsmctl("catalog", "verify", order[3], "--json")[1])
    assert (found["ok"], found["name"]) == (True, first)
    assert hsmctl(*order)[0] == 0
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["backup.copied", "backup.piece.written", "backup.listed", "backup.pruned"]
)
def test_killed_backup_leaves_the_last_good_one(hsmctl, config, tmp_path, point):
    assert hsmctl("init")[0] == 0
    dest = str(tmp_path / "backups")
    assert hsmctl("catalog", "backup", dest)[0] == 0
    command = [sys.executable, "-c", HSMCTL, "--config", str(config), "catalog", "backup", dest]
    killed = subprocess.run(
        [*command, "--keep", "1"], env={**os.environ, "HSMFS_CRASH": point}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert hsmctl("catalog", "verify", dest)[0] == 0
    assert hsmctl("catalog", "backup", dest, "--keep", "1")[0] == 0
    assert len(json.loads(hsmctl("catalog", "list", dest, "--json")[1])) == 1
    assert hsmctl("catalog", "verify", dest)[0] == 0


@pytest.mark.slow
def test_rebuild_of_an_empty_library(hsmctl, tmp_path):
    assert hsmctl("init")[0] == 0
    (found,) = tmp_path.rglob("catalog.db")
    found.unlink()
    code, out, err = hsmctl("rebuild", "--json")
    assert code == 0, err
    assert json.loads(out)["files"] == 0
    steps = [json.loads(line) for line in err.splitlines()]
    assert {step["kind"] for step in steps} == {"progress"}
    assert steps[0]["phase"] == "discs"
    assert steps[-1]["phase"] == "fsck" and "seconds_left" in steps[-1]
    assert hsmctl("fsck")[0] == 0
    assert hsmctl("rebuild")[0] == 5
