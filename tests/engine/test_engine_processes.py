"""Whether a reader still waits: killed, vanished, or handed over."""

import os
import threading

from hsmfs.engine.processes import holders, killed, left
from hsmfs.types import Requester

NOBODY = 2**22 + 1


def test_the_living_have_not_left(tmp_path):
    assert killed(os.getpid()) is False
    assert not left(Requester(os.getpid()), 1)
    assert not left(Requester(0), 1), "of another pid namespace"
    assert not left(Requester(NOBODY, nfs=True), 1)


def test_a_vanished_process_has_left_unless_another_has_the_file_open(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    ino = path.stat().st_ino
    assert killed(NOBODY) is None
    assert left(Requester(NOBODY), ino)
    with path.open():
        assert os.getpid() in holders(ino)
        assert not left(Requester(NOBODY), ino)
    assert left(Requester(NOBODY), ino)


def test_a_process_goes_by_the_threads_that_it_has():
    """The first thread may end and the others read on."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert killed(os.getpid()) is False
    finally:
        done.set()
        other.join()
