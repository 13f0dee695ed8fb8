"""Programs that work on files in place: git, SQLite, an office program's way to save."""

import fcntl
import os
import sqlite3
import threading

import pytest

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.mark.programs("git")
def test_git(life, share, tree, tmp_path):
    environment = {
        **os.environ, "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    work = share / "work"

    def git(*words):
        return life.run("git", "-C", work, *words, env=environment)

    life.run("cp", "-a", tree, work)
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    life.away(work)
    assert git("status", "--porcelain") == ""
    (work / "empty").write_text("not any more")
    git("commit", "-qam", "two")
    git("gc", "-q", "--aggressive", "--prune=now")
    life.away(work)
    git("fsck", "--full", "--strict")
    git("switch", "-q", "-c", "side", "HEAD~1")
    (work / "new").write_text("new")
    git("add", "new")
    git("commit", "-q", "-m", "three")
    git("merge", "-q", "-m", "four", "main")
    life.away(work)
    life.run("git", "clone", "-q", work, tmp_path / "clone", env=environment)
    assert (tmp_path / "clone/empty").read_text() == "not any more"
    git("worktree", "add", "-q", share / "second", "main")
    assert git("log", "--oneline", "--all").count("\n") == 4


@pytest.mark.programs("sqlite3")
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite(life, share, journal):
    file = share / "db"

    def sql(text):
        return life.run("sqlite3", "-bail", file, stdin=text)

    sql(f"PRAGMA journal_mode={journal}; CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT);")
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 5000)"
        " INSERT INTO t SELECT i, hex(i * 7919) FROM n;"
    )
    total = "SELECT count(*), sum(length(y)) FROM t; PRAGMA integrity_check;"
    sql(fill)
    before = sql(total)
    assert before.startswith("5000|")
    assert before.endswith("ok\n")
    life.away(share)
    assert sql(total) == before
    life.away(share)
    sql("UPDATE t SET y = 'changed' WHERE x = 2500;")
    assert sql("SELECT y FROM t WHERE x = 2500; PRAGMA integrity_check;") == "changed\nok\n"
    life.away(share)
    writers = [threading.Thread(target=add, args=(file, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sql("SELECT count(*) FROM t WHERE y = 'added'; PRAGMA integrity_check;") == "80\nok\n"


def add(file, number):
    """Twenty rows in a transaction each, beside others who do the same."""
    db = sqlite3.connect(file, timeout=60)
    for _ in range(20):
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO t (y) VALUES ('added')")
    db.close()


def save_by_rename(path, content: bytes) -> None:
    """What LibreOffice does to save on Linux, as far as a filesystem sees it; not LibreOffice.

    A lock file beside the document, POSIX locks on the document while it is open, a temporary file
    in the same folder, fsync, mode and owner of the old one, rename over it.
    """
    lock = path.with_name(f".~lock.{path.name}#")
    fd = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, b"user,host,;")
    os.close(fd)
    with path.open("r+b") as document:
        fcntl.lockf(document, fcntl.LOCK_EX | fcntl.LOCK_NB)
        document.read()
        temporary = path.with_name("lu1234.tmp")
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        old = os.fstat(document.fileno())
        os.chmod(temporary, old.st_mode)
        os.chown(temporary, old.st_uid, old.st_gid)
        temporary.rename(path)
    lock.unlink()


def test_save_by_rename(life, share):
    document = share / "report.odt"
    document.write_bytes(b"first" * 50_000)
    document.chmod(0o640)
    for number in range(3):
        content = os.urandom(100_000 + number)
        save_by_rename(document, content)
        assert document.read_bytes() == content
        life.away(share)
        assert document.read_bytes() == content
        life.away(share)
    assert [path.name for path in share.iterdir()] == ["report.odt"]
    assert document.stat().st_mode & 0o777 == 0o640
