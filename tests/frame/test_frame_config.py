"""The configuration: its example, its errors, and what it refuses."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from hsmfs import config, tomlfile
from hsmfs.errors import ConfigError

MINIMAL = """
[daemon]
mountpoint = "/srv/archive"
[[pool]]
name = "hdd"
path = "/pool/hdd"
[library]
kind = "simulated"
path = "/var/lib/hsmfs/library"
"""
TABLES: dict[str, type[BaseModel]] = {
    "daemon": config.DaemonConfig,
    "pool": config.PoolConfig,
    "fs": config.FsConfig,
    "trash": config.TrashConfig,
    "versions": config.VersionsConfig,
    "snapshots": config.SnapshotsConfig,
    "guard": config.GuardConfig,
    "recall": config.RecallConfig,
    "prefetch": config.PrefetchConfig,
    "library": config.LibraryConfig,
    "engine": config.EngineConfig,
    "catalog": config.CatalogConfig,
    "sets": config.SetsConfig,
    "scrub": config.ScrubConfig,
    "schedule": config.ScheduleConfig,
    "audit": config.AuditConfig,
    "access": config.AccessConfig,
    "trace": config.TraceConfig,
    "seal": config.SealConfig,
}


def uncommented() -> dict[str, object]:
    """The example with each commented key switched on."""
    return tomllib.loads(re.sub(r"^#(\w+ = )", r"\1", config.example(), flags=re.MULTILINE))


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as e:
        config.loads(text, "hsmfs.toml")
    assert e.value.exit_code == 3
    return e.value.message


def test_example_explains_every_key() -> None:
    data = uncommented()
    for name, model in TABLES.items():
        table = data[name][0] if name == "pool" else data[name]
        assert set(table) == set(model.model_fields), name
    assert set(config.Config.model_fields) == set(TABLES)


def test_every_key_of_the_example_has_a_comment_above() -> None:
    lines = config.example().splitlines()
    for index, line in enumerate(lines):
        if re.match(r"#?\w+ = ", line):
            above = index - 1
            while re.match(r"#?\w+ = ", lines[above]):
                above -= 1
            assert re.match(r"# \S", lines[above]), line


def test_example_loads_and_shows_the_true_defaults() -> None:
    loaded = config.loads(config.example())
    shown = config.loads(re.sub(r"^#(\w+ = )", r"\1", config.example(), flags=re.MULTILINE))
    examples = re.findall(r"^# example:\n#(\w+) = ", config.example(), flags=re.MULTILINE)
    for name in TABLES:
        at, other = getattr(loaded, name), getattr(shown, name)
        pairs = zip(at, other, strict=True) if name == "pool" else [(at, other)]
        for one, two in pairs:
            keys = {k for k in type(one).model_fields if k not in examples}
            assert one.model_dump(include=keys) == two.model_dump(include=keys)


def test_minimal_file_and_worked_out_defaults(tmp_path: Path) -> None:
    file = tmp_path / "hsmfs.toml"
    file.write_text(MINIMAL)
    loaded = config.load(file)
    assert loaded.fs.head == 65536
    assert loaded.recall_drives == 1
    assert loaded.pool[0].tier == "disk"
    with pytest.raises(ValueError, match="frozen"):
        loaded.fs.head = 1  # type: ignore[misc]


def test_unknown_key_names_line_and_nearest() -> None:
    message = fault(MINIMAL + "[fs]\n\nhaed = 1\n")
    assert message == "hsmfs.toml line 12: fs.haed: unknown key; did you mean 'head'?"
    assert "unknown key; did you mean 'trash'?" in fault(MINIMAL + "[trsh]\nkeep = 0\n")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('[fs]\nhead = "64 furlongs"\n', "line 11: fs.head: '64 furlongs' is not a size"),
        ('[fs]\nwait_limit = "5"\n', "line 11: fs.wait_limit: '5' is not a duration"),
        ("[engine]\nverify = false\n", "line 11: engine.verify: reading back after a burn cannot"),
        ("[engine]\ncopies = 0\n", "line 11: engine.copies: Input should be greater than or equal"),
        ('[engine]\ncopies = "2"\n', "line 11: engine.copies: Input should be a valid integer"),
        ('[engine]\nspool_limit = "1 GB"\n', "line 11: engine.spool_limit: must hold at least one"),
        ("[engine]\nrecall_drives = 3\n", "line 11: engine.recall_drives: 3 of 3 drives leaves"),
        ('[engine]\nspool = "/srv/archive/s"\n', "line 11: engine.spool: /srv/archive/s must not"),
        ('[engine]\nspool = "spool"\n', "line 11: engine.spool: 'spool' must be an absolute path"),
        ("arms = 2\nbarcodes = false\n", "line 10: library.arms: must be 1"),
        ('[[pool]]\nname = "b"\n', "line 10: pool #2.path: is missing and has no default"),
        ('[[pool]]\nname = "hdd"\npath = "/p"\n', "line 11: pool #2.name: 'hdd' is used twice"),
        ('[[pool]]\nname = "b"\npath = "/p"\nlow = 95\n', "line 13: pool #2.low: 95 must be below"),
        ('[[pool]]\nname = "b"\npath = "/pool/hdd/b"\n', "must not lie in another pool"),
    ],
)
def test_faults_name_line_key_and_cause(more: str, expected: str) -> None:
    assert expected in fault(MINIMAL + more)


WHOLE = "drives = 6\ndrives_per_magazine = 3\n"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", ""),
        ("drives = 4\ndrives_per_magazine = 3\n", "4 drives make no units of 3"),
        (WHOLE + "import_export = 2\n", "import_export: must be 0 where magazines move whole"),
        (WHOLE + "barcodes = false\n", "barcodes: must be true where magazines move whole"),
        (WHOLE + "[engine]\nrecall_drives = 2\n", "2 of 2 units of drives leaves none to burn"),
        (WHOLE.replace("6", "3") + "[engine]\nrecall_drives = 1\n", "1 of 1 units of drives"),
    ],
)
def test_whole_magazines(more: str, expected: str) -> None:
    said = MINIMAL + (more or WHOLE)
    if expected:
        assert expected in fault(said)
        return
    loaded = config.loads(said)
    assert (loaded.library.units, loaded.recall_drives) == (2, 1)
    scsi = re.sub(r'kind = "simulated"\npath = .*\n', 'kind = "scsi"\n', said)
    assert "drives_per_magazine: SMC-3 has no element for a magazine" in fault(scsi)


def test_all_faults_are_told_at_once_in_the_order_of_lines() -> None:
    message = fault(MINIMAL + '[fs]\nhead = "x"\nentry_timeout = "y"\n')
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "hsmfs.toml line 11",
        "hsmfs.toml line 12",
    ]


def test_no_pool_and_empty_file() -> None:
    assert "pool: is missing" in fault("")
    assert "at least one [[pool]]" in fault(
        "pool = []\n" + re.sub(r"\[\[pool\]\]\n.*\n.*\n", "", MINIMAL)
    )


def test_bad_toml_names_the_line(tmp_path: Path) -> None:
    assert fault("[fs]\nhead = \n").startswith("hsmfs.toml: line 2: Invalid value")
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        config.load(tmp_path / "bytes")


def test_lines_of_nested_and_quoted_keys() -> None:
    text = '''# one
top = """
[not.a.table]
x = 1
"""
[[rule]]
"a b".c = [ # four
  1, "]",
]
[rule.when] # sub
at = {x = 1}
[[rule]]
z.y = 2
'''
    tomllib.loads(text)
    found = tomlfile.lines(text)
    assert found == {
        (): 1,
        ("top",): 2,
        ("rule",): 6,
        ("rule", 0): 6,
        ("rule", 0, "a b", "c"): 7,
        ("rule", 0, "when"): 10,
        ("rule", 0, "when", "at"): 11,
        ("rule", 1): 12,
        ("rule", 1, "z", "y"): 13,
    }
