"""hsmctl trace make and hsmctl simulate: no daemon, no library."""

import json

from hsmfs.cli.main import main

CONFIG = """
[daemon]
mountpoint = "/mnt/a"
[[pool]]
name = "p"
path = "/pool"
[library]
kind = "simulated"
path = "/library"
drives = 3
magazines = 4
"""


def test_made_and_replayed(tmp_path, capsys):
    config, trace = tmp_path / "c.toml", tmp_path / "t.jsonl"
    config.write_text(CONFIG)
    base = ["--config", str(config)]
    assert main([*base, "trace", "make", "bulk", str(trace), "--size", "5 GB"]) == 0
    assert "requests" in capsys.readouterr().out
    assert main([*base, "simulate", str(trace), "--json"]) == 0
    reports = {r["policy"]: r for r in json.loads(capsys.readouterr().out)}
    assert set(reports) == {"hsmfs", "fifo", "largest"}
    assert reports["hsmfs"]["makespan"] < reports["fifo"]["makespan"]
    assert reports["hsmfs"]["waits"]["bulk"]["requests"] > 10
    assert main([*base, "simulate", str(trace), "--drives-per-magazine", "3"]) == 0
    assert "hsmfs" in capsys.readouterr().out
    picture, other = tmp_path / "p.svg", tmp_path / "p.png"
    for file in picture, other:
        assert main([*base, "simulate", str(trace), "--policy", "hsmfs", "--plot", str(file)]) == 0
    assert picture.read_text().count("bulk: waits") == 1
    assert other.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main([*base, "simulate", str(tmp_path / "none")]) == 1
    assert "cannot read the trace" in capsys.readouterr().err
