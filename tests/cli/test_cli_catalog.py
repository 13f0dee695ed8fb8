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
    assert hsmctl("fsck")[0] == 0
    assert hsmctl("rebuild")[0] == 5
