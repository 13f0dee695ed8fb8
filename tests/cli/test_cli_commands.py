"""hsmctl without a daemon: help, arguments, paths, configuration, init and offline fsck."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio

from hsmfs import errors
from hsmfs.catalog.catalog import Catalog
from hsmfs.cli.commands import recall
from hsmfs.cli.launch import start
from hsmfs.cli.main import COMMANDS, exit_codes, hsmctl, main
from hsmfs.cli.mount_helper import check_options
from hsmfs.cli.mount_helper import main as mount_helper
from hsmfs.cli.output import Out, _width
from hsmfs.cli.paths import from_namespace, to_namespace


def commands(group, path="hsmctl"):
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        yield f"{path} {name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path} {name}")


@pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in commands(hsmctl)]
)
def test_every_command_has_help_with_examples(name, command):
    text = command.get_help(click.Context(command, info_name=name))
    assert "Examples:" in text
    assert name in text.partition("Examples:")[2]
    assert command.help


def test_help_imports_nothing_heavy(repo):
    code = (
        "import sys; from hsmfs.cli.main import main; main(['--help']);"
        "heavy = {'httpx', 'trio', 'rich', 'fastapi', 'hsmfs.config'};"
        "sys.exit(' '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_exit_codes_are_listed_once_each():
    codes = [code for code, _ in exit_codes()]
    assert len(codes) == len(set(codes))
    assert errors.CatalogInUse.exit_code in codes


@pytest.mark.parametrize(
    ("words", "urgency"),
    [((), "standard"), (("--over-budget",), "bulk"),
     (("--over-budget", "--class", "standard"), "standard")],
)  # fmt: skip
def test_a_recall_over_the_budget_is_bulk_unless_told_otherwise(
    hsmctl, monkeypatch, words, urgency
):
    asked = []
    monkeypatch.setattr(recall, "path_list", lambda ctl, paths: ["/a"])
    monkeypatch.setattr(recall, "run", lambda ctl, url, body, *names: asked.append(body) or 0)
    assert hsmctl("recall", *words, "a")[0] == 0
    assert asked[0]["urgency"] == urgency


def test_wrong_arguments_are_exit_code_2(hsmctl):
    assert hsmctl("nothing")[0] == 2
    assert hsmctl("pin")[0] == 2
    assert hsmctl("find", "--older", "soon")[0] == 2


def test_no_daemon_says_how_to_start_one(hsmctl):
    code, _, err = hsmctl("status")
    assert code == errors.DaemonUnreachable.exit_code
    assert "hsmctl mount" in err
    code, _, err = hsmctl("--json", "status")
    assert json.loads(err)["exit_code"] == 18


def test_version_without_a_daemon(hsmctl):
    code, out, _ = hsmctl("--json", "version")
    assert (code, json.loads(out)["hsmfsd"]) == (0, None)


def test_config_check_and_example(hsmctl, tmp_path):
    assert hsmctl("config", "check")[0] == 0
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[daemon]\nmuontpoint = '/x'\n")
    code, _, err = hsmctl("config", "check", str(wrong))
    assert code == 3
    assert "muontpoint" in err
    assert "[daemon]" in hsmctl("config", "example")[1]


def test_init_once(hsmctl, tmp_path):
    code, out, _ = hsmctl("--json", "init")
    assert (code, json.loads(out)["pools"]) == (0, ["pool"])
    code, _, err = hsmctl("init")
    assert code == errors.Conflict.exit_code
    assert "initialised before" in err


def test_fsck_without_a_daemon(hsmctl):
    hsmctl("init")
    code, out, _ = hsmctl("fsck", "--json")
    report = json.loads(out)
    assert (code, report["clean"]) == (0, True)
    assert {finding["severity"] for finding in report["findings"]} <= {"note"}


def test_fsck_exit_code_when_not_clean(hsmctl, tmp_path):
    hsmctl("init")

    async def break_it():
        catalog = Catalog.open(tmp_path / "state")
        async with catalog.write():
            catalog.db.execute("INSERT INTO dentries VALUES (1, 99, x'61', 5000)")
        catalog.close()

    trio.run(break_it)
    code, out, _ = hsmctl("fsck")
    assert code == errors.NotClean.exit_code
    assert "NOT CLEAN" in out
    assert hsmctl("fsck", "--repair")[0] == 0
    assert hsmctl("fsck")[0] == 0


def test_policy_check_needs_no_daemon(hsmctl, tmp_path):
    assert hsmctl("policy", "check")[0] == errors.NotFound.exit_code
    file = tmp_path / "policies.toml"
    file.write_text('[[policy]]\nname = "cold"\naction = "archive"\nmodified = "730 d"\n')
    assert "1 rule" in hsmctl("policy", "check", str(file))[1]
    file.write_text(file.read_text() + 'copies = 2\nvault = "vault A"\n')
    assert "2 copies, one of them to be kept in vault A" in hsmctl("policy", "check", str(file))[1]
    file.write_text('[[policy]]\nname = "cold"\naction = "burn"\n')
    assert hsmctl("policy", "check", str(file))[0] == 3


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts(hsmctl, shell):
    code, out, _ = hsmctl("completion", shell)
    assert code == 0
    assert "_HSMCTL_COMPLETE" in out


def test_completion_answers(repo):
    words = {"COMP_WORDS": "hsmctl arch", "COMP_CWORD": "1", "_HSMCTL_COMPLETE": "bash_complete"}
    code = "from hsmfs.cli.main import main; main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, env=words, capture_output=True, text=True
    )
    assert done.stdout.strip() == "plain,archive"


def test_paths_are_mapped_without_asking_the_mount(tmp_path, monkeypatch):
    mount = tmp_path / "mnt"
    assert to_namespace(f"{mount}/a/../b", mount) == b"/b"
    assert to_namespace(str(mount), mount) == b"/"
    (mount / "a").mkdir(parents=True)
    monkeypatch.chdir(mount / "a")
    assert to_namespace("x\udcff", mount) == b"/a/x\xff"
    (tmp_path / "link").symlink_to(mount)
    assert to_namespace(f"{tmp_path}/link/f", mount) == b"/f"
    with pytest.raises(errors.NotFound, match="not under the mountpoint"):
        to_namespace("/etc/passwd", mount)


def test_names_are_safe_to_print():
    raw = base64.b64encode(b"/a\n\xff").decode()
    assert from_namespace({"path_b64": raw}, Path("/mnt")) == "/mnt/a\\n\\xff"


def test_tables_align_wide_characters(capsys):
    Out(False).table(("NAME", ">N"), [("文件", 1), ("ab", 20)])
    lines = capsys.readouterr().out.splitlines()
    assert [_width(line) for line in lines] == [8, 8, 8]


def test_every_command_has_its_module(repo):
    files = (repo / "hsmfs/cli/commands").glob("*.py")
    modules = {p.stem for p in files if re.search(r"^(def )?command\b", p.read_text(), re.M)}
    assert modules == set(COMMANDS.values())


def test_main_returns_codes():
    assert main(["--help"]) == 0


# mount.hsmfs


@pytest.mark.parametrize("option", ["io_uring", "io_uring_q_depth=8", "ro", "remount", "odd=1"])
def test_mount_refuses_options(option):
    with pytest.raises(errors.ConfigError, match=option.split("=")[0]):
        check_options([option])


def test_mount_takes_what_fstab_carries():
    assert check_options(["defaults", "_netdev", "x-systemd.automount", "nofail"]) == 900
    assert check_options(["timeout=5"]) == 5


def test_mount_refuses_another_mountpoint(config, tmp_path, capsys):
    assert mount_helper([str(config), str(tmp_path / "elsewhere")]) == 1
    assert "the configuration says" in capsys.readouterr().err
    assert mount_helper([str(config), str(tmp_path / "mnt"), "-f", "-o", "defaults"]) == 0


def test_a_daemon_that_ends_gives_its_reason(config, tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(errors.HsmError, match="no catalog") as caught:
        start(config, tmp_path / "state", 30)
    assert caught.value.exit_code == errors.NotFound.exit_code
    assert "hsmctl init" in caught.value.next_step


def test_docs_are_current(repo):
    done = subprocess.run(
        [sys.executable, repo / "tools/docs", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
