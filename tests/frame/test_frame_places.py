"""Commands that only ask the daemon look for two paths in the configuration."""

import subprocess
import sys
from pathlib import Path

import pytest

from hsmfs import places


@pytest.fixture
def config(tmp_path):
    return tmp_path / "hsmfs.toml"


def test_both_paths(config):
    config.write_text("[daemon]\nsocket = '/s'\nmountpoint = '/m'\n")
    assert places.glance(config) == places.Places(Path("/s"), Path("/m"))


def test_the_socket_has_a_default(config):
    config.write_text("[daemon]\nmountpoint = '/m'\n")
    assert places.glance(config).socket == places.SOCKET


@pytest.mark.parametrize(
    "text",
    ["", "daemon = 1", "[daemon]", "[daemon]\nmountpoint = 1", "[daemon]\nmountpoint = 'm'", "["],
)
def test_what_is_not_plain_is_left_to_who_reads_all(config, text):
    config.write_text(text)
    assert places.glance(config) is None


def test_no_file(config):
    assert places.glance(config) is None


def test_a_command_that_asks_the_daemon_needs_no_pydantic(config, tmp_path):
    config.write_text(f"[daemon]\nsocket = '{tmp_path}/s'\nmountpoint = '/m'\n")
    code = (
        "import sys; from hsmfs.cli.main import main;"
        "code = main(['--config', sys.argv[1], 'find', '--state', 'migrated']);"
        "sys.exit(100 if 'pydantic' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True)
    assert "no hsmfsd answers" in done.stderr
    assert done.returncode not in (0, 100)
