"""DICOM on a share: dcmtk's archive receives and sends, Orthanc keeps its storage area there."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

pytestmark = [pytest.mark.mount, pytest.mark.slow]
NAMES = ("CT_small.dcm", "MR_small.dcm", "reportsi.dcm")
PADDING = (0xFFFC, 0xFFFC)
"""At the end of some files; nobody sends it."""


@pytest.fixture(scope="module")
def images() -> list[Path]:
    """Real ones, which come with pydicom."""
    return [Path(get_testdata_file(name)) for name in NAMES]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{server.args} does not listen")


class Receiver:
    """dcmtk's storescp, writing into a folder."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        words = ["storescp", "--output-directory", str(folder), "--unique-filenames"]
        self._process = subprocess.Popen([*words, "--promiscuous", "--fork", str(self.port)])

    def __enter__(self):
        listening(self.port, self._process)
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.wait(20)


def same_images(one, other) -> bool:
    """As DICOM has it: all elements, pixels among them."""

    def by_uid(paths):
        found = {}
        for path in paths:
            image = pydicom.dcmread(path, force=True)
            image.pop(PADDING, None)
            found[image.SOPInstanceUID] = image
        return found

    return by_uid(one) == by_uid(other)


@pytest.mark.programs("storescp", "storescu", "dcmdump")
def test_dcmtk_receives_into_the_share_and_sends_from_discs(life, share, images, tmp_path):
    send = ("storescu", "--propose-lossless", "127.0.0.1")
    with Receiver(share) as receiver:
        life.run(*send, str(receiver.port), *images)
    received = life.files(share)
    assert len(received) == len(images)
    assert same_images(received, images)
    life.away(share)
    life.run("dcmdump", *received)
    life.away(share)
    with Receiver(tmp_path) as receiver:
        life.run(*send, str(receiver.port), *received)
    assert same_images(life.files(tmp_path), images)


class Orthanc:
    """The server, asked by its REST API."""

    def __init__(self, folder: Path, storage: Path) -> None:
        self.port = free_port()
        settings = {
            "StorageDirectory": str(storage), "IndexDirectory": str(folder), "Plugins": [],
            "HttpPort": self.port, "DicomPort": free_port(), "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "StorageCompression": False,
        }  # fmt: skip
        config = folder / "orthanc.json"
        config.write_text(json.dumps(settings))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["Orthanc", str(config)], stdout=self._log, stderr=self._log
        )

    def __enter__(self):
        listening(self.port, self._process)
        return self

    def __exit__(self, *_) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        self._log.close()

    def ask(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()


@pytest.mark.programs("Orthanc")
def test_orthanc_s_storage_area(life, share, images, tmp_path):
    version = life.run("Orthanc", "--version")
    assert "Orthanc" in version
    with Orthanc(tmp_path, share) as orthanc:
        stored = {}
        for image in images:
            answer = json.loads(orthanc.ask("/instances", image.read_bytes()))
            assert answer["Status"] == "Success"
            stored[answer["ID"]] = image
    life.away(share)
    with Orthanc(tmp_path, share) as orthanc:
        assert set(json.loads(orthanc.ask("/instances"))) == set(stored)
        for ident, image in stored.items():
            assert orthanc.ask(f"/instances/{ident}/file") == image.read_bytes()
        assert json.loads(orthanc.ask("/statistics"))["CountInstances"] == len(images)
        [patient, *_] = json.loads(orthanc.ask("/patients"))
        orthanc.ask(f"/patients/{patient}", method="DELETE")
        assert json.loads(orthanc.ask("/statistics"))["CountInstances"] < len(images)
    assert 0 < len(life.files(share)) < 2 * len(images)
    assert os.listdir(share)
